"""MicroSSIM: structural similarity with backgrounds removed and one brightness factor for the whole data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

from livestain_models._errors import DataError
from livestain_models.score import LocalMoments, local_moments

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MicroSsim", "SampledField", "fit_micro_ssim", "micro_ssim", "sample_field"]

_BACKGROUND_PERCENTILE = 3.0  # Ashesh et al.
_C1, _C2 = 0.01**2, 0.03**2  # Wang et al., for images that range to 1
_LOG_ALPHA = np.linspace(np.log(1e-3), np.log(1e3), 70)  # a step is 22 %


@dataclass(frozen=True, slots=True)
class SampledField:
    """What is kept of a field, so that a whole data set fits into memory.

    Parameters
    ----------
    moments : LocalMoments
        (N,) float64 each, at every k-th pixel of every k-th row.
    predicted, real : np.ndarray
        (N,) float64, grey values there.
    brightest : float
        Greatest value of the whole real image.
    """

    moments: LocalMoments
    predicted: np.ndarray
    real: np.ndarray
    brightest: float


@dataclass(frozen=True, slots=True)
class MicroSsim:
    """What is fitted once for a data set: backgrounds, scale, and the factor alpha for the prediction."""

    background_predicted: float
    background_real: float
    scale: float
    alpha: float


def sample_field(predicted: np.ndarray, real: np.ndarray, at_most: int = 32768) -> SampledField:
    """Local moments of an (H, W) pair at about `at_most` evenly spaced pixels.

    Neighbours share most of their 11 x 11 px window, so that a coarser grid loses little.
    """
    step = max(1, int(np.ceil(np.sqrt(real.size / at_most))))
    moments = LocalMoments(*(part[::step, ::step].ravel() for part in local_moments(predicted, real)))
    guess, truth = (image[::step, ::step].ravel().astype(np.float64) for image in (predicted, real))
    return SampledField(moments, guess, truth, float(real.max()))


def fit_micro_ssim(fields: Sequence[SampledField]) -> MicroSsim:
    """Fit backgrounds, scale and alpha over a data set.

    Backgrounds are the third percentile of all predictions and of all real images; both are then divided by the
    brightest real pixel above its background; alpha multiplies the prediction such that the mean SSIM is greatest.

    Parameters
    ----------
    fields : sequence of SampledField
        The fields whose scores are to be compared, one at least.

    Raises
    ------
    DataError
        No field.

    References
    ----------
    Ashesh, Deschamps, Jug 2024, "MicroSSIM: Improved Structural Similarity for Comparing Microscopy Data",
    arXiv:2408.08747. Here one range (1, the brightest pixel of the set) makes SSIM's constants, where the authors'
    package takes that of single images.
    """
    if not fields:
        raise DataError("MicroSSIM is fitted over fields, got none. Give one field at least.")
    background_predicted, background_real = (
        float(np.percentile(np.concatenate(values), _BACKGROUND_PERCENTILE))
        for values in ([field.predicted for field in fields], [field.real for field in fields])
    )
    scale = max(field.brightest for field in fields) - background_real or 1.0
    shifted = [_shifted(field.moments, background_predicted, background_real, scale) for field in fields]

    def loss(log_alpha: float) -> float:
        return -float(np.mean([_similarity(moments, float(np.exp(log_alpha))) for moments in shifted]))

    # The mean SSIM may have more than one hill: walk over all of alpha first, then climb the highest.
    best = int(np.argmin([loss(float(value)) for value in _LOG_ALPHA]))
    low, high = _LOG_ALPHA[max(best - 1, 0)], _LOG_ALPHA[min(best + 1, _LOG_ALPHA.size - 1)]
    found = optimize.minimize_scalar(loss, bounds=(float(low), float(high)), method="bounded")
    return MicroSsim(background_predicted, background_real, scale, float(np.exp(found.x)))


def micro_ssim(field: SampledField, fit: MicroSsim) -> float:
    """Score a field with what was fitted over its data set; 1 is agreement up to brightness and background."""
    shifted = _shifted(field.moments, fit.background_predicted, fit.background_real, fit.scale)
    return _similarity(shifted, fit.alpha)


def _shifted(moments: LocalMoments, predicted: float, real: float, scale: float) -> LocalMoments:
    # A shift moves means only, and variances scale with the square.
    return LocalMoments(
        (moments.mean_predicted - predicted) / scale,
        (moments.mean_real - real) / scale,
        moments.var_predicted / scale**2,
        moments.var_real / scale**2,
        moments.covariance / scale**2,
    )


def _similarity(moments: LocalMoments, alpha: float) -> float:
    mean_a, mean_b = alpha * moments.mean_predicted, moments.mean_real
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    spread = alpha**2 * moments.var_predicted + moments.var_real + _C2
    return float((luminance * (2 * alpha * moments.covariance + _C2) / spread).mean())
