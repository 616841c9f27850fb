"""The noise ceiling: which Pearson correlation even a perfect, noiseless prediction could not exceed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from livestain_models._errors import DataError

__all__ = ["Ceiling", "noise_ceiling", "noise_variance", "repeats_noise_variance"]

_MEDIAN_OF_SQUARES = 0.454936  # of a normal variate of variance 1 (chi-square, one degree of freedom)
_FLAT, _FLAT_CHANCE = 1.25, 7.0  # inner over outer corner of the spectrum; chance: three sigma, over root of count
_SMALLEST_PX = 64
_SATURATED = 1e-3
_ALL_NOISE = 0.97


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The greatest Pearson correlation that the noise of a real image leaves room for.

    Parameters
    ----------
    pearson : float
        C_max in [0, 1]; NaN where the image is too small.
    noise_sd : float
        Standard deviation of the real image's noise, root of its mean variance, in the image's unit.
    doubt : str
        Why the estimate is not to be trusted; empty where nothing speaks against it.
    """

    pearson: float
    noise_sd: float
    doubt: str = ""


def noise_ceiling(real: np.ndarray, noise: float | None = None) -> Ceiling:
    """Estimate C_max = sqrt(1 - noise variance / total variance) of a real image.

    The noise is independent of what a prediction can know, so that of the image's variance only the signal's part
    can be explained; with SNR = signal variance / noise variance this is sqrt(SNR / (1 + SNR)).

    Parameters
    ----------
    real : np.ndarray
        (H, W), not filtered, not resampled.
    noise : float, optional
        Its mean noise variance where it is known better, e.g. from `repeats_noise_variance`.

    Returns
    -------
    Ceiling
        NaN, with the doubt that says so, where less than 64 x 64 px leave too little to estimate the noise from.

    References
    ----------
    C_max from the SNR: Ounkomol et al. 2018, doi:10.1038/s41592-018-0111-2 (methods). The estimate of the noise
    is `noise_variance`'s.
    """
    image = real.astype(np.float64)
    total = float(image.var())
    if noise is None and min(image.shape) < _SMALLEST_PX:
        return Ceiling(float("nan"), float("nan"), "fields below 64 x 64 px are too small to estimate noise from")
    variance, doubt = noise_variance(image) if noise is None else (noise, "")
    if total == 0:
        return Ceiling(0.0, 0.0, "the real image has one grey value everywhere")
    if variance >= _ALL_NOISE * total:
        doubt = doubt or "no signal stands out of the noise"
    return Ceiling(float(np.sqrt(np.clip(1 - variance / total, 0, 1))), float(np.sqrt(variance)), doubt)


def noise_variance(image: np.ndarray) -> tuple[float, str]:
    """Mean noise variance of one image, from the corners of its cosine spectrum.

    Camera and shot noise are independent from pixel to pixel, hence white, and every coefficient's expected square
    is their mean variance, however it differs between bright and dark places. If the pixels are small enough, the
    optics pass nothing above the camera's Nyquist frequency, which leaves the corners of the spectrum, beyond 0.5
    cycles per pixel, to the noise. Their median square is not moved by a few peaks of interference.

    Returns
    -------
    float
        In the image's unit, squared.
    str
        Why it is not to be trusted: the spectrum still falls there (the optics resolve more than the pixels, so
        that structure is taken for noise and C_max comes out too low; or the noise was smoothed by a filter, a
        projection, compression or resampling, and C_max comes out too high), it rises (sharpened), or pixels are
        saturated. Empty if none of these.

    Raises
    ------
    DataError
        The image is smaller than 64 x 64 px.
    """
    if image.ndim != 2 or min(image.shape) < _SMALLEST_PX:
        raise DataError(f"To estimate noise takes a plane of at least 64 x 64 px, got {image.shape}.")
    values = image.astype(np.float64)
    squares = fft.dctn(values - values.mean(), norm="ortho") ** 2
    frequency = np.hypot(*np.meshgrid(*(np.arange(n) / (2 * n) for n in values.shape), indexing="ij"))
    bands = (frequency > 0.5) & (frequency <= 0.54), frequency > 0.59
    inner, outer = (float(np.median(squares[band])) / _MEDIAN_OF_SQUARES for band in bands)
    flat = _FLAT + _FLAT_CHANCE / np.sqrt(min(band.sum() for band in bands))
    saturated = float((values == values.max()).mean())
    if inner > flat * outer:
        return outer, "the spectrum still falls at its finest: undersampled structure, or noise that was smoothed"
    if outer > flat * inner:
        return outer, "the spectrum rises at its finest: the image was sharpened or compressed"
    if saturated > _SATURATED:
        return outer, f"{saturated:.1%} of the pixels have the greatest value: the image is saturated"
    return float(np.median(squares[frequency > 0.5])) / _MEDIAN_OF_SQUARES, ""


def repeats_noise_variance(exposures: np.ndarray) -> float:
    """Mean noise variance from repeated exposures of the same, unmoved field; the better way where there are any.

    Parameters
    ----------
    exposures : np.ndarray
        (R, H, W), R of at least 2; each one's mean is taken off first, so that bleaching does not count as noise.

    Raises
    ------
    DataError
        Fewer than two exposures.
    """
    if exposures.ndim != 3 or len(exposures) < 2:
        raise DataError(f"Noise from repeats takes at least two exposures as (R, H, W), got {exposures.shape}.")
    values = exposures.astype(np.float64)
    return float((values - values.mean(axis=(1, 2), keepdims=True)).var(axis=0, ddof=1).mean())
