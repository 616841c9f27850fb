"""The summary of a run as one series a condition: what its curves and its numbers are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from livestain.measure.histories import condition_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["Series", "series_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What the cells of one condition are over time, (t,) each; NaN where it is not known.

    Attributes
    ----------
    condition, n_positions
        Well or position, and how many positions it holds.
    hours
        Time of the sample.
    cells
        Counted in all its positions.
    total_pg, total_sd_pg
        Summed up, with the standard deviation.
    median_pg, median_sd_pg
        Of whole cells; of several positions the mean of their medians, each counted with its cells.
    viability, low, high
        Share of cells not dead, with Wilson's 95 % interval, of all positions' cells together.
    """

    condition: str
    n_positions: int
    hours: NDArray[np.float64]
    cells: NDArray[np.float64]
    total_pg: NDArray[np.float64]
    total_sd_pg: NDArray[np.float64]
    median_pg: NDArray[np.float64]
    median_sd_pg: NDArray[np.float64]
    viability: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def series_of(summary: pa.Table, conditions: Mapping[str, str] | None) -> list[Series]:
    """Put the positions of each condition together, at the time points that all of them have.

    Parameters
    ----------
    summary
        Columns of `livestain.measure.summary.SUMMARY_SCHEMA`.
    conditions
        What each position was treated with; without it each position is a condition.
    """
    columns = {name: np.asarray(summary[name].to_numpy(zero_copy_only=False)) for name in summary.column_names}
    positions: dict[str, list[str]] = {}
    for name in dict.fromkeys(summary["position"].to_pylist()):
        positions.setdefault(condition_of(name, conditions), []).append(name)
    order = np.argsort(columns["position"].astype(str), kind="stable")
    names, starts = np.unique(columns["position"][order].astype(str), return_index=True)
    rows = dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))
    return [_series(columns, condition, [rows[name] for name in members]) for condition, members in positions.items()]


def _series(columns: Mapping[str, Any], condition: str, groups: list[NDArray[np.intp]]) -> Series:
    common = set.intersection(*(set(columns["t"][rows].tolist()) for rows in groups))
    t = np.array(sorted(common), dtype=np.int64)
    where = []
    for rows in groups:
        ordered = rows[np.argsort(columns["t"][rows], kind="stable")]
        where.append(ordered[np.isin(columns["t"][ordered], t)])
    at = np.stack(where)  # (position, t)
    known = sum(columns[state][at] for state in ("live", "injured", "dead")).astype(np.float64)
    whole = np.maximum(columns["cells"][at] - columns["cells_at_border"][at], 0).astype(np.float64)
    viability = _mean(columns["viability"][at], known)
    low, high = _wilson(viability, known.sum(axis=0))
    if len(groups) == 1:  # the table's own interval
        low, high = columns["viability_low"][at[0]], columns["viability_high"][at[0]]
    return Series(
        condition=condition,
        n_positions=len(groups),
        hours=columns["time_s"][at].mean(axis=0) / 3600,
        cells=columns["cells"][at].sum(axis=0).astype(np.float64),
        total_pg=columns["total_dry_mass_pg"][at].sum(axis=0),
        total_sd_pg=np.sqrt((columns["total_dry_mass_sd_pg"][at] ** 2).sum(axis=0)),
        median_pg=_mean(columns["median_dry_mass_pg"][at], whole),
        median_sd_pg=_sd_of_mean(columns["median_dry_mass_pg"][at], columns["median_dry_mass_sd_pg"][at], whole),
        viability=viability,
        low=low,
        high=high,
    )


def _weights(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.where(np.isfinite(values), np.maximum(counts, 1e-9), 0.0)
    total = weights.sum(axis=0)
    return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total > 0), dtype=np.float64)


def _mean(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = _weights(values, counts)
    mean = np.asarray((weights * np.nan_to_num(values)).sum(axis=0))
    return np.where(weights.sum(axis=0) > 0, mean, np.nan)


def _sd_of_mean(
    values: NDArray[np.float64], sd: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    weights = _weights(values, counts)
    return np.asarray(np.sqrt((np.where(weights > 0, weights * sd, 0.0) ** 2).sum(axis=0)))


def _wilson(share: NDArray[np.float64], n: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give Wilson's 95 % interval (1927, JASA 22:209) of shares of n."""
    z = float(ndtri(0.975))
    n = np.where(n > 0, n, np.nan)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)
