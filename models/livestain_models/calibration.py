"""Whether a model's error bars hold: how often the truth lies within its own predicted deviation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from livestain_models._errors import DataError
from livestain_models.objects import foreground
from livestain_models.score import checked_pair, pearson

__all__ = ["Calibration", "calibration"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Coverage of predicted deviations in one field.

    Parameters
    ----------
    coverage_1sd, coverage_90 : float
        Share of the *predicted foreground's* pixels whose error is within 1, and 1.645, predicted deviations;
        normal errors with right deviations give 0.683 and 0.900. NaN where nothing is predicted.
    coverage_1sd_all, coverage_90_all : float
        The same over all pixels. Background dominates and is easy: do not trust these alone.
    sd_error_pearson : float
        Pearson correlation of predicted deviation and absolute error: whether it knows *where* it errs.
    """

    coverage_1sd: float
    coverage_90: float
    coverage_1sd_all: float
    coverage_90_all: float
    sd_error_pearson: float


def calibration(predicted: np.ndarray, deviation: np.ndarray, real: np.ndarray, pixel_size_um: float) -> Calibration:
    """Compare predicted deviations with the errors made.

    The foreground is where the *prediction* is bright. To take the truth's would choose pixels by their error: where
    the truth is bright and the prediction is not, and it is also nothing that a user has at the microscope.

    Parameters
    ----------
    predicted, deviation, real : np.ndarray
        (H, W) in the same unit.
    pixel_size_um : float
        In the sample.

    Raises
    ------
    DataError
        Shapes differ, or a deviation is negative.
    """
    guess, truth = checked_pair(predicted, real)
    sd, _ = checked_pair(deviation, real)
    if sd.min() < 0:
        raise DataError(f"A standard deviation is not negative, got {sd.min():g}. Is this output a deviation?")
    error = np.abs(guess - truth)
    bright = foreground(guess, pixel_size_um)

    def coverage(within: float, where: np.ndarray) -> float:
        return float((error <= within * sd)[where].mean()) if where.any() else float("nan")

    everywhere = np.ones(error.shape, bool)
    return Calibration(
        coverage(1.0, bright),
        coverage(1.645, bright),
        coverage(1.0, everywhere),
        coverage(1.645, everywhere),
        pearson(sd, error),
    )
