"""Camera planes to contrast: each plane relative to the light that would be there without cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Contrast", "flat_contrast", "why_no_defocus"]

LEAST_FREE = 0.03  # share of the field that must be free of cells to know the lamp
CROWDED = 0.2  # share of free pixels up to which the planes' brightness alone may differ
LEAST_SPACING_UM = 0.05  # planes nearer than this hold the same picture
LEAST_SIGNAL = 1.1  # times the noise, in power, in the planes' differences: one small cell gives 1.3
_BLOCK_PX = 8  # the lamp is fitted to means of blocks: smooth things need no more
_LAMP_DEGREE, _DRIFT_DEGREE = 4, 2


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """`values` (P, Y, X) float32, 0 where there is no cell; all NaN with a `reason` where there is none to have."""

    values: NDArray[np.float32]
    reason: str = ""


def why_no_defocus(planes: NDArray[np.generic], z_um: Sequence[float], dark_counts: float = 0.0) -> str:
    """Return why (P, Y, X) planes at `z_um` cannot tell phase, or "" if they can.

    It looks for planes that are missing, not finite, at the same height, or the same picture in all of them.
    """
    if len(z_um) < 2 or len(planes) != len(z_um):
        return f"{len(planes)} planes for {len(z_um)} heights: phase from defocus needs a plane at each of two or more"
    if not np.isfinite(z_um).all():
        return f"the heights {list(z_um)} are not all numbers"
    if max(z_um) - min(z_um) < LEAST_SPACING_UM:
        return f"all planes are at the same height ({z_um[0]:g} um): no defocus between them"
    for number, plane in enumerate(planes):
        if not np.isfinite(plane).all():
            return f"plane {number} has values that are not numbers"
        if float(np.median(plane)) <= dark_counts:
            return f"plane {number} is dark: it is missing, or the light was off"
    scaled = [np.asarray(p, np.float32) - np.float32(dark_counts) for p in planes]
    scaled = [p / np.float32(np.median(p)) for p in scaled]
    if max(_signal(p - scaled[0]) for p in scaled[1:]) < LEAST_SIGNAL:
        return "the planes do not differ beyond their noise: the stage did not move, or nothing is there"
    return ""


def _signal(difference: NDArray[np.float32]) -> float:
    """Return the power at middle frequencies over that at the highest, where a camera has but noise."""
    if not difference.any():
        return 0.0
    power = fft.dctn(difference, norm="ortho") ** 2
    rows, cols = power.shape
    r = np.hypot(np.arange(rows)[:, None] / rows, np.arange(cols)[None, :] / cols)
    return float(power[(r > 0.05) & (r < 0.35)].mean() / max(float(power[r > 1].mean()), 1e-30))


def flat_contrast(
    planes: NDArray[np.generic], cells: NDArray[np.bool_], keep_off_px: float, dark_counts: float = 0.0
) -> Contrast:
    """Return planes (P, Y, X) divided by their lamp, less 1.

    The lamp is a smooth surface through the pixels that are free of `cells` (Y, X), the same for all planes but for
    its brightness and a gentle tilt. What does not move with focus, like dust, stays in: it is taken out where the
    planes are compared.

    Parameters
    ----------
    planes
        Counts.
    cells
        Where cells are.
    keep_off_px
        Distance from a cell within which its diffraction fringes spoil the lamp.
    dark_counts
        What the camera gives without light; left in, it makes every mass too small.
    """
    values = np.asarray(planes, np.float32) - np.float32(dark_counts)
    free = ndimage.distance_transform_edt(~cells) > keep_off_px if cells.any() else ~cells
    if free.mean() < LEAST_FREE:
        free = ~cells  # crowded: fringes of cells are better than no background
    if free.mean() < LEAST_FREE:
        reason = f"cells cover {100 * (1 - free.mean()):.0f} % of the field: no background to compare them with"
        return Contrast(np.full_like(values, np.nan), reason)
    values /= np.array([np.median(p[free]) for p in values], np.float32)[:, None, None]
    blocks = _Blocks(free)
    values /= blocks.surface(values.mean(axis=0), _LAMP_DEGREE)
    values -= 1
    mean = values.mean(axis=0)
    degree = _DRIFT_DEGREE if free.mean() > CROWDED else 0  # few pixels' fringes would tilt the whole field
    for value in values:
        value -= blocks.surface(value - mean, degree)
    return Contrast(values)


class _Blocks:
    """Fits smooth surfaces to the free pixels of an image, by means over blocks."""

    def __init__(self, free: NDArray[np.bool_]) -> None:
        self._free = free.astype(np.float32)
        count = _block_sums(self._free)
        use = count > min(0.25 * _BLOCK_PX**2, float(count.max()) - 1)
        self._at, self._count = np.nonzero(use), count[use]

    def surface(self, image: NDArray[np.float32], degree: int) -> NDArray[np.float32]:
        """Return the polynomial of total `degree` nearest to the free pixels of `image`, (Y, X) float32."""
        pairs = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
        y, x = (_legendre(np.arange(n), n, degree) for n in image.shape)
        y_block, x_block = (_legendre(_block_centres(n), n, degree) for n in image.shape)
        design = np.stack([y_block[self._at[0], i] * x_block[self._at[1], j] for i, j in pairs], axis=1)
        means = _block_sums(image * self._free)[self._at] / self._count
        weight = np.sqrt(self._count)
        found = np.linalg.lstsq(design * weight[:, None], means * weight, rcond=None)[0]
        matrix = np.zeros((degree + 1, degree + 1), np.float32)
        for (i, j), value in zip(pairs, found, strict=True):
            matrix[i, j] = value
        return np.asarray(y.astype(np.float32) @ matrix @ x.astype(np.float32).T)


def _legendre(at_px: NDArray[np.generic], n: int, degree: int) -> NDArray[np.float64]:
    return np.asarray(np.polynomial.legendre.legvander(2 * (np.asarray(at_px, float) + 0.5) / n - 1, degree), float)


def _block_centres(n: int) -> NDArray[np.float64]:
    starts = np.arange(0, n, _BLOCK_PX)
    return (starts + np.minimum(starts + _BLOCK_PX, n) - 1) / 2


def _block_sums(image: NDArray[np.float32]) -> NDArray[np.float32]:
    by_rows = np.add.reduceat(image, np.arange(0, image.shape[0], _BLOCK_PX), axis=0)
    return np.asarray(np.add.reduceat(by_rows, np.arange(0, image.shape[1], _BLOCK_PX), axis=1))
