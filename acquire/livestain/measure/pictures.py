"""Draws what became of the cells: their masses by family, and their survival; PNG or SVG, by the file's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError
from livestain.measure.columns import read_columns
from livestain.measure.histories import DEATH, History, cell_histories

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain.measure.columns import CellTable
    from livestain.measure.survival import Curve

__all__ = ["draw_masses", "draw_survival"]

# Okabe & Ito's colours (jfly.uni-koeln.de/color): told apart by colour-blind readers, and in grey by their line styles.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", "-.", ":")
_INK, _SOFT, _OTHERS = "#222222", "#8a8a8a", "#cfcfcf"
_MOST_TICKS = 9  # on a time axis
_SIZE_INCH = (7.2, 4.4)  # the width of a printed page's text
_TITLES = {
    "survival": "Survival: the chance of a cell to live so long (Kaplan-Meier)",
    "death": "Death",
    "division": "Division",
}
_LABELS = {"survival": "cells alive", "death": "cells dead before they divide", "division": "cells divided"}


def draw_masses(path: Path, table: CellTable, *, unit: str = "pg", highlighted: int = 3, title: str = "") -> Path:
    """Draw the dry mass of whole cells against time, each family as one connected tree, up to the deaths.

    Parameters
    ----------
    path
        .png or .svg.
    table
        Cell table with position, cell, parent, time_s, state, at_border and dry_mass_pg.
    unit
        Of the masses, where they are relative.
    highlighted
        How many families stand out in colour: of those with most divisions in the picture, those with most hours in it.

    Raises
    ------
    LivestainError
        matplotlib is not installed, the name ends in something else, columns are missing, or no cell has a mass.
    """
    _check(path)
    columns = read_columns(table, ("position", "time_s", "cell", "dry_mass_pg", "at_border"))
    # At the border it is the mass of the part in the field.
    columns["dry_mass_pg"] = np.where(columns["at_border"], np.nan, columns["dry_mass_pg"])
    if not (np.isfinite(columns["dry_mass_pg"]) & (columns["dry_mass_pg"] > 0)).any():
        raise LivestainError(
            f"No cell of the table has a mass ({columns['cell'].size} rows), so there is nothing to draw. Masses need "
            "a phase image: see measure.phase in the experiment file."
        )
    histories = cell_histories(table, states_needed=False)
    families: dict[tuple[str, int], list[History]] = {}
    for history in histories:
        families.setdefault((history.position, history.root), []).append(history)
    trees = {name: _tree(columns, members) for name, members in families.items()}
    trees = {name: tree for name, tree in trees.items() if tree.lines}
    chosen = sorted(trees, key=lambda name: trees[name].interest, reverse=True)[:highlighted]
    figure, axes = _sheet(title or "Dry mass of whole cells, by family")
    for name, tree in trees.items():
        _draw_tree(axes, tree, _COLOURS[chosen.index(name) % len(_COLOURS)] if name in chosen else None)
    _label_masses(axes, trees, chosen, unit)
    return _save(figure, path)


def draw_survival(
    path: Path,
    curves: Sequence[Curve],
    *,
    truth: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None,
    title: str = "",
) -> Path:
    """Draw survival (or incidence) with its 95 % interval, a curve a condition.

    Parameters
    ----------
    path
        .png or .svg.
    curves
        Of one kind, as `livestain.measure.survival` gives them;
        one without points is named in the legend with its reason.
    truth
        By condition, time_s and share, where they are known: of a simulated culture.

    Raises
    ------
    LivestainError
        matplotlib is not installed, the name ends in something else, or curves of several kinds.
    """
    _check(path)
    kinds = {(curve.kind, curve.origin) for curve in curves}
    if len(kinds) != 1:
        raise LivestainError(f"One picture shows curves of one kind and origin, got {sorted(kinds) or 'no curve'}.")
    kind, origin = kinds.pop()
    figure, axes = _sheet(title or _TITLES[kind])
    for number, curve in enumerate(curves):
        colour, style = _COLOURS[number % len(_COLOURS)], _STYLES[number % len(_STYLES)]
        hours = curve.time_s / 3600
        events = curve.n_divisions if kind == "division" else curve.n_deaths
        what = {"division": "division"}.get(kind, "death") + "s" * (events != 1)
        label = ": ".join(filter(None, (curve.condition, f"{curve.n_cells} cells, {events} {what}")))
        if not hours.size:
            axes.plot(
                [], [], color=colour, linestyle=style, label=": ".join(filter(None, (curve.condition, curve.reason)))
            )
            continue
        band = {"step": "post", "color": colour, "linewidth": 0}
        axes.fill_between(hours, 100 * curve.low, 100 * curve.high, alpha=0.18, **band)
        axes.step(hours, 100 * curve.estimate, where="post", color=colour, linestyle=style, linewidth=1.8, label=label)
    for number, (name, (time_s, share)) in enumerate((truth or {}).items()):
        label = "truth (simulated)" if len(truth or {}) == 1 else f"truth (simulated), {name}"
        colour = _INK if len(truth or {}) == 1 else _COLOURS[number % len(_COLOURS)]
        axes.plot(np.asarray(time_s) / 3600, 100 * np.asarray(share), color=colour, linewidth=1.1, label=label)
    axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    axes.set_xlabel("time (h)" if origin == "run" else "age (h)")
    axes.set_ylabel(f"{_LABELS[kind]} (%)")
    _round_hours(axes)
    if any(curve.time_s.size for curve in curves):
        axes.fill_between([], [], color=_COLOURS[0] if len(curves) == 1 else _SOFT, alpha=0.18, label="95 % interval")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=_INK, loc="best")
    return _save(figure, path)


@dataclass(slots=True)
class _Tree:
    """What is drawn of a family: a line a cell (hours, masses), links from mothers to daughters, and deaths."""

    lines: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=list)
    links: list[tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=list)
    deaths: list[tuple[float, float]] = field(default_factory=list)

    @property
    def interest(self) -> tuple[int, float]:
        """How many divisions and hours of it are to be seen."""
        return self.n_divisions, float(sum(hours[-1] - hours[0] for hours, _ in self.lines))

    @property
    def n_divisions(self) -> int:
        """How many divisions are to be seen; of one or both daughters."""
        return len({mother for mother, _ in self.links})


def _tree(columns: Mapping[str, NDArray[Any]], members: Sequence[History]) -> _Tree:
    tree, ends = _Tree(), dict[int, tuple[float, float]]()
    for member in members:  # in order of their first frames: mothers before daughters
        time_s, mass = columns["time_s"][member.rows], columns["dry_mass_pg"][member.rows]
        there = np.isfinite(mass) & (mass > 0) & (time_s <= member.last_s)  # a dead cell's mass only fades away
        if there.sum() < 2:
            continue  # no line to see, and it would stretch the axis
        hours, mass = time_s[there] / 3600, mass[there]
        tree.lines.append((hours, mass))
        if member.parent in ends:
            tree.links.append((ends[member.parent], (float(hours[0]), float(mass[0]))))
        ends[member.cell] = (float(hours[-1]), float(mass[-1]))
        if member.end == DEATH:
            tree.deaths.append(ends[member.cell])
    return tree


def _draw_tree(axes: Any, tree: _Tree, colour: str | None) -> None:
    """Draw a family; without a colour as background, which an SVG holds as pixels: it would be megabytes of lines."""
    look = {"color": colour, "linewidth": 1.3, "zorder": 3}
    if colour is None:
        look = {"color": _OTHERS, "linewidth": 0.45, "zorder": 2, "rasterized": True}
    for hours, mass in tree.lines:
        axes.plot(hours, mass, **look)
    for mother, daughter in tree.links:
        axes.plot(*zip(mother, daughter, strict=True), linestyle=(0, (1, 1.5)), **look)
    for death in tree.deaths if colour is not None else ():
        axes.plot(*death, marker="X", markersize=7, markeredgecolor="white", color=colour, zorder=4)


def _label_masses(axes: Any, trees: Mapping[tuple[str, int], _Tree], chosen: Sequence[Any], unit: str) -> None:
    """Write the axes and the key, which names what is drawn and nothing else."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    several = len({position for position, _ in trees}) > 1
    for number, (position, root) in enumerate(chosen):
        divisions = trees[position, root].n_divisions
        label = f"{position + ', ' if several else ''}cell {root}: {divisions} division{'s' * (divisions != 1)}"
        axes.plot([], [], linewidth=1.5, label=label, color=_COLOURS[number % len(_COLOURS)])
    if len(trees) > len(chosen):
        others = len(trees) - len(chosen)
        axes.plot([], [], color=_OTHERS, linewidth=1, label=f"{others} other famil{'ies' if others > 1 else 'y'}")
    if any(tree.links for tree in trees.values()):
        axes.plot([], [], color=_SOFT, linestyle=(0, (1, 1.5)), linewidth=1.5, label="division")
    if any(trees[name].deaths for name in chosen):
        axes.plot([], [], color=_SOFT, linestyle="", marker="X", markersize=7, markeredgecolor="white", label="death")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("time (h)")
    axes.set_ylabel(f"dry mass ({unit}), logarithmic")
    axes.margins(x=0.01)
    _round_hours(axes)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=_INK, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _round_hours(axes: Any) -> None:
    """Set the ticks of a time axis in steps that a clock has: 1, 2, 3, 6, 12 hours, whole days."""
    from matplotlib.ticker import MultipleLocator

    low, high = axes.get_xlim()
    day = 24.0
    steps = (1, 2, 3, 6, 12, *(day * n for n in (1, 2, 7, 14, 28)))
    if high - low >= 2:  # of less, matplotlib's tenths of an hour
        step = next((step for step in steps if (high - low) / step <= _MOST_TICKS), steps[-1])
        axes.xaxis.set_major_locator(MultipleLocator(step))


def _sheet(title: str) -> tuple[Any, Any]:
    """Give a figure on opaque white (it is read on dark pages too), made without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCH, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_SOFT)
    axes.tick_params(color=_SOFT, labelcolor=_INK, labelsize=9)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.grid(color="#ececec", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Any, path: Path) -> Path:
    # Without its date an SVG of the same cells is the same file.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    figure.savefig(path, dpi=200, metadata=metadata)
    return path


def _check(path: Path) -> None:
    if path.suffix.lower() not in (".png", ".svg"):
        raise LivestainError(f"Pictures are written as .png or .svg, got {path.name!r}. Name the file so.")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise LivestainError(
            'Pictures of cells need matplotlib, which is not installed. Install it: pip install "livestain[cells]".'
        ) from error
