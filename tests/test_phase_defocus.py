"""Phase and mass from defocus, against an Abbe model of strong cells that is not the inverse's own, and the simulator."""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from livestain._errors import ExperimentError
from livestain.phase.contrast import flat_contrast
from livestain.phase.defocus import InverseFilter
from livestain.phase.focus import find_focus
from livestain.phase.sign import find_sign
from livestain.phase.supported import Iterations, Supported, SupportedPhase
from livestain.phase.transfer import BrightField, cross_transfer, frequencies_per_um, transfer
from livestain.simulate import Microscope, Settings
from livestain.simulate._optics import weak_object_transfer
from tests.abbe import Slide, Stand, camera, scatter, slide

OPTICS = BrightField(wavelength_um=0.55, objective_na=0.75, condenser_na=0.3, pixel_size_um=0.325)
SHAPE = (256, 256)
PG_PER_RAD_PX = 0.55 / (2 * np.pi * 0.18) * 0.325**2
PAIR, TRIPLE, ONE_SIDED = (-2.0, 2.0), (-2.0, 0.0, 2.0), (0.0, 2.0)
CROWDED, LOOSE = (30, -2.0), (16, 3.0)  # cells asked for, gap in um


@cache
def cells(count: int = 16, gap_um: float = 3.0, seed: int = 1) -> Slide:
    return slide(SHAPE, scatter(SHAPE, count, gap_um, seed), seed=seed)


