"""What pictures of scores are drawn with, on Pillow: colours, ticks, axes, colour bars, a scale bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DIVERGING",
    "GREY",
    "HEAT",
    "INK",
    "PAPER",
    "SOFT",
    "Axes",
    "coloured",
    "draw_axes",
    "draw_colour_bar",
    "draw_scale_bar",
    "draw_text",
    "label_of",
    "nice_ticks",
    "text_width",
]

Colour = tuple[int, int, int]
PAPER: Colour = (24, 24, 24)
INK: Colour = (235, 235, 235)
SOFT: Colour = (120, 120, 120)
GREY: tuple[Colour, ...] = ((0, 0, 0), (255, 255, 255))
HEAT: tuple[Colour, ...] = ((24, 24, 24), (80, 24, 110), (190, 50, 90), (250, 140, 60), (255, 250, 190))
# Dark in the middle: what is right stays quiet, what is wrong glows, and both signs differ for the colour-blind.
DIVERGING: tuple[Colour, ...] = ((150, 220, 255), (30, 110, 200), (18, 18, 18), (205, 85, 25), (255, 215, 140))


@dataclass(frozen=True, slots=True)
class Axes:
    """A plot's frame: where it lies on the sheet in px, and which values its edges stand for.

    Parameters
    ----------
    left, top, right, bottom : int
        Pixels of the sheet.
    x, y : tuple of float
        Lowest and greatest value.
    log_x : bool
        Whether x is logarithmic.
    """

    left: int
    top: int
    right: int
    bottom: int
    x: tuple[float, float]
    y: tuple[float, float]
    log_x: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of a value."""
        low, high, value = (np.log(v) if self.log_x else v for v in (*self.x, x))
        across = (value - low) / (high - low)
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return float(self.left + across * (self.right - self.left)), float(self.bottom - up * (self.bottom - self.top))


def coloured(share: NDArray[np.float64], stops: tuple[Colour, ...]) -> Image.Image:
    """Colour an (H, W) image of shares, 0 for the first stop to 1 for the last; what lies outside is clipped."""
    place = np.linspace(0, 1, len(stops))
    parts = [np.interp(share, place, [stop[i] for stop in stops]) for i in range(3)]
    return Image.fromarray(np.stack(parts, axis=-1).round().astype(np.uint8))


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within a range: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / max(about, 1)
    power = 10 ** np.floor(np.log10(raw))
    step = float(power * min((1, 2, 5, 10), key=lambda n: abs(n - raw / power)))
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [round(i * step, 12) for i in range(first, last + 1)]


def label_of(value: float) -> str:
    """Write a tick's number short: 20k for 20000."""
    return f"{value / 1000:.3g}k" if abs(value) >= 1000 else f"{value:.3g}"


def text_width(text: str, size: int) -> int:
    """Pixels that a text takes."""
    left, _, right, _ = _font(size).getbbox(text)
    return int(right - left)


def draw_text(
    sheet: Image.Image, place: tuple[float, float], text: str, size: int, *, anchor: str = "la", fill: Colour = INK
) -> None:
    """Write a line; `anchor` as Pillow has it ("la": left and top, "mm": middle, ...)."""
    ImageDraw.Draw(sheet).text(place, text, fill=fill, font=_font(size), anchor=anchor)


def draw_axes(
    sheet: Image.Image, axes: Axes, x_label: str, y_label: str, *, x_ticks: list[float] | None = None
) -> None:
    """Draw frame, ticks, numbers and labels around a plot."""
    pen = ImageDraw.Draw(sheet)
    for value in nice_ticks(*axes.x, (axes.right - axes.left) // 70) if x_ticks is None else x_ticks:
        x, y = axes.at(value, axes.y[0])
        pen.line((x, y, x, y + 6), fill=INK, width=2)
        draw_text(sheet, (x, y + 9), label_of(value), 16, anchor="ma")
    y_ticks = nice_ticks(*axes.y, (axes.bottom - axes.top) // 60)
    for value in y_ticks:
        x, y = axes.at(axes.x[0], value)
        pen.line((x - 6, y, x, y), fill=INK, width=2)
        draw_text(sheet, (x - 9, y), label_of(value), 16, anchor="rm")
    pen.rectangle((axes.left, axes.top, axes.right, axes.bottom), outline=INK, width=2)
    draw_text(sheet, ((axes.left + axes.right) / 2, axes.bottom + 32), x_label, 18, anchor="ma")
    widest = max((text_width(label_of(value), 16) for value in y_ticks), default=0)
    _draw_upright(sheet, (axes.left - 26 - widest, (axes.top + axes.bottom) // 2), y_label)


def draw_colour_bar(
    sheet: Image.Image,
    corner: tuple[int, int],
    width: int,
    stops: tuple[Colour, ...],
    ends: tuple[float, float],
    unit: str,
) -> None:
    """Draw a strip of colours with the values of its ends, the unit between them."""
    left, top = corner
    strip = np.repeat(np.linspace(0, 1, width)[None], 10, axis=0)
    sheet.paste(coloured(strip, stops), corner)
    ImageDraw.Draw(sheet).rectangle((left, top, left + width - 1, top + 9), outline=SOFT)
    draw_text(sheet, (left, top + 14), label_of(ends[0]), 16)
    draw_text(sheet, (left + width, top + 14), label_of(ends[1]), 16, anchor="ra")
    draw_text(sheet, (left + width / 2, top + 14), unit, 16, anchor="ma")


def draw_scale_bar(sheet: Image.Image, corner: tuple[int, int], shape: tuple[int, int], um_per_px: float) -> None:
    """Draw the longest round length that fits a quarter of a panel's width, in its lower left corner."""
    fits_um = shape[1] * um_per_px / 4
    power = 10 ** np.floor(np.log10(fits_um))
    length_um = float(max(n * power for n in (1, 2, 5) if n * power <= fits_um * (1 + 1e-9)))
    left, bottom = corner[0] + 14, corner[1] + shape[0] - 14
    right = left + round(length_um / um_per_px)
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((left, bottom - 6, right, bottom), fill=(255, 255, 255), outline=(0, 0, 0))
    text = f"{length_um:g} um"
    place = (max((left + right) / 2, left + text_width(text, 20) / 2), bottom - 12)
    pen.text(place, text, fill=(255, 255, 255), font=_font(20), anchor="ms", stroke_width=2, stroke_fill=(0, 0, 0))


def _draw_upright(sheet: Image.Image, centre: tuple[int, int], text: str) -> None:
    strip = Image.new("RGB", (text_width(text, 18) + 8, 28), PAPER)
    draw_text(strip, (strip.width / 2, 14), text, 18, anchor="mm")
    turned = strip.rotate(90, expand=True)
    sheet.paste(turned, (centre[0] - turned.width // 2, centre[1] - turned.height // 2))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)
