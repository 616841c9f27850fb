"""Family trees of the cells that divided most: a bar a cell from its birth to its end, its daughters beside it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.live.report.sheet import new_sheet, written
from livestain.live.report.words import counted
from livestain.measure.columns import read_columns
from livestain.measure.histories import DEATH, DIVISION, History, cell_histories
from livestain.measure.pictures import _COLOURS, _INK, _OTHERS, _SOFT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain.live.report.sheet import Drawn
    from livestain.measure.columns import CellTable

__all__ = ["draw_lineage"]

_MOST_FAMILIES, _MOST_BARS = 4, 60
_PIECES = 40  # of a bar: its colour follows the mass
_STATES = {"live": _COLOURS[2], "injured": _COLOURS[4], "dead": _COLOURS[1], "": _SOFT}


def draw_lineage(folder: Path, table: CellTable, unit: str) -> Drawn | str:
    """Draw the families with the most divisions, coloured by mass where there is one, else by state.

    Returns
    -------
    The figure, or why there is none.
    """
    columns = read_columns(table, ("position", "time_s", "cell", "state", "dry_mass_pg", "at_border"))
    # At the border it is the mass of the part in the field.
    columns["dry_mass_pg"] = np.where(columns["at_border"], np.nan, columns["dry_mass_pg"])
    families: dict[tuple[str, int], list[History]] = {}
    for history in cell_histories(table, states_needed=False):
        families.setdefault((history.position, history.root), []).append(history)
    names = [name for name in families if _divisions(families[name])]
    names.sort(key=lambda name: (-_divisions(families[name]), -len(families[name]), name))
    if not names:
        return "No division was seen, so there is no family tree to draw."
    chosen = [name for name in names[:_MOST_FAMILIES] if len(families[name]) <= _MOST_BARS] or names[:1]
    slots = {name: _slots(families[name]) for name in chosen}
    n_slots = sum(len(slots[name]) + 1 for name in chosen)
    figure, axes = new_sheet("Family trees", wide=True, height_inch=min(9.0, 1.6 + 0.17 * n_slots))
    by_mass = bool(np.isfinite(columns["dry_mass_pg"]).any())
    scale = _range(columns["dry_mass_pg"], [member for name in chosen for member in families[name]])
    several = len({position for position, _ in families}) > 1
    bars, offset = _Bars(), 0
    for name in chosen:
        bars.add(columns, families[name], slots[name], offset)
        label = f"cell {name[1]}: {counted(_divisions(families[name]), 'division')}"
        first_h = min(columns["time_s"][member.rows[0]] for member in families[name]) / 3600
        axes.text(
            first_h, offset - 0.75, f"{name[0]}, {label}" if several else label, fontsize=8.5, color=_INK, va="center"
        )
        offset += len(slots[name]) + 1
    _finish(figure, axes, bars.draw(axes, scale if by_mass else None), unit, offset)
    what = f"{len(chosen)} of {len(names):,} families with a division: those with the most divisions."
    if len(chosen) == len(names):
        what = "The only family with a division." if len(names) == 1 else f"All {len(names)} families with a division."
    colour = f"the colour is its mass ({unit})" if by_mass else "the colour is its state"
    caption = (
        f"{what} A bar is one cell from when it was first seen to its end, {colour}; "
        "at a thin upright line it divides into its daughters, at a cross it dies; a bar that simply ends left "
        "the field, was lost, or was there at the end of the run. Grey: no mass (at the border, or not weighed)."
    )
    return written(folder, "lineage", figure, caption, wide=True)


def _range(mass: NDArray[np.float64], members: Sequence[History]) -> tuple[float, float]:
    mine = mass[np.concatenate([member.rows for member in members])]
    mine = mine[np.isfinite(mine)]
    if not mine.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(mine, (2, 98)))
    return low, max(high, low * 1.001 + 1e-9)


def _divisions(members: Sequence[History]) -> int:
    return sum(member.end == DIVISION for member in members)


def _slots(members: Sequence[History]) -> dict[int, int]:
    """Give each cell its line, daughters around their mother, so that no two bars lie on one another."""
    daughters: dict[int, list[int]] = {}
    known = {member.cell for member in members}
    for member in members:
        if member.parent in known:
            daughters.setdefault(member.parent, []).append(member.cell)
    order: list[int] = []
    # In order without recursion: a tree may be a thousand generations deep.
    stack: list[tuple[int, bool]] = [(member.cell, False) for member in members if member.parent not in known][::-1]
    while stack:
        cell, placed = stack.pop()
        if placed:
            order.append(cell)
            continue
        children = daughters.get(cell, [])
        half = (len(children) + 1) // 2
        stack += [(child, False) for child in children[half:]][::-1]
        stack.append((cell, True))
        stack += [(child, False) for child in children[:half]][::-1]
    return {cell: number for number, cell in enumerate(order)}


class _Bars:
    """Collects the bars of all families, and draws them at once: one by one they take seconds."""

    def __init__(self) -> None:
        self._lives: list[tuple[float, float, float]] = []  # y, from, to in hours
        self._pieces: list[tuple[float, float, float]] = []
        self._mass: list[float] = []
        self._states: list[str] = []
        self._links: list[tuple[float, float]] = []  # corners, with NaN between links
        self._deaths: list[tuple[float, float]] = []

    def add(
        self, columns: Mapping[str, NDArray[Any]], members: Sequence[History], slots: Mapping[int, int], offset: int
    ) -> None:
        """Add a family, mothers before daughters."""
        ends_h: dict[int, float] = {}
        for member in members:
            if member.cell not in slots:
                continue  # of a ring of parents in a damaged table
            y = offset + slots[member.cell]
            rows, edges = _life(columns, member)
            self._lives.append((y, edges[0], edges[-1]))
            self._pieces += [(y, start, end) for start, end in itertools.pairwise(edges)]
            self._mass += columns["dry_mass_pg"][rows].tolist()
            self._states += columns["state"][rows].tolist()
            if member.parent in ends_h:
                mother_y = offset + slots[member.parent]
                self._links += [
                    (ends_h[member.parent], mother_y),
                    (edges[0], mother_y),
                    (edges[0], y),
                    (np.nan, np.nan),
                ]
            if member.end == DEATH:
                self._deaths.append((edges[-1], y))
            ends_h[member.cell] = edges[-1]

    def draw(self, axes: Any, scale: tuple[float, float] | None) -> Any:
        """Draw all; coloured by mass between the ends of the scale, else by state. Give what a colour bar needs."""
        axes.hlines(*zip(*self._lives, strict=True), color=_OTHERS, linewidth=4, zorder=2)
        if self._links:
            axes.plot(*zip(*self._links, strict=True), color=_SOFT, linewidth=0.9, zorder=1)
        y, start, end = (np.array(values) for values in zip(*self._pieces, strict=True))
        if scale is None:
            bars = axes.hlines(
                y, start, end, colors=[_STATES.get(s, _SOFT) for s in self._states], linewidth=4, zorder=3
            )
        else:
            mass = np.array(self._mass)
            there = np.isfinite(mass)
            look = {"array": mass[there], "cmap": "viridis", "linewidth": 4, "zorder": 3}
            bars = axes.hlines(y[there], start[there], end[there], **look)
            bars.set_clim(*scale)
        for hours, at in self._deaths:
            axes.plot(hours, at, marker="X", markersize=6, color=_INK, markeredgecolor="white", zorder=5)
        return None if scale is None else bars


def _life(columns: Mapping[str, NDArray[Any]], member: History) -> tuple[NDArray[np.intp], list[float]]:
    """Give some of a cell's rows up to its end, and the hours between which each colours the bar."""
    time_s = columns["time_s"]
    rows = member.rows[time_s[member.rows] <= member.end_s] if member.end == DEATH else member.rows
    rows = rows if rows.size else member.rows[:1]
    rows = rows[np.linspace(0, rows.size - 1, min(rows.size, _PIECES)).round().astype(int)]
    last_s = float(time_s[rows[-1]])
    end_s = max(member.end_s, last_s) if np.isfinite(member.end_s) else last_s
    return rows, (np.append(time_s[rows], end_s) / 3600).tolist()


def _finish(figure: Any, axes: Any, bars: Any, unit: str, n_slots: int) -> None:
    axes.set_ylim(n_slots - 0.5, -1.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("time (h)")
    if bars is not None:
        short = "pg" if unit == "pg" else "relative"
        scale = figure.colorbar(bars, ax=axes, shrink=0.7, pad=0.02, extend="both")
        scale.set_label(f"dry mass ({short})", size=9)
        scale.ax.tick_params(labelsize=8.5)
        return
    for state, colour in _STATES.items():
        axes.plot([], [], color=colour, linewidth=4, label=state or "no state")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
