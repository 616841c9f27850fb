"""Measures how fast cells grow, from their masses, and how fast a population doubles, from counts and from mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.stats import theilslopes

from livestain.measure.columns import read_columns
from livestain.measure.histories import DEATH, DIVISION, History, cell_histories, condition_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from livestain.measure.columns import CellTable

__all__ = ["CORRECTED", "GrowthRate", "PopulationGrowth", "growth_rates", "population_growth"]

_FEWEST = 5  # masses: two are spent on the line, and a bad frame must be told from the others
_FEWEST_FAMILIES = 5  # resampled: fewer give no interval
_LATEST_DAUGHTER = 3  # frames after her mother's last in which a daughter may first be seen
_BISQUARE = 4.685  # residuals beyond this many standard deviations do not count (95 % efficient for normal errors)
_RESAMPLED = 400

CORRECTED = (
    "Cells that enter or leave over the border, are found late or lost count only between frames that both show them "
    "or their daughters, and only if the border does not cut them in the first of the two: of a mother there one "
    "daughter is often not seen. Growth leaves deaths out (what the living do); net growth has them in. A division "
    "whose daughters the tracker did not link to their mother is not seen: counts then grow too slowly."
)


@dataclass(frozen=True, slots=True)
class GrowthRate:
    """How fast one cell grows: its mass is exp(rate * time).

    Attributes
    ----------
    position, cell
        Which cell.
    rate_per_h, se_per_h
        Relative growth per hour (ln 2 / 20 h = 0.0347 for a mass that doubles in 20 h), and its standard error; NaN
        where there is a reason.
    doubling_h
        ln 2 / rate; NaN where it does not grow.
    n, n_bad
        Masses that were fitted, and how many of them the fit ignored.
    reason
        Why there is no rate, "" where there is.
    """

    position: str
    cell: int
    rate_per_h: float
    se_per_h: float
    doubling_h: float
    n: int
    n_bad: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PopulationGrowth:
    """How fast the cells of one condition multiply.

    Attributes
    ----------
    condition
        Well, treatment or position.
    basis
        "count" or "mass".
    rate_per_h, low_per_h, high_per_h
        Growth of the living per hour with its 95 % interval (families resampled), migration and deaths corrected.
    net_rate_per_h
        The same with the deaths.
    doubling_h, doubling_low_h, doubling_high_h
        ln 2 / rate; the upper end is infinite where the interval of the rate holds 0.
    n_cells, n_divisions, n_deaths
        What it was computed from.
    reason
        Why a value is NaN, "" where none is.
    """

    condition: str
    basis: Literal["count", "mass"]
    rate_per_h: float
    low_per_h: float
    high_per_h: float
    net_rate_per_h: float
    doubling_h: float
    doubling_low_h: float
    doubling_high_h: float
    n_cells: int
    n_divisions: int
    n_deaths: int
    reason: str = ""


_NAMES = ("position", "cell", "parent", "t", "time_s", "state", "dry_mass_pg", "dry_mass_sd_pg", "at_border")


def growth_rates(table: CellTable) -> list[GrowthRate]:
    """Fit an exponential to each cell's mass while it lives.

    Rows count in which the cell is "live" (or has no state) and clear of the border, with a mass. The logarithm of the
    mass is fitted by a line, each mass weighted by its standard deviation, bad frames down-weighted (Tukey's
    bisquare from Theil's line). The standard error follows the scatter about the line, and the correlation of
    successive residuals (effective number of masses of a first-order autoregressive series).

    Parameters
    ----------
    table
        With position, cell, parent, t, time_s, state, dry_mass_pg, dry_mass_sd_pg and at_border.

    Raises
    ------
    LivestainError
        Columns are missing, or times are.
    """
    columns = read_columns(table, _NAMES)
    return [_growth_rate(columns, history) for history in cell_histories(table, states_needed=False)]


def population_growth(table: CellTable, conditions: Mapping[str, str] | None = None) -> list[PopulationGrowth]:
    """Measure how fast the population of each condition grows, from counts and from mass.

    Between two successive frames the cells that both show, themselves or as daughters, are compared, where the first
    shows them whole: ln(after/before), summed over the frames and divided by the time. `CORRECTED` says what this
    corrects. Intervals resample whole families, whose cells divide in step.

    Parameters
    ----------
    table
        As `growth_rates`; all positions of a condition are taken together.
    conditions
        What each position was treated with; without it each position is a condition.

    Raises
    ------
    LivestainError
        Columns are missing, or times are.
    """
    columns = read_columns(table, _NAMES)
    groups: dict[str, list[History]] = {}
    for history in cell_histories(table, states_needed=False):
        groups.setdefault(condition_of(history.position, conditions), []).append(history)
    found = []
    for condition in sorted(groups):
        found.append(_population(columns, groups[condition], condition, "count"))
        found.append(_population(columns, groups[condition], condition, "mass"))
    return found


# ---------------------------------------------------------------------- one cell


def _growth_rate(columns: Mapping[str, NDArray[Any]], history: History) -> GrowthRate:
    rows = history.rows
    mass, state = columns["dry_mass_pg"][rows], columns["state"][rows]
    with np.errstate(invalid="ignore"):
        usable = (mass > 0) & np.isfinite(mass) & ~columns["at_border"][rows] & np.isin(state, ("live", ""))
    rows = rows[usable]
    hours = columns["time_s"][rows] / 3600
    if rows.size < _FEWEST or np.unique(hours).size < _FEWEST:
        reason = f"{rows.size} masses, fewer than {_FEWEST}" if usable.size else "no mass"
        return GrowthRate(history.position, history.cell, np.nan, np.nan, np.nan, rows.size, 0, reason)
    mass = columns["dry_mass_pg"][rows]
    rate, se, n_bad = _robust_line(hours, np.log(mass), _relative_sd(mass, columns["dry_mass_sd_pg"][rows]))
    doubling_h = float(np.log(2) / rate) if rate > 0 else np.nan
    return GrowthRate(history.position, history.cell, rate, se, doubling_h, rows.size, n_bad)


def _relative_sd(mass: NDArray[np.float64], sd: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the masses' relative standard deviations; one without counts as the median of the others."""
    with np.errstate(invalid="ignore"):
        known = np.isfinite(sd) & (sd > 0)
    relative = np.where(known, sd, 1.0) / mass
    typical = float(np.median(relative[known])) if known.any() else 1.0
    return np.where(known, relative, typical)


def _robust_line(x: NDArray[np.float64], y: NDArray[np.float64], sd: NDArray[np.float64]) -> tuple[float, float, int]:
    """Give slope, its standard error, and how many points it ignores."""
    slope = float(theilslopes(y, x)[0])
    level = float(np.median(y - slope * x))
    for _ in range(20):
        residual = (y - level - slope * x) / sd
        scale = max(1.4826 * float(np.median(np.abs(residual))), 1e-9)
        weight = np.clip(1 - (residual / (_BISQUARE * scale)) ** 2, 0, None) ** 2 / sd**2
        middle = float(np.average(x, weights=weight))
        slope = float((weight * (x - middle) * y).sum() / (weight * (x - middle) ** 2).sum())
        level = float(np.average(y - slope * x, weights=weight))
    residual = (y - level - slope * x) / sd
    good = weight > 0
    share = weight * sd**2  # 1 for a point that counts fully
    spread = float((share * residual**2).sum() / max(share.sum() - 2, 1))
    variance = spread / float((weight * (x - middle) ** 2).sum())
    return slope, float(np.sqrt(variance * _repeats(residual[good]))), int((~good).sum())


def _repeats(residual: NDArray[np.float64]) -> float:
    """Give how many successive residuals say the same thing: (1 + r)/(1 - r) for their correlation r."""
    power = float((residual**2).sum())
    r = float((residual[1:] * residual[:-1]).sum()) / power if power > 0 else 0.0
    r = min(max(r, 0.0), 0.95)
    return (1 + r) / (1 - r)


# ---------------------------------------------------------------------- a population


def _population(
    columns: Mapping[str, NDArray[Any]],
    histories: Sequence[History],
    condition: str,
    basis: Literal["count", "mass"],
) -> PopulationGrowth:
    steps = _Steps(columns, histories, basis)
    n_families = steps.before.shape[1]
    whole = np.ones((1, n_families))
    rate, net = float(steps.rate(whole)[0]), float(steps.net_rate(whole)[0])
    low, high, reasons = np.nan, np.nan, []
    if not np.isfinite(rate):
        what = "living cell" if basis == "count" else "living cell with a mass, clear of the border,"
        reasons.append(f"no {what} is seen in two successive frames")
    elif n_families < _FEWEST_FAMILIES:
        reasons.append(f"{n_families} families, fewer than {_FEWEST_FAMILIES}: no interval")
    else:
        drawn = np.random.default_rng(1).multinomial(n_families, np.full(n_families, 1 / n_families), _RESAMPLED)
        low, high = (float(v) for v in np.nanpercentile(steps.rate(drawn.astype(np.float64)), (2.5, 97.5)))
    if rate <= 0:
        reasons.append("the population does not grow")
    return PopulationGrowth(
        condition=condition,
        basis=basis,
        rate_per_h=rate,
        low_per_h=low,
        high_per_h=high,
        net_rate_per_h=net,
        doubling_h=_doubling(rate) if rate > 0 else np.nan,
        doubling_low_h=_doubling(high) if rate > 0 else np.nan,
        doubling_high_h=_doubling(low) if rate > 0 else np.nan,
        n_cells=len(histories),
        n_divisions=steps.n_divisions,
        n_deaths=sum(history.end == DEATH for history in histories),
        reason="; ".join(reasons),
    )


def _doubling(rate_per_h: float) -> float:
    return np.inf if rate_per_h <= 0 else float(np.log(2) / rate_per_h)


class _Steps:
    """What the living of two successive frames amount to before and after; arrays of (steps, families)."""

    def __init__(
        self, columns: Mapping[str, NDArray[Any]], histories: Sequence[History], basis: Literal["count", "mass"]
    ) -> None:
        self._amount = np.ones(columns["cell"].size) if basis == "count" else _whole_masses(columns)
        self._state, self._cut = columns["state"], columns["at_border"]
        frames, self._frame = np.unique(columns["t"], return_inverse=True)
        mine = np.concatenate([history.rows for history in histories])
        counts = np.bincount(self._frame[mine], minlength=frames.size)
        sums_s = np.bincount(self._frame[mine], columns["time_s"][mine], frames.size)
        times_s = np.divide(sums_s, counts, out=np.full(frames.size, np.nan), where=counts > 0)
        self._hours = np.nan_to_num(np.diff(times_s) / 3600)  # a frame without cells ends no step
        families = sorted({(h.position, h.root) for h in histories})
        self._family = {family: number for number, family in enumerate(families)}
        shape = (frames.size - 1, len(families))
        self.before, self.after, self.lost = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.n_divisions = 0
        daughters: dict[tuple[str, int], list[History]] = {}
        for history in histories:
            daughters.setdefault((history.position, history.parent), []).append(history)
        for history in histories:
            self._add(history, daughters.get((history.position, history.cell), []))

    def rate(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Growth of the living, per hour, for each row of weights (one a family)."""
        return self._rate(weights @ self.before.T, weights @ self.after.T)

    def net_rate(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Growth with the deaths: what died counts before, and not after."""
        return self._rate(weights @ (self.before + self.lost).T, weights @ self.after.T)

    def _rate(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            growth = np.log(after / before)
        usable = (before > 0) & (after > 0)
        hours = (usable * self._hours).sum(axis=1)
        total = np.where(usable, growth, 0).sum(axis=1)
        return np.asarray(np.divide(total, hours, out=np.full(total.shape, np.nan), where=hours > 0), dtype=np.float64)

    def _add(self, history: History, daughters: Sequence[History]) -> None:
        """Enter what one cell was and became, frame by frame."""
        family = self._family[history.position, history.root]
        living = np.isin(self._state[history.rows], ("live", "injured", ""))
        rows = history.rows[living | (history.end == DIVISION)]
        step, amount, whole = self._frame[rows], self._amount[rows], ~self._cut[rows]
        known = np.isfinite(amount)
        follows = np.flatnonzero((np.diff(step) == 1) & whole[:-1] & known[:-1] & known[1:])
        self.before[step[follows], family] += amount[follows]  # each frame once: no index is there twice
        self.after[step[follows], family] += amount[follows + 1]
        if not rows.size or step[-1] >= len(self._hours) or not (known[-1] and whole[-1]):
            return
        if history.end == DEATH:
            self.lost[step[-1], family] += amount[-1]
        elif len(daughters) > 1:
            born = np.array([self._amount[daughter.rows[0]] for daughter in daughters])
            late = max(int(self._frame[daughter.rows[0]]) for daughter in daughters) - step[-1]
            if 0 < late <= _LATEST_DAUGHTER and np.isfinite(born).all():
                self.n_divisions += 1
                self.before[step[-1], family] += amount[-1]
                self.after[step[-1], family] += born.sum()


def _whole_masses(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Give the masses, NaN for cells that the border may cut."""
    return np.where(columns["at_border"], np.nan, columns["dry_mass_pg"])
