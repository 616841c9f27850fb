"""The scale bar of a picture: the longest round length that fits a fifth of its width, drawn with its label."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from livestain.live.lettering import text_px, write

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["bar_length_um", "length_text", "with_scale_bar"]

_SHARE_OF_WIDTH = 0.2
_UNITS = ((1000.0, "mm"), (1.0, "\u00b5m"), (0.001, "nm"))


def bar_length_um(width_um: float) -> float:
    """Give the longest 1, 2 or 5 times a power of ten that fits a fifth of `width_um`.

    Raises
    ------
    ValueError
        The width is not a positive number: the pixel size is not known, and there is no bar to draw.
    """
    if not (math.isfinite(width_um) and width_um > 0):
        raise ValueError(f"a scale bar needs a width in um, got {width_um}: without a pixel size draw none.")
    fits_um = width_um * _SHARE_OF_WIDTH * (1 + 1e-9)  # 0.2 * 5 um is to fit 1 um, whatever the rounding
    exponent = math.floor(math.log10(fits_um))
    # A division where it is negative: 5 * 10**-1 is 0.5, 5e-1 off by rounding is not.
    rounds = [n * 10**exponent if exponent >= 0 else n / 10**-exponent for n in (1, 2, 5)]
    return float(max((n for n in rounds if n <= fits_um), default=rounds[0]))


def length_text(length_um: float) -> str:
    """Write a length for people: "50 \u00b5m", "2 mm", "500 nm"."""
    size, unit = next(((s, u) for s, u in _UNITS if length_um >= s * (1 - 1e-9)), _UNITS[-1])
    return f"{length_um / size:g} {unit}"


def with_scale_bar(rgb: NDArray[np.uint8], pixel_size_um: float) -> NDArray[np.uint8]:
    """Give a copy with a scale bar in the lower left corner, white with a dark edge: it is seen on any picture.

    Parameters
    ----------
    rgb
        (Y, X, 3) uint8.
    pixel_size_um
        Of this picture: where it was averaged down, that of the larger pixels.

    Raises
    ------
    ValueError
        The pixel size is not a positive number.
    """
    height, width = rgb.shape[:2]
    length_um = bar_length_um(width * pixel_size_um)
    px = text_px(height, width)
    edge, thick = max(6, px * 2 // 3), max(3, px // 4)
    left, bottom = edge, height - 1 - edge
    right = left + max(1, round(length_um / pixel_size_um)) - 1
    picture = Image.fromarray(rgb)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((left - 1, bottom - thick, right + 1, bottom + 1), fill=(0, 0, 0))
    pen.rectangle((left, bottom - thick + 1, right, bottom), fill=(255, 255, 255))
    write(picture, (left, bottom - thick - px // 2), length_text(length_um), px)
    return np.asarray(picture)
