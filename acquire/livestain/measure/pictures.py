"""Draws what became of the cells: their masses by family, and their survival; PNG or SVG, by the file's name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError
from livestain.measure.columns import read_columns
from livestain.measure.histories import DEATH, DIVISION, History, cell_histories

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
_SIZE_INCH = (7.2, 4.4)  # the width of a printed page's text
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
        How many families stand out in colour: those with the most divisions, then those seen longest.

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
    chosen = sorted(families, key=lambda name: _interest(families[name]), reverse=True)[:highlighted]
    figure, axes = _sheet(title or "Dry mass of whole cells, by family")
    for name, members in families.items():
        if name not in chosen:
            _draw_tree(axes, columns, members, None)
    for number, name in enumerate(chosen):
        _draw_tree(axes, columns, families[name], _COLOURS[number % len(_COLOURS)])
    _label_masses(axes, families, chosen, unit)
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
    figure, axes = _sheet(title or {"survival": "Survival", "death": "Death", "division": "Division"}[kind])
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
        label = "truth" if len(truth or {}) == 1 else f"truth, {name}"
        colour = _INK if len(truth or {}) == 1 else _COLOURS[number % len(_COLOURS)]
        axes.plot(np.asarray(time_s) / 3600, 100 * np.asarray(share), color=colour, linewidth=1.1, label=label)
    axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    axes.set_xlabel("time (h)" if origin == "run" else "age (h)")
    axes.set_ylabel(f"{_LABELS[kind]} (%)")
    axes.plot([], [], color=_SOFT, linewidth=6, alpha=0.4, label="95 % interval")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=_INK, loc="best")
    return _save(figure, path)


def _interest(members: Sequence[History]) -> tuple[int, float]:
    divisions = sum(member.end == DIVISION for member in members)
    return divisions, float(np.nansum([member.last_s - member.first_s for member in members]))


def _draw_tree(axes: Any, columns: Mapping[str, NDArray[Any]], members: Sequence[History], colour: str | None) -> None:
    """Draw a family; without a colour as background, which an SVG holds as pixels: it would be megabytes of lines."""
    look = {"color": colour, "linewidth": 1.3, "zorder": 3}
    if colour is None:
        look = {"color": _OTHERS, "linewidth": 0.45, "zorder": 2, "rasterized": True}
    ends: dict[int, tuple[float, float]] = {}
    for member in members:  # in order of their first frames: mothers before daughters
        time_s, mass = columns["time_s"][member.rows], columns["dry_mass_pg"][member.rows]
        there = np.isfinite(mass) & (mass > 0) & (time_s <= member.last_s)  # a dead cell's mass only fades away
        if there.sum() < 2:
            continue  # no line to see, and it would stretch the axis
        hours, mass = time_s[there] / 3600, mass[there]
        axes.plot(hours, mass, **look)
        if member.parent in ends:
            mother_h, mother_pg = ends[member.parent]
            axes.plot([mother_h, hours[0]], [mother_pg, mass[0]], linestyle=(0, (1, 1.5)), **look)
        ends[member.cell] = (float(hours[-1]), float(mass[-1]))
        if colour is not None and member.end == DEATH:
            axes.plot(hours[-1], mass[-1], marker="X", markersize=7, markeredgecolor="white", color=colour, zorder=4)


def _label_masses(
    axes: Any, families: Mapping[tuple[str, int], Sequence[History]], chosen: Sequence[Any], unit: str
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    several = len(Counter(position for position, _ in families)) > 1
    for number, (position, root) in enumerate(chosen):
        divisions = sum(member.end == DIVISION for member in families[position, root])
        label = f"{position + ', ' if several else ''}cell {root}: {divisions} division{'s' * (divisions != 1)}"
        axes.plot([], [], linewidth=1.5, label=label, color=_COLOURS[number % len(_COLOURS)])
    if len(families) > len(chosen):
        others = len(families) - len(chosen)
        axes.plot([], [], color=_OTHERS, linewidth=1, label=f"{others} other famil{'ies' if others > 1 else 'y'}")
    axes.plot([], [], color=_SOFT, linestyle=(0, (1, 1.5)), linewidth=1.5, label="division")
    axes.plot([], [], color=_SOFT, linestyle="", marker="X", markersize=7, markeredgecolor="white", label="death")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("time (h)")
    axes.set_ylabel(f"dry mass ({unit}), logarithmic")
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=_INK, loc="upper left", bbox_to_anchor=(1.0, 1.0))


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
