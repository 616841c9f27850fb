"""The OME-Zarr images of a run: one array for each position, one shard for each plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorstore as ts

from livestain._errors import StoreError
from livestain._frame import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._layout import Image, Layout

__all__ = ["IMAGES_NAME", "Images", "first_sentence"]

IMAGES_NAME = "images.ome.zarr"
_T_BLOCK = 64  # time points by which an array grows: one resize costs as much as a plane's commit
_INNER_CHUNK_PX = 512


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
        What tensorstore raises if an array cannot be made or opened.
    """

    def __init__(
        self, folder: Path, layout: Layout, *, create: bool = False, mend: bool = False, sync: bool = True
    ) -> None:
        self.layout = layout
        self._root = folder.resolve() / IMAGES_NAME  # tensorstore takes no path with ".." in it
        self._context = ts.Context({"file_io_sync": sync})
        self._arrays: list[ts.TensorStore] = [
            self._open(image, create=create or (mend and not self._is_there(image))) for image in layout.images
        ]
        if mend:
            self._reach_to_last_planes()

    def _is_there(self, image: Image) -> bool:
        return (self._root / image.path / "0" / "zarr.json").is_file()

    def _open(self, image: Image, *, create: bool) -> ts.TensorStore:
        spec = self._spec(image) | (self._metadata(image) if create else {})
        return ts.open(spec, context=self._context, open=not create, create=create).result()

    def _reach_to_last_planes(self) -> None:
        for place in self.places():
            if place.t >= self.n_t(place.image):
                self.resize_t(place.image, place.t + 1)

    def _spec(self, image: Image) -> dict[str, Any]:
        path = self._root / image.path / "0"
        return {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}

    def _metadata(self, image: Image) -> dict[str, Any]:
        height, width = self.layout.height, self.layout.width
        inner = [1, 1, 1, min(_INNER_CHUNK_PX, height), min(_INNER_CHUNK_PX, width)]
        shard = [1, 1, 1, *(-(-n // i) * i for n, i in zip((height, width), inner[3:], strict=True))]
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        lz4 = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0}
        sharding = {
            "chunk_shape": inner,
            "codecs": [little, {"name": "blosc", "configuration": lz4}],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        n_t = min(_T_BLOCK, self.layout.n_t or _T_BLOCK)
        return {
            "metadata": {
                "shape": [n_t, len(self.layout.channels), image.n_z, height, width],
                "data_type": "uint16",
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
                "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
                "dimension_names": ["t", "c", "z", "y", "x"],
                "fill_value": 0,
            }
        }

    def write(self, place: Place, image: NDArray[np.unsignedinteger]) -> ts.WriteFutures:
        """Begin to write a plane, (Y, X) uint8 or uint16; the future is done when it is on disk.

        `image` must not change before that.
        """
        array = self._arrays[place.image]
        if place.t >= array.shape[0]:
            grown = -(-(place.t + 1) // _T_BLOCK) * _T_BLOCK
            self.resize_t(place.image, min(grown, self.layout.n_t or grown))
            array = self._arrays[place.image]
        return array[place.t, place.c, place.z].write(image.astype(np.uint16, copy=False))

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
        return int(self._arrays[image].shape[0])

    def resize_t(self, image: int, n_t: int) -> None:
        """Set the length of an image's time axis."""
        if self.n_t(image) != n_t:
            exclusive_max = [n_t, None, None, None, None]
            self._arrays[image] = self._arrays[image].resize(exclusive_max=exclusive_max).result()

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
