"""Looks at one pair: there must be a stain, not saturated, and it must lie on the input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from livestain_models.data.registration import register

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livestain_models.data.registration import Registration

__all__ = ["SATURATED", "TOLERANCE_UM", "USELESS", "PairCheck", "check_pair", "is_empty", "saturated_share"]

TOLERANCE_UM = 1.5  # how far input and stain may be apart; stands in the recipe too, where it can be changed
SATURATED = 1e-3  # share of a field's pixels at the camera's maximum from which we say so
USELESS = 1e-2  # and from which the field is left out: cells cover a tenth of a field, so a tenth of them is lost

_FULL_SCALES = tuple((1 << bits) - 1 for bits in (8, 10, 11, 12, 14, 16))
_BACKGROUND_UM = 15.0  # wider than any nucleus
_DETAIL_UM = 0.6  # narrower than any
_NOISE_TIMES = 8.0
_OF_BACKGROUND = 0.02  # pixels differ in sensitivity by so much: a long exposure of nothing has a pattern


@dataclass(frozen=True, slots=True)
class PairCheck:
    """What was seen of one stain at one position.

    Attributes
    ----------
    image
        Number of the image in the run's layout.
    target
        The stain's channel.
    saturated, input_saturated
        Share of the pixels at the camera's maximum, in the stain and in the transmitted light (its worst plane).
    empty
        Whether the stain shows nothing beyond the camera's noise.
    registration
        How it lies on the input; None if it is empty.
    """

    image: int
    target: str
    saturated: float
    input_saturated: float
    empty: bool
    registration: Registration | None


def check_pair(
    image: int,
    target: str,
    planes: NDArray[np.uint16],
    stain: NDArray[np.uint16],
    *,
    pixel_size_um: float,
    bits: int,
) -> PairCheck:
    """Look at the transmitted planes, (Z, H, W) uint16, and one stain, (H, W) uint16, of a position."""
    empty = is_empty(stain, pixel_size_um)
    return PairCheck(
        image,
        target,
        saturated=saturated_share(stain, bits),
        input_saturated=max(saturated_share(plane, bits) for plane in planes),
        empty=empty,
        registration=None if empty else register(planes, stain, pixel_size_um, TOLERANCE_UM),
    )


def saturated_share(plane: NDArray[np.uint16], bits: int) -> float:
    """Give the share of pixels at the camera's maximum.

    A camera may have fewer bits than it says (12 in a 16-bit file), so a pile-up at any full scale counts as well:
    ten times more pixels at 4095 than at 4094, and next to none above (hot pixels).
    """
    said = float(np.mean(plane >= (1 << bits) - 1))
    return max([said, *(_pile_up(plane, level) for level in _FULL_SCALES if level < (1 << bits) - 1)])


def _pile_up(plane: NDArray[np.uint16], level: int) -> float:
    at = np.count_nonzero(plane == level)
    if at < SATURATED * plane.size or at < 10 * (np.count_nonzero(plane == level - 1) + 1):
        return 0.0
    above = np.count_nonzero(plane > level)
    return at / plane.size if above < 0.1 * at else 0.0


def is_empty(stain: NDArray[np.uint16], pixel_size_um: float) -> bool:
    """Say whether a stain, (H, W), shows nothing but background and noise.

    What is brighter than its surroundings on the scale of nuclei is held against the noise that would be left there.
    Uneven light is wider, hot pixels are narrower; both are taken away.
    """
    step = max(1, round(_DETAIL_UM / pixel_size_um))  # a large field is thinned out once it is smoothed
    grey = ndimage.median_filter(stain, 3).astype(np.float32)
    sigma_px = max(1.0, _DETAIL_UM / pixel_size_um)
    smooth = ndimage.gaussian_filter(grey, sigma_px)[::step, ::step]
    background = _uneven_light(smooth)
    rest = smooth - background
    rest -= ndimage.gaussian_filter(rest, _BACKGROUND_UM / pixel_size_um / step)
    noise = float(np.median(np.abs(np.diff(stain.astype(np.float32), axis=1)))) / 0.954  # 0.6745 x sqrt(2)
    left = max(noise, 0.3) / (2 * math.sqrt(math.pi) * sigma_px)
    brightest = float(np.percentile(rest, 99.9))
    return brightest < max(_NOISE_TIMES * left, _OF_BACKGROUND * float(np.median(background)))


def _uneven_light(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fit a paraboloid to all but the brightest third of an image, (H, W)."""
    step = max(1, min(grey.shape) // 64)
    thin = grey[::step, ::step]
    y, x = (np.linspace(-1, 1, size, dtype=np.float32) for size in grey.shape)
    terms = _paraboloid(y[::step, None], x[None, ::step])
    dark = thin <= np.percentile(thin, 67)
    for _ in range(2):  # what the first fit leaves tells bright things from a bright corner
        weights, *_ = np.linalg.lstsq(np.stack([term[dark] for term in terms], axis=-1), thin[dark], rcond=None)
        rest = thin - sum(weight * term for weight, term in zip(weights, terms, strict=True))
        dark = rest <= np.percentile(rest, 67)
    fitted = sum(weight * term for weight, term in zip(weights, _paraboloid(y[:, None], x[None, :]), strict=True))
    return np.asarray(fitted, np.float32)


def _paraboloid(y: NDArray[np.float32], x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return list(np.broadcast_arrays(np.float32(1), x, y, x * x, x * y, y * y))
