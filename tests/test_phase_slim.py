"""Phase from four steps: the arithmetic, the calibration, the halo, and every way of getting it wrong."""

from __future__ import annotations

import time
from functools import lru_cache
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from livestain._errors import RigError, StoreError
from livestain.phase._arctan2 import arctan2_f32
from livestain.phase.coherence import estimate_coherence
from livestain.phase.empty_field import CALIBRATED, ESTIMATED, EmptyField
from livestain.phase.halo import recover
from livestain.phase.slim import Slim, check_steps
from livestain.phase.unwrap import unwrap
from tests.slim_fields import COHERENCE_UM, DARK, PIXEL_UM, SIGN, scene

field = lru_cache(scene)
SCALE = {"pixel_size_um": PIXEL_UM, "coherence_um": COHERENCE_UM}


def steps(phase: np.ndarray, light: float = 4000.0, sign: int = 1) -> np.ndarray:
    """Four frames of exp(i phase) over a perfect plane wave U0 = 1."""
    shifts = np.exp(-0.5j * sign * np.pi * np.arange(4))[:, None, None]
    return light * np.abs(np.exp(1j * phase) + (shifts - 1)) ** 2 + DARK


def empty(shape: tuple[int, int] = (40, 50), light: float = 4000.0) -> EmptyField:
    return EmptyField.from_frames(np.full((4, *shape), light + DARK), dark_counts=DARK)


@pytest.mark.parametrize("sign", [1, -1])
def test_phase_comes_back_beyond_where_intensities_alone_end(sign: int) -> None:
    phase = np.linspace(-3.1, 3.1, 2000).reshape(40, 50)
    found = Slim(empty(), sign=sign).phase(steps(phase, sign=sign))
    np.testing.assert_allclose(found.phase_rad, phase, atol=2e-5)
    assert found.reason == ""
    assert found.phase_rad.dtype == np.float32


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4), st.sampled_from([0.0, -1.0, 1.0, 1e-20]))
def test_arctan2_is_arctan2(values: list[float], extra: float) -> None:
    y, x = np.float32([[*values, extra]]), np.float32([[extra, *values]])
    close = np.abs(np.exp(1j * np.arctan2(y, x)) - np.exp(1j * arctan2_f32(y.copy(), x.copy())))
    assert close[(np.hypot(x, y) > 1e-25)].max(initial=0) < 1e-6


def test_arctan2_passes_nan_on() -> None:
    assert np.isnan(arctan2_f32(np.float32([[np.nan, 1]]), np.float32([[1, np.nan]]))).all()


def test_phase_takes_less_than_ten_milliseconds() -> None:
    frames = np.random.default_rng(0).integers(2000, 9000, (4, 512, 512)).astype(np.uint16)
    slim, took = Slim(empty((512, 512))), []
    for _ in range(12):
        start = time.thread_time()
        slim.phase(frames)
        took.append(time.thread_time() - start)
    assert min(took) < 0.010


@given(st.integers(0, 2**31), st.floats(2, 9))
def test_unwrapping_gives_whole_turns_back(seed: int, peak: float) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    at = rng.uniform(24, 40, 2)
    phase = peak * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 130)
    free = phase < 0.05
    found = unwrap((phase + np.pi) % (2 * np.pi) - np.pi, free)
    np.testing.assert_allclose(found, phase, atol=1e-5)


# ------------------------------------------------------------------ calibration


def test_calibration_survives_the_disk(tmp_path) -> None:
    made = scene(size=64, cells_per_mm2=0.0).empty
    made.save(tmp_path / "empty.npz")
    read = EmptyField.load(tmp_path / "empty.npz")
    np.testing.assert_array_equal(read.light_counts, made.light_counts)
    np.testing.assert_array_equal(read.phase_rad, made.phase_rad)
    assert (read.dark_counts, read.source) == (DARK, CALIBRATED)
    with pytest.raises(StoreError, match=r"No such file or directory\. Choose a folder"):
        made.save(tmp_path / "nowhere" / "empty.npz")


def damaged(path) -> None:
    path.write_bytes(b"PK\x03\x04 not quite")


def another(path) -> None:
    np.savez(path, weights=np.ones(3))


def negative(path) -> None:
    image = np.zeros((3, 3), np.float32)
    np.savez(path, version=1, light_counts=image - 1, phase_rad=image, dark_counts=1.0, source="x")


@pytest.mark.parametrize(
    "spoil", [damaged, another, negative, lambda path: None], ids=["torn", "other", "dark", "none"]
)
def test_what_is_no_calibration_is_not_loaded(tmp_path, spoil) -> None:
    spoil(tmp_path / "empty.npz")
    with pytest.raises(StoreError, match="empty field"):
        EmptyField.load(tmp_path / "empty.npz")


BAD_EMPTY = {
    "three frames": (np.full((3, 8, 8), 500.0), r"shape \(3, 8, 8\)"),
    "no light": (np.full((4, 8, 8), DARK), "open the shutter"),
    "NaN": (np.full((4, 8, 8), np.nan), "not numbers"),
    "cells in it": (None, "holds objects"),
}


