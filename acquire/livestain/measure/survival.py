"""Estimates how long cells survive: Kaplan-Meier, and Aalen-Johansen with division as the competing event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from livestain._errors import LivestainError
from livestain.measure.histories import CENSORED, DEATH, DIVISION, History, cell_histories, condition_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from livestain.measure.columns import CellTable

__all__ = ["Curve", "incidence_of_death", "incidence_of_division", "survival_curves"]

Kind = Literal["survival", "death", "division"]
Origin = Literal["run", "birth"]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A step function of time for one condition.

    Attributes
    ----------
    condition
        Well, treatment or position.
    kind
        "survival": share alive. "death" or "division": share that has died, or divided, first.
    origin
        Time runs since the start of the "run", or each cell's since its "birth".
    time_s
        (n,) where it steps, from 0.
    estimate, low, high
        (n,) from each time on, with the 95 % interval. Before the first event it is the exact binomial one of the
        cells that are watched, for none of which it happened; where the last cell that is watched has the event,
        that of the step before, widened to hold the estimate.
    at_risk
        (n,) cells alive and watched just before.
    n_cells, n_deaths, n_divisions
        What it was computed from.
    left_out
        Why cells do not count, and how many.
    reason
        Why there is no curve, or where it ends early; "" otherwise.
    """

    condition: str
    kind: Kind
    origin: Origin
    time_s: NDArray[np.float64]
    estimate: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    at_risk: NDArray[np.int64]
    n_cells: int
    n_deaths: int
    n_divisions: int
    left_out: dict[str, int]
    reason: str = ""


def survival_curves(
    table: CellTable, conditions: Mapping[str, str] | None = None, *, origin: Origin = "run"
) -> list[Curve]:
    """Estimate the share of cells alive, by condition (Kaplan & Meier 1958, JASA 53:457).

    The interval has Greenwood's variance on the scale of log(-log), so it stays within 0 and 1.

    A cell counts from when it is first seen alive (left truncation) to its death, or until it divides, leaves, is lost
    or the run ends (right censoring): the daughters take over from a mother, so the curve is the chance that nothing
    kills a cell and its line until then. Deaths lie half-way between the frames that enclose them.

    Parameters
    ----------
    table
        Cell table with position, cell, parent, time_s and state.
    conditions
        What each position was treated with; without it each position is a condition.
    origin
        "run": time since the start. "birth": age, of the cells whose birth was seen.

    Raises
    ------
    LivestainError
        lifelines is not installed, or the table lacks columns or times.
    """
    return _curves(table, conditions, "survival", origin)


def incidence_of_death(
    table: CellTable, conditions: Mapping[str, str] | None = None, *, origin: Origin = "birth"
) -> list[Curve]:
    """Estimate the share of cells that die before they divide (Aalen & Johansen 1978, Scand J Stat 5:141).

    Parameters are those of `survival_curves`. With origin "run" the cells born during it are left out: their chance to
    divide has another clock. With origin "birth" only they count.

    Raises
    ------
    LivestainError
        As `survival_curves`.
    """
    return _curves(table, conditions, "death", origin)


def incidence_of_division(
    table: CellTable, conditions: Mapping[str, str] | None = None, *, origin: Origin = "birth"
) -> list[Curve]:
    """Estimate the share of cells that divide before they die, as `incidence_of_death`."""
    return _curves(table, conditions, "division", origin)


def _curves(table: CellTable, conditions: Mapping[str, str] | None, kind: Kind, origin: Origin) -> list[Curve]:
    groups: dict[str, list[History]] = {}
    for history in cell_histories(table):
        groups.setdefault(condition_of(history.position, conditions), []).append(history)
    return [_curve(groups[name], name, kind, origin) for name in sorted(groups)]


def _curve(histories: list[History], condition: str, kind: Kind, origin: Origin) -> Curve:
    watched, left_out = _watched(histories, kind, origin)
    entry_s, end_s, end, reason = _until_nobody_is_left(*_untied(*watched, kind), left_out)
    if not end.size:
        none = np.zeros(0)
        reason = "no cell was seen alive in two frames"
        return Curve(condition, kind, origin, none, none, none, none, none.astype(np.int64), 0, 0, 0, left_out, reason)
    fit = _kaplan_meier if kind == "survival" else _aalen_johansen
    time_s, estimate, low, high, at_risk = fit(entry_s, end_s, end, kind)
    low, high = _where_greenwood_has_none(estimate, low, high, at_risk, kind)
    return Curve(
        condition=condition,
        kind=kind,
        origin=origin,
        time_s=time_s,
        estimate=estimate,
        low=low,
        high=high,
        at_risk=at_risk,
        n_cells=end.size,
        n_deaths=int((end == DEATH).sum()),
        n_divisions=int((end == DIVISION).sum()),
        left_out=left_out,
        reason=reason,
    )


_Watched = tuple["NDArray[np.float64]", "NDArray[np.float64]", "NDArray[np.int64]"]


def _watched(histories: list[History], kind: Kind, origin: Origin) -> tuple[_Watched, dict[str, int]]:
    """Give entry, end and kind of end of the cells that count, and count the others by reason."""
    left_out: dict[str, int] = {}
    kept = []
    born = {(h.position, h.cell) for h in histories}
    for history in histories:
        reason = _why_not(history, kind, origin, (history.position, history.parent) in born)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            since_s = history.first_s if origin == "birth" else 0.0
            # A mother's line lives on until her daughters are seen: without this, a lone cell's division would leave
            # half a frame with nobody to watch.
            watched_over = kind == "survival" and history.end == DIVISION
            end_s = history.next_s if watched_over else history.end_s
            kept.append((history.first_s - since_s, end_s - since_s, history.end))
    entry, end, event = np.array(kept, dtype=np.float64).reshape(-1, 3).T
    return (entry, end, event.astype(np.int64)), left_out


