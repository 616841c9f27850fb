"""Says how many cells of a frame are viable, and when each cell died, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from livestain._errors import LivestainError
from livestain.measure.columns import cell_rows, read_columns
from livestain.measure.viability_model import DEAD, STATES, StateModel, normalised, that_divided

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from livestain.measure.columns import CellTable
    from livestain.measure.viability_model import ViabilitySettings

__all__ = ["Death", "ViableFraction", "times_of_death", "viable_fraction", "wilson"]


@dataclass(frozen=True, slots=True)
class ViableFraction:
    """How many of a frame's cells are not dead.

    Attributes
    ----------
    fraction, low, high
        0 to 1, with its interval; NaN where no cell has a state.
    n_viable
        How many live or are injured: a count by the states, the expected number by beliefs.
    n_cells, n_unknown
        Cells with a state; cells without, which do not count.
    reason
        Why there is no fraction, "" where there is.
    """

    fraction: float
    low: float
    high: float
    n_viable: float
    n_cells: int
    n_unknown: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Death:
    """When one cell died.

    Attributes
    ----------
    position, cell
        Which cell.
    last_alive_s, first_dead_s
        Between which frames, by the states of the table; last_alive_s is NaN for a cell dead at first sight.
    time_s, low_s, high_s
        The most likely half-way, and the 95 % interval, by the class head's probabilities in all frames of the cell
        (so by more than the states, which know `lag` frames ahead); NaN where there is a reason.
    sure
        How likely it is that the cell died at all, given all its frames.
    reason
        Why there is no time, "" where there is.
    """

    position: str
    cell: int
    last_alive_s: float
    first_dead_s: float
    time_s: float
    low_s: float
    high_s: float
    sure: float
    reason: str = ""


def viable_fraction(states: ArrayLike, dead: ArrayLike | None = None, *, level: float = 0.95) -> ViableFraction:
    """Count the cells of one frame that are not dead; the interval is Wilson's (1927, JASA 22:209).

    It covers the chance of seeing these cells rather than others of the same culture, not errors of the model.

    Parameters
    ----------
    states
        (n,) str: "live", "injured", "dead", or "" for unknown.
    dead
        (n,) how likely each is dead (`States.belief[:, 2]`). With it the fraction is what is expected: nearer to the
        truth than a count of states, because it takes back a death that later frames speak against.
    level
        Of the interval.

    Raises
    ------
    LivestainError
        `dead` does not fit `states`, or `level` is no level.
    """
    if not 0 < level < 1:
        raise LivestainError(f"The level of an interval lies between 0 and 1, got {level}; 95 % is 0.95.")
    given = np.asarray(states, dtype=np.str_)
    n_unknown = int((given == "").sum())
    n = given.size - n_unknown
    likely = (given == "dead").astype(np.float64) if dead is None else np.asarray(dead, dtype=np.float64)
    if likely.shape != given.shape or not bool(((likely >= 0) & (likely <= 1))[given != ""].all()):
        raise LivestainError(
            f"Each of the {given.size} cells with a state has a belief from 0 to 1 that it is dead; got {likely.shape} "
            "values, or some outside."
        )
    viable = float(n - likely[given != ""].sum())
    if n == 0:
        reason = "no cell in the frame" if not n_unknown else "no cell of the frame was classified"
        return ViableFraction(np.nan, np.nan, np.nan, 0, 0, n_unknown, reason)
    share = viable / n
    low, high = wilson(share, n, level=level)
    return ViableFraction(share, float(low), float(high), viable, n, n_unknown)


def wilson(share: ArrayLike, n: ArrayLike, *, level: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the two ends of Wilson's interval (1927, JASA 22:209) of shares of `n` each; NaN where `n` is 0."""
    share, n = np.asarray(share, np.float64), np.asarray(n, np.float64)
    z = float(ndtri(0.5 + level / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # The formula gives exactly 0 and 1 at these ends; rounding must not push a bound past the estimate.
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def times_of_death(table: CellTable, settings: ViabilitySettings) -> list[Death]:
    """Date the death of each cell that the table calls dead.

    Parameters
    ----------
    table
        Cell table with position, t, time_s, cell, parent, live, injured, dead and state.
    settings
        Those that the states were found with.

    Raises
    ------
    LivestainError
        Columns are missing, or times are.
    """
    columns = read_columns(table, ("position", "t", "time_s", "cell", "parent", *STATES, "state"))
    model = StateModel(settings)
    likelihood, _ = model.likelihood(np.stack([columns[state] for state in STATES], axis=1))
    last: dict[tuple[str, int], NDArray[np.float64]] = {}
    divided = set(zip(columns["position"].tolist(), columns["parent"].tolist(), strict=True))
    deaths = []
    for rows in sorted(cell_rows(columns), key=lambda rows: float(columns["time_s"][rows[0]])):
        position, cell = str(columns["position"][rows[0]]), int(columns["cell"][rows[0]])
        mother = last.get((position, int(columns["parent"][rows[0]])))
        prior = np.asarray(settings.at_first) if mother is None else mother @ model.transition(1)
        end = that_divided() if (position, cell) in divided else np.ones(len(STATES))
        belief, last[position, cell] = _smoothed(model, prior, columns["t"][rows], likelihood[rows], end)
        if (columns["state"][rows] == "dead").any():
            deaths.append(_death(columns, rows, belief[:, DEAD]))
    return sorted(deaths, key=lambda death: (death.position, death.cell))


def _smoothed(
    model: StateModel,
    prior: NDArray[np.float64],
    t: NDArray[np.int64],
    likelihood: NDArray[np.float64],
    end: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the belief in each frame by all frames and by how the cell ended, and that in the last one.

    In logarithms: a thousand frames that say one thing before a thousand that say the other have no ratio in floats.
    """
    with np.errstate(divide="ignore"):  # what cannot be has the logarithm -inf
        steps = [np.log(model.transition(int(frames))) for frames in np.diff(t)]
        log_likelihood = np.log(likelihood)
        log_likelihood[-1] += np.log(end)
        forward = [np.log(prior) + log_likelihood[0]]
    for step, frame in zip(steps, log_likelihood[1:], strict=True):
        forward.append(np.logaddexp.reduce(forward[-1][:, None] + step, axis=0) + frame)
    later = [np.zeros(3)]
    for step, frame in zip(reversed(steps), log_likelihood[:0:-1], strict=True):
        later.append(np.logaddexp.reduce(step + frame + later[-1], axis=1))
    belief = np.array(forward) + np.array(later[::-1])
    return _shares(belief), _shares(forward[-1])


def _shares(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give shares of a sum of 1 from their logarithms, which may be less than a float's smallest."""
    return normalised(np.exp(logs - logs.max(axis=-1, keepdims=True)))


def _death(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.intp], dead: NDArray[np.float64]) -> Death:
    time_s, states = columns["time_s"][rows], columns["state"][rows]
    position, cell = str(columns["position"][rows[0]]), int(columns["cell"][rows[0]])
    first = int(np.argmax(states == "dead"))
    alive = np.flatnonzero((states[:first] == "live") | (states[:first] == "injured"))
    last_alive_s = float(time_s[alive[-1]]) if alive.size else np.nan
    sure = float(dead[-1])

    def without(reason: str) -> Death:
        return Death(position, cell, last_alive_s, float(time_s[first]), np.nan, np.nan, np.nan, sure, reason)

    if not alive.size:
        return without("dead at first sight")
    if sure < 0.5:
        return without("called dead, but later frames speak against it")
    # Dead is absorbing, so `dead` is the cumulative distribution of the time of death, known at the frames.
    low, half, high = (int(np.argmax(dead >= min(level, sure))) for level in (0.025, 0.5, 0.975))
    if half == 0:
        return without("dead at first sight, by all its frames")
    between_s = (time_s[half] + time_s[half - 1]) / 2
    low_s = time_s[max(low - 1, 0)]
    return Death(
        position, cell, last_alive_s, float(time_s[first]), float(between_s), float(low_s), float(time_s[high]), sure
    )
