"""Brings a measured field back into focus: light in free space changes by a known phase for each frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from livestain._errors import RigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["refocus"]


def refocus(
    field: NDArray[np.complexfloating],
    distance_um: float,
    *,
    pixel_size_um: float,
    wavelength_um: float,
    medium_index: float = 1.0,
) -> NDArray[np.complex128]:
    """Return the field at another plane, by the angular spectrum (Goodman, Introduction to Fourier Optics, 3.10).

    Phase that a rig delivers out of focus sums to too little: a sphere of 1 rad loses 3 % in 10 um. Focus the field
    before taking its angle.

    Parameters
    ----------
    field
        (H, W) complex, divided by the field without a sample, so that it is about 1 where there is nothing.
    distance_um
        How far along the light; negative goes back towards the lamp.
    pixel_size_um, wavelength_um
        Edge of a pixel in the sample; wavelength in vacuum.
    medium_index
        Refractive index of what the light goes through.

    Raises
    ------
    RigError
        A number is missing or cannot be, or the field is no image.
    """
    if field.ndim != 2 or not np.isfinite(field).all():
        raise RigError(f"The field to focus has shape {field.shape}, or holds NaN; give a finite image.")
    for name, value in (("pixel size", pixel_size_um), ("wavelength", wavelength_um), ("index", medium_index)):
        if not (np.isfinite(value) and value > 0):
            raise RigError(f"The {name} is {value!r}; focusing needs it, above 0.")
    # what leaves the field on one side must not come back on the other: a margin of empty field
    margin = [(n // 2, n - n // 2) for n in field.shape]
    change = np.pad(field - 1, margin)
    qy, qx = (fft.fftfreq(n, pixel_size_um) for n in change.shape)
    square = qy[:, None] ** 2 + qx[None, :] ** 2
    limit = (medium_index / wavelength_um) ** 2
    wave = 2 * np.pi * distance_um * (np.sqrt(np.maximum(limit - square, 0)) - np.sqrt(limit))
    change = fft.ifft2(fft.fft2(change) * np.exp(1j * wave) * (square < limit))
    (top, _), (left, _) = margin
    return np.asarray(1 + change[top : top + field.shape[0], left : left + field.shape[1]])
