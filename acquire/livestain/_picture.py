"""Draws what a person looks at first: bright field, prediction, truth and overlay side by side, as a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from livestain.live.scale_bar import with_scale_bar
from livestain.live.shown import auto_window, tinted, to_8bit

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["draw_panels"]

_GAP_PX, _TITLE_PX = 12, 34
_PREDICTED_RGB, _TRUE_RGB = (0, 255, 0), (255, 0, 255)  # overlaid, green and magenta make white where they agree


def draw_panels(
    path: Path,
    bright_field: NDArray[np.uint16],
    predicted: NDArray[np.uint16],
    true: NDArray[np.uint16],
    pixel_size_um: float,
) -> Path:
    """Draw four titled panels with a scale bar and save them.

    Parameters
    ----------
    path
        PNG to write.
    bright_field, predicted, true
        (Y, X) uint16 of one time point. Each is stretched between its own percentiles for display.
    pixel_size_um
        For the scale bar.
    """
    grey, green, magenta = (to_8bit(plane, auto_window(plane)) for plane in (bright_field, predicted, true))
    correlation = np.corrcoef(predicted.ravel(), true.ravel())[0, 1]
    both = np.maximum(tinted(green, _PREDICTED_RGB), tinted(magenta, _TRUE_RGB))
    panels = [
        ("Bright field", with_scale_bar(tinted(grey, (255, 255, 255)), pixel_size_um)),
        ("Nuclei (predicted)", tinted(green, _PREDICTED_RGB)),
        ("Nuclei (true fluorescence)", tinted(magenta, _TRUE_RGB)),
        (f"Overlay, Pearson r = {correlation:.2f}", both),
    ]
    height, width = bright_field.shape
    sheet = Image.new("RGB", (4 * width + 5 * _GAP_PX, height + _TITLE_PX + _GAP_PX), (24, 24, 24))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=20)
    for i, (title, rgb) in enumerate(panels):
        left = _GAP_PX + i * (width + _GAP_PX)
        pen.text((left, 5), title, fill=(230, 230, 230), font=font)
        sheet.paste(Image.fromarray(rgb), (left, _TITLE_PX))
    sheet.save(path)
    return path
