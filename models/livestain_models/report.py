"""Pictures of what a model predicts beside what is real, and the folder with pictures and scores."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from livestain_models._drawing import (
    DIVERGING,
    GREY,
    HEAT,
    INK,
    PAPER,
    SOFT,
    Axes,
    coloured,
    draw_axes,
    draw_colour_bar,
    draw_scale_bar,
    draw_text,
)
from livestain_models._errors import DataError
from livestain_models.score import checked_pair, pearson

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from livestain_models.contract import Output
    from livestain_models.score_fields import Scored
    from livestain_models.table import Table

__all__ = ["picture", "write_report"]

_PANEL_PX, _GAP_PX, _TITLE_PX, _BAR_PX, _HEAD_PX = 480, 24, 34, 44, 46
_NARROWEST_PX = 360  # a column
_AXIS_PX = 84  # left of and below the histogram, for its numbers and labels
_BINS = 120
_AT_MOST = 12


@dataclass(frozen=True, slots=True)
class _Shown:
    """What all panels of a sheet share."""

    sheet: Image.Image
    size: tuple[int, int]  # of a panel, height and width
    um_per_px: float  # of the sheet


def picture(
    path: Path,
    planes: np.ndarray,
    predicted: np.ndarray,
    real: np.ndarray,
    pixel_size_um: float,
    *,
    stain: str = "Stain",
    contrast: str = "Transmitted light",
    unit: str = "relative",
    title: str = "",
) -> Path:
    """Draw one field: input, prediction, truth, signed error, overlay, and real against predicted pixels.

    Prediction and truth share one range of grey values (the 0.5th to 99.8th percentile of the truth), so that what is
    too dim looks too dim. The error's range is symmetric, up to the 99.5th percentile of its absolute value.

    Parameters
    ----------
    path : Path
        PNG to write.
    planes : np.ndarray
        (P, H, W); the middle plane is shown, stretched between its percentiles.
    predicted, real : np.ndarray
        (H, W) in the same unit.
    pixel_size_um : float
        In the sample, for the scale bar.
    stain, contrast, unit, title : str
        For the titles.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DataError
        The images do not fit each other.
    """
    guess, truth = checked_pair(predicted, real)
    if planes.ndim != 3 or planes.shape[1:] != truth.shape:
        raise DataError(f"The input of a picture is (P, H, W) with planes of {truth.shape}, got {planes.shape}.")
    shown = _blank(truth.shape, pixel_size_um, title)
    ends = _ends(truth, 0.5, 99.8)
    middle = planes[(len(planes) - 1) // 2].astype(np.float64)
    error = guess - truth
    most = float(np.percentile(np.abs(error), 99.5)) or 1.0
    one, other = _share(guess, ends), _share(truth, ends)
    corner = _place(shown, 0, contrast, coloured(_share(middle, _ends(middle, 0.5, 99.5)), GREY))
    draw_scale_bar(shown.sheet, corner, shown.size, shown.um_per_px)
    for number, name, share in ((1, f"{stain} (predicted)", one), (2, f"{stain} (real)", other)):
        _bar(shown, _place(shown, number, name, coloured(share, GREY)), GREY, ends, unit)
    corner = _place(shown, 3, "Predicted minus real", coloured(0.5 + error / (2 * most), DIVERGING))
    _bar(shown, corner, DIVERGING, (-most, most), unit)
    overlay = Image.fromarray((np.stack([other, one, other], axis=-1) * 255).astype(np.uint8))
    corner = _place(shown, 4, "Overlay", overlay)
    _overlay_key(shown, corner)
    _histogram(shown, guess, truth, unit)
    shown.sheet.save(path)
    return path


def write_report(
    folder: Path,
    table: Table,
    fields: Iterable[Scored],
    pixel_size_um: float,
    outputs: Sequence[Output],
    *,
    contrast: str = "Transmitted light",
    about: str = "",
) -> list[Path]:
    """Write scores.json, scores.md and a picture of each field's stains (the first twelve fields).

    Parameters
    ----------
    folder : Path
        Made if it is not there; files of the same names are replaced.
    table : Table
        From `score_fields`.
    fields : iterable of Scored
        As they were scored.
    pixel_size_um : float
        In the sample.
    outputs : sequence of Output
        The contract's.
    contrast : str
        Title of the input, e.g. "Bright field".
    about : str
        Which package was scored, on what.

    Returns
    -------
    list of Path
        The files, the two tables first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number, one in zip(range(_AT_MOST), fields, strict=False):
        for i, output in enumerate(outputs):
            if output.kind == "stain":
                file = folder / f"{number:02d}_{_file_name(one.name)}_{_file_name(output.name)}.png"
                names = {"stain": output.name, "contrast": contrast, "unit": output.unit, "title": one.name}
                pictures.append(picture(file, one.input, one.predicted[i], one.real[i], pixel_size_um, **names))
    as_json, as_markdown = folder / "scores.json", folder / "scores.md"
    as_json.write_text(json.dumps(table.as_json(), indent=1) + "\n", encoding="utf-8")
    shown = "".join(f"\n![{file.stem}]({file.name})\n" for file in pictures)
    head = f"# Scores\n\n{about}\n\n" if about else "# Scores\n\n"
    as_markdown.write_text(head + table.markdown() + shown, encoding="utf-8")
    return [as_json, as_markdown, *pictures]


