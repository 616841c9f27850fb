"""Maps of where an image has structure, on which transmitted light and stain can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Evidence", "blur", "evidence_of", "shrink", "stain_map", "texture_maps", "zoomed"]

_SLOW_PX = 39  # side of a window, in shrunken pixels: what varies over more than that is illumination
_BLOCKS = 8


@dataclass(frozen=True, slots=True)
class Evidence:
    """How much there is to go by.

    Parameters
    ----------
    reliability : float
        Correlation of two interleaved samples: 0 for noise, 1 for structure without any.
    places : float
        Of the 64 blocks of the field, how many hold its structure (participation ratio): 1 for a single cell.
    """

    reliability: float
    places: float


def texture_maps(planes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Map the structure of transmitted light.

    Parameters
    ----------
    planes : sequence of np.ndarray
        (H, W) float32 grey values.

    Returns
    -------
    list of np.ndarray
        (H, W) float32 each, mean 0 and variance 1: contrast on a small and on a larger scale, and the image less its
        surroundings; means over the planes.
    """
    fine, coarse, signed = (np.zeros(planes[0].shape, np.float32) for _ in range(3))
    for plane in planes:
        relative = plane / max(float(plane.mean()), 1e-9)
        large = _flat(relative, 4.0)
        fine += blur(np.abs(_flat(relative, 2.0)), 1.5)
        coarse += blur(np.abs(large), 4.0)
        signed += blur(large, 1.0)
    return [_tame(_level(image)) for image in (fine, coarse, signed)]


def stain_map(stain: np.ndarray) -> np.ndarray:
    """Map the structure of a stain, (H, W) to the same, mean 0 and variance 1.

    The root brings bright and dim cells closer together, so that no single one decides.
    """
    over = np.sqrt(np.maximum(stain - np.percentile(stain[::2, ::2], 10), 0))
    return _tame(_level(blur(over, 1.0)))


def evidence_of(plane: np.ndarray, stain: np.ndarray) -> Evidence:
    """Say how much there is to go by in two images that are to be compared, (H, W) float32 each."""
    light, stained = _evidence(plane, lambda image: texture_maps([image])[2]), _evidence(stain, stain_map)
    return Evidence(min(light.reliability, stained.reliability), min(light.places, stained.places))


def _evidence(image: np.ndarray, mapped: Callable[[np.ndarray], np.ndarray]) -> Evidence:
    """Compare two interleaved samples of an image: what they share is structure, what they do not is noise."""
    height, width = (side // (2 * _BLOCKS) * 2 * _BLOCKS for side in image.shape)
    first, second = mapped(image[:height:2, :width:2]), mapped(image[1:height:2, 1:width:2])
    shared = (first * second).reshape(_BLOCKS, height // (2 * _BLOCKS), _BLOCKS, width // (2 * _BLOCKS)).mean((1, 3))
    energy = np.maximum(shared, 0)
    return Evidence(float(shared.mean()), float(energy.sum() ** 2 / (np.square(energy).sum() + 1e-12)))


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of pixels, (H, W) to (H // factor, W // factor) float32."""
    height, width = (side // factor * factor for side in image.shape)
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor)
    means: np.ndarray = blocks.mean((1, 3), dtype=np.float32)
    return means


def zoomed(image: np.ndarray, scale: float) -> np.ndarray:
    """Zoom about the middle; a smaller image comes back smaller, a larger one is cut to the size it had."""
    if scale == 1:
        return image
    size = tuple(min(side, int(side * scale)) for side in image.shape)
    start = [(side - 1) / 2 - (out - 1) / 2 / scale for side, out in zip(image.shape, size, strict=True)]
    image = blur(image, 0.5 / scale) if scale < 1 else image
    found: np.ndarray = ndimage.affine_transform(
        image, [1 / scale, 1 / scale], offset=start, output_shape=size, order=1, mode="nearest"
    )
    return found


def blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """Blur with a Gaussian, mirrored at the edges."""
    found: np.ndarray = ndimage.gaussian_filter(image, sigma_px, mode="reflect", truncate=3.0)
    return found


def _level(image: np.ndarray) -> np.ndarray:
    # Two boxes come close to a Gaussian, at a cost that does not grow with their size.
    slow = ndimage.uniform_filter(ndimage.uniform_filter(image, _SLOW_PX, mode="reflect"), _SLOW_PX, mode="reflect")
    found: np.ndarray = image - slow
    return found


def _flat(image: np.ndarray, sigma_px: float) -> np.ndarray:
    found: np.ndarray = image - blur(image, sigma_px)
    return found


def _tame(image: np.ndarray) -> np.ndarray:
    """Bring outliers into range, so that dust does not decide; mean 0, variance 1."""
    image = image - np.median(image[::2, ::2])
    image = np.tanh(image / (3 * np.percentile(np.abs(image[::2, ::2]), 90) + 1e-9))
    image = image - image.mean()
    found: np.ndarray = (image / (image.std() + 1e-9)).astype(np.float32)
    return found
