"""Do transmitted light and stain lie on each other? numpy and scipy only: the rig asks as well.

Grey values of the two have nothing in common, but cells are where both have structure. So the texture of the
transmitted light (local contrast at two sizes, and the image itself less its surroundings) is correlated with the
stain at every shift, at several scales. How far the highest correlation stands above all others tells a match from
chance; where it stands tells the shift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import fft, ndimage

from livestain_models.data._texture import evidence_of, shrink, stain_map, texture_maps, zoomed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestain_models.data._texture import Evidence

__all__ = ["Registration", "register"]

Verdict = Literal["matches", "shifted", "scaled", "unrelated", "cannot tell"]

_FINE_PX, _COARSE_PX, _COARSE_FIELD_PX = 512, 256, 1024
_LEAST_PX = 32  # a smaller field holds too few cells
_NEAR_SCALES = (0.94, 0.97, 1.0, 1.03, 1.065)
# A step too far apart would jump over the peak, which is a tenth wide.
_FAR_SCALES = tuple(1.065**step for step in range(-11, 12) if abs(step) > 1)
# Heights in root mean squares of the correlations at all shifts. In trials on real and simulated fields true pairs had
# 12.7 to 19.4, exchanged ones up to 9.2 somewhere (sparse fields of rods) and up to 2.7 at no shift. Fields with 4 to 8
# stained cells had 2.4 to 6 at no shift: they are kept.
_ANYWHERE, _HERE, _NOT_HERE = 9.4, 5.0, 4.0
_SAME = 0.97  # of the highest: too little difference to prefer one place to another
_BETTER = 1.1  # at another scale than anywhere at this one
_FARTHEST = 0.25  # of the field: a shift beyond is chance rather than a camera out of place
_RELIABLE, _PLACES = 0.3, 12.0  # below that, nothing is said


@dataclass(frozen=True, slots=True)
class Registration:
    """Whether a stain lies on its transmitted light.

    Parameters
    ----------
    verdict : str
        "cannot tell" where there is too little structure.
    shift_um : tuple of float
        Rows and columns by which the stain lies below and to the right of the transmitted light.
    shift_px : tuple of float
        The same in pixels.
    scale : float
        Of the stain's image over that of the transmitted light: above 1 it shows cells larger.
    strength : float
        How far the correlation stands out, in root mean squares of the correlations at all shifts.
    """

    verdict: Verdict
    shift_um: tuple[float, float]
    shift_px: tuple[float, float]
    scale: float
    strength: float

    def __str__(self) -> str:
        down, right = self.shift_px
        um = math.hypot(*self.shift_um)
        return {
            "matches": f"the stain lies on the transmitted light (within {um:.1f} um)",
            "shifted": f"the stain lies {down:+.0f} px down and {right:+.0f} px right of the transmitted light "
            f"({um:.1f} um off)",
            "scaled": f"the stain is {self.scale:.2f} times as large as the transmitted light",
            "unrelated": "the stain shows another place than the transmitted light, at no shift or scale do they match",
            "cannot tell": "there is too little structure to tell whether stain and transmitted light match",
        }[self.verdict]


@dataclass(frozen=True, slots=True)
class _Peak:
    """The highest correlation at one scale, and the highest within the tolerance of no shift."""

    scale: float
    shift_px: tuple[float, float]
    height: float
    at_zero: float


def register(planes: np.ndarray, stain: np.ndarray, pixel_size_um: float, tolerance_um: float) -> Registration:
    """Say whether a stain lies on its transmitted light.

    Parameters
    ----------
    planes : np.ndarray
        (Z, H, W) grey values of transmitted light; up to three of them are looked at.
    stain : np.ndarray
        (H, W) grey values.
    pixel_size_um : float
    tolerance_um : float
        Up to which a shift counts as none; at least one pixel of the shrunken images (2 px of a frame of 1024).

    Returns
    -------
    Registration
    """
    depth = len(planes)
    chosen = [np.asarray(planes[z]) for z in sorted({depth // 4, depth // 2, 3 * depth // 4})]
    images, tolerance_px = [*chosen, np.asarray(stain)], tolerance_um / pixel_size_um
    whole, factor = _shrunken(images, max(stain.shape), _FINE_PX)
    if min(whole[-1].shape) < _LEAST_PX:
        return Registration("cannot tell", (0.0, 0.0), (0.0, 0.0), 1.0, 0.0)
    found = _Correlator(whole[:-1], whole[-1], factor, tolerance_px).at(1.0)
    middle = tuple(slice(max(side - _COARSE_FIELD_PX, 0) // 2, (side + _COARSE_FIELD_PX) // 2) for side in stain.shape)
    part, factor = _shrunken([image[middle] for image in images], min(max(stain.shape), _COARSE_FIELD_PX), _COARSE_PX)
    coarse = _Correlator(part[:-1], part[-1], factor, tolerance_px)
    scales = [coarse.at(scale) for scale in _NEAR_SCALES]
    if found.height < _ANYWHERE or _best(scales).scale != 1:
        scales += [coarse.at(scale) for scale in _FAR_SCALES]
    verdict, peak = _judge(found, scales, evidence_of(whole[len(chosen) // 2], whole[-1]), max(stain.shape))
    down, right = peak.shift_px
    shift_um = (down * pixel_size_um, right * pixel_size_um)
    return Registration(verdict, shift_um, peak.shift_px, 1 / peak.scale, peak.height)


def _shrunken(images: Sequence[np.ndarray], side_px: int, wanted_px: int) -> tuple[list[np.ndarray], int]:
    factor = -(-side_px // wanted_px)
    return [shrink(image, factor) for image in images], factor


def _best(scales: Sequence[_Peak]) -> _Peak:
    """Give the scale at which the two lie on each other best."""
    return max(scales, key=lambda peak: peak.at_zero)


def _judge(found: _Peak, scales: Sequence[_Peak], evidence: Evidence, side_px: int) -> tuple[Verdict, _Peak]:
    (same,) = (peak for peak in scales if peak.scale == 1)
    best = _best(scales)
    if best.scale != 1 and best.at_zero >= max(_HERE, _BETTER * same.height):
        return "scaled", best
    here = found.at_zero >= _SAME * found.height
    farthest_px = max(map(abs, found.shift_px))
    if not here and found.height >= _ANYWHERE and farthest_px <= _FARTHEST * side_px and evidence.places >= _PLACES / 2:
        return "shifted", found
    if here and found.height >= _HERE and evidence.reliability >= _RELIABLE:
        return "matches", found
    # A montage repeats itself: then it matches here as well as elsewhere, and nothing can be said.
    if here or evidence.reliability < _RELIABLE or evidence.places < _PLACES or found.at_zero >= _NOT_HERE:
        return "cannot tell", found
    return "unrelated", found


class _Correlator:
    """Correlates the textures of transmitted light with a stain at any scale."""

    def __init__(self, planes: Sequence[np.ndarray], stain: np.ndarray, factor: int, tolerance_px: float) -> None:
        self._stain, self._factor = stain, factor
        self._reach = max(round(tolerance_px / factor), 1)
        # Padded to twice the side: shifts do not wrap around.
        self._shape = tuple(fft.next_fast_len(2 * side, real=True) for side in stain.shape)
        self._spectra = [np.conj(fft.rfft2(texture, self._shape)) for texture in texture_maps(planes)]

    def at(self, scale: float) -> _Peak:
        """Look at a stain that is zoomed about its middle."""
        stain = stain_map(zoomed(self._stain, scale))
        sizes = list(zip(self._stain.shape, stain.shape, self._shape, strict=True))
        overlap = np.multiply.outer(*(_overlap(*size) for size in sizes))
        possible = overlap >= 0.3 * overlap.max()
        weight = possible / np.maximum(overlap, 1)  # a sum over n pixels varies by sqrt(n)
        spectrum = fft.rfft2(stain, self._shape)
        energy = np.zeros(self._shape, np.float32)
        for texture in self._spectra:
            squared = np.square(fft.irfft2(texture * spectrum, self._shape)) * weight
            energy += squared / (squared.sum() / possible.sum() + 1e-12)
        # Squares, smoothed: a cell's edges, or the shading of a gradient contrast, answer around the right place
        # with either sign, and on average at it.
        heights = np.sqrt(fft.fftshift(_smooth(energy) / len(self._spectra))) * fft.fftshift(possible)
        zero = [n // 2 - (size - zoomed_size) // 2 for size, zoomed_size, n in sizes]
        best = np.unravel_index(np.argmax(heights), heights.shape)
        near = heights[tuple(slice(at - self._reach, at + self._reach + 1) for at in zero)]
        down, right = (float(at - start) * self._factor for at, start in zip(best, zero, strict=True))
        return _Peak(scale, (down, right), float(heights[best]), float(near.max()))


def _smooth(energy: np.ndarray) -> np.ndarray:
    found: np.ndarray = ndimage.uniform_filter(ndimage.uniform_filter(energy, 5, mode="wrap"), 5, mode="wrap")
    return found


def _overlap(first: int, second: int, length: int) -> np.ndarray:
    """How many pixels overlap along one axis, by shift; negative shifts wrap to the end."""
    shift = np.arange(length)
    shift = np.where(shift >= (length + 1) // 2, shift - length, shift)
    common = np.minimum(first, second - shift) - np.maximum(0, -shift)
    found: np.ndarray = np.maximum(common, 0).astype(np.float32)
    return found
