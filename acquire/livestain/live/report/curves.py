"""Curves of the cells over time: their count, their masses, and how many are viable; a line a condition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.live.report.choice import evenly
from livestain.live.report.sheet import new_sheet, plain_label, written
from livestain.live.report.words import counted
from livestain.measure.pictures import _COLOURS, _OTHERS, _STYLES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain.live.report.series import Series
    from livestain.live.report.sheet import Drawn

__all__ = ["MOST_IN_COLOUR", "draw_curves"]

MOST_IN_COLOUR = len(_COLOURS)
_MOST_POINTS = 500  # of a line: more cannot be seen, and would be megabytes
_FIGURES = (
    ("cells", "Cells", "cells counted", "Cells in the field, those that were not seen for a moment among them."),
    (
        "total-mass",
        "Total dry mass",
        "total dry mass (ng)",
        "Dry mass of all cells that could be weighed, parts of cells at the border among them; the band is one "
        "standard deviation of the sum.",
    ),
    (
        "median-mass",
        "Median dry mass of a cell",
        "median dry mass (pg)",
        "Median of whole cells, none at the border; the band is one standard deviation of the median.",
    ),
    (
        "viability",
        "Viability",
        "cells not dead (%)",
        "Share of cells that are not dead, of all whose state is known; the band is Wilson's 95 % interval, which "
        "covers the chance of having seen these cells rather than others, not errors of the model.",
    ),
)


def draw_curves(folder: Path, series: Sequence[Series]) -> tuple[list[Drawn], list[str]]:
    """Draw one figure a quantity; a quantity that is nowhere known has a sentence in place of its figure."""
    drawn, said = [], []
    for name, title, label, caption in _FIGURES:
        triples = [_values(one, name) for one in series]
        if not any(np.isfinite(middle).any() for middle, _, _ in triples):
            said.append(f"{title}: no value at any time point.")
            continue
        drawn.append(_draw(folder, name, title, label, caption, series, triples))
    return drawn, said


_Triple = tuple["NDArray[np.float64]", "NDArray[np.float64]", "NDArray[np.float64]"]


def _values(one: Series, name: str) -> _Triple:
    """Give the line and its band, in the unit of the axis."""
    if name == "cells":
        return one.cells, one.cells, one.cells
    if name == "viability":
        return 100 * one.viability, 100 * one.low, 100 * one.high
    if name == "total-mass":
        middle, sd = one.total_pg / 1000, one.total_sd_pg / 1000
    else:
        middle, sd = one.median_pg, one.median_sd_pg
    return middle, middle - sd, middle + sd


def _draw(
    folder: Path,
    name: str,
    title: str,
    label: str,
    caption: str,
    series: Sequence[Series],
    triples: Sequence[_Triple],
) -> Drawn:
    figure, axes = new_sheet(title)
    coloured = evenly(len(series), MOST_IN_COLOUR)
    others = [i for i in range(len(series)) if i not in coloured]
    if others:  # as one line with gaps: a thousand lines take half a minute
        pairs = [(series[i].hours[:: _step(series[i])], triples[i][0][:: _step(series[i])]) for i in others]
        hours, values = (
            np.concatenate([np.append(part, np.nan) for part in parts]) for parts in zip(*pairs, strict=True)
        )
        axes.plot(hours, values, color=_OTHERS, linewidth=0.5, rasterized=True)
    longest = 1
    for rank, number in enumerate(coloured):
        one, step = series[number], _step(series[number])
        longest = max(longest, step)
        hours, middle, low, high = (values[::step] for values in (one.hours, *triples[number]))
        colour, style = _COLOURS[rank], _STYLES[rank % len(_STYLES)]
        axes.fill_between(hours, low, high, color=colour, alpha=0.18, linewidth=0)
        marker = "o" if np.isfinite(middle).sum() < 3 else ""  # a line of one point cannot be seen
        look = {"color": colour, "linestyle": style, "linewidth": 1.6, "marker": marker}
        axes.plot(hours, middle, label=plain_label(one.condition), **look)
    _finish(axes, name, label, len(series), len(coloured))
    gap = " A gap is a time point without a value." if _has_gap(triples) else ""
    every = f" Every {longest}th time point is drawn." if longest > 1 else ""
    several = max((one.n_positions for one in series), default=1) > 1
    together = " Positions of a well are taken together." if several else ""
    return written(folder, name, figure, caption + gap + every + together)


def _has_gap(triples: Sequence[_Triple]) -> bool:
    return any(np.isfinite(middle).any() and not np.isfinite(middle).all() for middle, _, _ in triples)


def _step(one: Series) -> int:
    return max(1, -(-one.hours.size // _MOST_POINTS))


def _finish(axes: Any, name: str, label: str, n: int, n_coloured: int) -> None:
    axes.set_xlabel("time (h)")
    axes.set_ylabel(label)
    if name == "viability":
        axes.set_ylim(0, 102)
    else:
        axes.set_ylim(bottom=0)
    if n > n_coloured:
        axes.plot([], [], color=_OTHERS, linewidth=1, label=counted(n - n_coloured, "other"))
    if n > 1:
        below = {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "ncols": 2, "borderaxespad": 0}
        axes.legend(frameon=False, fontsize=8, **below)
