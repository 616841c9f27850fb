"""What was measured of a run, in a few lines for a person."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from livestain.measure._rows import read_rows
from livestain.measure.growth import growth_rates, population_growth
from livestain.measure.reasons import MASS, of_quantity
from livestain.measure.table import read_cells, with_masses

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from livestain.measure.growth import PopulationGrowth

__all__ = ["overview_of"]

_MOST_TOLD = 6  # time points


def overview_of(folder: Path) -> str:
    """Describe the cell table of a run.

    Raises
    ------
    StoreError
        If the run was not measured.
    """
    cells, summary = read_cells(folder), read_rows(folder, "summary")
    if not len(summary):
        return "no time point is in the tables so far: one goes there when a few after it were measured"
    if not len(cells):
        reasons = Counter(summary["reason"].to_pylist()).most_common(1)
        return f"no cell in {_counted(len(summary), 'time point')}: {reasons[0][0]}"
    lines = []
    for position in summary["position"].unique().to_pylist():
        lines += _of_position(position, _only(cells, position), _only(summary, position))
    return "\n".join(lines)


def _only(table: pa.Table, position: str) -> pa.Table:
    return table.filter(np.array(table["position"].to_pylist()) == position)


def _of_position(name: str, cells: pa.Table, summary: pa.Table) -> list[str]:
    hours = float(summary["time_s"][-1].as_py() - summary["time_s"][0].as_py()) / 3600
    told = [f"{name or 'the run'}: {_counted(len(summary), 'time point')} over {hours:.3g} h"]
    if not len(cells):
        return [*told, f"  no cell: {summary['reason'][0]}"]
    ids = set(cells["cell"].to_pylist())
    born = {parent for parent in cells["parent"].to_pylist() if parent}
    first, last = (summary["cells"][row] for row in (0, -1))
    there = f"{first} at first, {last} at last; {len(ids)} in all, {_counted(len(born), 'division')}"
    parts = {"cells": [there], "viability": _viability(summary), **_masses(cells, summary)}
    for title, lines in parts.items():
        told += [f"  {title if i == 0 else '':<10} {line}" for i, line in enumerate(lines)]
    return told


def _viability(summary: pa.Table) -> list[str]:
    known = [_share(summary, row) for row in (0, -1)]
    if not any(known):
        return []
    first, last = (share or "not known" for share in known)
    return [
        f"{first} at first, {last} at last (95 % intervals)",
        "of the cells in the field at that time, those not dead; births raise it. survival.png has another share:",
        "of the cells that were alive, those that live on; births do not raise it",
    ]


def _share(summary: pa.Table, row: int) -> str:
    share, low, high = (summary[f"viability{end}"][row].as_py() for end in ("", "_low", "_high"))
    return "" if np.isnan(share) else f"{share:.1%} ({low:.1%} to {high:.1%})"


def _masses(cells: pa.Table, summary: pa.Table) -> dict[str, list[str]]:
    in_pg, (weighed, unit) = np.isfinite(cells["dry_mass_pg"].to_numpy()).any(), with_masses(cells)
    mass, sd = (weighed[name].to_numpy() for name in ("dry_mass_pg", "dry_mass_sd_pg"))
    known = np.isfinite(mass)
    if not known.any():
        why = Counter(reason for text in cells["reason"].to_pylist() if (reason := of_quantity(text, MASS)))
        return {"dry mass": [f"none: {why.most_common(1)[0][0] if why else 'no phase was measured'}"]}
    relative = float(np.nanmedian(sd[known] / mass[known]))
    lines = [f"standard deviation of one cell's mass {relative:.1%} (median)", *_missing(summary)]
    if in_pg:
        method = next(m for m in cells["mass_method"].to_pylist() if m)
        first, last = (_median(summary, row) for row in (0, -1))
        lines.insert(0, f"median of whole cells {first} at first, {last} at last; by {method}")
    else:
        lines = [f"{unit}; {lines[0]}"]
    return {"dry mass": lines, "growth": _growth(weighed)}


def _median(summary: pa.Table, row: int) -> str:
    median = summary["median_dry_mass_pg"][row].as_py()
    return f"{median:.1f} pg" if np.isfinite(median) else "not known"


def _missing(summary: pa.Table) -> list[str]:
    """Say at which time points no cell was weighed, and of how many cells mass is missing at the others."""
    names = ("t", "cells", "cells_without_mass")
    t, n, without = (summary[name].to_numpy() for name in names)
    why = np.array([_first(text) for text in summary["why_without_mass"].to_pylist()])
    none, some = (n > 0) & (without == n), (without > 0) & (without < n)
    lines = []
    if none.any():
        at = ", ".join(map(str, t[none][:_MOST_TOLD])) + (", ..." if none.sum() > _MOST_TOLD else "")
        told = Counter(why[none].tolist()).most_common(1)[0][0]
        lines.append(f"missing at {none.sum()} of {_counted(len(t), 'time point')} (t={at}): {told}")
    if some.any():
        share = without[some].sum() / n[~none].sum()
        told = Counter(why[some].tolist()).most_common(1)[0][0]
        lines.append(f"missing for {share:.1%} of the cells{' at the others' if none.any() else ''}, mostly: {told}")
    return lines


def _first(why: str) -> str:
    """Give the most frequent of a time point's reasons, without its count."""
    return re.split(r" \(\d+\)(?:; |$)", why)[0]


def _growth(cells: pa.Table) -> list[str]:
    """Say how fast single cells, and all together, grow: in % an hour, and the time in which that doubles."""
    rates = np.array([growth.rate_per_h for growth in growth_rates(cells)], float)
    rates = rates[np.isfinite(rates)]
    lines = []
    if rates.size:
        low, middle, high = np.percentile(rates, [25, 50, 75])
        doubles = f", doubling in {np.log(2) / middle:.3g} h" if middle > 0 else ""
        many = f"median of {_counted(rates.size, 'cell')}; quartiles {low:.2%} and {high:.2%}"
        lines.append(f"one cell's mass: {middle:.2%} an hour{doubles} ({many})")
    lines += [_of_all(found) for found in population_growth(cells)]
    return [*lines, "all of living cells: deaths are set aside"]


def _of_all(found: PopulationGrowth) -> str:
    what = "number of cells" if found.basis == "count" else "all cells' mass"
    if not np.isfinite(found.rate_per_h):
        return f"{what}: not told ({found.reason})"
    rate = f"{what}: {found.rate_per_h:.2%} an hour"
    if not np.isfinite(found.doubling_h):
        return f"{rate} ({found.reason})"
    high = f"{found.doubling_high_h:.3g} h" if np.isfinite(found.doubling_high_h) else "never"
    interval = f"95 % interval {found.doubling_low_h:.3g} h to {high}"
    told = interval if np.isfinite(found.doubling_low_h) else found.reason
    return f"{rate}, doubling in {found.doubling_h:.3g} h ({told})"


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
