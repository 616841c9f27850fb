"""Draws a learning curve: points, fitted curve with its interval, and the sentences below it."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from livestain_models._drawing import INK, PAPER, SOFT, Axes, draw_axes, draw_text

if TYPE_CHECKING:
    from pathlib import Path

    from livestain_models.curve import LearningCurve

__all__ = ["draw_curve"]

_SIZE_PX = (960, 700)
_CURVE, _BAND, _POINT = (250, 140, 60), (80, 50, 34), (120, 200, 255)


def draw_curve(path: Path, curve: LearningCurve, *, score_name: str = "Pearson r") -> Path:
    """Draw the curve up to twice the largest number of fields, dashed where it is extrapolated.

    Parameters
    ----------
    path : Path
        PNG to write.
    curve : LearningCurve
        With a fit or without.
    score_name : str
        Label of the y axis.

    Returns
    -------
    Path
        The file.
    """
    sheet = Image.new("RGB", _SIZE_PX, PAPER)
    draw_text(sheet, (24, 14), "Learning curve", 24)
    axes = _axes(curve)
    _draw_band(sheet, axes, curve)
    _draw_fit(sheet, axes, curve)
    pen = ImageDraw.Draw(sheet)
    for point in curve.points:
        x, y = axes.at(point.n_fields, point.score)
        pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=_POINT, outline=PAPER)
    ticks = sorted({point.n_fields for point in curve.points} | ({2 * curve.largest} if curve.fit else set()))
    draw_axes(
        sheet,
        axes,
        "fields to train on",
        f"{score_name} on test fields",
        x_ticks=_apart(axes, [float(n) for n in ticks]),
    )
    for i, line in enumerate(textwrap.wrap(curve.text(score_name), 98)[:4]):
        draw_text(sheet, (24, axes.bottom + 72 + 24 * i), line, 18)
    sheet.save(path)
    return path


def _axes(curve: LearningCurve) -> Axes:
    sizes, scores = [p.n_fields for p in curve.points], [p.score for p in curve.points]
    shown = [*scores, *([curve.fit(min(sizes)), curve.fit(2 * max(sizes))] if curve.fit else [])]
    # A wide interval must not squeeze the points to a line: it is cut at their range, doubled.
    room = max(float(np.ptp(shown)), 0.01)
    ends = [value for _, low, high in curve.band for value in (low, high)]
    low = max(min([*shown, *ends]), min(shown) - room) - 0.06 * room
    high = min(max([*shown, *ends]), max(shown) + room) + 0.06 * room
    right = (2.2 if curve.fit else 1.2) * max(sizes)
    return Axes(110, 56, _SIZE_PX[0] - 30, 530, (min(sizes) / 1.2, right), (low, high), log_x=True)


def _draw_band(sheet: Image.Image, axes: Axes, curve: LearningCurve) -> None:
    if not curve.band:
        return

    def edge(index: int) -> list[tuple[float, float]]:
        return [axes.at(point[0], float(np.clip(point[index], *axes.y))) for point in curve.band]

    ImageDraw.Draw(sheet).polygon([*edge(1), *reversed(edge(2))], fill=_BAND)


def _draw_fit(sheet: Image.Image, axes: Axes, curve: LearningCurve) -> None:
    if curve.fit is None:
        return
    pen = ImageDraw.Draw(sheet)
    smallest = min(point.n_fields for point in curve.points)
    sizes = np.geomspace(smallest, 2 * curve.largest, 121)
    places = [axes.at(float(n), curve.fit(float(n))) for n in sizes]
    for i, (start, end) in enumerate(itertools.pairwise(places)):
        if sizes[i] < curve.largest or i % 4 < 2:
            pen.line((*start, *end), fill=_CURVE, width=3)
    x, _ = axes.at(curve.largest, axes.y[0])
    pen.line((x, axes.top, x, axes.bottom), fill=SOFT, width=1)
    draw_text(sheet, (x + 8, axes.bottom - 26), "extrapolated", 16, fill=INK)


def _apart(axes: Axes, ticks: list[float]) -> list[float]:
    """Leave out ticks whose numbers would touch; the last one stays."""
    kept: list[float] = []
    for tick in reversed(ticks):
        if not kept or axes.at(kept[-1], axes.y[0])[0] - axes.at(tick, axes.y[0])[0] > 36:
            kept.append(tick)
    return kept
