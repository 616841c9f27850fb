"""Phase from two or three focal planes by the transport-of-intensity equation (TIE).

For light that is nearly uniform, k dI/dz = -I0 laplace(phi) with k = 2 pi n / wavelength (Teague, JOSA 73:1434, 1983),
so with a cosine transform, which takes the field's borders as mirrors (no light flows through them),

    phi(q) = k / I0 * (dI/dz)(q) * (2 pi q)^2 / ((2 pi q)^4 + (2 pi q0)^4)

Below q0, one over `longest_um`, noise would be amplified without bound and is damped instead: so the mass of a whole
cell is *not* in this phase. It also takes the planes as close together; details finer than about sqrt(wavelength *
spacing) are weakened. Use it to look at and to stain; weigh cells with `livestain.phase.supported` or with phase steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from livestain._errors import RigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Tie"]


class Tie:
    """Turns planes of one rig into phase; the filter is made once.

    Parameters
    ----------
    shape
        (H, W) of the planes.
    z_um
        Where the planes are on the stage, two or three different positions in the order of the planes.
    pixel_size_um, wavelength_um
        Edge of a pixel in the sample; wavelength of the light in vacuum.
    medium_index
        Refractive index of what lies between the sample and the objective: 1 in air.
    z_sign
        1 where a larger z brings a plane *higher in the sample* (farther along the light) into focus, -1 where the
        stage counts the other way. `livestain.phase.sign` tells which.
    longest_um
        Structures longer than this are damped.

    Raises
    ------
    RigError
        A number is missing or cannot be.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        z_um: Sequence[float],
        *,
        pixel_size_um: float,
        wavelength_um: float,
        medium_index: float = 1.0,
        z_sign: int = 1,
        longest_um: float = 30.0,
    ) -> None:
        _check(z_um, pixel_size_um, wavelength_um, medium_index, longest_um, z_sign)
        self._shape = shape
        self._slopes = _slopes(np.asarray(z_um, np.float64)) * z_sign
        wave_per_um = 2 * np.pi * medium_index / wavelength_um
        qy, qx = (np.arange(n) / (2 * n * pixel_size_um) for n in shape)
        square = (2 * np.pi) ** 2 * (qy[:, None] ** 2 + qx[None, :] ** 2)
        floor = (2 * np.pi / longest_um) ** 2
        self._filter = (wave_per_um * square / (square**2 + floor**2)).astype(np.float32)

    def phase(self, planes: Sequence[NDArray[np.generic]], *, dark_counts: float = 0.0) -> NDArray[np.float32]:
        """Return the phase, (H, W) float32 rad, with mean 0.

        Parameters
        ----------
        planes
            (H, W) counts each, as many as there are positions.
        dark_counts
            The camera's offset.

        Raises
        ------
        RigError
            The planes are too few, of another shape, dark, or hold NaN.
        """
        if len(planes) != len(self._slopes):
            raise RigError(f"Phase by TIE was set up for {len(self._slopes)} planes and got {len(planes)}.")
        slope = np.zeros(self._shape, np.float32)
        for number, (plane, factor) in enumerate(zip(planes, self._slopes, strict=True)):
            light = np.asarray(plane, np.float32)
            if light.shape != self._shape:
                raise RigError(f"Plane {number} has shape {light.shape}; phase by TIE was set up for {self._shape}.")
            mean = float(light.mean()) - dark_counts
            if not mean > 0:  # NaN too
                raise RigError(
                    f"Plane {number} has a mean of {mean:.3g} counts above the camera's offset of {dark_counts:g}, or "
                    "holds NaN; open the shutter, or correct the offset."
                )
            # each plane by its own mean, so that a flickering lamp is no slope
            slope += (light - np.float32(dark_counts)) * np.float32(factor / mean)
        spectrum = fft.dctn(slope, overwrite_x=True)
        spectrum *= self._filter
        return np.asarray(fft.idctn(spectrum, overwrite_x=True), np.float32)


def _check(
    z_um: Sequence[float],
    pixel_size_um: float,
    wavelength_um: float,
    medium_index: float,
    longest_um: float,
    z_sign: int,
) -> None:
    numbers = {
        "pixel size (um)": pixel_size_um,
        "wavelength (um)": wavelength_um,
        "medium's refractive index": medium_index,
        "longest structure (um)": longest_um,
    }
    for name, value in numbers.items():
        if not isinstance(value, int | float) or not (np.isfinite(value) and value > 0):
            raise RigError(f"Phase by TIE needs the {name}, above 0, and has {value!r}.")
    if z_sign not in (1, -1):
        raise RigError(f"The direction of z is {z_sign!r}; it is 1 or -1.")
    z = np.asarray(z_um, np.float64)
    if z.ndim != 1 or z.size not in (2, 3) or not np.isfinite(z).all() or len(np.unique(z)) != z.size:
        raise RigError(f"Phase by TIE needs two or three different positions of the stage in um; got {list(z_um)}.")


def _slopes(z_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each plane's factor in dI/dz: a difference, or the slope in the middle of a parabola through three."""
    if z_um.size == 2:
        return np.array([-1.0, 1.0]) / float(z_um[1] - z_um[0])
    middle = np.median(z_um)
    rows = np.stack([np.ones(3), z_um - middle, (z_um - middle) ** 2])
    return np.asarray(np.linalg.solve(rows, np.array([0.0, 1.0, 0.0])))
