"""Draws what a person looks at first: bright field, prediction, truth and overlay side by side, as a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
    grey, green, magenta = _stretch(bright_field), _stretch(predicted), _stretch(true)
    correlation = np.corrcoef(predicted.ravel(), true.ravel())[0, 1]
    panels = [
        ("Bright field", np.repeat(grey[..., None], 3, axis=2)),
        ("Nuclei (predicted)", _tint(green, _PREDICTED_RGB)),
        ("Nuclei (true fluorescence)", _tint(magenta, _TRUE_RGB)),
        (f"Overlay, Pearson r = {correlation:.2f}", _tint(green, _PREDICTED_RGB) + _tint(magenta, _TRUE_RGB)),
    ]
    height, width = bright_field.shape
    sheet = Image.new("RGB", (4 * width + 5 * _GAP_PX, height + _TITLE_PX + _GAP_PX), (24, 24, 24))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=20)
    for i, (title, rgb) in enumerate(panels):
        left = _GAP_PX + i * (width + _GAP_PX)
        pen.text((left, 5), title, fill=(230, 230, 230), font=font)
        sheet.paste(Image.fromarray((rgb * 255).astype(np.uint8)), (left, _TITLE_PX))
    _scale_bar(pen, font, (_GAP_PX, _TITLE_PX), (height, width), pixel_size_um)
    sheet.save(path)
    return path


def _stretch(image: NDArray[np.uint16]) -> NDArray[np.float64]:
    low, high = np.percentile(image, [0.5, 99.8])
    stretched: NDArray[np.float64] = np.clip((image - low) / max(high - low, 1), 0, 1)
    return stretched


def _tint(grey: NDArray[np.float64], rgb: tuple[int, int, int]) -> NDArray[np.float64]:
    return grey[..., None] * (np.array(rgb) / 255)


def _scale_bar(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    corner: tuple[int, int],
    shape: tuple[int, int],
    pixel_size_um: float,
) -> None:
    # The longest round length that fits a fifth of the width.
    fits_um = shape[1] * pixel_size_um / 5
    length_um = max((n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if n <= fits_um), default=1)
    left, bottom = corner[0] + 14, corner[1] + shape[0] - 14
    right = left + round(length_um / pixel_size_um)
    pen.rectangle((left, bottom - 5, right, bottom), fill=(255, 255, 255), outline=(0, 0, 0))
    pen.text(
        (left, bottom - 32), f"{length_um} um", fill=(255, 255, 255), font=font, stroke_width=2, stroke_fill=(0, 0, 0)
    )
