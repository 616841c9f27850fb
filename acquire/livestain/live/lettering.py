"""Writes text on a picture so that it can be read on anything: white or coloured letters with a dark edge."""

from __future__ import annotations

import functools
import unicodedata
from typing import TYPE_CHECKING

from PIL import ImageDraw, ImageFont

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["text_px", "text_width", "write"]

_DARK = (0, 0, 0)
_MICRO = "\u00b5"


def text_px(height: int, width: int) -> int:
    """Give the size of letters that suits a picture of `height` x `width` pixels."""
    return max(11, round(min(height, width) / 26))


def text_width(text: str, px: int) -> int:
    """Give how wide a text becomes, in pixels."""
    return round(_font(px).getlength(_drawable(text).replace(_MICRO, "u")))


def write(
    picture: Image.Image, at: tuple[int, int], text: str, px: int, colour: tuple[int, int, int] = (255, 255, 255)
) -> None:
    """Write one line with its baseline's left end at `at`, (x, y), in letters of `px` pixels.

    Letters that Pillow's own font lacks are written without their accents, or as "?".
    """
    text, font, edge = _drawable(text), _font(px), max(2, px // 9)
    tails = []
    for i in (i for i, letter in enumerate(text) if letter == _MICRO):  # not in the font: a u with a tail
        stem = max(1, round(px / 11))
        left = at[0] + round(font.getlength(text[:i].replace(_MICRO, "u")) + px * 0.06)
        tails.append((left, at[1] - stem, left + stem - 1, at[1] + round(px * 0.2)))
    pen = ImageDraw.Draw(picture)
    for left, top, right, bottom in tails:
        pen.rectangle((left - edge, top, right + edge, bottom + edge), fill=_DARK)
    pen.text(at, text.replace(_MICRO, "u"), colour, font, anchor="ls", stroke_width=edge, stroke_fill=_DARK)
    for tail in tails:
        pen.rectangle(tail, fill=colour)


@functools.lru_cache(maxsize=16)
def _font(px: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=px)


def _drawable(text: str) -> str:
    def plain(letter: str) -> str:
        if letter in (_MICRO, "\u03bc"):
            return _MICRO
        return (
            letter
            if letter.isascii()
            else unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?"
        )

    return "".join(map(plain, text))