@cache
def lamp() -> np.ndarray:
    """Darker corners, and specks of dust."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = 1 - 0.3 * (x / 255 - 0.6) ** 2 - 0.3 * (y / 255 - 0.4) ** 2
    for row, col, depth in ((88, 158, 0.05), (198, 68, 0.04), (60, 60, 0.05)):
        light -= depth * np.exp(-((x - col) ** 2 + (y - row) ** 2) / 80)
    return light.astype(np.float32)


@cache
def light(z_um: float, count: int, gap_um: float, seed: int, absorption: float) -> np.ndarray:
    return Stand().image(cells(count, gap_um, seed).phase, z_um, absorption)


def planes(
    z_um: tuple[float, ...],
    count: int = 16,
    gap_um: float = 3.0,
    seed: int = 1,
    absorption: float = 0.012,
    electrons: float = 1e4,
) -> np.ndarray:
    lit = [camera(light(z, count, gap_um, seed, absorption), electrons, n, lamp()) for n, z in enumerate(z_um)]
    return np.clip(np.rint(np.stack(lit) + 100), 0, 65535).astype(np.uint16)


def measure(z_um: tuple[float, ...], data: np.ndarray, labels: np.ndarray, **changes: object) -> Supported:
    return SupportedPhase(OPTICS, z_um, labels.shape, **{"dark_counts": 100.0, "repeats": 0, **changes})(data, labels)


def shares(found: Supported, sample: Slide) -> np.ndarray:
    """Measured over true mass of each cell; NaN where it was not measured."""
    numbers = np.arange(1, sample.integral_rad.size + 1)
    return ndimage.sum_labels(found.phase_rad, found.zones, numbers) / sample.integral_rad


# ---------------------------------------------------------------------- transfer functions


@settings(max_examples=20)
@given(z_um=st.floats(-10, 10), condenser_na=st.floats(0.05, 0.75))
def test_transfer_keeps_the_mean_ends_at_the_apertures_and_is_odd_in_phase_through_focus(
    z_um: float, condenser_na: float
) -> None:
    optics = BrightField(0.55, 0.75, condenser_na, 0.325)
    q = np.array([0.0, 0.1, 0.6, 1.01 * optics.cutoff_per_um])
    here, there = (cross_transfer(optics, q, z) for z in (z_um, -z_um))
    assert here[0] == pytest.approx(1)
    assert here[-1] == pytest.approx(0)
    np.testing.assert_allclose(here, there.conj(), atol=1e-12)


@pytest.mark.parametrize("z_um", [0.0, 1.0, -3.0, 8.0])
def test_transfer_agrees_with_the_simulators_own(z_um: float) -> None:
    q = np.linspace(0, OPTICS.cutoff_per_um, 60)
    np.testing.assert_allclose(
        cross_transfer(OPTICS, q, z_um), weak_object_transfer(q, z_um, 0.55, 0.75, 0.3), atol=0.03
    )


@pytest.mark.parametrize("z_um", [-2.0, 1.0, 4.0])
@pytest.mark.parametrize("lines", [2, 6, 15])
def test_transfer_is_what_an_abbe_sum_does_to_a_weak_grating(z_um: float, lines: int) -> None:
    fine = np.cos(2 * np.pi * lines * (np.arange(256) + 0.5) / 256) * np.ones((256, 1))
    seen = Stand(source_points=250).image(0.01 * fine, z_um, absorption=0.5)
    on_camera = fine.reshape(128, 2, 128, 2).mean(axis=(1, 3))
    amplitude = np.mean(seen * on_camera) / np.mean(on_camera**2) / 0.01
    q = np.array([lines / (128 * 0.325)])
    cross = cross_transfer(OPTICS, q, z_um)[0]
    assert amplitude == pytest.approx(-2 * cross.imag - 0.5 * 2 * cross.real, abs=0.03)


def test_transfer_lies_on_the_cosines_of_the_image() -> None:
    q = frequencies_per_um((64, 96), 0.325)
    assert q.shape == (64, 96)
    assert q[1, 0] == pytest.approx(1 / (2 * 64 * 0.325))
    whole, low = transfer(OPTICS, PAIR, (64, 96)), transfer(OPTICS, PAIR, (64, 96), kept=(20, 30))
    np.testing.assert_array_equal(whole.phase[:, :20, :30], low.phase)
    assert whole.absorption[0, 0, 0] == pytest.approx(-2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wavelength_um": 550.0}, "wavelength_um is 550; give the light's wavelength in micrometres"),
        ({"wavelength_um": float("nan")}, "wavelength_um is nan"),
        ({"pixel_size_um": 0.0}, "pixel_size_um is 0.0"),
        ({"condenser_na": 0.9}, "condenser_na is 0.9, larger than objective_na 0.75"),
        ({"objective_na": 1.2}, "objective_na is 1.2, which a medium of index 1 cannot carry"),
    ],
)
def test_optics_that_cannot_be_are_refused(changes: dict[str, float], said: str) -> None:
    good = {"wavelength_um": 0.55, "objective_na": 0.75, "condenser_na": 0.3, "pixel_size_um": 0.325}
    with pytest.raises(ExperimentError, match=said):
        BrightField(**(good | changes))


# ---------------------------------------------------------------------- inverse filter


@pytest.mark.parametrize(
    ("z_um", "absorption"), [(PAIR, 0.0), (TRIPLE, 0.0), (TRIPLE, 0.012), (TRIPLE, None), ((-2.0, 0.0, 3.0), 0.0)]
)
def test_inverse_filter_shows_the_cells(z_um: tuple[float, ...], absorption: float | None) -> None:
    sample = cells()
    phase = InverseFilter(OPTICS, z_um, SHAPE, absorption=absorption, dark_counts=100)(planes(z_um))
    truth = sample.phase.reshape(256, 2, 256, 2).mean(axis=(1, 3))
    assert phase.dtype == np.float32
    assert np.corrcoef(phase.ravel(), truth.ravel())[0, 1] > 0.8
    assert phase[sample.labels > 0].mean() > phase[sample.labels == 0].mean()


def test_inverse_filter_does_not_see_what_stays_through_focus() -> None:
    empty = np.stack([lamp() * 1e4] * 2)
    assert np.abs(InverseFilter(OPTICS, PAIR, SHAPE)(empty)).max() < 1e-3


def test_inverse_filter_of_planes_without_light_is_nan() -> None:
    data = planes(PAIR).astype(np.float32)
    invert = InverseFilter(OPTICS, PAIR, SHAPE, dark_counts=100)
    for spoilt in (data * np.array([1, 0])[:, None, None], np.where(np.arange(256) == 8, np.nan, data)):
        assert np.isnan(invert(spoilt)).all()


@pytest.mark.slow
@pytest.mark.parametrize("z_um", [TRIPLE, (-2.0, 0.0, 3.0)])
def test_inverse_filter_takes_under_5_ms_for_three_planes(z_um: tuple[float, ...]) -> None:
    data = np.random.default_rng(0).normal(1e4, 100, (3, 512, 512)).astype(np.uint16)
    invert = InverseFilter(OPTICS, z_um, (512, 512))
    taken = []
    for _ in range(100):
        start = time.perf_counter()
        invert(data)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.005


@pytest.mark.parametrize(
    ("z_um", "said"), [((1.0,), "two or more"), ((1.0, 1.0), "two or more"), ((0.0, np.nan), "two or more")]
)
def test_heights_that_tell_nothing_are_refused(z_um: tuple[float, ...], said: str) -> None:
    for kind in (InverseFilter, SupportedPhase):
        with pytest.raises(ExperimentError, match=said):
            kind(OPTICS, z_um, SHAPE)


def test_planes_of_another_rig_are_refused() -> None:
    for call in (
        lambda: InverseFilter(OPTICS, PAIR, SHAPE)(np.ones((3, 256, 256))),
        lambda: SupportedPhase(OPTICS, PAIR, SHAPE)(np.ones((2, 256, 256)), np.ones((256, 255), int)),
    ):
        with pytest.raises(ExperimentError, match="256, 256"):
            call()


# ---------------------------------------------------------------------- mask-supported mass


@pytest.mark.parametrize("crowd", [LOOSE, CROWDED])
@pytest.mark.parametrize("z_um", [PAIR, TRIPLE, ONE_SIDED])
def test_mass_of_strong_cells_is_recovered(z_um: tuple[float, ...], crowd: tuple[int, float]) -> None:
    found = measure(z_um, planes(z_um, *crowd), cells(*crowd).labels)
    share = shares(found, cells(*crowd))
    share = share[np.isfinite(share)]
    assert share.size >= 10
    assert np.median(share) == pytest.approx(1, abs=0.04)
    assert share.std() < 0.06
    assert np.mean(np.abs(share - 1) < 0.1) > 0.9
    assert found.converged
    assert found.residual < 0.05


@pytest.mark.parametrize("absorption", [0.0, 0.04])
def test_absorption_need_not_be_known(absorption: float) -> None:
    # 0.04 is much: a cell of 3 rad then takes a fifth of the light, and its mass is 5 % low
    share = shares(measure(PAIR, planes(PAIR, absorption=absorption), cells().labels), cells())
    assert np.nanmedian(share) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("grown_px", [-3, 3, 6])
def test_masks_need_not_be_exact(grown_px: int) -> None:
    labels = cells().labels
    away = ndimage.distance_transform_edt(labels == 0) - ndimage.distance_transform_edt(labels > 0)
    nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True, return_distances=False)
    share = shares(measure(PAIR, planes(PAIR), np.where(away <= grown_px, labels[tuple(nearest)], 0)), cells())
    assert np.nanmedian(share) == pytest.approx(1, abs=0.05)
    assert np.nanmin(share) > 0.85
    assert np.nanmax(share) < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("z_um", [PAIR, TRIPLE, ONE_SIDED])
def test_mass_is_unbiased_by_size(z_um: tuple[float, ...]) -> None:
    share, diameter = [], []
    for seed in range(10, 22):
        sample = cells(14, 2.0, seed)
        share.append(shares(measure(z_um, planes(z_um, 14, 2.0, seed), sample.labels), sample))
        diameter.append(sample.diameter_um)
    share, diameter = np.concatenate(share), np.concatenate(diameter)
    for low, high in ((8, 11), (11, 14), (14, 17), (17, 20)):
        these = share[(diameter >= low) & (diameter < high) & np.isfinite(share)]
        assert np.median(these) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("electrons", [1e4, 1e3])
def test_uncertainty_covers_the_error(electrons: float) -> None:
    sample, data = cells(), planes(PAIR, electrons=electrons)
    found = measure(PAIR, data, sample.labels, repeats=4)
    sd = np.array([found.sum_sd_rad.get(n, np.nan) for n in range(1, sample.integral_rad.size + 1)])
    error = (shares(found, sample) - 1) * sample.integral_rad / sd
    measured = np.isfinite(error)
    np.testing.assert_array_equal(measured, np.isfinite(sd))
    assert np.mean(np.abs(error[measured]) < 2) > 0.85
    assert np.median(sd / sample.integral_rad) < 0.1


@settings(max_examples=5)
@given(brightness=st.lists(st.floats(0.5, 1.5), min_size=2, max_size=2))
def test_brightness_of_a_plane_changes_nothing(brightness: list[float]) -> None:
    data = planes(PAIR).astype(np.float32) - 100
    lit = data * np.array(brightness, np.float32)[:, None, None]
    free = cells().labels > 0
    one, other = (flat_contrast(d, free, 9.0).values for d in (data, lit))
    np.testing.assert_allclose(one, other, atol=2e-4)


def test_too_few_steps_are_said_to_be_too_few() -> None:
    found = measure(PAIR, planes(PAIR), cells().labels, iterations=Iterations(5, 15))
    assert not found.converged
    assert found.steps == 15
    whole = measure(PAIR, planes(PAIR), cells().labels)
    assert whole.steps >= 200
    assert whole.residual < found.residual


# ---------------------------------------------------------------------- never a wrong number


def spoilt(kind: str) -> tuple[np.ndarray, np.ndarray]:
    data, labels = planes(PAIR).copy(), cells().labels.copy()
    if kind == "NaN":
        data = data.astype(np.float32)
        data[1, 5, 5] = np.nan
    elif kind == "missing":
        data[1] = 0
    elif kind == "unmoved":
        data = planes((2.0, 2.0))
    elif kind == "empty":
        labels[:] = 0
    elif kind == "giant":
        labels[:] = 1
    return data, labels


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("NaN", "plane 1 has values that are not numbers"),
        ("missing", "plane 1 is dark"),
        ("unmoved", "the planes do not differ beyond their noise"),
        ("empty", "there is no cell in the field"),
        ("giant", "cells cover 100 % of the field"),
    ],
)
def test_a_field_that_cannot_be_measured_is_nan_with_a_reason(kind: str, said: str) -> None:
    data, labels = spoilt(kind)
    found = measure(PAIR, data, labels)
    assert said in found.reasons[0]
    assert np.isnan(found.phase_rad).all()
    assert not found.converged
    assert said in find_sign(OPTICS, PAIR, data, labels, dark_counts=100).reason


def test_the_wrong_sign_of_z_gives_no_mass() -> None:
    found = measure((2.0, -2.0), planes(PAIR), cells().labels)
    assert "the focus offset, the order of z, the optics or the masks are wrong" in found.reasons[0]
    assert np.isnan(found.phase_rad).all()
    assert found.residual > 0.3


def test_cells_at_the_border_or_saturated_are_nan_and_spoil_no_other() -> None:
    sample, data = cells(), planes(PAIR).copy()
    rows, cols = np.array(ndimage.center_of_mass(np.ones(SHAPE), sample.labels, range(1, sample.labels.max() + 1))).T
    cut, full = int(rows.argmin()), int(rows.argmax())
    data[0, int(rows[full]), int(cols[full])] = 65535
    top = int(rows[cut])
    found = measure(PAIR, data[:, top:], sample.labels[top:])
    assert found.reasons[cut + 1] == "touches the field's border"
    assert found.reasons[full + 1] == "the camera is saturated there"
    share = shares(found, sample)
    assert np.isnan(share[[cut, full]]).all()
    rest = share[[n for n in range(share.size) if n + 1 not in found.reasons]]
    assert rest.size >= 5
    np.testing.assert_allclose(rest, 1, atol=0.12)


def test_a_full_twelve_bit_camera_is_seen_too() -> None:
    """Where a cell gathers the light the camera is full at 4095, and its type could hold more."""
    data = planes(PAIR).astype(np.float64)
    full = np.sort(data[1], axis=None)[-60]
    data = np.minimum(data * 4095 / full, 4095).astype(np.uint16)
    found = measure(PAIR, data, cells().labels)
    lost = {int(zone) for zone in found.zones[data[1] == 4095]} - {0}
    assert lost
    assert {found.reasons.get(zone) for zone in lost} <= {"the camera is saturated there", "touches the field's border"}
    assert "the camera is saturated there" in found.reasons.values()
    assert len(found.reasons) < cells().labels.max()


# ---------------------------------------------------------------------- sign and focus


@pytest.mark.parametrize("crowd", [LOOSE, CROWDED])
@pytest.mark.parametrize("z_um", [PAIR, TRIPLE, ONE_SIDED])
def test_sign_of_z_is_found(z_um: tuple[float, ...], crowd: tuple[int, float]) -> None:
    data, labels = planes(z_um, *crowd), cells(*crowd).labels
    for way in (1, -1):
        found = find_sign(OPTICS, [way * z for z in z_um], data, labels, dark_counts=100)
        assert found.sign == way
        assert found.sureness > 0.8
        assert ("use -z" in str(found)) == (way < 0)


def test_sign_is_unsure_where_masks_lie_beside_the_cells() -> None:
    away = np.roll(cells().labels, 60, axis=(0, 1)) * (ndimage.distance_transform_edt(cells().labels == 0) > 6)
    found = find_sign(OPTICS, PAIR, planes(PAIR), away, dark_counts=100)
    assert found.sign == 0
    assert "both signs fit about as well" in str(found)


@pytest.mark.parametrize(
    ("error_um", "edge_px"),
    [(-1.5, 160), *(pytest.param(error_um, SHAPE[0], marks=pytest.mark.slow) for error_um in (-1.5, 0.0, 2.0))],
)
def test_focus_is_found_from_three_planes(error_um: float, edge_px: int) -> None:
    believed, part = [z - error_um for z in TRIPLE], (slice(edge_px), slice(edge_px))
    data, labels = planes(TRIPLE)[:, *part], cells().labels[part]
    found = find_focus(OPTICS, believed, data, labels, dark_counts=100, search_um=3)
    assert found.offset_um == pytest.approx(error_um, abs=0.5)
    assert found.low_um <= found.offset_um <= found.high_um


def test_focus_is_not_told_where_it_cannot_be() -> None:
    pair = find_focus(OPTICS, PAIR, planes(PAIR), cells().labels, dark_counts=100)
    assert np.isnan(pair.offset_um)
    assert "two planes fit at any focus" in pair.reason
    far = find_focus(OPTICS, [z - 3 for z in TRIPLE], planes(TRIPLE), cells().labels, dark_counts=100, search_um=0.5)
    assert np.isnan(far.offset_um)
    assert "end of the search" in far.reason


# ---------------------------------------------------------------------- the simulated microscope


@cache
def simulated(z_um: tuple[float, ...], seed: int = 1) -> tuple[np.ndarray, Microscope]:
    scope = Microscope(Settings(seed=seed, seconds_per_exposure=0.0))
    scope.bench.channel = "BF"
    shots = []
    for z in z_um:
        scope.bench.z_um = z
        shots.append(scope.expose(10.0))
    return np.stack(shots), scope


def simulated_shares(z_um: tuple[float, ...], believed_um: list[float]) -> np.ndarray:
    data, scope = simulated(z_um)
    truth = scope.truth()
    found = measure(tuple(believed_um), data, truth.cell_labels)
    wide = (truth.cells["radius_um"] > 4) & (truth.cells["radius_um"] < 10)
    sums = ndimage.sum_labels(found.phase_rad, found.zones, truth.cells["id"][wide])
    share = sums * PG_PER_RAD_PX / truth.cells["dry_mass_pg"][wide]
    return share[np.isfinite(share)]


@pytest.mark.parametrize("z_um", [(-4.0, 0.0), (-4.0, -2.0, 0.0)])
def test_mass_on_the_simulated_microscope(z_um: tuple[float, ...]) -> None:
    # its stage counts against the light, and bright field is in focus at -2
    share = simulated_shares(z_um, [-(z + 2) for z in z_um])
    assert share.size > 25
    assert np.median(share) == pytest.approx(1, abs=0.03)
    assert np.mean(np.abs(share - 1) < 0.1) > 0.9


def test_two_micrometres_of_focus_error_cost_little() -> None:
    for z_um in ((-2.0, 2.0), (-2.0, 0.0, 2.0)):  # around where fluorescence is in focus
        assert np.median(simulated_shares(z_um, [-z for z in z_um])) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_sign_and_focus_of_the_simulated_microscope_are_found() -> None:
    z_um = (-2.0, 0.0, 2.0)
    data, scope = simulated(z_um)
    labels = scope.truth().cell_labels
    sign = find_sign(OPTICS, z_um, data, labels, dark_counts=100)
    assert sign.sign == -1
    focus = find_focus(OPTICS, [-z for z in z_um], data, labels, dark_counts=100, search_um=3)
    assert focus.offset_um == pytest.approx(-scope.settings.bright_field_offset_um, abs=0.5)
