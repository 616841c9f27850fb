"""The numbers of a run's cells, each with its uncertainty and how it was got: those that `livestain cells` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.live.report.sheet import new_sheet, written
from livestain.live.report.words import counted, length_of_time
from livestain.measure.growth import population_growth
from livestain.measure.pictures import _COLOURS, _INK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from livestain.live.report.sheet import Drawn
    from livestain.measure.growth import GrowthRate, PopulationGrowth

__all__ = ["Number", "draw_growth", "numbers_of"]


@dataclass(frozen=True, slots=True)
class Number:
    """A quantity, its value, its uncertainty, and the method."""

    what: str
    value: str
    uncertainty: str
    method: str


def numbers_of(cells: pa.Table, summary: pa.Table, rates: Sequence[GrowthRate], unit: str) -> list[Number]:
    """Give the numbers of one position.

    Parameters
    ----------
    cells
        All its rows, with its masses in `dry_mass_pg`.
    summary
        Its rows of the summary.
    rates
        Of its cells.
    unit
        Of the masses.
    """
    span_s = float(summary["time_s"][-1].as_py() - summary["time_s"][0].as_py())
    time = f"{len(summary):,} over {span_s / 3600:.3g} h"
    rows = [Number("time points measured", time, "", f"{length_of_time(span_s)} of the sample")]
    for end, row in (("first", 0), ("last", -1)):
        rows.append(Number(f"cells at {end}", f"{summary['cells'][row].as_py():,}", "", "counted in the field"))
    ids, parents = cells["cell"].to_numpy(), cells["parent"].to_numpy()
    born = np.unique(parents[parents > 0]).size
    followed = "tracked; one that leaves and comes back counts twice"
    rows.append(Number("cells in all", f"{np.unique(ids).size:,}", "", followed))
    rows.append(Number("divisions", f"{born:,}", "", "mothers with a daughter; those not linked are not seen"))
    rows += _viability(summary) + _mass(cells, summary, unit) + _growth(rates)
    return rows + [_doubling(found) for found in population_growth(cells)]


def _viability(summary: pa.Table) -> list[Number]:
    found = []
    for end, row in (("first", 0), ("last", -1)):
        share, low, high = (summary[f"viability{part}"][row].as_py() for part in ("", "_low", "_high"))
        if np.isfinite(share):
            method = "share of cells not dead; 95 % interval of Wilson"
            found.append(Number(f"viability at {end}", f"{share:.1%}", f"{low:.1%} to {high:.1%}", method))
        else:
            found.append(Number(f"viability at {end}", "none", "", "no cell of this time point has a state"))
    return found


def _mass(cells: pa.Table, summary: pa.Table, unit: str) -> list[Number]:
    mass = cells["dry_mass_pg"].to_numpy()
    known = np.isfinite(mass)
    if not known.any():
        return [Number("dry mass of a cell", "none", "", "the reasons are below, under missing values")]
    if unit != "pg":
        return [Number("dry mass of a cell", "relative only", "", f"{unit}; the phase image has no known scale")]
    methods = sorted({m for m in cells["mass_method"].unique().to_pylist() if m})
    found = []
    for end, row in (("first", 0), ("last", -1)):
        value, sd = (summary[f"median_dry_mass{part}_pg"][row].as_py() for part in ("", "_sd"))
        if np.isfinite(value):
            spread = f"\u00b1 {sd:.1f} pg (1 sd)" if np.isfinite(sd) else "one cell: not known"
            method = f"of whole cells, by {', '.join(methods)}"
            found.append(Number(f"median dry mass at {end}", f"{value:.1f} pg", spread, method))
    relative = float(np.nanmedian(cells["dry_mass_sd_pg"].to_numpy()[known] / mass[known]))
    error = f"{relative:.1%}" if np.isfinite(relative) else "not known"
    return [*found, Number("error of one cell's mass", error, "", "median over cells, from the noise of the phase")]


def _growth(rates: Sequence[GrowthRate]) -> list[Number]:
    values = finite_rates(rates)
    if not values.size:
        return [Number("growth of a cell", "none", "", "no cell was weighed in five time points while it lived")]
    low, middle, high = np.percentile(values, [25, 50, 75])
    method = f"median of {counted(values.size, 'cell')}; exponential fitted to each one's mass"
    doubles = f", doubling in {np.log(2) / middle:.3g} h" if middle > 0 else ""
    return [Number("growth of a cell", f"{middle:.2%} an hour{doubles}", f"quartiles {low:.2%} and {high:.2%}", method)]


def finite_rates(rates: Sequence[GrowthRate]) -> NDArray[np.float64]:
    """Give the rates that are known, per hour."""
    values = np.array([rate.rate_per_h for rate in rates], float)
    known: NDArray[np.float64] = values[np.isfinite(values)]
    return known


def _doubling(found: PopulationGrowth) -> Number:
    what = f"growth of {'the number of living cells' if found.basis == 'count' else 'the mass of all living cells'}"
    families = "families resampled, 95 %; deaths and cells that come and go corrected"
    if not np.isfinite(found.rate_per_h):
        return Number(what, "not told", "", found.reason)
    rate = f"{found.rate_per_h:.2%} an hour"
    if not np.isfinite(found.doubling_h):
        return Number(what, rate, "", found.reason)
    told = f"{rate}, doubling in {found.doubling_h:.3g} h"
    if not np.isfinite(found.doubling_low_h):
        return Number(what, told, "not known", found.reason or families)
    high = f"{found.doubling_high_h:.3g} h" if np.isfinite(found.doubling_high_h) else "never"
    return Number(what, told, f"{found.doubling_low_h:.3g} h to {high}", families)


def draw_growth(folder: Path, rates: Sequence[GrowthRate], note: str) -> Drawn | str:
    """Draw how the growth rates of single cells are distributed; or say why not."""
    values = 100 * finite_rates(rates)
    if values.size < 2:
        return "Growth rates: fewer than two cells were weighed in five time points while they lived."
    low, middle, high = np.percentile(values, [25, 50, 75])
    # A cell that was lost after five frames may have any rate: it would squeeze all others into one bar.
    reach = 3 * max(high - low, 0.1)
    seen = values[(values >= low - reach) & (values <= high + reach)]
    figure, axes = new_sheet("Growth rates of single cells")
    axes.hist(seen, bins=min(40, max(5, round(2 * seen.size ** (1 / 2)))), color=_COLOURS[0], alpha=0.75)
    axes.axvspan(low, high, color=_INK, alpha=0.1, linewidth=0, label="quartiles")
    axes.axvline(middle, color=_INK, linewidth=1.4, label=f"median {middle:.2f} % an hour")
    axes.set_xlabel("growth of dry mass (% an hour)")
    axes.set_ylabel("cells")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, borderaxespad=0)
    beyond = values.size - seen.size
    outside = f" {counted(beyond, 'cell')} with a rate far outside are not drawn." if beyond else ""
    fitted = f"Exponential growth of {counted(values.size, 'cell')}, fitted to each one's mass while it lived."
    caption = fitted + outside + note
    return written(folder, "growth-rates", figure, caption)


def by_position(rates: Sequence[GrowthRate]) -> Mapping[str, list[GrowthRate]]:
    """Sort rates by the position of their cells."""
    found: dict[str, list[Any]] = {}
    for rate in rates:
        found.setdefault(rate.position, []).append(rate)
    return found
