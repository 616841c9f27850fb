"""How bright field through focus shows phase and absorption: weak-object transfer functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from livestain._errors import ExperimentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["BrightField", "Transfer", "cross_transfer", "frequencies_per_um", "transfer"]

_RINGS, _SPOKES = 24, 48  # Gauss points over the condenser: exact to 1e-4 up to 10 um of defocus at NA 0.75
_SAMPLES = 512  # of the radial profile; what lies between them is interpolated


@dataclass(frozen=True, slots=True)
class BrightField:
    """The optics of a bright-field stand.

    Parameters
    ----------
    wavelength_um
        In vacuum; the middle of the band that the lamp, filter and camera let through.
    objective_na, condenser_na
        Numerical apertures; the condenser's as its diaphragm is set, at most the objective's.
    pixel_size_um
        Edge of a camera pixel in the sample.
    medium_index
        Refractive index between the objective and the cover glass: 1 for a dry objective, whatever the cells are in,
        because the stage moves the whole sample through that medium.

    Raises
    ------
    ExperimentError
        A number that cannot be; the message names it.
    """

    wavelength_um: float
    objective_na: float
    condenser_na: float
    pixel_size_um: float
    medium_index: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ExperimentError(f"{field.name} is {value!r}; phase from defocus needs a number above 0.")
        if not 0.2 <= self.wavelength_um <= 2:
            raise ExperimentError(
                f"wavelength_um is {self.wavelength_um:g}; give the light's wavelength in micrometres, e.g. 0.55."
            )
        if self.objective_na >= self.medium_index:
            raise ExperimentError(
                f"objective_na is {self.objective_na:g}, which a medium of index {self.medium_index:g} cannot carry; "
                "set medium_index to the immersion's (1.33 water, 1.515 oil)."
            )
        if self.condenser_na > self.objective_na:
            raise ExperimentError(
                f"condenser_na is {self.condenser_na:g}, larger than objective_na {self.objective_na:g}: phase is then "
                "hardly seen through focus; close the condenser's diaphragm and set condenser_na."
            )

    @property
    def cutoff_per_um(self) -> float:
        """The highest spatial frequency that reaches the camera."""
        return (self.objective_na + self.condenser_na) / self.wavelength_um


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """Contrast is `phase` times the phase's spectrum plus `absorption` times the absorption's; (P, Y, X) float32."""

    phase: NDArray[np.float32]
    absorption: NDArray[np.float32]


def cross_transfer(optics: BrightField, q_per_um: NDArray[np.float64], z_um: float) -> NDArray[np.complex128]:
    """Return the transmission cross-coefficient of the direct light with the light diffracted to `q_per_um` (n,).

        C(q) = 1/|S| * integral over the condenser's disc S of P(s + q) exp(i (w(s + q) - w(s))) ds
        w(s) = 2 pi z sqrt((n / wavelength)^2 - |s|^2)

    A weak object of phase p and absorption a (amplitude exp(i p - a)) then has the contrast spectrum
    -2 Im C * p - 2 Re C * a (Streibl, J. Opt. Soc. Am. A 2, 121, 1985; Sheppard and Mao, J. Opt. Soc. Am. A 6, 1260,
    1989). `z_um` is the distance from the object to the plane in focus, counted along the light: a cell is bright in
    its middle at z above 0.
    """
    edge = optics.objective_na / optics.wavelength_um
    inverse2 = (optics.medium_index / optics.wavelength_um) ** 2
    source = optics.condenser_na / optics.wavelength_um
    node, weight = np.polynomial.legendre.leggauss(_RINGS)
    s = (source * (node + 1) / 2)[None, :, None]
    ring_weight = weight * (node + 1) / 2  # integrates s ds over the disc, up to the factor that makes the sum 1
    turn, turn_weight = np.polynomial.legendre.leggauss(_SPOKES)
    q = np.maximum(q_per_um, 1e-9)[:, None, None]
    # only directions from `first` to pi bring s + q into the pupil: integrating just those keeps Gauss's accuracy
    first = np.arccos(np.clip((edge**2 - s**2 - q**2) / (2 * s * q), -1, 1))
    angle = first + (np.pi - first) * (turn + 1) / 2
    through2 = s**2 + q**2 + 2 * s * q * np.cos(angle)
    wave = np.exp(2j * np.pi * z_um * (np.sqrt(np.maximum(inverse2 - through2, 0)) - np.sqrt(inverse2 - s**2)))
    share = (np.pi - first) / np.pi * turn_weight / 2
    return np.asarray((wave * share).sum(axis=2) @ ring_weight)


def frequencies_per_um(
    shape: tuple[int, int], pixel_size_um: float, kept: tuple[int, int] | None = None
) -> NDArray[np.float64]:
    """Return the radial frequency of each cosine of a (Y, X) image's DCT-II, or of the `kept` (y, x) lowest."""
    rows, cols = kept or shape
    qy = np.arange(rows) / (2 * shape[0] * pixel_size_um)
    qx = np.arange(cols) / (2 * shape[1] * pixel_size_um)
    return np.hypot(qy[:, None], qx[None, :])


def transfer(
    optics: BrightField, z_um: Sequence[float], shape: tuple[int, int], kept: tuple[int, int] | None = None
) -> Transfer:
    """Return the transfer functions of planes at `z_um` on the cosines of a (Y, X) image (DCT-II).

    Cosines rather than waves, because an image then continues as its mirror beyond the border instead of as its
    opposite side; a radial transfer function multiplies both alike.

    Parameters
    ----------
    optics
        The stand.
    z_um
        (P,) distance of each plane from focus; see `cross_transfer` for the sign.
    shape
        (Y, X) of the planes.
    kept
        (y, x): only that many of the lowest cosines.
    """
    q = frequencies_per_um(shape, optics.pixel_size_um, kept)
    samples = np.linspace(0, optics.cutoff_per_um, _SAMPLES)
    profiles = [cross_transfer(optics, samples, float(z)) for z in z_um]
    spread = [np.interp(q.ravel(), samples, p, right=0).reshape(q.shape).astype(np.complex64) for p in profiles]
    both = -2 * np.stack(spread)
    return Transfer(np.ascontiguousarray(both.imag), np.ascontiguousarray(both.real))
