"""What is assumed of living, injured and dead cells, and of the class head that looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import expm

from livestain._errors import LivestainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "DEAD",
    "STATES",
    "Emission",
    "StateModel",
    "ViabilitySettings",
    "emission_of",
    "emission_of_scores",
    "normalised",
    "that_divided",
]

STATES = ("live", "injured", "dead")
DEAD = STATES.index("dead")
_RARE = 0.005
_ERRS = 0.02  # what a class head without a confusion matrix is thought to err at least, to each other class

Emission = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class ViabilitySettings:
    """What is assumed of the cells and of the class head.

    Attributes
    ----------
    interval_s
        Time between two frames.
    emission
        (3, 3): share of the cells of each true class (row) that the model takes for each class (column), see
        `emission_of`. None: the model's probabilities are taken for what they say.
    hits_per_h
        How many of the living cells are injured within an hour, by assumption.
    injury_h
        How long an injured cell lives, on average, before it is dead.
    recovered
        Share of the injured that recover.
    sudden
        Share of the hits that kill at once, or between two frames without an injury that the class head can see.
    error_s
        How long a wrong class lasts, typically: frames closer than that repeat each other's errors. The default was
        best, over frames 10 min apart, for class heads whose errors at successive frames correlate by 0.7.
    at_first
        Shares of live, injured and dead among cells seen for the first time.
    lag
        Frames that are waited for before a frame's states are final.
    confirm
        Frames in which a cell must look dead, within `lag` after its death, before it is called dead.
    forget
        Frames after which a cell that is not seen any more is forgotten.
    """

    interval_s: float
    emission: Emission | None = None
    hits_per_h: float = 0.01
    injury_h: float = 1.0
    recovered: float = 0.1
    sudden: float = 0.1
    error_s: float = 450.0
    at_first: tuple[float, float, float] = (0.85, 0.05, 0.10)
    lag: int = 4
    confirm: int = 2
    forget: int = 50

    def __post_init__(self) -> None:
        if not (np.isfinite(self.interval_s) and self.interval_s > 0):
            raise LivestainError(
                f"The viability filter needs the time between two frames in seconds, got interval_s={self.interval_s}. "
                "Give the sequence a time_plan with an interval, or pass the mean interval of the run's frames."
            )
        rates = (self.hits_per_h, self.injury_h, self.error_s)
        if not (np.isfinite(rates).all() and min(rates) > 0 and 0 <= self.recovered < 1 and 0 <= self.sudden < 1):
            raise LivestainError(
                f"hits_per_h, injury_h and error_s are above 0, recovered and sudden shares below 1, got "
                f"{self.hits_per_h}, {self.injury_h}, {self.error_s}, {self.recovered} and {self.sudden}."
            )
        if len(self.at_first) != 3 or not (np.isfinite(self.at_first).all() and min(self.at_first) > 0):
            raise LivestainError(
                f"Each state has a share above 0 among first-seen cells, got at_first={self.at_first}."
            )
        # A class that is never taken for another would make some cells' frames impossible: no state, not a rare one.
        taken = np.asarray(_emission_without_matrix() if self.emission is None else self.emission)
        if taken.shape != (3, 3) or not (np.isfinite(taken).all() and taken.min() > 0):
            raise LivestainError(
                f"Of each true class some share above 0 is taken for each class, got emission={self.emission}; "
                "`emission_of` makes it from a confusion matrix."
            )
        if not 1 <= self.confirm <= self.lag + 1:
            raise LivestainError(
                f"A death is confirmed by {self.confirm} frames, but only {self.lag + 1} are looked at (lag + 1). "
                "Choose confirm between 1 and lag + 1."
            )


class StateModel:
    """The hidden Markov model of one cell.

    Cells change state in continuous time, live - injured - dead, with recovery and sudden death; dead is absorbing.
    Frames may be missing. Errors of the class head last longer than a frame: each frame's likelihood is raised to the
    power (1 - r)/(1 + r), r = exp(-interval/error_s) being the correlation of successive errors; that is the share of
    a frame that counts as an independent one in a first-order autoregressive series.

    Parameters
    ----------
    settings
        What is assumed.
    """

    def __init__(self, settings: ViabilitySettings) -> None:
        self._rates = _generator(settings)
        self._steps = {1: np.asarray(expm(self._rates))}
        self._emission = np.asarray(settings.emission or _emission_without_matrix())
        self._temper = float(np.tanh(settings.interval_s / (2 * settings.error_s)))

    def transition(self, frames: int) -> NDArray[np.float64]:
        """Give the chance (3, 3) to go from a state (row) to another (column) within `frames`."""
        known = self._steps.get(frames)
        return np.asarray(expm(self._rates * frames)) if known is None else known

    def likelihood(self, probabilities: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Give how well each state explains a frame's probabilities.

        Parameters
        ----------
        probabilities
            (n, 3) of live, injured, dead; rows with NaN were not classified, nor were rows of zeros.

        Returns
        -------
        likelihood
            (n, 3), tempered; ones where a cell was not classified.
        seen
            (n,) which cells were.
        """
        total = probabilities.sum(axis=1, keepdims=True)
        seen = np.isfinite(total[:, 0]) & (total[:, 0] > 0)
        share = np.divide(probabilities, total, out=np.full(probabilities.shape, 1 / 3), where=seen[:, None])
        likelihood = np.asarray((share @ self._emission.T) ** self._temper)
        likelihood[~seen] = 1.0
        return likelihood, seen


