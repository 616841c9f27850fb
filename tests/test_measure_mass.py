"""Dry mass: known truths, real cells, honest uncertainties, and no number where there can be none."""

from __future__ import annotations

import io
import json
import zipfile
from functools import lru_cache

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from livestain._errors import RigError
from livestain._experiment import Optics, PhaseFromSteps, PhaseGiven
from livestain.measure.background import fit_background
from livestain.measure.mass import MassScale, dry_masses
from livestain.measure.phases import PhaseFromFrames, PhaseMaker, PhaseOfImage, PhaseOfSteps
from livestain.measure.position import Position, Seen
from livestain.measure.segment import Plane
from livestain.phase.halo import recover
from livestain.phase.refocus import refocus
from livestain.phase.unwrap import unwrap
from livestain.simulate import Microscope, Settings
from tests.slim_fields import COHERENCE_UM, PIXEL_UM, WAVELENGTH_UM, Scene, scene

SCALE = MassScale(PIXEL_UM, WAVELENGTH_UM)


def disc(centre: tuple[float, float], radius_px: float, shape: tuple[int, int] = (200, 220)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - centre[0], x - centre[1]) <= radius_px


def balls(masses_pg: list[float], noise_rad: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Phase and labels of smooth cells 30 px wide whose masses are known."""
    labels, phase = np.zeros((200, 220), np.int32), np.zeros((200, 220))
    for i, mass in enumerate(masses_pg):
        centre = (35 + 65 * (i // 3), 40 + 70 * (i % 3))
        labels[disc(centre, 20)] = 10 * (i + 1)
        shape = np.maximum(1 - disc_distance(centre) ** 2 / 15**2, 0)
        phase += shape * (mass / SCALE.pg_per_rad / shape.sum())
    return phase + np.random.default_rng(seed).normal(0, noise_rad, phase.shape) * (noise_rad > 0), labels


def disc_distance(centre: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[:200, :220]
    return np.hypot(y - centre[0], x - centre[1])


def test_a_sphere_weighs_what_it_weighs() -> None:
    px, radius, step = 0.2, 10.0, 0.015
    y, x = (np.mgrid[:150, :150] - 74.5) * px
    phase = 2 * np.pi / 0.55 * step * 2 * np.sqrt(np.maximum(radius**2 - y**2 - x**2, 0))
    labels = (np.hypot(y, x) < 10.4).astype(int)
    found = dry_masses(phase, labels, scale=MassScale(px, 0.55))
    assert found.dry_mass_pg[0] == pytest.approx(349.1, rel=0.002)
    assert found.reason == ("",)
    double = dry_masses(phase, labels, scale=MassScale(px, 0.55, 0.36))
    assert double.dry_mass_pg[0] == pytest.approx(found.dry_mass_pg[0] / 2)


@settings(max_examples=15)
@given(st.floats(-2, 2), st.floats(-1, 1), st.floats(-1, 1), st.floats(-0.5, 0.5))
def test_no_smooth_background_changes_a_mass(level: float, tilt: float, slope: float, bow: float) -> None:
    phase, labels = balls([100, 200, 50, 400])
    y, x = np.linspace(-1, 1, 200)[:, None], np.linspace(-1, 1, 220)[None, :]
    found = dry_masses(phase + level + tilt * y + slope * x + bow * x * y, labels, scale=SCALE)
    np.testing.assert_allclose(found.dry_mass_pg, [100, 200, 50, 400], rtol=1e-3)
    assert found.cell.tolist() == [10, 20, 30, 40]


def test_debris_hardly_moves_the_background() -> None:
    phase, labels = balls([100, 200, 50])
    phase[150:165, 100:160] = 1.5
    np.testing.assert_allclose(dry_masses(phase, labels, scale=SCALE).dry_mass_pg, [100, 200, 50], rtol=0.01)


def test_compartments_add_up_and_are_projections() -> None:
    phase, labels = balls([100, 200])
    nuclei = (disc((35, 40), 7)).astype(np.uint16)
    found = dry_masses(phase, labels, nuclei, scale=SCALE)
    first = found.nucleus_projected_dry_mass_pg[0]
    assert first == pytest.approx(phase[nuclei > 0].sum() * SCALE.pg_per_rad, rel=1e-3)
    assert first + found.cytoplasm_projected_dry_mass_pg[0] == pytest.approx(found.dry_mass_pg[0])
    assert found.nucleus_area_um2[0] == pytest.approx(np.pi * 49 * PIXEL_UM**2, rel=0.05)
    assert np.isnan(found.nucleus_projected_dry_mass_pg[1])
    assert found.reason == ("", "no nucleus was found in the cell")
    assert found.dry_mass_pg[1] == pytest.approx(200, rel=1e-3)


@pytest.mark.parametrize("grain_px", [0.0, 1.5, 5.0])
def test_noise_is_told_as_it_is(grain_px: float) -> None:
    z = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        phase, labels = balls([100, 200, 50, 300, 150, 80])
        noise = ndimage.gaussian_filter(rng.standard_normal(phase.shape), grain_px)
        found = dry_masses(phase + 0.02 * noise / noise.std(), labels, scale=SCALE)
        z.append((found.dry_mass_pg - [100, 200, 50, 300, 150, 80]) / found.dry_mass_sd_pg)
    assert 0.75 < np.sqrt(np.mean(np.square(z))) < 1.3


def test_background_knows_its_noise() -> None:
    rng = np.random.default_rng(0)
    found = fit_background(0.03 * rng.standard_normal((256, 256)), np.ones((256, 256), bool))
    assert found.noise_rad == pytest.approx(0.03, rel=0.03)
    assert found.sum_variance(np.array([400.0]))[0] == pytest.approx(400 * 0.03**2, rel=0.25)
    assert np.abs(found.surface_rad).max() < 0.002


# ------------------------------------------------------------------ what cannot be weighed


def test_an_empty_field_has_no_rows() -> None:
    found = dry_masses(np.zeros((100, 100)), np.zeros((100, 100), int), scale=SCALE)
    assert found.cell.size == found.dry_mass_pg.size == len(found.reason) == 0


def wrapped(phase: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (6 * phase + np.pi) % (2 * np.pi) - np.pi, labels


def with_nan(phase: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    phase[35, 40] = np.nan
    return phase, labels


def giant(phase: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return phase, np.full_like(labels, 10)


def crowded(phase: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return phase, np.where(np.arange(220) < 110, 10, 20) * np.ones_like(labels)


def lost(phase: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.full_like(phase, np.nan), labels


NOT_WEIGHED = {
    "NaN in a cell": (with_nan, "not a number in 1 of"),
    "nothing but NaN": (lost, "not a number"),
    "one giant mask": (giant, "fault of segmentation"),
    "no room": (crowded, "too little for the background"),
    "wrapped": (wrapped, "wrapped"),
}


@pytest.mark.parametrize("name", NOT_WEIGHED)
def test_what_cannot_be_weighed_is_nan_with_a_reason(name: str) -> None:
    change, says = NOT_WEIGHED[name]
    found = dry_masses(*change(*balls([200, 200])), scale=SCALE)
    assert np.isnan(found.dry_mass_pg[0])
    assert np.isnan(found.dry_mass_sd_pg[0])
    assert says in found.reason[0]
    assert np.isfinite(found.area_um2).all()


def test_one_lost_cell_spoils_no_other() -> None:
    found = dry_masses(*with_nan(*balls([100, 200])), scale=SCALE, phase_reason="the camera is saturated")
    assert found.dry_mass_pg[1] == pytest.approx(200, rel=1e-3)
    assert found.reason == ("the camera is saturated", "")


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((None, 0.55), "pixel size"),
        ((0.0, 0.55), "pixel size"),
        ((0.3, None), "wavelength"),
        ((0.3, 550.0), "wavelength"),
        ((0.3, float("nan")), "wavelength"),
        ((0.3, 0.55, 180.0), "alpha"),
    ],
)
def test_a_missing_number_ends_in_a_sentence(numbers: tuple, says: str) -> None:
    with pytest.raises(RigError, match=f"Dry mass needs the {says}"):
        MassScale(*numbers)


def test_images_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(RigError, match="one shape"):
        dry_masses(np.zeros((10, 10)), np.zeros((10, 11), int), scale=SCALE)
    with pytest.raises(RigError, match="whole numbers"):
        dry_masses(np.zeros((10, 10)), np.zeros((10, 10)), scale=SCALE)


def test_cells_at_the_border_are_marked() -> None:
    phase, labels = balls([100, 200])
    assert dry_masses(phase[30:], labels[30:], scale=SCALE).at_border.tolist() == [True, True]
    assert dry_masses(phase[:, 30:], labels[:, 30:], scale=SCALE).at_border.tolist() == [True, False]


# ------------------------------------------------------------------ the simulated microscope


def z_scores(seeds: tuple[int, ...], densities: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(error / its standard deviation, relative error) of whole cells, from four noisy frames to picograms."""
    z, relative = [], []
    for seed in seeds:
        for density in densities:
            s = scene(seed, density)
            found = recover(
                s.signal, s.cells, pixel_size_um=PIXEL_UM, coherence_um=COHERENCE_UM, coherence_sd_um=0.2, seed=seed
            )
            mass = dry_masses(
                found.phase_rad, s.labels, scale=SCALE, errors_rad=found.errors_rad, strangers=found.strangers
            )
            for cell, pg, sd in zip(mass.cell.tolist(), mass.dry_mass_pg, mass.dry_mass_sd_pg, strict=True):
                if cell in s.whole_pg:
                    z.append((pg - s.whole_pg[cell]) / sd)
                    relative.append(pg / s.whole_pg[cell] - 1)
    return np.array(z), np.array(relative)


def test_simulated_cells_are_weighed() -> None:
    z, relative = z_scores((5,), (2170.0,))
    assert np.median(np.abs(relative)) < 0.05
    assert abs(relative.mean()) < 0.02
    assert np.sqrt(np.mean(z**2)) < 2


@pytest.mark.slow
def test_uncertainties_are_as_large_as_the_errors() -> None:
    z, relative = z_scores((21, 22, 23), (600.0, 2170.0, 3000.0))
    assert len(z) > 300
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.4
    assert np.mean(np.abs(z) > 3) < 0.03
    assert np.median(np.abs(relative)) < 0.05
    assert abs(relative.mean()) < 0.02


# ------------------------------------------------------------------ real data


def test_a_real_cell_weighs_the_same_from_every_side(shared_data) -> None:
    meta = json.loads((shared_data / "hl60_phase" / "metadata.json").read_text())
    scale = MassScale(meta["pixel_size_um"], meta["wavelength_um"])
    masses = []
    for phase in tifffile.imread(shared_data / "hl60_phase" / "phase_rad_ayx.tif"):
        cell = ndimage.binary_fill_holes(ndimage.gaussian_filter(phase, 2) > 0.25)
        cell = ndimage.binary_dilation(cell, iterations=4)
        masses.append(dry_masses(phase, cell.astype(int), scale=scale).dry_mass_pg[0])
    assert len(masses) == 140
    assert np.std(masses) / np.mean(masses) < 0.01


def test_a_sphere_by_mie_theory_has_the_phase_it_should(shared_data) -> None:
    px, wavelength = 0.16064257028112450, 0.5
    with zipfile.ZipFile(shared_data / "qpi_references" / "mie_3d_sphere_field.zip") as archive:
        real, imaginary = (np.loadtxt(io.BytesIO(archive.read(f"mie_sphere_{part}.txt"))) for part in ("real", "imag"))
    field = real + 1j * imaginary
    field /= field[:10, :10].mean()
    # the detector is 20 wavelengths behind the sphere's centre (mie_info.txt)
    focused = refocus(field, -20 * wavelength, pixel_size_um=px, wavelength_um=wavelength)
    assert np.abs(focused).std() < 0.2 * np.abs(field).std()  # a transparent sphere vanishes in focus
    y, x = (np.mgrid[:250, :250] - 124.5) * px
    labels = (np.hypot(y, x) < 8).astype(int)
    scale = MassScale(px, wavelength)
    found = dry_masses(unwrap(np.angle(focused), labels == 0), labels, scale=scale)
    integral = found.dry_mass_pg[0] / scale.pg_per_rad * px**2
    assert integral == pytest.approx(108.33, rel=0.01)


# ------------------------------------------------------------------ no mass without a reason


@lru_cache
def planes_of(method: str) -> tuple[Scene, np.ndarray]:
    """A field of 192 px, and what a camera gives of it for a method: (P, Y, X) uint16."""
    seen = scene(1, 1500.0, 192)
    if method == "steps":
        return seen, seen.frames
    scope = Microscope(Settings(seed=1, width=192, height=192, cells_per_mm2=1500.0, seconds_per_exposure=0.0))
    if method == "given":
        scope.bench.channel = "Membrane"
        return seen, scope.expose(10.0)[None]
    planes = []
    for scope.bench.z_um in (-4.0, 0.0, 4.0):
        planes.append(scope.expose(10.0))
    return seen, np.stack(planes)


OPTICS = Optics(wavelength_um=0.55, objective_na=0.75, condenser_na=0.3, dark_counts=100, focus_offset_um=-2)
STEPS = {"method": "steps", "channels": ("a", "b", "c", "d"), "sign": -1, "coherence_um": 18}


def maker_of(method: str) -> PhaseMaker:
    if method == "steps":
        return PhaseOfSteps(PhaseFromSteps.model_validate(STEPS), OPTICS, PIXEL_UM, (192, 192))
    if method == "defocus":
        return PhaseFromFrames(OPTICS, (-4.0, 0.0, 4.0), PIXEL_UM)
    return PhaseOfImage(PhaseGiven(method="given", channel="a", rad_per_grey=1e-3, zero_grey=100), PIXEL_UM)


def moved_between(planes: np.ndarray) -> np.ndarray:
    return np.concatenate([planes[:-1], np.roll(planes[-1:], 40, axis=2)])


SPOILT = {
    "nothing": lambda planes: planes,
    "dark": lambda planes: np.full_like(planes, 100),
    "black": np.zeros_like,
    "full": lambda planes: np.full_like(planes, 65535),
    "partly full": lambda planes: np.where(np.arange(192) < 80, 65535, planes).astype(np.uint16),
    "the first alone": lambda planes: np.repeat(planes[:1], len(planes), axis=0),
    "the other way round": lambda planes: planes[::-1],
    "one dark": lambda planes: np.concatenate([planes[:-1], np.full_like(planes[-1:], 100)]),
    "moved between": moved_between,
    "upside down": lambda planes: (20_000 - np.minimum(planes, 20_000)).astype(np.uint16),
    "noise": lambda planes: np.random.default_rng(0).integers(0, 4000, planes.shape).astype(np.uint16),
}


WEIGHED = {  # z is found to count the other way, or so it looks; a given image is one plane alone
    "steps": {"nothing"},
    "defocus": {"nothing", "the other way round", "upside down"},
    "given": {"nothing", "the first alone", "the other way round", "partly full"},
}


@pytest.mark.parametrize("method", ["steps", "defocus", "given"])
@pytest.mark.parametrize("spoilt", SPOILT)
@pytest.mark.parametrize("outlined", [True, False])
def test_no_mass_is_missing_without_a_reason(method: str, spoilt: str, outlined: bool) -> None:
    seen, planes = planes_of(method)
    nuclei = Plane(np.where(seen.nuclei > 0, 40_000, 200).astype(np.uint16), "image")
    cells = Plane(np.where(seen.labels > 0, 40_000, 200).astype(np.uint16), "image") if outlined else None
    edge_um = 192 * PIXEL_UM
    position = Position(edge_um, edge_um, PIXEL_UM, maker_of(method), SCALE, None)
    rows = []
    for t in range(2):  # what was learned, or refused, of the first field is used for the others
        rows += position.add(Seen(t, float(t), nuclei, cells, None, SPOILT[spoilt](planes))).rows
    rows += position.finish().rows
    masses = [pg for _, _, columns, _ in rows for pg in columns["dry_mass_pg"]]
    reasons = [why for _, _, columns, _ in rows for why in columns["reason"]]
    assert len(masses) > 10
    unsaid = [(pg, why) for pg, why in zip(masses, reasons, strict=True) if np.isnan(pg) and not why]
    assert unsaid == []
    if method != "given" or spoilt not in {"noise", "moved between"}:  # some relief, for all that a given image tells
        assert np.isfinite(masses).any() == (outlined and spoilt in WEIGHED[method])


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1])
def test_focus_and_the_way_z_counts_are_found_together_where_one_alone_is_not_plain(order: int) -> None:
    """Around where fluorescence is in focus, 2 um from bright field's, both ways fit alike until focus is right."""
    seen, planes = planes_of("defocus")
    z_um = (-4.0, 0.0, 4.0)[::order]
    maker = PhaseFromFrames(OPTICS.model_copy(update={"focus_offset_um": None}), z_um, PIXEL_UM)
    dark = maker(np.full_like(planes, 100), seen.labels.astype(np.int32))
    assert "plane 0 is dark" in dark.reasons[0]
    assert maker.state()["tries"] == 0  # a dark field tells nothing of the rig, so it costs no try
    made = maker(planes[::order], seen.labels.astype(np.int32))
    assert 0 not in made.reasons
    assert (maker.state()["sign"], maker.state()["offset_um"]) == (-1, -2.0)


def test_a_given_phase_that_is_upside_down_or_cut_off_weighs_nothing() -> None:
    cells = np.zeros((60, 60), np.int32)
    cells[10:30, 10:30], cells[35:50, 35:50] = 1, 2
    image = np.where(cells > 0, 3000, 1000).astype(np.uint16)
    maker = maker_of("given")
    assert maker(image[None], cells).reasons == {}
    assert "upside down" in maker((4000 - image)[None], cells).reasons[0]
    assert "the same everywhere" in maker(np.full_like(image, 7)[None], cells).reasons[0]
    image[12:20, 12:20] = 65535
    made = maker(image[None], cells)
    assert "cut off" in made.reasons[0]
    found = dry_masses(made.phase_rad, made.zones, scale=SCALE, phase_reason=made.reasons[0])
    assert np.isnan(found.dry_mass_pg).tolist() == [True, False]
