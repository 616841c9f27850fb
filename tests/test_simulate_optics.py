"""Light in the simulated microscope: contrast through focus, interference, noise, and where things appear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestain.simulate import Microscope, Settings
from livestain.simulate._optics import Optics, weak_object_transfer

SMALL = {"world_um": 200.0, "width": 256, "height": 256}
IN_FOCUS_UM = -Settings().bright_field_offset_um  # stage position at which transmitted light is in focus


def bright_field(scope: Microscope, z_um: float, blank: np.ndarray) -> np.ndarray:
    scope.bench.channel, scope.bench.z_um = "BF", z_um
    return scope.expected(10.0) / blank - 1


@pytest.fixture(scope="module")
def blank() -> np.ndarray:
    return Microscope(Settings(**SMALL, cells_per_mm2=0.0)).expected(10.0)


@pytest.fixture(scope="module")
def scope() -> Microscope:
    return Microscope(Settings(**SMALL))


def test_bright_field_vanishes_in_focus_and_inverts_through_it(scope: Microscope, blank: np.ndarray) -> None:
    focus, above, below = (bright_field(scope, IN_FOCUS_UM + dz, blank) for dz in (0.0, 1.5, -1.5))
    assert above.std() > 4 * focus.std()
    assert np.corrcoef((above - focus).ravel(), (below - focus).ravel())[0, 1] < -0.9


def test_default_focus_shows_cells(scope: Microscope, blank: np.ndarray) -> None:
    near, far = bright_field(scope, 0.0, blank), bright_field(scope, 9.0, blank)
    assert 0.04 < near.std() < 0.3
    assert np.diff(far).std() < 0.7 * np.diff(near).std()  # far from focus, detail is gone


def test_fluorescence_is_sharpest_in_focus(scope: Microscope) -> None:
    def sharpness(z_um: float) -> float:
        scope.bench.channel, scope.bench.z_um = "Nuclei", z_um
        return float(np.abs(np.diff(scope.expected(10.0))).mean())

    at = [sharpness(z_um) for z_um in (-8, -3, 0, 3, 8)]
    assert np.argmax(at) == 2
    assert at[1] > at[0]
    assert at[3] > at[4]


@settings(max_examples=20, deadline=None)
@given(z_um=st.floats(-10, 10), source_na=st.floats(0.05, 0.75))
def test_transfer_function_keeps_the_mean_and_ends_at_the_sum_of_apertures(z_um: float, source_na: float) -> None:
    limit = (0.75 + source_na) / 0.55
    transfer = weak_object_transfer(np.array([0.0, limit * 1.01]), z_um, 0.55, 0.75, source_na)
    assert transfer[0] == pytest.approx(1)
    assert transfer[1] == 0


def test_focused_transfer_is_real_and_the_incoherent_one_is_the_textbook_otf() -> None:
    q = np.linspace(0, 2 * 0.75 / 0.55, 50)
    otf = weak_object_transfer(q, 0.0, 0.55, 0.75, 0.75)
    assert np.abs(otf.imag).max() < 1e-12
    x = q / q[-1]
    np.testing.assert_allclose(otf.real, 2 / np.pi * (np.arccos(x) - x * np.sqrt(1 - x**2)), atol=0.03)


def test_four_interference_steps_give_the_phase_back() -> None:
    rows, cols = np.mgrid[-128:128, -128:128] * 0.325
    phase = (1.2 * np.exp(-(rows**2 + cols**2) / 18)).astype(np.float32)
    optics = Optics(phase.shape, 0.325, 0.75, 0.3, 0.55)
    i0, i1, i2, i3 = (optics.interference(phase, 0.0, k * np.pi / 2, (0.0, 0.0)) for k in range(4))
    np.testing.assert_allclose(i0 + i2, i1 + i3, atol=0.02)
    step = np.arctan2(i1 - i3, i0 - i2)
    ratio = 0.25 * np.hypot(i1 - i3, i0 - i2)  # |U0||U1| with |U0| near 1
    found = np.arctan2(ratio * np.sin(step), 1 + ratio * np.cos(step))
    found = -found if found[128, 128] < 0 else found
    assert np.corrcoef(found.ravel(), phase.ravel())[0, 1] > 0.97
    assert found[128, 128] == pytest.approx(1.2, abs=0.45)  # the halo takes some


def test_interference_and_bright_field_agree_about_a_weak_object() -> None:
    rng = np.random.default_rng(0)
    phase = (0.02 * rng.standard_normal((128, 128))).astype(np.float32)
    optics = Optics(phase.shape, 0.325, 0.75, 0.02, 0.55)  # a closed condenser is a coherent one
    plain = optics.bright_field(optics.spectrum(phase), 2.0)
    coherent = optics.interference(phase, 2.0, 0.0, (0.0, 0.0))
    assert np.corrcoef(plain.ravel(), coherent.ravel())[0, 1] > 0.98


def test_photon_noise_grows_as_the_square_root() -> None:
    scope = Microscope(Settings(**SMALL, cells_per_mm2=0.0))
    noise = []
    for exposure_ms in (4.0, 16.0):
        pair = [scope.expose(exposure_ms).astype(float) for _ in range(2)]
        noise.append((pair[0] - pair[1]).std() / np.sqrt(2))
        expected = np.sqrt(scope.expected(exposure_ms).mean() + 4)
        assert noise[-1] == pytest.approx(expected, rel=0.03)
    assert noise[1] / noise[0] == pytest.approx(2, rel=0.05)


def test_light_grows_with_exposure_and_leaves_headroom(scope: Microscope) -> None:
    scope.bench.channel, scope.bench.z_um = "BF", 0.0
    bright = scope.expected(10.0)
    assert 8_000 < np.median(bright) < 14_000
    assert bright.max() < 40_000
    np.testing.assert_allclose(scope.expected(20.0), 2 * bright, rtol=1e-5)


def test_stage_moves_the_picture_by_the_right_number_of_pixels() -> None:
    scope = Microscope(Settings(**SMALL))
    scope.bench.channel = "Nuclei"
    flat = Microscope(Settings(**SMALL, cells_per_mm2=0.0))
    flat.bench.channel = "Nuclei"
    here, labels = scope.expected(10.0) / flat.expected(10.0), scope.truth().cell_labels
    scope.bench.x_um, scope.bench.y_um = 20 * 0.325, -10 * 0.325
    there, moved = scope.expected(10.0) / flat.expected(10.0), scope.truth().cell_labels
    np.testing.assert_array_equal(moved[10:, :-20], labels[:-10, 20:])
    np.testing.assert_allclose(there[40:-40, 40:-60], here[30:-50, 60:-40], rtol=0.05, atol=0.05)


def test_a_fraction_of_a_pixel_moves_the_picture_too(blank: np.ndarray) -> None:
    scope = Microscope(Settings(**SMALL))
    whole = bright_field(scope, 0.0, blank)
    scope.bench.x_um = 0.4 * 0.325
    part = bright_field(scope, 0.0, blank)
    shifted = 0.6 * whole[:, :-1] + 0.4 * whole[:, 1:]
    inner = (slice(20, -20), slice(20, -20))
    assert np.abs(part[:, :-1] - shifted)[inner].mean() < 0.5 * np.abs(part - whole)[inner].mean()


def test_positions_far_apart_show_other_cells() -> None:
    scope = Microscope(Settings(width=128, height=128, world_um=400.0))
    first = set(scope.truth().cells["id"].tolist())
    scope.bench.x_um = 150.0
    assert not first & set(scope.truth().cells["id"].tolist())
    scope.bench.x_um = 400.0 + 0.075  # once round the world (1231 pixels) the first cells are back
    assert set(scope.truth().cells["id"].tolist()) == first
