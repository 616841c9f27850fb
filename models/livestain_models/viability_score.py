"""How well live, injured and dead are told apart: pixel by pixel, and cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from livestain_models._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CLASSES", "ViabilityCounts", "ViabilityScores", "count_viability", "score_viability", "sensitivity_at"]

CLASSES = ("background", "live", "injured", "dead")
_N, _DEAD = len(CLASSES), 3
_BINS = 4096
_SPECIFICITY = 0.99


@dataclass(frozen=True, slots=True)
class ViabilityCounts:
    """What one field adds to the scores; counts of fields add up.

    Parameters
    ----------
    pixels : np.ndarray
        (4, 4) int64; row: true class, column: predicted class.
    cells : np.ndarray
        (4, 4) int64, the same over nuclei; a nucleus predicted as background was missed.
    pixel_scores : np.ndarray or None
        (2, 4096) int64: histogram of the probability "dead" over the true cells' pixels that are not dead (row 0) and
        dead (row 1); None where labels were predicted.
    cell_scores : np.ndarray or None
        (M, 2) float64: a nucleus' mean probability "dead", and 1 if it is dead; None as above.
    """

    pixels: np.ndarray
    cells: np.ndarray
    pixel_scores: np.ndarray | None
    cell_scores: np.ndarray | None


@dataclass(frozen=True, slots=True)
class ViabilityScores:
    """Scores over pixels, or over cells.

    Parameters
    ----------
    confusion : np.ndarray
        (4, 4) int64; row: true class, column: predicted class, in the order of `CLASSES`.
    balanced_accuracy : float
        Mean over the classes that occur in the truth of the share that was recognised.
    f1 : dict of str to float
        By class; NaN for a class that neither occurs nor is predicted.
    sensitivity_99 : float
        Share of the dead found when 1 % of the living and injured are taken for dead; NaN where `note` says why.
    note : str
        Why there is no sensitivity; empty where there is one.
    """

    confusion: np.ndarray
    balanced_accuracy: float
    f1: dict[str, float]
    sensitivity_99: float
    note: str = ""


def count_viability(predicted: np.ndarray, real: np.ndarray, nuclei: np.ndarray | None = None) -> ViabilityCounts:
    """Compare a field's predicted classes with the true ones.

    Parameters
    ----------
    predicted : np.ndarray
        (4, H, W) probabilities in the order of `CLASSES`, or (H, W) integer labels 0 to 3.
    real : np.ndarray
        (H, W) integer labels 0 to 3.
    nuclei : np.ndarray, optional
        (H, W) integer labels of nuclei, 0 outside. A nucleus' class is that of most of its pixels, background left
        out in the truth; of a tie, the worse state. Nuclei without a true class do not count.

    Raises
    ------
    DataError
        Shapes do not fit, labels other than 0 to 3, or probabilities outside [0, 1].
    """
    probability = predicted if predicted.ndim == 3 else None
    if probability is not None:
        _check_probabilities(probability)
    labels = predicted if probability is None else probability.argmax(axis=0)
    for name, mask in (("predicted", labels), ("real", real), ("nuclei", real if nuclei is None else nuclei)):
        if mask.shape != real.shape or mask.dtype.kind not in "iu":
            raise DataError(f"The {name} labels must be integers of shape {real.shape}, got {mask.dtype} {mask.shape}.")
    for name, mask in (("predicted", labels), ("real", real)):
        if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) < _N:
            raise DataError(f"The {name} classes run from 0 to 3 ({', '.join(CLASSES)}), got {np.unique(mask)[:9]}.")
    dead = None if probability is None else probability[_DEAD]
    cells, cell_scores = _count_cells(labels, real, nuclei, dead)
    return ViabilityCounts(_confusion(real, labels), cells, _histogram(dead, real), cell_scores)


def score_viability(counts: Sequence[ViabilityCounts]) -> tuple[ViabilityScores, ViabilityScores]:
    """Scores over the pixels, and over the cells, of all fields together.

    Single fields have too few dead cells for a score of their own; resample *fields* for an interval.

    Raises
    ------
    DataError
        No field.
    """
    if not counts:
        raise DataError("Viability is scored over fields, got none. Give one field at least.")
    histograms = [field.pixel_scores for field in counts if field.pixel_scores is not None]
    tables = [field.cell_scores for field in counts if field.cell_scores is not None]
    pixels = cells = (float("nan"), "labels were predicted, no probabilities: there is no threshold to move")
    if len(histograms) == len(tables) == len(counts):
        total = np.sum(histograms, axis=0)
        pixels = sensitivity_at(_SPECIFICITY, np.arange(_BINS, dtype=float), total[1], total[0])
        scores, is_dead = np.concatenate(tables).T
        cells = sensitivity_at(_SPECIFICITY, scores, is_dead, 1 - is_dead)
    return (
        _scores(np.sum([field.pixels for field in counts], axis=0), *pixels),
        _scores(np.sum([field.cells for field in counts], axis=0), *cells),
    )


def sensitivity_at(
    specificity: float, scores: np.ndarray, positives: np.ndarray, negatives: np.ndarray
) -> tuple[float, str]:
    """Sensitivity at a specificity, between the thresholds of the data by a straight line (as two mixed would give).

    Parameters
    ----------
    specificity : float
        Below 1.
    scores, positives, negatives : np.ndarray
        (N,): a score, and how many positives and negatives have it.

    Returns
    -------
    float
        NaN where it cannot be told.
    str
        Why not: no positives, or so few negatives that a single one is more than 1 - specificity of them.

    References
    ----------
    Interpolation along the ROC's convex segments: Fawcett 2006, doi:10.1016/j.patrec.2005.10.010.
    """
    n_positive, n_negative = int(positives.sum()), int(negatives.sum())
    needed = int(np.ceil(round(1 / (1 - specificity), 6)))
    if not n_positive:
        return float("nan"), "nothing dead in the truth"
    if n_negative < needed:
        return float("nan"), f"{n_negative} that are not dead, and {specificity:.0%} specificity needs {needed}"
    values, group = np.unique(-scores, return_inverse=True)  # falling score, ties together
    true_rate = np.cumsum(np.bincount(group, positives, values.size)) / n_positive
    false_rate = np.cumsum(np.bincount(group, negatives, values.size)) / n_negative
    true_rate, false_rate = np.append(0.0, true_rate), np.append(0.0, false_rate)
    allowed = 1 - specificity
    last = int(np.searchsorted(false_rate, allowed + 1e-12, side="right")) - 1
    if last == len(values):
        return float(true_rate[last]), ""
    share = (allowed - false_rate[last]) / (false_rate[last + 1] - false_rate[last])
    return float(true_rate[last] + share * (true_rate[last + 1] - true_rate[last])), ""


def _check_probabilities(probability: np.ndarray) -> None:
    if len(probability) != _N:
        raise DataError(f"Class probabilities have four planes ({', '.join(CLASSES)}), got {probability.shape}.")
    low, high = float(probability.min()), float(probability.max())
    if not (low >= -1e-3 and high <= 1.001):
        raise DataError(f"Probabilities lie between 0 and 1, got {low:g} to {high:g}. Divide by the full scale first.")


def _confusion(real: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    pairs = real.ravel().astype(np.int64) * _N + predicted.ravel().astype(np.int64)
    return np.bincount(pairs, minlength=_N * _N).reshape(_N, _N)


def _histogram(dead: np.ndarray | None, real: np.ndarray) -> np.ndarray | None:
    # The background would make 99 % specificity of all pixels an easy thing.
    if dead is None:
        return None
    bins = np.clip((dead * _BINS).astype(np.int64), 0, _BINS - 1)
    return np.stack(
        [np.bincount(bins[where], minlength=_BINS) for where in ((real > 0) & (real != _DEAD), real == _DEAD)]
    )


def _count_cells(
    labels: np.ndarray, real: np.ndarray, nuclei: np.ndarray | None, dead: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    if nuclei is None:
        return np.zeros((_N, _N), np.int64), None if dead is None else np.zeros((0, 2))
    inside = nuclei > 0
    names, cell = np.unique(nuclei[inside], return_inverse=True)

    def votes(classes: np.ndarray) -> np.ndarray:
        pairs = cell * _N + classes[inside].astype(np.int64)
        return np.bincount(pairs, minlength=names.size * _N).reshape(-1, _N)

    true_votes = votes(real)
    known = true_votes[:, 1:].sum(axis=1) > 0
    true_class = 1 + _worse_of_most(true_votes[known, 1:])
    confusion = _confusion(true_class, _worse_of_most(votes(labels)[known]))
    if dead is None:
        return confusion, None
    mean = np.bincount(cell, dead[inside], names.size) / np.maximum(np.bincount(cell, minlength=names.size), 1)
    return confusion, np.stack([mean[known], (true_class == _DEAD).astype(float)], axis=1)


def _worse_of_most(votes: np.ndarray) -> np.ndarray:
    return np.asarray(votes.shape[1] - 1 - votes[:, ::-1].argmax(axis=1))


def _scores(confusion: np.ndarray, sensitivity: float, note: str) -> ViabilityScores:
    truth, guesses, hits = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    occurs = truth > 0
    accuracy = float((hits[occurs] / truth[occurs]).mean()) if occurs.any() else float("nan")
    f1 = {
        name: float(2 * hit / total) if total else float("nan")
        for name, hit, total in zip(CLASSES, hits, truth + guesses, strict=True)
    }
    return ViabilityScores(confusion, accuracy, f1, sensitivity, note)