def _why_not(history: History, kind: Kind, origin: Origin, born: bool) -> str:  # noqa: FBT001
    if history.dead_at_first:
        return "dead at first sight"
    if not history.known or not np.isfinite(history.first_s):
        return "never classified"
    if history.end_s <= history.first_s:
        return "seen alive in one frame only"
    if origin == "birth" and not born:
        return "birth not seen"
    if origin == "run" and kind != "survival" and born:
        return "born during the run"
    return ""


def _until_nobody_is_left(
    entry_s: NDArray[np.float64], end_s: NDArray[np.float64], end: NDArray[np.int64], left_out: dict[str, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], str]:
    """Leave out those who come after a time without anyone: what happened in that time, nobody knows."""
    order = np.argsort(entry_s, kind="stable")
    nobody = np.flatnonzero(entry_s[order][1:] > np.maximum.accumulate(end_s[order])[:-1])
    if not nobody.size:
        return entry_s, end_s, end, ""
    keep = order[: nobody[0] + 1]
    left_out["came after a time without living cells"] = end.size - keep.size
    return entry_s[keep], end_s[keep], end[keep], f"no living cell was watched after {end_s[keep].max():g} s"


def _untied(entry_s: NDArray[np.float64], end_s: NDArray[np.float64], end: NDArray[np.int64], kind: Kind) -> _Watched:
    """Part what happens at one time, which lifelines cannot have: deaths, then divisions, then newcomers.

    A dead cell cannot divide, and a cell that comes at a time was not there to die at it. Without this lifelines moves
    tied events by random amounts, and its Aalen-Johansen counts newcomers as at risk where its Kaplan-Meier does not.
    """
    steps = np.diff(np.unique(np.concatenate([entry_s, end_s])))
    apart_s = 1e-3 * min(float(steps.min()), 1.0) if steps.size else 1e-3
    if kind == "survival":  # where a division is no event, and daughters take over from their mother at once
        return entry_s + 2 * apart_s * np.isin(entry_s, end_s[end == DEATH]), end_s, end
    clash = np.isin(entry_s, end_s[end != CENSORED])
    return entry_s + 2 * apart_s * clash, end_s + apart_s * (end == DIVISION), end


_Fitted = tuple["NDArray[np.float64]", "NDArray[np.float64]", "NDArray[np.float64]", "NDArray[np.float64]", Any]


def _kaplan_meier(
    entry_s: NDArray[np.float64], end_s: NDArray[np.float64], end: NDArray[np.int64], _kind: Kind
) -> _Fitted:
    fitter = _lifelines().KaplanMeierFitter()
    fitter.fit(end_s, end == DEATH, entry=entry_s)
    bounds = fitter.confidence_interval_.to_numpy()
    return _from_zero(fitter, fitter.survival_function_.to_numpy()[:, 0], bounds[:, 0], bounds[:, 1], first=1.0)


def _aalen_johansen(
    entry_s: NDArray[np.float64], end_s: NDArray[np.float64], end: NDArray[np.int64], kind: Kind
) -> _Fitted:
    fitter = _lifelines().AalenJohansenFitter()
    fitter.fit(end_s, end, event_of_interest=DEATH if kind == "death" else DIVISION, entry=entry_s)
    bounds = fitter.confidence_interval_.to_numpy()  # lifelines calls its first column upper; it is the lower bound
    estimate = fitter.cumulative_density_.to_numpy()[:, 0]
    return _from_zero(fitter, estimate, bounds.min(axis=1), bounds.max(axis=1), first=0.0)


def _from_zero(
    fitter: Any, estimate: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], *, first: float
) -> _Fitted:
    time_s = fitter.event_table.index.to_numpy(dtype=np.float64)
    at_risk = fitter.event_table["at_risk"].to_numpy(dtype=np.int64)
    if time_s[0] <= 0:
        return time_s, estimate, low, high, at_risk
    estimate, low, high = (np.insert(column, 0, first) for column in (estimate, low, high))
    return np.insert(time_s, 0, 0.0), estimate, low, high, np.insert(at_risk, 0, 0)


def _where_greenwood_has_none(
    estimate: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    at_risk: NDArray[np.int64],
    kind: Kind,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give an interval before the first event, and where the last cell has it: there the formula has no width."""
    start = 1.0 if kind == "survival" else 0.0
    possible = 1 - 0.025 ** (1 / np.maximum(at_risk, 1))
    low, high = low.copy(), high.copy()
    for i, value in enumerate(estimate):
        if value == start:
            low[i], high[i] = (1 - possible[i], 1.0) if kind == "survival" else (0.0, possible[i])
        elif not low[i] < high[i]:  # NaN too
            low[i], high[i] = min(low[i - 1], value), max(high[i - 1], value)
    return low, high


def _lifelines() -> Any:
    try:
        import lifelines
    except ImportError as error:
        raise LivestainError(
            'Survival curves need lifelines, which is not installed. Install it: pip install "livestain[cells]".'
        ) from error
    return lifelines