def _blank(shape: tuple[int, ...], pixel_size_um: float, title: str) -> _Shown:
    zoom = _PANEL_PX / max(shape)
    height, width = (max(1, round(side * zoom)) for side in shape)
    sheet_size = (
        3 * max(width, _NARROWEST_PX) + 4 * _GAP_PX,
        _HEAD_PX + 2 * (_TITLE_PX + height + _BAR_PX) + _GAP_PX,
    )
    sheet = Image.new("RGB", sheet_size, PAPER)
    draw_text(sheet, (_GAP_PX, 12), title, 24)
    return _Shown(sheet, (height, width), pixel_size_um / zoom)


def _corner(shown: _Shown, number: int) -> tuple[int, int]:
    row, column = divmod(number, 3)
    cell = max(shown.size[1], _NARROWEST_PX)
    top = _HEAD_PX + row * (_TITLE_PX + shown.size[0] + _BAR_PX) + _TITLE_PX
    return _GAP_PX + column * (cell + _GAP_PX), top


def _place(shown: _Shown, number: int, title: str, panel: Image.Image) -> tuple[int, int]:
    """Paste a panel, titled, into its cell; return its corner."""
    left, top = _corner(shown, number)
    height, width = shown.size
    enlarged = panel.width < width
    how = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    shown.sheet.paste(panel.resize((width, height), how), (left, top))
    draw_text(shown.sheet, (left, top - 28), title, 20)
    return left, top


def _bar(
    shown: _Shown,
    corner: tuple[int, int],
    stops: tuple[tuple[int, int, int], ...],
    ends: tuple[float, float],
    unit: str,
) -> None:
    draw_colour_bar(shown.sheet, (corner[0], corner[1] + shown.size[0] + 6), shown.size[1], stops, ends, unit)


def _overlay_key(shown: _Shown, corner: tuple[int, int]) -> None:
    y = corner[1] + shown.size[0] + 20
    draw_text(shown.sheet, (corner[0], y), "green: predicted", 16, fill=(90, 255, 90))
    draw_text(shown.sheet, (corner[0] + 140, y), "magenta: real", 16, fill=(255, 110, 255))
    draw_text(shown.sheet, (corner[0] + 258, y), "white: both", 16)


def _histogram(shown: _Shown, guess: np.ndarray, truth: np.ndarray, unit: str) -> None:
    """Count pixels by real and predicted value, on a logarithmic scale of colours."""
    left, top = _corner(shown, 5)
    side = min(max(shown.size[1], _NARROWEST_PX) - _AXIS_PX, shown.size[0] - 16)
    low, high = _ends(np.concatenate([guess.ravel(), truth.ravel()]), 0.01, 99.99)
    counts, _, _ = np.histogram2d(guess.ravel(), truth.ravel(), bins=_BINS, range=[(low, high), (low, high)])
    share = np.log1p(counts[::-1]) / max(float(np.log1p(counts.max())), 1e-9)
    axes = Axes(left + _AXIS_PX, top, left + _AXIS_PX + side, top + side, (low, high), (low, high))
    shown.sheet.paste(coloured(share, HEAT).resize((side, side), Image.Resampling.NEAREST), (axes.left, axes.top))
    _diagonal(shown.sheet, axes)
    draw_axes(shown.sheet, axes, f"real ({unit})", f"predicted ({unit})")
    draw_text(shown.sheet, (axes.left + 12, axes.top + 10), f"r = {pearson(guess, truth):.3f}", 20)
    draw_text(shown.sheet, (axes.left, axes.top - 28), "Pixel by pixel", 20)


def _diagonal(sheet: Image.Image, axes: Axes) -> None:
    pen, steps = ImageDraw.Draw(sheet), np.linspace(*axes.x, 61)
    for start, end in zip(steps[:-1:2], steps[1::2], strict=True):
        pen.line((*axes.at(start, start), *axes.at(end, end)), fill=SOFT if start == steps[0] else INK, width=1)


def _ends(image: np.ndarray, low: float, high: float) -> tuple[float, float]:
    dark, bright = (float(value) for value in np.percentile(image, [low, high]))
    return (dark, bright) if bright > dark else (dark - 0.5, dark + 0.5)


def _share(image: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return np.asarray(np.clip((image - ends[0]) / (ends[1] - ends[0]), 0, 1))


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in text).strip("_.") or "field"