@pytest.mark.parametrize("name", BAD_EMPTY)
def test_a_bad_empty_field_is_refused(name: str) -> None:
    frames, says = BAD_EMPTY[name]
    with pytest.raises(RigError, match=says):
        EmptyField.from_frames(field(1, 600.0).frames if frames is None else frames, dark_counts=DARK, sign=SIGN)


def test_light_is_estimated_without_a_calibration_and_says_so() -> None:
    s = field(1, 600.0)
    guess = EmptyField.estimated(s.frames, ~s.cells, dark_counts=DARK)
    assert guess.source == ESTIMATED
    ratio = guess.light_counts / s.empty.light_counts
    assert np.abs(np.median(ratio) - 1) < 0.005
    assert ratio.std() < 0.03
    with pytest.raises(RigError, match="take an empty field"):
        EmptyField.estimated(s.frames, np.zeros_like(s.cells), dark_counts=DARK)


# ------------------------------------------------------------------ wrong frames

WRONG = {
    "three": (lambda f: f[:3], "four frames"),
    "another size": (lambda f: f[:, 1:], "calibration"),
    "NaN": (lambda f: np.where(np.arange(50) == 3, np.nan, f), "not numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_frames_end_in_a_sentence(name: str) -> None:
    change, says = WRONG[name]
    with pytest.raises(RigError, match=says):
        Slim(empty()).phase(change(steps(np.zeros((40, 50)))))


def test_another_lamp_is_refused_and_a_drifting_one_allowed_for() -> None:
    phase = np.zeros((40, 50))
    phase[10:20, 10:20] = 0.8
    for gain in (0.9, 1.15):
        signal = Slim(empty()).signal(steps(phase, 4000 * gain), phase == 0)
        np.testing.assert_allclose(np.angle(1 + signal), phase, atol=1e-4)
    with pytest.raises(RigError, match="calibration again"):
        Slim(empty()).signal(steps(phase, 12000.0), phase == 0)


@pytest.mark.parametrize("full", [None, 60000])
def test_saturated_pixels_are_nan_with_a_reason(full: int | None) -> None:
    frames = steps(np.zeros((40, 50))).astype(np.uint16)
    frames[2, 5:10, 5:10] = 65535
    found = Slim(empty(), full_counts=full).phase(frames)
    assert np.isnan(found.phase_rad[5:10, 5:10]).all()
    assert np.isfinite(found.phase_rad).sum() == 2000 - 25
    assert "shorten the exposure" in found.reason


def test_every_wrong_order_of_the_steps_is_found() -> None:
    s = field(1, 2170.0)
    assert check_steps(s.frames, s.empty, s.cells, sign=SIGN) == ""
    for order in permutations(range(4)):
        trouble = check_steps(s.frames[list(order)], s.empty, s.cells, sign=SIGN)
        assert (trouble == "") == (order == (0, 1, 2, 3)), order
    assert "sign of the phase steps to -1" in check_steps(s.frames, s.empty, s.cells, sign=1)


def test_steps_that_do_nothing_are_found() -> None:
    s = field(1, 600.0)
    assert "look alike" in check_steps([s.frames[0]] * 4, s.empty, s.cells, sign=SIGN)
    assert "to check" in check_steps(s.frames, s.empty, np.zeros_like(s.cells), sign=SIGN)


# ------------------------------------------------------------------ halo


def errors(s, found) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors of whole cells, and of the visible parts (above 50 um2) of cells at the border."""
    per_rad = 0.55 / (2 * np.pi * 0.18) * PIXEL_UM**2
    mass = np.bincount(s.labels.ravel(), found.phase_rad.ravel().astype(float)) * per_rad
    area = np.bincount(s.labels.ravel()) * PIXEL_UM**2
    whole = np.array([mass[cell] / true - 1 for cell, true in s.whole_pg.items()])
    cut = np.array([mass[cell] / true - 1 for cell, true in s.cut_pg.items() if area[cell] > 50])
    return whole, cut


@pytest.mark.parametrize(("seed", "density"), [(1, 600.0), (1, 2170.0), (3, 3000.0)])
def test_mass_that_the_halo_took_comes_back(seed: int, density: float) -> None:
    s = field(seed, density)
    signal = s.signal
    raw = np.angle(1 + signal)[s.cells].sum()
    found = recover(signal, s.cells, **SCALE, errors=0)
    whole, cut = errors(s, found)
    assert found.reason == ""
    assert np.median(np.abs(whole)) < 0.05
    assert abs(whole.mean()) < 0.02
    assert np.median(np.abs(cut)) < 0.05
    assert raw < 0.8 * found.phase_rad[s.cells].sum()  # there was something to give back


def test_a_wrong_coherence_radius_shows_in_the_misfit() -> None:
    s = field(1, 600.0)
    right, wide = (
        recover(s.signal, s.cells, pixel_size_um=PIXEL_UM, coherence_um=um, errors=0).misfit for um in (18, 22)
    )
    assert right < 1
    assert wide > 3 * right


def test_a_cell_that_is_not_in_the_mask_is_found_and_spoils_no_other() -> None:
    s = field(1, 600.0)
    missed = max(s.whole_pg, key=s.whole_pg.__getitem__)
    found = recover(s.signal, s.cells & (s.labels != missed), **SCALE, errors=0)
    whole, _ = errors(s, found)
    others = np.array([cell != missed for cell in s.whole_pg])
    assert np.abs(whole[others]).max() < 0.02
    assert found.strangers[ndimage.binary_erosion(s.labels == missed, iterations=6)].all()


def test_a_field_without_cells_is_flat() -> None:
    s = field(1, 0.0, 256)
    found = recover(s.signal, s.cells, **SCALE, errors=0)
    assert np.abs(ndimage.uniform_filter(found.phase_rad, 9)).max() < 0.02
    assert found.reason == ""


def test_one_giant_mask_gives_nan_and_a_reason() -> None:
    s = field(1, 600.0)
    found = recover(s.signal, np.ones_like(s.cells), **SCALE)
    assert np.isnan(found.phase_rad).all()
    assert "free of cells" in found.reason


def test_saturated_pixels_stay_nan() -> None:
    s = field(1, 600.0)
    signal = s.signal.copy()
    signal[100:104, 100:104] = np.nan
    found = recover(signal, s.cells, **SCALE, errors=0)
    assert np.isnan(found.phase_rad).sum() == 16
    assert "saturated" in found.reason


IMPOSSIBLE = {
    "no pixel size": ({"pixel_size_um": float("nan")}, "calibrate it"),
    "no coherence": ({"coherence_um": 0.0}, "radius is 0 um; in a field of 64 x 64 px of 0.325 um it is 5 to 20.8 um"),
    "coherence beyond the field": ({"coherence_um": 500.0}, "radius is 500 um"),
    "unsure beyond measure": ({"coherence_sd_um": 30.0}, "standard deviation"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_numbers_are_refused(name: str) -> None:
    change, says = IMPOSSIBLE[name]
    with pytest.raises(RigError, match=says):
        recover(np.zeros((64, 64), complex), np.zeros((64, 64), bool), **(SCALE | change))
    with pytest.raises(RigError, match="shape"):
        recover(np.zeros((64, 64), complex), np.zeros((64, 60), bool), **SCALE)


def test_coherence_needs_cells_and_room() -> None:
    for share, says in ((0.0, "0.0%"), (1.0, "100.0%")):
        found = estimate_coherence(np.zeros((64, 64), complex), np.full((64, 64), bool(share)), pixel_size_um=PIXEL_UM)
        assert np.isnan(found.um)
        assert says in found.reason
    few = np.zeros((12, 12), bool)
    few[4:8, 4:8] = True
    found = estimate_coherence(np.zeros((12, 12), complex), few, pixel_size_um=PIXEL_UM)
    assert np.isnan(found.um)
    assert "no coherence radius" in found.reason


@pytest.mark.slow
@pytest.mark.parametrize("true_um", [12.0, 18.0, 25.0])
def test_coherence_is_found_from_the_halo(true_um: float, monkeypatch) -> None:
    monkeypatch.setattr("livestain.simulate._optics.COHERENCE_UM", true_um)
    s = scene(seed=4, cells_per_mm2=1200.0)
    found = estimate_coherence(s.signal, s.cells, pixel_size_um=PIXEL_UM)
    assert found.reason == ""
    assert abs(found.um - true_um) < 3 * found.sd_um
    assert found.sd_um < 0.1 * true_um


@pytest.mark.slow
@pytest.mark.parametrize("density", [300.0, 600.0, 1200.0, 2170.0, 3000.0])
def test_mass_comes_back_at_every_density(density: float) -> None:
    whole, cut = (
        np.concatenate(parts)
        for parts in zip(
            *(
                errors(s, recover(s.signal, s.cells, **SCALE, errors=0))
                for s in (scene(n, density) for n in (11, 12, 13))
            ),
            strict=True,
        )
    )
    assert np.median(np.abs(whole)) < 0.05
    assert abs(whole.mean()) < 0.02
    assert np.median(np.abs(cut)) < 0.05


@pytest.mark.parametrize(
    ("order", "sign", "says"), [((0, 1, 2, 3), 1, "sign"), ((0, 1, 3, 2), -1, "order"), ((2, 1, 0, 3), -1, "order")]
)
def test_wrong_steps_end_in_nan_not_in_a_wrong_mass(order: tuple[int, ...], sign: int, says: str) -> None:
    s = field(1, 600.0)
    found = recover(Slim(s.empty, sign=sign).signal(s.frames[list(order)]), s.cells, **SCALE, errors=0)
    assert np.isnan(found.phase_rad).all()
    assert says in found.reason


@pytest.mark.slow
def test_a_large_field_is_done_in_tiles_that_fit_together(monkeypatch) -> None:
    s = field(1, 600.0)
    monkeypatch.setattr("livestain.phase.halo._TILE_RADII", 6.0)  # four tiles
    whole, cut = errors(s, recover(s.signal, s.cells, **SCALE, errors=2))
    assert np.median(np.abs(whole)) < 0.01
    assert abs(whole.mean()) < 0.01
    assert np.median(np.abs(cut)) < 0.05
