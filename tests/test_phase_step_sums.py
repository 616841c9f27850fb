"""Four frames are four phase steps only if opposites sum to the same; and a flickering lamp is evened out."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import pytest

from livestain.phase._step_sums import light_of_steps
from livestain.phase.halo import recover
from livestain.phase.slim import Slim
from tests.slim_fields import COHERENCE_UM, DARK, PIXEL_UM, SIGN, scene

field = lru_cache(scene)
NAMES = ("Phase0", "Phase1", "Phase2", "Phase3")
FLICKER = np.array([1.0, 1.03, 0.98, 1.04])
FIELDS = [(2, 40.0, 512), (1, 600.0, 512), (3, 3000.0, 512), (5, 1500.0, 100)]


def flickering(frames: np.ndarray) -> np.ndarray:
    return (frames - DARK) * FLICKER[:, None, None] + DARK


@pytest.mark.parametrize("of", FIELDS)
@pytest.mark.parametrize("electrons_per_count", [0.005, 0.02, 0.1, 1.0])
def test_right_steps_pass_at_any_noise_and_with_a_flickering_lamp(of, electrons_per_count: float) -> None:
    s = field(*of)
    noisy = np.random.default_rng(0).poisson(s.frames * electrons_per_count) / electrons_per_count
    for frames, light in ((noisy, 1.0), (flickering(noisy), FLICKER)):
        found = light_of_steps(frames, s.cells, dark_counts=DARK, names=NAMES)
        assert found.trouble == ""
        assert found.unexplained < 0.03
        few = electrons_per_count < 0.1 or of[2] < 512  # 20 to 80 electrons a pixel, or a tiny field
        np.testing.assert_allclose(found.factors / light, 1, atol=0.015 if few else 0.003)


def fluorescence(s, frames: np.ndarray, n: int) -> None:
    frames[n] = DARK + 300.0 * (s.nuclei > 0) + np.random.default_rng(0).standard_normal(s.cells.shape)


def bright_field(s, frames: np.ndarray, n: int) -> None:
    frames[n] = DARK + 4000.0 + np.random.default_rng(0).standard_normal(s.cells.shape) * 20


def bright_fluorescence(s, frames: np.ndarray, n: int) -> None:
    frames[n] = DARK + 500.0 + 5000.0 * s.cells


def dark(s, frames: np.ndarray, n: int) -> None:
    frames[n] = DARK + np.random.default_rng(0).standard_normal(s.cells.shape)


def twice(s, frames: np.ndarray, n: int) -> None:
    frames[n] = frames[n - 1] + np.random.default_rng(0).standard_normal(s.cells.shape) * 20


def exchanged(s, frames: np.ndarray, n: int) -> None:
    frames[[n, n - 1]] = frames[[n - 1, n]]


def moved(s, frames: np.ndarray, n: int) -> None:
    frames[n] = np.roll(frames[n], 3, axis=1)


WRONG = {
    fluorescence: "{0} has .* of the light of .*: it is no phase step, or dark",
    dark: "{0} has 0% of the light",
    bright_field: "one of them is no phase step|Phase0 and {0} show the same picture",
    bright_fluorescence: "one of them is no phase step",
    twice: "show the same picture: one of these presets",
    exchanged: "out of order; order the presets by their delay",
    moved: "the cells moved between the exposures",
}


SHOWS_NEXT_TO_NOTHING = {bright_field, moved}  # as step 0, which is bright field itself


@pytest.mark.parametrize("of", FIELDS)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_what_is_no_set_of_steps_is_found_and_named(of, wrong) -> None:
    s = field(*of)
    for n in range(wrong in SHOWS_NEXT_TO_NOTHING, 4):
        frames = s.frames.astype(float)
        wrong(s, frames, n)
        found = light_of_steps(frames, s.cells, dark_counts=DARK, names=NAMES)
        assert "at every pixel Phase0 and Phase2 should sum to the same light as Phase1 and Phase3" in found.trouble
        assert found.unexplained > 0.1
        assert re.search(WRONG[wrong].format(NAMES[n]), found.trouble), (n, found.trouble)


def test_a_field_without_cells_tells_nothing_and_passes() -> None:
    s = field(1, 600.0, 512)
    found = light_of_steps(s.frames, np.zeros_like(s.cells), dark_counts=DARK)
    assert found.trouble == ""
    assert np.isnan(found.unexplained)
    np.testing.assert_array_equal(found.factors, 1)


def test_the_flicker_is_taken_out_of_the_masses() -> None:
    s = field(1, 2170.0, 512)
    frames = flickering(s.frames)
    even = light_of_steps(frames, s.cells, dark_counts=DARK).factors
    off = {}
    for light in ((1.0, 1.0, 1.0, 1.0), tuple(even)):
        signal = Slim(s.empty, sign=SIGN).signal(frames, ~s.cells, light)
        found = recover(signal, s.cells, pixel_size_um=PIXEL_UM, coherence_um=COHERENCE_UM, errors=0)
        mass = np.bincount(s.labels.ravel(), found.phase_rad.ravel().astype(float))
        mass *= 0.55 / (2 * np.pi * 0.18) * PIXEL_UM**2
        off[light] = float(np.mean([mass[cell] / true - 1 for cell, true in s.whole_pg.items()]))
    left_in, taken_out = off.values()
    assert left_in > 0.05
    assert abs(taken_out) < 0.005
