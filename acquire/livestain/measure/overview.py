"""What was measured of a run, in a few lines for a person."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from livestain.measure._rows import read_rows
from livestain.measure.growth import growth_rates, population_growth
from livestain.measure.table import read_cells, with_masses

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from livestain.measure.growth import PopulationGrowth

__all__ = ["overview_of"]


def overview_of(folder: Path) -> str:
    """Describe the cell table of a run.

    Raises
    ------
    StoreError
        If the run was not measured.
    """
    cells, summary = read_cells(folder), read_rows(folder, "summary")
    if not len(cells):
        reasons = Counter(summary["reason"].to_pylist()).most_common(1)
        return f"no cell in {len(summary)} time points: {reasons[0][0] if reasons else 'nothing was measured'}"
    lines = []
    for position in summary["position"].unique().to_pylist():
        lines += _of_position(position, _only(cells, position), _only(summary, position))
    return "\n".join(lines)


def _only(table: pa.Table, position: str) -> pa.Table:
    return table.filter(np.array(table["position"].to_pylist()) == position)


def _of_position(name: str, cells: pa.Table, summary: pa.Table) -> list[str]:
    hours = float(summary["time_s"][-1].as_py() - summary["time_s"][0].as_py()) / 3600
    ids = set(cells["cell"].to_pylist())
    born = {parent for parent in cells["parent"].to_pylist() if parent}
    lines = [
        f"{name or 'the run'}: {len(summary)} time points over {hours:.3g} h",
        f"  cells      {summary['cells'][0]} at first, {summary['cells'][-1]} at last; {len(ids)} in all, "
        f"{len(born)} divisions",
    ]
    lines += _viability(summary)
    lines += _mass(cells, summary)
    lines += _growth(cells)
    return lines


def _viability(summary: pa.Table) -> list[str]:
    first, last = (_interval(summary, row) for row in (0, -1))
    return [] if last is None else [f"  viability  {first} at first, {last} at last (95 % intervals)"]


def _interval(summary: pa.Table, row: int) -> str | None:
    share, low, high = (summary[f"viability{end}"][row].as_py() for end in ("", "_low", "_high"))
    return None if np.isnan(share) else f"{share:.1%} ({low:.1%} to {high:.1%})"


def _mass(cells: pa.Table, summary: pa.Table) -> list[str]:
    mass = cells["dry_mass_pg"].to_numpy()
    known = np.isfinite(mass)
    if not known.any():
        why = Counter(reason for reason in cells["reason"].to_pylist() if reason).most_common(1)
        return [f"  dry mass   none: {why[0][0] if why else 'no phase was measured'}"]
    method = next(m for m in cells["mass_method"].to_pylist() if m)
    relative = float(np.nanmedian(cells["dry_mass_sd_pg"].to_numpy()[known] / mass[known]))
    whole = [row for row in (0, -1) if np.isfinite(summary["median_dry_mass_pg"][row].as_py())]
    medians = " and ".join(f"{summary['median_dry_mass_pg'][row].as_py():.1f} pg" for row in whole)
    return [f"  dry mass   median {medians} at first and last, by {method}; one cell to {relative:.1%}"]


def _growth(cells: pa.Table) -> list[str]:
    cells, _ = with_masses(cells)
    rates = np.array([growth.rate_per_h for growth in growth_rates(cells)], float)
    rates = rates[np.isfinite(rates)]
    lines = []
    if rates.size:
        low, middle, high = np.percentile(rates, [25, 50, 75])
        spread = f"quartiles {low:.2%}, {high:.2%}"
        lines.append(f"  growth     {middle:.2%} an hour, median of {rates.size} cells ({spread})")
    lines += [_doubling(found) for found in population_growth(cells)]
    return lines


def _doubling(found: PopulationGrowth) -> str:
    by = "number" if found.basis == "count" else "mass"
    if not np.isfinite(found.doubling_h):
        why = found.reason or f"net growth {found.rate_per_h:.2%} an hour"
        return f"  doubling   by {by}: not told ({why})"
    high = f"{found.doubling_high_h:.3g} h" if np.isfinite(found.doubling_high_h) else "never"
    return f"  doubling   by {by}: {found.doubling_h:.3g} h ({found.doubling_low_h:.3g} h to {high})"
