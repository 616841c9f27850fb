"""The phase of what is no cell: a smooth surface under the field, its noise, and how sure both are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Real = NDArray[np.float64]

__all__ = ["Background", "fit_background"]

_GUARD_PX = 3  # round each cell: its blurred rim is no background
_BLOCK_PX = 16
_LEAST_BLOCK_SHARE = 0.2  # of a block's pixels that must be free for it to count
_BLOCKS_A_TERM = 3
_TUKEY = 4.685  # bisquare: 95 % efficient for Gaussian noise (Beaton and Tukey 1974)
_FARTHEST_PX = 128  # to which noise is looked at for correlation
_LEAST_PAIRS = 200  # of pixels, for the covariance at a distance


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """A polynomial surface fitted to the cell-free pixels.

    Attributes
    ----------
    surface_rad
        (H, W) float64; NaN where `reason` says why there is none.
    covariance_rad2
        (n,) covariance of the noise of pixels 0, 1, 2, ... pixels apart; 0 from where it is lost in its own noise.
    terms
        (k, H, W): the polynomials.
    terms_covariance
        (k, k): of their factors.
    reason
        Why there is none; "" otherwise.
    """

    surface_rad: Real
    covariance_rad2: Real
    terms: Real
    terms_covariance: Real
    reason: str = ""

    @property
    def noise_rad(self) -> float:
        """Standard deviation of a pixel."""
        return float(np.sqrt(self.covariance_rad2[0]))

    def sum_variance(self, areas_px: Real) -> Real:
        """Return the variance of the noise summed over discs of these areas, (n,) to (n,), rad^2."""
        lags, at = _lags(len(self.covariance_rad2) - 1)
        covariance = self.covariance_rad2[at]
        used = covariance > 0
        radius = np.sqrt(np.asarray(areas_px, np.float64) / np.pi)[:, None]
        half = np.minimum(lags[used][None, :] / 2, radius)
        # area common to a disc and itself shifted
        common = 2 * radius**2 * np.arccos(half / np.maximum(radius, 1e-9)) - 2 * half * np.sqrt(radius**2 - half**2)
        return np.asarray(common @ covariance[used])


def fit_background(phase_rad: NDArray[np.floating], free: NDArray[np.bool_], *, order: int = 2) -> Background:
    """Fit a surface to the cell-free pixels of a phase image, little moved by debris and halo.

    Medians of square blocks, a twelfth of the field but 4 to 16 pixels wide, are fitted by bisquare-reweighted least
    squares; pixels within 3 of a cell are left out.

    Parameters
    ----------
    phase_rad
        (H, W) float; NaN is left out.
    free
        (H, W), True where there is no cell.
    order
        Of the polynomial, 0 to 3.
    """
    usable = ndimage.binary_erosion(free, iterations=_GUARD_PX, border_value=1) & np.isfinite(phase_rad)
    terms = _terms(phase_rad.shape, order)
    block = int(np.clip(min(phase_rad.shape) // 12, 4, _BLOCK_PX))
    centres, counts = _blocks(usable, block)
    if len(counts) < _BLOCKS_A_TERM * len(terms):
        of = "free of cells (and of their rims)" if np.isfinite(phase_rad).all() else "free of cells and has a phase"
        share = np.count_nonzero(usable) / max(usable.size, 1)
        reason = f"only {share:.1%} of the field is {of}: too little for the background"
        nothing = np.full(phase_rad.shape, np.nan)
        unknown = np.full((len(terms), len(terms)), np.nan)
        return Background(nothing, np.full(1, np.nan), terms, unknown, reason)
    rows = np.stack([_per_block(term, usable, block, np.nanmean) for term in terms], axis=1)
    surface = np.zeros(phase_rad.shape)
    for _ in range(2):  # once more on what is left: a steep surface puts the median of half a block beside its mean
        medians = _per_block(phase_rad - surface, usable, block, np.nanmedian)
        factors, weights = _robust(rows, medians, np.sqrt(counts))
        surface = surface + np.tensordot(factors, terms, 1)
    covariance = _covariance(np.where(usable, phase_rad - surface, 0), usable)
    return Background(surface, covariance, terms, _factors_covariance(rows, weights, centres, counts, covariance))


def _terms(shape: tuple[int, ...], order: int) -> Real:
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None, :]
    return np.stack([np.broadcast_to(y**i * x**j, shape) for i in range(order + 1) for j in range(order + 1 - i)])


def _cut(image: NDArray[np.generic], block: int) -> NDArray[np.generic]:
    """Return (blocks, pixels of a block); what does not fill a block at the end is left out."""
    rows, cols = (n // block for n in image.shape)
    whole = image[: rows * block, : cols * block].reshape(rows, block, cols, block)
    return whole.swapaxes(1, 2).reshape(rows * cols, block * block)


def _blocks(usable: NDArray[np.bool_], block: int) -> tuple[NDArray[np.intp], Real]:
    """Return middle pixel and number of usable pixels of each block that has enough."""
    counts = _cut(usable, block).sum(axis=1)
    at = np.flatnonzero(counts >= _LEAST_BLOCK_SHARE * block**2)
    cols = usable.shape[1] // block
    return np.stack([at // cols, at % cols], axis=1) * block + block // 2, counts[at].astype(np.float64)


def _per_block(image: NDArray[np.floating], usable: NDArray[np.bool_], block: int, of: Callable[..., Real]) -> Real:
    """Return the mean or median over the usable pixels of each block that has enough."""
    inside = _cut(usable, block)
    enough = inside.sum(axis=1) >= _LEAST_BLOCK_SHARE * block**2
    return of(np.where(inside[enough], _cut(image, block)[enough], np.nan).astype(np.float64), axis=1)


def _robust(rows: Real, values: Real, trust: Real) -> tuple[Real, Real]:
    """Return the factors, and the final weight of each value."""
    weights = trust.copy()
    factors: Real = np.zeros(rows.shape[1])
    for _ in range(20):
        before = factors
        factors = np.asarray(np.linalg.lstsq(rows * weights[:, None], values * weights, rcond=None)[0], np.float64)
        off = values - rows @ factors
        scale = max(1.4826 * float(np.median(np.abs(off))), 1e-9)
        inside = np.maximum(1 - (off / (_TUKEY * scale)) ** 2, 0)
        weights = trust * inside
        if np.allclose(factors, before, rtol=1e-6, atol=1e-9):
            break
    return factors, weights


def _covariance(residual: Real, usable: NDArray[np.bool_]) -> Real:
    """Return the covariance of the residual against distance, from all pairs of usable pixels."""
    scale = 1.4826 * float(np.median(np.abs(residual[usable])))
    kept = usable & (np.abs(residual) <= 6 * max(scale, 1e-9))
    shape = [fft.next_fast_len(n + _FARTHEST_PX, real=True) for n in residual.shape]

    def own(image: NDArray[np.generic]) -> Real:
        spectrum = fft.rfft2(image.astype(np.float64), s=shape)
        return np.asarray(fft.irfft2(spectrum.real**2 + spectrum.imag**2, s=shape))

    reach = min(_FARTHEST_PX, *(n - 1 for n in residual.shape))
    _, at = _lags(reach)
    window = np.ix_(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    products = np.bincount(at, own(np.where(kept, residual, 0))[window].ravel(), reach + 1)
    pairs = np.bincount(at, own(kept)[window].ravel(), reach + 1)
    covariance = np.where(pairs >= _LEAST_PAIRS, products / np.maximum(pairs, 1), 0.0)
    covariance[0] = max(covariance[0], 1e-18)
    # beyond the first distance where it is no longer positive it is the noise of this estimate
    ends = np.flatnonzero(covariance <= 0)
    if len(ends):
        covariance[ends[0] :] = 0
    return covariance


def _lags(reach: int) -> tuple[Real, NDArray[np.intp]]:
    """Return the distance of every pixel of a square from its middle, and the same rounded; flat."""
    line = np.arange(-reach, reach + 1)
    distance = np.hypot(line[:, None], line[None, :]).ravel()
    return distance, np.minimum(np.round(distance).astype(np.intp), reach)


def _factors_covariance(rows: Real, weights: Real, centres: NDArray[np.intp], counts: Real, covariance: Real) -> Real:
    """Return the covariance of the factors, given that the noise of neighbouring blocks is alike."""
    reach = len(covariance) - 1
    lags, at = _lags(reach)
    apart = np.hypot(*(centres[:, None] - centres[None, :]).transpose(2, 0, 1))
    padded = np.append(covariance, 0.0)
    between = padded[np.minimum(np.round(apart).astype(np.intp), reach + 1)]
    size = np.sqrt(counts)
    overlap = np.maximum(size[:, None] - lags[None, lags < 2 * _BLOCK_PX], 0) ** 2
    within = overlap @ covariance[at[lags < 2 * _BLOCK_PX]] / counts**2
    np.fill_diagonal(between, within * np.pi / 2)  # a median is that much noisier than a mean
    weighted = rows * weights[:, None] ** 2
    solve = np.linalg.pinv(weighted.T @ rows) @ weighted.T
    return np.asarray(solve @ between @ solve.T)
