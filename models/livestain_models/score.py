"""How well a predicted field matches the real stain, pixel by pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from livestain_models._errors import DataError

__all__ = ["LocalMoments", "checked_pair", "local_moments", "nrmse", "pearson", "psnr", "ssim"]

_WINDOW_SIGMA_PX = 1.5


class LocalMoments(NamedTuple):
    """Means, variances and covariance around each pixel, (H, W) float64 each."""

    mean_predicted: np.ndarray
    mean_real: np.ndarray
    var_predicted: np.ndarray
    var_real: np.ndarray
    covariance: np.ndarray


def checked_pair(predicted: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both images as float64, after making sure that they can be compared.

    Parameters
    ----------
    predicted, real : np.ndarray
        (H, W), any number type.

    Raises
    ------
    DataError
        They are no planes of the same shape, or hold NaN or infinity.
    """
    if predicted.ndim != 2 or predicted.shape != real.shape or not predicted.size:
        raise DataError(
            f"A prediction is scored against a plane of its own shape, got {predicted.shape} and {real.shape}. "
            "Give one (H, W) plane each."
        )
    pair = predicted.astype(np.float64), real.astype(np.float64)
    for name, image in zip(("prediction", "real image"), pair, strict=True):
        bad = image.size - int(np.isfinite(image).sum())
        if bad:
            raise DataError(f"The {name} holds {bad} pixels that are no finite number. Mend or leave out the field.")
    return pair


def pearson(predicted: np.ndarray, real: np.ndarray) -> float:
    """Pearson correlation over all pixels of a field; 0 where one of the two is constant."""
    a, b = checked_pair(predicted, real)
    flat_a, flat_b = (bool(image.max() == image.min()) for image in (a, b))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float(np.clip((a * b).sum() / norm, -1, 1)) if norm > 0 and not (flat_a or flat_b) else 0.0


def local_moments(predicted: np.ndarray, real: np.ndarray) -> LocalMoments:
    """Measure what SSIM is made of, in a Gaussian window of sigma 1.5 px (11 x 11 px)."""
    a, b = checked_pair(predicted, real)

    def local_mean(image: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.gaussian_filter(image, _WINDOW_SIGMA_PX, truncate=3.5))

    mean_a, mean_b = local_mean(a), local_mean(b)
    return LocalMoments(
        mean_a,
        mean_b,
        local_mean(a * a) - mean_a**2,
        local_mean(b * b) - mean_b**2,
        local_mean(a * b) - mean_a * mean_b,
    )


def ssim(predicted: np.ndarray, real: np.ndarray) -> float:
    """Structural similarity over a field; range: that of the real image, window: Gaussian of sigma 1.5 px.

    References
    ----------
    Wang et al. 2004, doi:10.1109/TIP.2003.819861, with its constants 0.01 and 0.03.
    """
    moments = local_moments(predicted, real)
    span = _span(real)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_a, mean_b, var_a, var_b, covariance = moments
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def psnr(predicted: np.ndarray, real: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; peak: the real image's maximum less its minimum. Infinite where they agree.

    One hot pixel widens the range and with it the score: compare it between models on the same fields only.
    """
    a, b = checked_pair(predicted, real)
    mean_square = float(((a - b) ** 2).mean())
    return float(10 * np.log10(_span(b) ** 2 / mean_square)) if mean_square > 0 else float("inf")


def nrmse(predicted: np.ndarray, real: np.ndarray) -> float:
    """Root mean square error over the real image's standard deviation; 1 is what the mean alone reaches."""
    a, b = checked_pair(predicted, real)
    return float(np.sqrt(((a - b) ** 2).mean())) / (float(b.std()) or 1.0)


def _span(real: np.ndarray) -> float:
    # Of an image of one grey value only the difference itself is left to judge: in its own unit.
    return float(real.max()) - float(real.min()) or 1.0
