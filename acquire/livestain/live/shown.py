"""Turns planes into what is shown: display window, 8 bits, averaging down, colours added up, outlines, JPEG or PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["auto_window", "averaged", "blend_colours", "blended", "encode", "outlines", "rgb_of", "tinted", "to_8bit"]

_SAMPLES_A_SIDE = 256  # of a plane: enough for its percentiles, and a millisecond
_NARROWEST = 16  # grey levels of a window: in less, a flat plane would show its noise as if it were a structure
_STRIP_PX = 64  # rows: what is added up stays in the processor's cache
_WHITE, _DIMMED = (255, 255, 255), (150, 150, 150)

Window = tuple[float, float]


def auto_window(*planes: NDArray[np.unsignedinteger]) -> Window:
    """Choose the grey levels between which an image is shown, (low, high), low < high.

    Parameters
    ----------
    planes
        (Y, X) each, at least one; several, such as time points, get one window for them all.

    Notes
    -----
    From the percentiles 0.5 and 99.8. Where few cells are so bright that they lie above it, the window reaches a
    quarter of the way up to them: to percentile 99.99 of pixels as bright as their neighbour, for hot pixels are alone.
    An empty plane is black, a flat one grey.
    """
    sample = np.concatenate([_sampled(plane).ravel() for plane in planes])
    low, high = (float(p) for p in np.percentile(sample, (0.5, 99.8)))
    pairs = [np.minimum(_sampled(plane[:, :-1]), _sampled(plane[:, 1:])).ravel() for plane in planes]
    top = float(np.percentile(np.concatenate(pairs), 99.99)) if any(pair.size for pair in pairs) else high
    high = max(high, low + (top - low) / 4)
    if high - low < _NARROWEST:
        low = max(0.0, (low + high - _NARROWEST) / 2)
        high = low + _NARROWEST
    return low, high


def _sampled(plane: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    steps = [max(1, n // _SAMPLES_A_SIDE) for n in plane.shape]
    return plane[:: steps[0], :: steps[1]]


def to_8bit(plane: NDArray[np.unsignedinteger], window: Window) -> NDArray[np.uint8]:
    """Stretch a plane, (Y, X), so that the window's low becomes 0 and its high 255; beyond it is clipped.

    Raises
    ------
    ValueError
        The window's high is not above its low.
    """
    low, high = window
    if not low < high:
        raise ValueError(f"a display window goes from a lower to a higher grey level, got {low} to {high}.")
    stretched = plane.astype(np.float32)
    stretched -= np.float32(low)
    stretched *= np.float32(255 / (high - low))
    stretched += np.float32(0.5)  # the cast cuts off
    np.clip(stretched, 0, 255, out=stretched)
    return stretched.astype(np.uint8)


def averaged(plane: NDArray[np.unsignedinteger], factor: int) -> NDArray[Any]:
    """Average blocks of `factor` x `factor` pixels, of the same type as before; at odd edges over what is there.

    Parameters
    ----------
    plane
        (Y, X), unsigned integers of at most 16 bits.
    factor
        1 gives the plane itself.

    Returns
    -------
    (ceil(Y / factor), ceil(X / factor)), rounded to the nearest.
    """
    if factor == 1:
        return plane
    if not 1 < factor <= 256:  # 256 * 256 sixteen-bit numbers fill 32 bits
        raise ValueError(f"planes are averaged by a factor from 1 to 256, got {factor}.")
    sums, in_y = _summed(plane, factor)
    sums, in_x = _summed(sums.T, factor)
    n = np.outer(in_y, in_x)
    mean: NDArray[Any] = ((sums.T + n // 2) // n).astype(plane.dtype)
    return mean


def _summed(values: NDArray[Any], factor: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Sum every `factor` rows, and say how many there were: slices are twenty times as fast as a reshape."""
    sums = values[::factor].astype(np.uint32)
    n = np.ones(len(sums), np.uint32)
    for i in range(1, factor):
        part = values[i::factor]
        sums[: len(part)] += part
        n[: len(part)] += 1
    return sums, n


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Give a channel's colour, "00BFFF", as red, green and blue from 0 to 255.

    Raises
    ------
    ValueError
        It is not six hexadecimal digits.
    """
    digits = colour.removeprefix("#")
    if len(digits) != 6:
        raise ValueError(f"a colour is six hexadecimal digits such as 00BFFF, got {colour!r}.")
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def blend_colours(colours: Sequence[str]) -> list[tuple[int, int, int]]:
    """Give the colours to blend channels in; white ones are dimmed where others lie on them, or they would bleach them.

    Parameters
    ----------
    colours
        Of the channels that are shown together, as "00BFFF".
    """
    rgb = [rgb_of(colour) for colour in colours]
    several = len(rgb) > 1
    return [_DIMMED if several and colour == _WHITE else colour for colour in rgb]


def tinted(grey: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Give a grey picture, (Y, X) uint8, in one colour, (Y, X, 3) uint8."""
    return _added([grey], [colour])


def blended(
    planes: Sequence[NDArray[np.unsignedinteger]],
    windows: Sequence[Window],
    colours: Sequence[tuple[int, int, int]],
) -> NDArray[np.uint8]:
    """Add up planes, each in its window and colour: light on light, as in a fluorescence microscope.

    A white bright field is the grey base, predictions lie on it in their colours.

    Parameters
    ----------
    planes
        (Y, X) each, of one shape; at least one.
    windows, colours
        One for each plane.

    Returns
    -------
    (Y, X, 3) uint8, clipped at white.
    """
    return _added([to_8bit(p, w) for p, w in zip(planes, windows, strict=True)], colours)


def _added(greys: Sequence[NDArray[np.uint8]], colours: Sequence[tuple[int, int, int]]) -> NDArray[np.uint8]:
    height, width = greys[0].shape
    rgb = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP_PX):
        strip = slice(top, top + _STRIP_PX)
        for i in range(3):
            total = np.zeros((len(rgb[strip]), width), np.uint16)
            for grey, colour in zip(greys, colours, strict=True):
                if colour[i]:
                    total += _times(grey[strip], colour[i])
            rgb[strip, :, i] = np.minimum(total, 255, out=total)
    return rgb


def _times(grey: NDArray[np.uint8], share: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Give `share` 255ths of a grey picture, rounded; by shifts, which are far quicker than a division."""
    if share == 255:
        return grey
    product = grey.astype(np.uint16)
    product *= np.uint16(share)
    product += np.uint16(128)
    product += product >> 8
    product >>= 8
    return product


def outlines(labels: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Give the outlines of a label image, (Y, X) bool: pixels whose right or lower neighbour has another id."""
    edge = np.zeros(labels.shape, np.bool_)
    edge[:, :-1] = labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def encode(image: NDArray[np.uint8], quality: int | None = 85) -> bytes:
    """Encode a picture, (Y, X) grey or (Y, X, 3) uint8, as JPEG of that quality, or as PNG if it is None.

    The noise of a bright field does not compress without loss: of 512 x 512 pixels a JPEG of 85 has a third of the size
    of a PNG and takes a fifteenth of its time. Below 90 its colours are at half the resolution, which hardly anybody
    sees in a photograph; a thin coloured outline wants 90 or more.

    Raises
    ------
    ValueError
        The quality is not from 1 to 95.
    """
    file = io.BytesIO()
    picture = Image.fromarray(image)
    if quality is None:
        picture.save(file, "PNG", compress_level=1)
    elif 1 <= quality <= 95:
        picture.save(file, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)
    else:
        raise ValueError(f"the quality of a JPEG goes from 1 to 95, got {quality}; None gives a PNG.")
    return file.getvalue()
