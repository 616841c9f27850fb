"""Phase by transport of intensity: exact where its equation is, honest about what it loses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from livestain._errors import RigError
from livestain.phase.refocus import refocus
from livestain.phase.tie import Tie
from livestain.simulate import Microscope, Settings

PX, WAVELENGTH = 0.325, 0.55
RIG = {"pixel_size_um": PX, "wavelength_um": WAVELENGTH}


def bump(size_um: float = 4.0, peak: float = 0.3) -> np.ndarray:
    y, x = (np.mgrid[:256, :240] - 120) * PX
    return peak * np.exp(-(y**2 + x**2) / (2 * size_um**2))


def planes(phase: np.ndarray, z_um: tuple[float, ...], light: float = 5000.0) -> list[np.ndarray]:
    """Coherent images by the angular spectrum, which is not the equation that TIE solves."""
    field = np.exp(1j * phase)
    return [light * np.abs(refocus(field, z, pixel_size_um=PX, wavelength_um=WAVELENGTH)) ** 2 for z in z_um]


@pytest.mark.parametrize("z_um", [(-1.0, 1.0), (-1.0, 0.0, 1.0), (0.5, -0.7, 1.5), (2.0, 0.0)])
def test_phase_comes_back(z_um: tuple[float, ...]) -> None:
    phase = bump(2.5)
    found = Tie(phase.shape, z_um, **RIG, longest_um=200.0).phase(planes(phase, z_um))
    assert found.dtype == np.float32
    assert np.corrcoef(found.ravel(), phase.ravel())[0, 1] > 0.99
    assert np.ptp(found) == pytest.approx(0.3, rel=0.08)


def test_other_direction_of_z_turns_the_sign() -> None:
    phase, z = bump(), (-1.0, 1.0)
    images = planes(phase, z)
    np.testing.assert_allclose(
        Tie(phase.shape, z, **RIG, z_sign=-1).phase(images), -Tie(phase.shape, z, **RIG).phase(images), atol=1e-7
    )


def test_long_structures_are_damped_as_said() -> None:
    z = (-1.0, 1.0)
    kept = []
    for size_um in (2.0, 12.0):
        phase = bump(size_um)
        kept.append(np.ptp(Tie(phase.shape, z, **RIG, longest_um=25.0).phase(planes(phase, z))) / 0.3)
    assert kept[0] > 0.85
    assert kept[1] < 0.7


def test_offset_and_a_flickering_lamp_are_no_phase() -> None:
    phase, z = bump(), (-1.0, 1.0)
    first, second = planes(phase, z)
    tie = Tie(phase.shape, z, **RIG)
    expected = tie.phase([first, second])
    np.testing.assert_allclose(tie.phase([first + 100, 1.3 * second + 100], dark_counts=100), expected, atol=1e-5)


def test_cells_of_the_simulated_microscope_are_seen() -> None:
    scope = Microscope(Settings(width=256, height=256, world_um=200.0, cells_per_mm2=800.0))
    z_um, images = (-4.0, -2.0, 0.0), []
    for scope.bench.z_um in z_um:  # transmitted light is in focus at -2
        images.append(scope.expected(10.0))
    # this stage counts against the light: above focus it shows what lies lower
    found = Tie((256, 256), z_um, **RIG, z_sign=-1).phase(images)
    cells = scope.truth().cell_labels > 0
    ring = ndimage.binary_dilation(cells, iterations=12) & ~cells
    assert found[cells].mean() > found[ring].mean() + 0.2
    assert np.corrcoef(found[cells | ring], cells[cells | ring])[0, 1] > 0.5


WRONG = {
    "one plane": ({"z_um": (0.0,)}, "two or three"),
    "twice the same": ({"z_um": (1.0, 1.0)}, "different positions"),
    "no pixel size": ({"pixel_size_um": None}, "pixel size"),
    "no wavelength": ({"wavelength_um": 0.0}, "wavelength"),
    "no direction": ({"z_sign": 0}, "direction of z"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_set_up_is_refused(name: str) -> None:
    change, says = WRONG[name]
    arguments = {"z_um": (-1.0, 1.0), **RIG} | change
    with pytest.raises(RigError, match=says):
        Tie((16, 16), arguments.pop("z_um"), **arguments)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([np.ones((16, 16))], "got 1"),
        ([np.ones((16, 16)), np.ones((16, 15))], "Plane 1 has shape"),
        ([np.ones((16, 16)), np.zeros((16, 16))], "open the shutter"),
        ([np.ones((16, 16)), np.full((16, 16), np.nan)], "holds NaN"),
    ],
)
def test_wrong_planes_are_refused(images: list[np.ndarray], says: str) -> None:
    with pytest.raises(RigError, match=says):
        Tie((16, 16), (-1.0, 1.0), **RIG).phase(images)