def emission_of(confusion: Sequence[Sequence[float]]) -> Emission:
    """Turn a model's confusion matrix of cells into how it takes each true class.

    Parameters
    ----------
    confusion
        Counts, row: true class, column: predicted class; (3, 3) live, injured, dead, or (4, 4) with background first,
        as `livestain_models.viability_score` has it (cells taken for background have no class and do not count).

    Raises
    ------
    LivestainError
        The matrix has another shape, or values that are no counts.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    if counts.shape not in ((3, 3), (4, 4)) or not np.isfinite(counts).all() or (counts < 0).any():
        raise LivestainError(
            f"A confusion matrix of live, injured and dead has shape (3, 3), or (4, 4) with background first, and "
            f"counts in it; got shape {counts.shape}: {counts.tolist()}. Score the model again."
        )
    # One cell added to each entry: what never happened in a small test can happen (Laplace's rule of succession).
    counts = counts[-3:, -3:] + 1
    rates = counts / counts.sum(axis=1, keepdims=True)
    return tuple((float(a), float(b), float(c)) for a, b, c in rates)


def emission_of_scores(scores: Mapping[str, float | str]) -> Emission | None:
    """Read how a model takes each true class from its package's scores; None where these do not say.

    Parameters
    ----------
    scores
        With keys such as "viability_cells_dead_as_live": the share of the dead cells that were taken for live ones.
    """
    found = {
        (true, seen): float(value)
        for true in STATES
        for seen in STATES
        for key, value in scores.items()
        if key.endswith(f"cells_{true}_as_{seen}")
    }
    if len(found) < len(STATES) ** 2 or not np.isfinite(list(found.values())).all():
        return None  # a test set without a class has no share of it
    # What never happened in a test of some hundred cells can happen.
    shares = np.array([[found[true, seen] for seen in STATES] for true in STATES]) + _RARE
    return tuple((float(a), float(b), float(c)) for a, b, c in normalised(shares))


def that_divided() -> NDArray[np.float64]:
    """Give how likely a cell in each state is to divide, (3,), up to a factor: the dead do not, links are rarely wrong.

    A cell that rounds up to divide is easily taken for a dead one.
    """
    return np.array([1.0, 1.0, _RARE])


def normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale each row to a sum of 1."""
    return np.asarray(rows / rows.sum(axis=-1, keepdims=True))


def _generator(settings: ViabilitySettings) -> NDArray[np.float64]:
    """Rates between the states, per frame; rows sum to 0."""
    hit = settings.hits_per_h
    leave = 1 / settings.injury_h
    recover = settings.recovered * leave
    rates = np.array(
        [[-hit, hit * (1 - settings.sudden), hit * settings.sudden], [recover, -leave, leave - recover], [0, 0, 0]]
    )
    return rates * settings.interval_s / 3600


def _emission_without_matrix() -> Emission:
    own = 1 - 2 * _ERRS
    return ((own, _ERRS, _ERRS), (_ERRS, own, _ERRS), (_ERRS, _ERRS, own))
