"""One image plane that lies on disk: opened when first looked at, read block by block, the latest blocks kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tifffile
import zarr

from livestain_models._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Cropped", "Page", "TiffPage", "ZarrPage", "open_tiff"]

_KEPT_BYTES = 1 << 30  # of decoded blocks, for each process
_BLOCK_PX = 256  # smaller chunks are read several at a time: each read costs a millisecond, whatever its size


class Page(Protocol):
    """(H, W) grey values; a numpy array is one too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""

    @property
    def dtype(self) -> Any:
        """A numpy dtype."""

    def __getitem__(self, window: Any, /) -> Any:
        """Read rows and columns, each a slice of step 1: (h, w), not to be written to."""


class _Recent:
    """Keeps what was read last, up to a number of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes, self._bytes = limit_bytes, 0
        self._kept: OrderedDict[Any, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, read: Callable[[], np.ndarray]) -> np.ndarray:
        """Give what is kept under a key; read and keep it if there is nothing."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = read()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = found
                self._bytes += found.nbytes
            while self._bytes > self._limit_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return found


_recent = _Recent(_KEPT_BYTES)


@dataclass(frozen=True, slots=True)
class Cropped:
    """A part of a page, not copied.

    Parameters
    ----------
    page : Page
        The whole.
    top, left : int
        Where the part starts, in pixels.
    shape : tuple of int
        Its height and width, in pixels.
    """

    page: Page
    top: int
    left: int
    shape: tuple[int, int]

    @property
    def dtype(self) -> Any:
        """Of the page."""
        return self.page.dtype

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        """Read rows and columns of the part."""
        rows, columns = window
        top, bottom, _ = rows.indices(self.shape[0])
        left, right, _ = columns.indices(self.shape[1])
        found: np.ndarray = self.page[self.top + top : self.top + bottom, self.left + left : self.left + right]
        return found


@dataclass(frozen=True, slots=True)
class ZarrPage:
    """A plane of a Zarr array whose last axes are y and x.

    Only names travel when it is pickled: each process opens the array for itself.

    Parameters
    ----------
    array : str
        Path of the array.
    index : tuple of int
        Along the axes before y and x.
    shape : tuple of int
        (H, W).
    dtype : np.dtype
    chunk : tuple of int
        Rows and columns that are stored, and so decoded, together.
    """

    array: str
    index: tuple[int, ...]
    shape: tuple[int, int]
    dtype: Any
    chunk: tuple[int, int]

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        """Read rows and columns; blocks of whole chunks are decoded and kept."""
        top, bottom, _ = window[0].indices(self.shape[0])
        left, right, _ = window[1].indices(self.shape[1])
        found = np.empty((max(bottom - top, 0), max(right - left, 0)), self.dtype)
        height, width = (-(-_BLOCK_PX // size) * size for size in self.chunk)
        for y in range(top // height * height, bottom, height):
            for x in range(left // width * width, right, width):
                block = _recent.get((self.array, self.index, y, x), lambda y=y, x=x: self._read(y, x, height, width))  # type: ignore[misc]
                rows = slice(max(top - y, 0), min(bottom - y, block.shape[0]))
                columns = slice(max(left - x, 0), min(right - x, block.shape[1]))
                to_y, to_x = y + rows.start - top, x + columns.start - left
                part = block[rows, columns]
                found[to_y : to_y + part.shape[0], to_x : to_x + part.shape[1]] = part
        return found

    def _read(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        array: Any = _open_array(self.array)
        return np.asarray(array[(*self.index, slice(y, y + height), slice(x, x + width))])


@dataclass(frozen=True, slots=True)
class TiffPage:
    """A page of a TIFF: mapped where it is stored plainly, decoded once and kept where it is compressed.

    Parameters
    ----------
    file : str
    index : int
        Which page.
    shape : tuple of int
        (H, W).
    dtype : np.dtype
    """

    file: str
    index: int
    shape: tuple[int, int]
    dtype: Any

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        """Read rows and columns."""
        pages = open_tiff(self.file).reshape(-1, *self.shape)
        return np.asarray(pages[self.index][window])


def open_tiff(file: str) -> np.ndarray:
    """Open the first series of a TIFF.

    Raises
    ------
    DataError
        Not readable as TIFF.
    """
    return _recent.get(file, lambda: _map_or_read(file))


def _map_or_read(file: str) -> np.ndarray:
    try:
        with tifffile.TiffFile(file) as opened:
            series = opened.series[0]
            if series.dataoffset is not None:
                return np.asarray(tifffile.memmap(file, mode="r", series=0))
            return np.asarray(series.asarray())
    except (OSError, ValueError, IndexError, tifffile.TiffFileError) as error:
        raise DataError(f"{file} cannot be read as TIFF: {error}. Write it again, or take it out.") from error


@lru_cache(maxsize=256)
def _open_array(path: str) -> Any:
    return zarr.open_array(path, mode="r")
