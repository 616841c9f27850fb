"""Percentile bootstrap intervals over fields; never over pixels, which are not independent of their neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from livestain_models._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Estimate", "estimate", "mean_estimate"]

Field = TypeVar("Field")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score over fields.

    Parameters
    ----------
    value : float
        The score over all fields; NaN where no field has one.
    low, high : float or None
        The interval's ends; None with fewer than two fields, or where the score is not finite.
    n : int
        Fields (or places) that have the score.
    worst : float or None
        The worst single field's, where single fields have one.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    worst: float | None = None

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return "-" if np.isnan(self.value) else "inf"
        if self.low is None or self.high is None:
            return _number(self.value)
        return f"{_number(self.value)} [{_number(self.low)}, {_number(self.high)}]"


def estimate(
    fields: Sequence[Field],
    statistic: Callable[[Sequence[Field]], float],
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Compute a statistic over fields and its percentile bootstrap interval.

    With few fields the interval is too narrow: of ten fields, a 95 % interval of the mean covers about 90 %, of
    five about 84 %. It holds for fields like these: other instruments or cell lines are other fields.

    Parameters
    ----------
    fields : sequence
        Whatever `statistic` understands, one entry for each field.
    statistic : callable
        From a resampled sequence of the same length to a number; NaN where it has none.
    level : float
        Share of the resampled statistics inside the interval.
    draws : int
        Number of resamplings.
    seed : int
        Of the draws: the same fields give the same interval.

    Raises
    ------
    DataError
        The level does not lie between 0 and 1.

    References
    ----------
    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    if not 0 < level < 1:
        raise DataError(f"The level of an interval lies between 0 and 1, got {level}.")
    value = statistic(fields) if fields else float("nan")
    if len(fields) < 2:
        return Estimate(value, None, None, len(fields))
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(fields), (draws, len(fields)))
    resampled = np.array([statistic([fields[i] for i in pick]) for pick in picks])
    resampled = resampled[~np.isnan(resampled)]
    if not np.isfinite(value) or not np.isfinite(resampled).all():
        return Estimate(value, None, None, len(fields))
    low, high = np.percentile(resampled, [50 * (1 - level), 50 * (1 + level)])
    return Estimate(value, float(low), float(high), len(fields))


def mean_estimate(
    values: Sequence[float],
    places: Sequence[str] | None = None,
    *,
    higher_is_better: bool = True,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean over fields with its interval, and the worst field; fields whose score is NaN do not have it.

    Parameters
    ----------
    values : sequence of float
        One for each field.
    places : sequence of str, optional
        Where each field lies. Time points of one place show the same cells, so that whole places are resampled;
        `Estimate.n` counts places. Without it, each field is a place.
    higher_is_better : bool
        Says which field is the worst.
    level, draws, seed
        As for `estimate`.

    Raises
    ------
    DataError
        Not as many places as values, or no such level.
    """
    names = [str(i) for i in range(len(values))] if places is None else list(places)
    if len(names) != len(values):
        raise DataError(f"{len(values)} scores need as many places, got {len(names)}.")
    grouped: dict[str, list[float]] = {}
    for name, value in zip(names, values, strict=True):
        if not np.isnan(value):
            grouped.setdefault(name, []).append(value)

    def mean(groups: Sequence[list[float]]) -> float:
        return float(np.mean([value for group in groups for value in group])) if groups else float("nan")

    found = estimate(list(grouped.values()), mean, level=level, draws=draws, seed=seed)
    known = [value for group in grouped.values() for value in group]
    return replace(found, worst=(min if higher_is_better else max)(known)) if known else found


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
