"""Writes pictures, one after the other, as MP4 or GIF; memory holds one at a time, however long the movie."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from livestain._errors import LivestainError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["check_av", "even", "write_gif", "write_mp4"]

T = TypeVar("T", bound=np.generic)

_BT709, _LIMITED_RANGE = 1, 1  # ITU-T H.273: the colours of HD television, which players assume
_GIF_FASTEST_FPS = 50  # a GIF counts hundredths of a second, and browsers slow down what is faster than two
_GIF_COLOURS = 256
_GIF_END = b";"


def check_av() -> None:
    """See that MP4 can be written.

    Raises
    ------
    LivestainError
        PyAV is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise LivestainError(
            'An MP4 needs PyAV, which is not installed. Install it: pip install "livestain[movie]"; or write a .gif.'
        ) from error


def even(picture: NDArray[T]) -> NDArray[T]:
    """Cut off the last row and column where their number is odd: colours are stored for 2 x 2 pixels."""
    return picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]


def write_mp4(path: Path, pictures: Iterable[NDArray[np.uint8]], fps: float) -> int:
    """Write H.264 in 4:2:0, which browsers and PowerPoint play, and give the number of pictures.

    Parameters
    ----------
    path
        May have any ending.
    pictures
        (Y, X, 3) uint8 each, of one size, both sides even.
    fps
        Pictures a second.
    """
    import av

    n = 0
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as file:
        stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        # A key frame every two seconds: the slider of a player jumps to those. Noise is not worth a lower crf.
        stream.options = {"crf": "20", "preset": "medium", "g": str(max(1, round(2 * fps)))}
        codec = stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED_RANGE
        codec.thread_count = 1  # it may be written beside a run
        for n, picture in enumerate(pictures, 1):
            if n == 1:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return n


def write_gif(
    path: Path, pictures: Iterable[NDArray[np.uint8]], fps: float, examples: Sequence[NDArray[np.uint8]]
) -> int:
    """Write an endless GIF in one palette of 256 colours, and give the number of pictures.

    Pillow's own `save_all` holds every picture until the end. Here each is a GIF of one, and joined to those before it
    without its head, which is the same: size, colours, and the block that repeats it for ever.

    Parameters
    ----------
    pictures
        (Y, X, 3) uint8 each, of one size.
    fps
        Pictures a second, at most 50.
    examples
        Some of the pictures, which the palette is chosen from.

    Raises
    ------
    LivestainError
        More pictures a second than a GIF shows.
    """
    if fps > _GIF_FASTEST_FPS:
        raise LivestainError(f"a GIF shows at most {_GIF_FASTEST_FPS} pictures a second, got {fps:g}. Write an .mp4.")
    palette = _palette(examples)
    milliseconds = 10 * round(100 / fps)
    n = 0
    with path.open("wb") as file:
        for n, picture in enumerate(pictures, 1):
            # Not dithered: a camera's noise does that already, and what is added to it does not compress.
            frame = Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
            alone = io.BytesIO()
            frame.save(alone, "GIF", optimize=False, duration=milliseconds, loop=0)
            whole = alone.getvalue()
            file.write(whole[0 if n == 1 else _head_bytes(whole) : -len(_GIF_END)])
        file.write(_GIF_END)
    return n


def _head_bytes(gif: bytes) -> int:
    """Give the length of a GIF's head: screen, colours, repetition (www.w3.org/Graphics/GIF/spec-gif89a.txt)."""
    n_colours = 2 << (gif[10] & 0b111)
    return 13 + 3 * n_colours + 19


def _palette(examples: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Choose 256 colours, one of them the white of the letters: they are too few pixels to be chosen for."""
    chosen = Image.fromarray(np.concatenate(examples)).quantize(_GIF_COLOURS - 1, Image.Quantize.MEDIANCUT)
    colours = (chosen.getpalette() or [])[: 3 * (_GIF_COLOURS - 1)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([255, 255, 255, *colours])
    return palette
