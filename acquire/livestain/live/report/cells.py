"""The report's section on cells: curves, masses by family, survival, trees, growth, numbers, and what is missing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from livestain._errors import LivestainError
from livestain.live.report.amounts import by_position, draw_growth, numbers_of
from livestain.live.report.choice import evenly
from livestain.live.report.curves import MOST_IN_COLOUR, draw_curves
from livestain.live.report.lineage import draw_lineage
from livestain.live.report.series import series_of
from livestain.live.report.sheet import written
from livestain.live.report.words import counted
from livestain.measure._rows import iter_batches, read_rows, read_schema
from livestain.measure.growth import growth_rates
from livestain.measure.pictures import draw_masses, draw_survival
from livestain.measure.products import conditions_of
from livestain.measure.summary import SUMMARY_SCHEMA
from livestain.measure.survival import survival_curves
from livestain.measure.table import with_masses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from livestain.live.report.amounts import Number
    from livestain.live.report.sheet import Drawn
    from livestain.live.run_folder import RunFolder
    from livestain.measure.growth import GrowthRate

__all__ = ["Cells", "MissingValue", "cells_of"]

_MOST_ROWS = 100_000  # of cells that single-cell figures are computed from: seconds
_MOST_TIMES = 1500  # of a cell: its growth compares every two
_MOST_REASONS = 12
_MOST_RATED = 1500  # cells whose growth is fitted: some milliseconds each
_NAMES = (
    *("position", "image", "t", "time_s", "cell", "parent", "state", "at_border", "mass_method"),
    *("dry_mass_pg", "dry_mass_sd_pg", "relative_dry_mass", "relative_dry_mass_sd"),
)


@dataclass(frozen=True, slots=True)
class MissingValue:
    """How many rows of a table lack a value, and why."""

    n: str
    share: str
    why: str


@dataclass(slots=True)
class Cells:
    """What the section shows.

    Attributes
    ----------
    measured
        Time points of all positions that were measured; 0 where the run was not measured.
    figures, sentences
        Figures, and what is to be said beside them or in their place.
    numbers
        By position.
    missing, n_rows, without_cells
        Values that are missing, of how many rows; time points without any cell, with their reasons.
    """

    measured: int = 0
    n_rows: int = 0
    figures: list[Drawn] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    numbers: list[tuple[str, list[Number]]] = field(default_factory=list)
    missing: list[MissingValue] = field(default_factory=list)
    without_cells: list[tuple[str, str]] = field(default_factory=list)


def cells_of(run: RunFolder, folder: Path, shown: Sequence[int]) -> Cells:
    """Draw and tabulate what was measured of a run's cells.

    Parameters
    ----------
    run
        The run.
    folder
        For the figures; there already.
    shown
        Numbers of the images whose single cells are looked at.
    """
    found = Cells()
    try:
        summary = read_rows(run.path, "summary")
    except LivestainError:
        return found
    found.measured = len(summary)
    if not len(summary):
        return found
    try:
        _populations(run, folder, found, summary)
        cells = _read(run, found, shown)
        if len(cells):
            _single_cells(run, folder, found, cells, summary, shown)
        else:
            found.sentences.append("No cell was found, so there is no history of single cells.")
    except LivestainError as error:
        found.sentences.append(f"Cells cannot be shown: {error}")
    return found


def _populations(run: RunFolder, folder: Path, found: Cells, summary: pa.Table) -> None:
    _check_columns(run, summary.column_names, SUMMARY_SCHEMA.names)
    series = series_of(summary, conditions_of(run.layout))
    found.figures, found.sentences = draw_curves(folder, series)
    if len(series) > MOST_IN_COLOUR:
        found.sentences.append(
            f"{MOST_IN_COLOUR} of {len(series):,} conditions are drawn in colour, evenly chosen; the others are grey. "
            f"All numbers: livestain cells {run.path} --summary-csv summary.csv"
        )
    why = _reasons(summary["why_without_mass"])
    if why and not np.isfinite(summary["total_dry_mass_pg"].to_numpy()).any():
        found.sentences.append(f"No cell has a dry mass in pg; at most time points because (cells): {why[0][0]}.")
    found.without_cells = [(f"{n:,}", why) for why, n in _reasons(summary["reason"])]


def _check_columns(run: RunFolder, there: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in there]:
        raise LivestainError(
            f"the tables lack {', '.join(missing)}: another version of livestain measured the run. To measure it with "
            f"this one: livestain measure {run.path} --again"
        )


def _reasons(column: Any) -> list[tuple[str, int]]:
    count = Counter(reason for reason in column.to_pylist() if reason)
    return sorted(count.items(), key=lambda item: (-item[1], item[0]))[:_MOST_REASONS]


# ---------------------------------------------------------------------- reading


def _read(run: RunFolder, found: Cells, shown: Sequence[int]) -> pa.Table:
    """Read the rows of the positions that are shown, and count in all rows what is missing."""
    mine, reasons, without_mass, without_state = [], Counter[str](), 0, 0
    wanted = pa.array(shown, pa.int32())
    schema = read_schema(run.path, "cells")
    _check_columns(run, schema.names, _NAMES)
    for batch in iter_batches(run.path, "cells"):
        no_mass = np.isnan(batch.column("dry_mass_pg").to_numpy()) & np.isnan(
            batch.column("relative_dry_mass").to_numpy()
        )
        without_mass += int(no_mass.sum())
        for entry in pc.value_counts(batch.column("reason")).to_pylist():
            reasons[entry["values"]] += entry["counts"]
        states = batch.column("state").cast(pa.string())
        without_state += pc.sum(pc.equal(states, "")).as_py() or 0
        found.n_rows += batch.num_rows
        mine.append(batch.filter(pc.is_in(batch.column("image"), wanted)).select(_NAMES))
    reasons.pop("", None)
    found.missing = _missing(found.n_rows, without_mass, without_state, reasons)
    return pa.Table.from_batches(mine, pa.schema([schema.field(name) for name in _NAMES])).unify_dictionaries()


def _missing(n: int, without_mass: int, without_state: int, reasons: Counter[str]) -> list[MissingValue]:
    def row(count: int, why: str) -> MissingValue:
        share = count / max(1, n)
        return MissingValue(f"{count:,}", "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}", why)

    counts = {
        "have no mass, absolute or relative": without_mass,
        "have no state (live, injured, dead)": without_state,
    }
    rows = [row(count, what) for what, count in counts.items() if count]
    told = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    rows += [row(count, f"reason: {why}") for why, count in told[:_MOST_REASONS]]
    if rest := sum(count for _, count in told[_MOST_REASONS:]):
        rows.append(row(rest, f"{len(told) - _MOST_REASONS} other reasons; they are in the table's column reason"))
    return rows


def _thinned(table: pa.Table) -> tuple[pa.Table, int]:
    """Keep every n-th time point, and the first and last row of each cell: no family is torn apart."""
    n_times = pc.count_distinct(table["t"]).as_py()
    every = max(-(-len(table) // _MOST_ROWS), -(-n_times // _MOST_TIMES))
    if every <= 1:
        return table, 1
    image, cell, t = (table[name].to_numpy() for name in ("image", "cell", "t"))
    order = np.lexsort((t, cell, image))
    new = (np.diff(image[order]) != 0) | (np.diff(cell[order]) != 0)
    keep = t % every == 0
    keep[order[np.concatenate([[True], new])]] = True
    keep[order[np.concatenate([new, [True]])]] = True
    return table.filter(pa.array(keep)), every


def _some_cells(table: pa.Table) -> tuple[pa.Table, int]:
    """Keep every n-th cell, with all its rows."""
    every = -(-_n_cells(table) // _MOST_RATED)
    return (table, 1) if every <= 1 else (table.filter(pa.array(table["cell"].to_numpy() % every == 0)), every)


def _n_cells(table: pa.Table) -> int:
    return len(table.select(["image", "cell"]).group_by(["image", "cell"]).aggregate([]))


# ---------------------------------------------------------------------- single cells


def _single_cells(
    run: RunFolder,
    folder: Path,
    found: Cells,
    cells: pa.Table,
    summary: pa.Table,
    shown: Sequence[int],
) -> None:
    cells, unit = with_masses(cells)
    few, every = _thinned(cells)
    note = f" From every {every}th time point: there are many." if every > 1 else ""
    if len(shown) < len(run.layout.images):
        found.sentences.append(
            f"Masses by family, family trees, growth rates and numbers are of the {len(shown)} positions "
            "that are pictured."
        )
    drawn = [
        _masses(folder, few, unit, note),
        _survival(folder, few, conditions_of(run.layout), note),
        draw_lineage(folder, few, unit),
    ]
    rated, every_cell = _some_cells(few)
    rates = growth_rates(rated)
    share = f" Every {every_cell}th cell was fitted: there are many." if every_cell > 1 else ""
    drawn.append(draw_growth(folder, rates, note + share))
    found.figures += [one for one in drawn if not isinstance(one, str)]
    found.sentences += [one for one in drawn if isinstance(one, str)]
    if every > 1:
        found.sentences.append(
            f"There are {counted(len(cells), 'row')} of cells; figures of single cells and growth use every {every}th "
            f"time point. `livestain cells {run.path}` computes from all of them."
        )
    found.numbers = _numbers(few, summary, rates, unit, shown)


def _masses(folder: Path, table: pa.Table, unit: str, note: str) -> Drawn | str:
    try:
        caption = (
            "Each line is a whole cell's dry mass, on a logarithmic axis so that steady growth is a straight line; a "
            f"family is connected through its divisions. The families with the most divisions are in colour.{note}"
        )
        return written(folder, "masses", lambda path: draw_masses(path, table, unit=_short(unit)), caption, wide=True)
    except LivestainError as error:
        return f"Masses by family: {error}"


def _short(unit: str) -> str:
    return "pg" if unit == "pg" else "relative"


def _survival(folder: Path, table: pa.Table, conditions: Mapping[str, str] | None, note: str) -> Drawn | str:
    if not any(pc.unique(table["state"].cast(pa.string())).to_pylist()):
        return "Survival: no cell has a state (live, injured, dead), because no model of this run classifies cells."
    try:
        curves = survival_curves(table, conditions)
    except LivestainError as error:
        return f"Survival: {error}"
    curves = [curves[i] for i in evenly(len(curves), MOST_IN_COLOUR)]
    caption = (
        "The chance that nothing has killed a cell and its line by this time (Kaplan and Meier), with its 95 % "
        f"interval; cells that divide, leave the field or are lost count for as long as they were watched.{note}"
    )
    return written(folder, "survival", lambda path: draw_survival(path, curves), caption, wide=True)


def _numbers(
    few: pa.Table,
    summary: pa.Table,
    rates: Sequence[GrowthRate],
    unit: str,
    shown: Sequence[int],
) -> list[tuple[str, list[Number]]]:
    rates_of, found = by_position(rates), []
    for image in shown:
        mine = few.filter(pc.equal(few["image"], image))
        rows = summary.filter(pc.equal(summary["image"], image))
        if len(mine) and len(rows):
            name = mine["position"][0].as_py()
            found.append((name, numbers_of(mine, rows, rates_of.get(name, []), unit)))
    return found
