"""Figures of a report: drawn once as SVG for the page, and written as SVG and PNG for talks."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from livestain._errors import LivestainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Drawn", "need_matplotlib", "new_sheet", "plain_label", "written"]

_WIDE_INCH = 6.0
_SMALL_INCH = (4.7, 3.2)  # small, so that its letters can still be read on a phone


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure: its file's name without suffix, its SVG for a page, what it shows, and whether it needs the width."""

    name: str
    svg: str
    caption: str
    wide: bool = False


def need_matplotlib() -> None:
    """Raise if figures cannot be drawn.

    Raises
    ------
    LivestainError
        matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise LivestainError(
            'A report needs matplotlib, which is not installed. Install it: pip install "livestain[cells]".'
        ) from error


def new_sheet(title: str, *, wide: bool = False, height_inch: float | None = None) -> tuple[Any, Any]:
    """Give a figure and its axes in the style of the pictures of cells."""
    from livestain.measure.pictures import _sheet

    figure, axes = _sheet(title)
    figure.set_size_inches(_WIDE_INCH if wide else _SMALL_INCH[0], height_inch or _SMALL_INCH[1])
    return figure, axes


def written(
    folder: Path, name: str, draw: Callable[[Path], object] | Any, caption: str, *, wide: bool = False
) -> Drawn:
    """Write a figure as NAME.svg and NAME.png, and give it for the page.

    Parameters
    ----------
    folder
        For the files; there already.
    name
        Without a suffix.
    draw
        Draws into the path it is given; or a matplotlib figure.
    caption
        What it shows, for the page and for who cannot see it.
    wide
        Whether it is as wide as the page.
    """
    with _style():
        for suffix in ("svg", "png"):
            path = folder / f"{name}.{suffix}"
            if callable(draw):
                draw(path)
            else:
                draw.savefig(path, dpi=200, metadata={"Date": None} if suffix == "svg" else None)
    return Drawn(name, _inline((folder / f"{name}.svg").read_text(encoding="utf-8"), name), caption, wide)


def plain_label(name: str) -> str:
    """Give a name as a label: matplotlib leaves those out of the legend that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    # Letters stay letters, the same figure is the same bytes, and a position may be called $\alpha or 100$.
    look: Any = {"svg.fonttype": "none", "svg.hashsalt": "livestain", "text.parse_math": False}
    with matplotlib.rc_context(look), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the PNG has a box there
        yield


def _inline(svg: str, name: str) -> str:
    """Give an SVG file as an element of a page: no prologue, no address, ids that no other figure has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    body = re.sub(r"<[^>]*>", lambda tag: _own_ids(tag[0], name), body)  # not in the text between: it is a name
    return f'{head} role="img">{body}'


def _own_ids(tag: str, name: str) -> str:
    tag = tag.replace("xlink:href=", "href=").replace("url(#", f"url(#{name}-")
    return re.sub(r'\b(id="|href="#)', rf"\g<1>{name}-", tag)
