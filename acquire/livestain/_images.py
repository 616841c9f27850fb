"""The OME-Zarr images of a run: one array for each position, one shard for each plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import tensorstore as ts

from livestain._direct import DirectPlanes, can_write_directly
from livestain._errors import StoreError
from livestain._frame import Place
from livestain._time_array import TimeArray, sharded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._layout import Image, Layout

__all__ = ["IMAGES_NAME", "Images", "first_sentence"]

IMAGES_NAME = "images.ome.zarr"
_AXES = ("t", "c", "z", "y", "x")
_COMPRESSOR = ("lz4", 5)
_LEAST_DIRECT_BYTES = 2 << 20  # of a plane; smaller ones are written as fast through the page cache


class Write(Protocol):
    """A write that has begun."""

    def result(self) -> object:
        """Wait until the plane is on disk; OSError or ValueError say that it is not."""


class Images:
    """The arrays of one run, (t, c, z, y, x) uint16 each. Any thread may read; one writes.

    A plane is one shard, written to a temporary name, synced and renamed: it is there whole or not at all.

    Parameters
    ----------
    folder
        The run folder.
    layout
        What the arrays hold.
    create
        Whether to make them; otherwise they are there.
    mend
        Whether to make the metadata of those that have lost it.
    sync
        Whether a write waits for the drive (fsync), so that it survives a loss of power.

    Raises
    ------
    OSError, ValueError
        What `TimeArray` raises if an array cannot be made or opened.
    """

    def __init__(
        self, folder: Path, layout: Layout, *, create: bool = False, mend: bool = False, sync: bool = True
    ) -> None:
        self.layout = layout
        self._root = folder.resolve() / IMAGES_NAME  # tensorstore takes no path with ".." in it
        self._context = ts.Context({"file_io_sync": sync})
        self._arrays = [self._open(image, create=create, mend=mend) for image in layout.images]
        # Only for what waits for the drive: without that, the page cache is the quicker way.
        self._may_be_direct = sync and layout.height * layout.width * 2 >= _LEAST_DIRECT_BYTES
        self._direct: DirectPlanes | None = None  # from the first write on, or from now if there will be one soon
        if create:
            self._directly(self._arrays[0])
        if mend:
            self._reach_to_last_planes()

    def _open(self, image: Image, *, create: bool, mend: bool) -> TimeArray:
        path, layout = self._root / image.path / "0", self.layout
        sizes = (len(layout.channels), image.n_z, layout.height, layout.width)
        metadata = sharded("uint16", _AXES, sizes, n_t=layout.n_t, compressor=_COMPRESSOR)
        lost = mend and not TimeArray.is_there(path)
        return TimeArray(path, metadata, self._context, create=create or lost)

    def _reach_to_last_planes(self) -> None:
        for place in self.places():
            if place.t >= self.n_t(place.image):
                self.resize_t(place.image, place.t + 1)

    def write(self, place: Place, image: NDArray[np.unsignedinteger]) -> Write:
        """Begin to write a plane, (Y, X) uint8 or uint16; the future is done when it is on disk.

        `image` must not change before that.
        """
        array = self._arrays[place.image]
        array.reach(place.t, self.layout.n_t)
        image = image.astype(np.uint16, copy=False)
        if direct := self._directly(array):
            return direct.write(self._file(place), image)
        return array[place.t, place.c, place.z].write(image)

    def _directly(self, array: TimeArray) -> DirectPlanes | None:
        """Give the way past the page cache; None if there is none here, or planes are small."""
        if self._may_be_direct and self._direct is None:
            self._may_be_direct = array.one_shard_a_plane and can_write_directly(self._root)
            self._direct = DirectPlanes(array.metadata) if self._may_be_direct else None
        return self._direct

    def _file(self, place: Place) -> Path:
        """Give the file of a plane's one shard."""
        array = self._root / self.layout.images[place.image].path / "0"
        return array.joinpath("c", *(str(index) for index in (place.t, place.c, place.z, 0, 0)))

    def close(self) -> None:
        """Wait for what was begun to be written, and end its threads; reading goes on."""
        if self._direct:
            self._direct.close()

    def read(self, place: Place) -> NDArray[np.uint16]:
        """Read a plane, (Y, X) uint16; zeros where nothing was written.

        Raises
        ------
        StoreError
            If it cannot be read.
        """
        try:
            plane: NDArray[np.uint16] = self._arrays[place.image][place.t, place.c, place.z].read().result()
        except (OSError, ValueError, IndexError) as error:
            raise StoreError(f"cannot read {place} of {self._root}: {first_sentence(error)}") from error
        return plane

    def erase(self, place: Place) -> None:
        """Remove a plane: one that is all zeros, the fill value, has no file."""
        self.write(place, np.zeros((self.layout.height, self.layout.width), np.uint16)).result()

    def n_t(self, image: int) -> int:
        """Give the present length of an image's time axis."""
        return self._arrays[image].n_t

    def resize_t(self, image: int, n_t: int) -> None:
        """Set the length of an image's time axis."""
        self._arrays[image].resize_t(n_t)

    def places(self) -> Iterator[Place]:
        """Give the place of every plane that is on disk, journalled or not."""
        for number, image in enumerate(self.layout.images):
            root = self._root / image.path / "0" / "c"
            for shard in root.glob("*/*/*/0/0"):
                t, c, z = (int(part) for part in shard.relative_to(root).parts[:3])
                yield Place(number, t, c, z)


def first_sentence(error: BaseException) -> str:
    """Give what a person needs of an error; tensorstore adds its call chain and its source locations."""
    for full in ("No space left on device", "not enough space on the disk"):  # POSIX, Windows
        if full in str(error):
            return f"{full}."
    return str(error).partition(" [")[0].strip().rstrip(".") + "."
