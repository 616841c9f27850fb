"""Opens recorded images as a row of planes: a TIFF stack, a folder of TIFFs, or an OME-Zarr."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from livestain._errors import RigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Recording", "open_recording"]

Plane = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Planes of one size and type, in the order they were stored (t before z where there are both).

    Attributes
    ----------
    source
        Where it was opened.
    count
        Number of planes.
    shape
        (height, width) of each.
    dtype
        uint8 or uint16.
    read
        Returns plane `i`, (height, width).
    """

    source: Path
    count: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    read: Callable[[int], Plane]


def open_recording(source: Path) -> Recording:
    """Open `source` for reading plane by plane.

    Raises
    ------
    RigError
        There is nothing, nothing that can be read, or pixels that are not uint8 or uint16.
    """
    source = Path(source)
    if not source.exists():
        raise RigError(
            f"Source {str(source)!r} does not exist (looked for {source.absolute()}); give the path of a TIFF stack, "
            "a folder of TIFFs or an OME-Zarr, relative to the working folder or absolute."
        )
    if source.is_dir() and any((source / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
        return _open_zarr(source)
    return _open_tiffs(source, _tiffs_in(source) if source.is_dir() else [source])


def _checked(source: Path, dtype: np.dtype[Any]) -> np.dtype[Any]:
    native = dtype.newbyteorder("=")
    if native not in (np.uint8, np.uint16):
        raise RigError(
            f"{source} holds {dtype} pixels; a camera gives uint8 or uint16: convert it before replaying it."
        )
    return native


# ---------------------------------------------------------------------- TIFF


def _tiffs_in(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix.lower() in (".tif", ".tiff")]
    if not found:
        raise RigError(f"Source {str(folder)!r} is a folder without .tif or .tiff files and is no OME-Zarr.")
    return sorted(found, key=_by_number)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts frame 9 before frame 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


@dataclass(frozen=True, slots=True)
class _Page:
    path: Path
    page: int
    planes: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    stored: np.dtype[Any]  # in the byte order of the file
    offset: int | None  # of its pixels, where they lie in the file one after the other and are not compressed


def _open_tiffs(source: Path, files: list[Path]) -> Recording:
    pages = [page for path in files for page in _pages(path)]
    first = pages[0]
    for page in pages:
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            raise RigError(
                f"{page.path} holds {page.dtype} {page.shape}, but {first.path} {first.dtype} {first.shape}; "
                "all planes of a recording need one size and type."
            )
    ends = np.cumsum([page.planes for page in pages])

    def read(index: int) -> Plane:
        at = int(np.searchsorted(ends, index, side="right"))
        return _read(pages[at], index - (int(ends[at]) - pages[at].planes))

    return Recording(source, int(ends[-1]), first.shape, first.dtype, read)


def _read(page: _Page, index: int) -> Plane:
    if page.offset is not None:  # to read a TIFF's tags again for each exposure takes ten times as long as its pixels
        pixels = math.prod(page.shape)
        at = page.offset + index * pixels * page.stored.itemsize
        image = np.fromfile(page.path, page.stored, pixels, offset=at)
        if image.size < pixels:
            raise RigError(
                f"{page.path} ends within plane {index} of page {page.page}: it was cut short; copy it again."
            )
        image = image.reshape(page.shape)
    else:
        image = np.asarray(tifffile.imread(page.path, key=page.page)).reshape(-1, *page.shape)[index]
    plane: Plane = image.astype(page.dtype, copy=False)
    return plane


def _pages(path: Path) -> list[_Page]:
    """Return the pages of one file; a page can hold several planes, but no colours."""
    try:
        with tifffile.TiffFile(path) as tiff:
            order, found = tiff.byteorder, [page for page in tiff.series[0].pages if page]
            offsets = [page.dataoffsets[0] if page.is_memmappable else None for page in found]
    except (tifffile.TiffFileError, IndexError, ValueError, OSError) as error:
        raise RigError(f"{path} cannot be read as a TIFF ({error}); give a TIFF or an OME-Zarr.") from error
    for page in found:
        if not str(page.axes).endswith("YX"):
            raise RigError(
                f"{path} holds a colour image (axes {page.axes}, shape {page.shape}); a camera gives grey values."
            )
    return [
        _Page(
            path,
            int(page.index),
            math.prod(page.shape[:-2]),
            (page.shape[-2], page.shape[-1]),
            _checked(path, np.dtype(page.dtype)),
            np.dtype(page.dtype).newbyteorder(order),
            offset,
        )
        for page, offset in zip(found, offsets, strict=True)
    ]


# ---------------------------------------------------------------------- OME-Zarr


def _open_zarr(source: Path) -> Recording:
    array = _first_array(source)
    if array.ndim < 2:
        raise RigError(f"{source} holds an array of shape {array.shape}; a recording needs at least y and x.")
    leading = array.shape[:-2]
    dtype = _checked(source, np.dtype(array.dtype))

    def read(index: int) -> Plane:
        at = np.unravel_index(index, leading) if leading else ()
        plane: Plane = np.asarray(array[tuple(int(i) for i in at)]).astype(dtype, copy=False)
        return plane

    return Recording(source, math.prod(leading), (array.shape[-2], array.shape[-1]), dtype, read)


def _first_array(source: Path) -> zarr.Array[Any]:
    """Return the full-resolution array of the first image: an array, an image, or a collection of images."""
    node = zarr.open(source, mode="r")
    for _ in range(4):
        if isinstance(node, zarr.Array):
            return node
        ome: Any = node.attrs.get("ome", node.attrs)
        scales = ome.get("multiscales")
        # An image names its arrays; a bioformats2raw collection calls its first image "0".
        name = scales[0]["datasets"][0]["path"] if scales else "0"
        if name not in node:
            break
        node = node[name]
    raise RigError(f"{source} is a Zarr without an image; give an OME-Zarr image or a single Zarr array.")
