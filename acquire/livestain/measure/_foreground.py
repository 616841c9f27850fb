"""Where an image shows something: background, threshold, and the honest answer that nothing stands out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["bright_part", "otsu", "phase_part", "pooled", "shrunk", "smoothed", "spread_out"]

_SKIP = 2  # levels are found on every second pixel of every second row: smoothed neighbours tell the same
_DISTINCT = 4.0  # robust standard deviations; white noise that Otsu halves gives 2.7
_BINS = 256
_MOST_PASSES = 8
_SHORTH = 0.25  # of all pixels: the background is found while it covers about a quarter of the field or more
_SHORTH_SIGMAS = 0.637  # width of the middle quarter of a normal distribution, in standard deviations
_SOFT = 3.0  # standard deviations of the background up to which grey levels count linearly


def bright_part(smooth: NDArray[np.float32], share: float = 0.5) -> NDArray[np.bool_] | None:
    """Give where a stain is brighter than `share` of the way from the background to what is stained.

    Otsu's threshold on the square root finds the two levels: the root makes shot noise even and lets dim cells pass
    beside bright ones. Halfway between the levels lies the edge of a blurred object, which Otsu's own is not.

    Parameters
    ----------
    smooth
        (Y, X), smoothed.
    share
        0 is the background's level, 1 that of the stained part.

    Returns
    -------
    np.ndarray or None
        (Y, X) bool; None where nothing stands out by 4 robust standard deviations of the dark part.

    References
    ----------
    Otsu 1979, doi:10.1109/TSMC.1979.4310076.
    """
    some = smooth[::_SKIP, ::_SKIP]
    root = np.sqrt(np.maximum(some - np.percentile(some, 1), 0))
    threshold = _distinct(root)
    if threshold is None:
        return None
    bright = root > threshold
    low, high = float(np.median(some[~bright])), float(np.median(some[bright]))
    return np.asarray(smooth > low + share * (high - low))


def phase_part(smooth: NDArray[np.float32]) -> tuple[NDArray[np.bool_] | None, float]:
    """Give where a phase image lies above its background, and the background's level.

    Phase falls to nothing at a cell's edge, and flat cells are ten times dimmer than round ones: so the threshold is
    Otsu's on the inverse hyperbolic sine, which is linear within the background's noise and logarithmic above. The
    background is the densest quarter of all values.

    Parameters
    ----------
    smooth
        (Y, X), smoothed.

    Returns
    -------
    np.ndarray or None
        (Y, X) bool; None where nothing stands out by 4 robust standard deviations of the dark part.
    float
        Level of the background.
    """
    some = smooth[::_SKIP, ::_SKIP]
    values = np.sort(some, axis=None)
    held = max(int(_SHORTH * values.size), 1)
    widths = values[held:] - values[:-held]
    if not widths.size:
        return None, float(values[0])
    start = int(np.argmin(widths))
    level = float(values[start + held // 2])
    noise = max(float(widths[start]) / _SHORTH_SIGMAS, float(np.ptp(values)) * 1e-4)
    if noise == 0:
        return None, level
    threshold = _distinct(np.arcsinh((some - level) / (_SOFT * noise)))
    return None if threshold is None else smooth > level + np.sinh(threshold) * _SOFT * noise, level


def _distinct(values: NDArray[np.float32]) -> float | None:
    """Give Otsu's threshold of `values`, if the medians of the two parts are far from each other."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return None
    threshold = otsu(values, low, high)
    bright = values > threshold
    dark = values[~bright]
    centre = float(np.median(dark))
    spread = 1.4826 * float(np.median(np.abs(dark - centre)))
    if not bright.any() or float(np.median(values[bright])) - centre < _DISTINCT * spread:
        return None
    return threshold


def otsu(values: NDArray[Any], low: float, high: float) -> float:
    """Give the threshold that parts `values`, which lie from `low` to `high`, into the two most compact classes."""
    counts, edges = np.histogram(values, _BINS, (low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(float)
    sum_below = np.cumsum(counts * centres)[:-1]
    n, total = float(counts.sum()), float((counts * centres).sum())
    between = (total * below - n * sum_below) ** 2 / np.maximum(below * (n - below), 1)
    return float(edges[1 + int(np.argmax(between))])


def pooled(image: NDArray[Any], step: int) -> NDArray[Any]:
    """Give the greatest value, at least 0, of each block of `step` x `step` pixels; the last blocks may be cut."""
    if step == 1:
        return image
    pool = np.zeros([-(-n // step) for n in image.shape], image.dtype)
    for row in range(step):
        for column in range(step):
            part = image[row::step, column::step]
            here = pool[: part.shape[0], : part.shape[1]]
            np.maximum(here, part, out=here)
    return pool


def spread_out(coarse: NDArray[Any], step: int, shape: tuple[int, int]) -> NDArray[Any]:
    """Give every block's value to its pixels: the way back from `pooled` to an image of `shape`."""
    if step == 1:
        return coarse
    return np.repeat(np.repeat(coarse, step, axis=0), step, axis=1)[: shape[0], : shape[1]]


def smoothed(image: NDArray[Any], sigma_px: float) -> NDArray[np.float32]:
    """Blur like a Gaussian of `sigma_px`; narrow ones as repeated (1, 2, 1) / 4, which costs a quarter of the time."""
    passes = round(2 * sigma_px**2)
    smooth = image.astype(np.float32)
    if passes > _MOST_PASSES:
        return np.asarray(ndimage.gaussian_filter(smooth, sigma_px, truncate=2.5))
    for _ in range(passes):
        smooth = _blurred_rows(_blurred_rows(smooth).T).T
    return np.ascontiguousarray(smooth)


def _blurred_rows(image: NDArray[np.float32]) -> NDArray[np.float32]:
    quarter = image * np.float32(0.25)
    blurred = quarter + quarter
    blurred[1:] += quarter[:-1]
    blurred[:-1] += quarter[1:]
    blurred[0] += quarter[0]
    blurred[-1] += quarter[-1]
    return blurred


def shrunk(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """Take the outermost pixels off a mask, `times` times; at the field's edge nothing is taken off."""
    for _ in range(times):
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        mask = inner
    return mask
