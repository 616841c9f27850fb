"""The label images of a run: which pixel belongs to which cell, beside each image in its OME-Zarr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorstore as ts
from yaozarrs import v05

from livestain._errors import StoreError
from livestain._images import IMAGES_NAME, first_sentence
from livestain._ome import read_interval_s, write_group
from livestain._time_array import TimeArray, sharded
from livestain.live._planes import PlaneReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._layout import Image, Layout

__all__ = ["LABEL_NAMES", "CellLabels", "LabelImages"]

LABEL_NAMES = ("cells", "nuclei")
_AXES = ("t", "z", "y", "x")
_COMPRESSOR = ("zstd", 1)  # labels are long runs of one number: five times smaller than with lz4, in the same time


class LabelImages:
    """The arrays labels/cells and labels/nuclei of every image, (t, z=1, y, x) uint32; the value is a cell's id.

    A plane is one shard, written to a temporary name, synced and renamed: it is there whole or not at all. One thread
    writes; any process may read meanwhile. What is there already is opened again, so a run that was killed goes on.

    Parameters
    ----------
    folder
        The run folder; its images are there.
    layout
        What the images hold.
    provenance
        How the labels were made, kept under the key "livestain" of each label image.
    sync
        Whether a write waits for the drive (fsync), so that it survives a loss of power.

    Raises
    ------
    StoreError
        If an array cannot be made or opened, or is of another shape than the images.
    """

    def __init__(
        self, folder: Path, layout: Layout, *, provenance: Mapping[str, Any] | None = None, sync: bool = True
    ) -> None:
        self.layout = layout
        self._root = folder.resolve() / IMAGES_NAME  # tensorstore takes no path with ".." in it
        self._provenance = dict(provenance or {})
        self._context = ts.Context({"file_io_sync": sync})
        try:
            self._arrays = [{name: self._open(image, name) for name in LABEL_NAMES} for image in layout.images]
            self._describe()
        except (OSError, ValueError) as error:
            raise StoreError(
                f"cannot make or open the label images of {self._root}: {first_sentence(error)} Check that the disk "
                "has room and the folder is writable; label images that are damaged can be deleted and measured again."
            ) from error

    def write(self, image: int, t: int, cells: NDArray[np.integer[Any]], nuclei: NDArray[np.integer[Any]]) -> None:
        """Write one time point; it is on disk when this returns.

        Parameters
        ----------
        image, t
            Which position, and which time point of it. An array grows as far as it must.
        cells, nuclei
            (Y, X) ids, 0 is background.

        Raises
        ------
        StoreError
            If they are no label images of this run, or cannot be written.
        """
        planes = {name: self._checked(name, plane) for name, plane in zip(LABEL_NAMES, (cells, nuclei), strict=True)}
        try:
            arrays = self._arrays[image]
            for array in arrays.values():
                array.reach(t, self.layout.n_t)
            writing = [arrays[name][t, 0].write(plane) for name, plane in planes.items()]
            for write in writing:
                write.result()
        except (OSError, ValueError) as error:
            raise StoreError(
                f"cannot write the labels of image {image}, t={t} to {self._root}: {first_sentence(error)}"
            ) from error

    def read(self, image: int, t: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Read cells and nuclei of one time point, (Y, X) uint32 each; zeros where nothing was written.

        Raises
        ------
        StoreError
            If they cannot be read.
        """
        try:
            found = [self._arrays[image][name][t, 0].read() for name in LABEL_NAMES]
            cells, nuclei = (plane.result() for plane in found)
        except (OSError, ValueError, IndexError) as error:
            raise StoreError(
                f"cannot read the labels of image {image}, t={t} from {self._root}: {first_sentence(error)}"
            ) from error
        return cells, nuclei

    def n_t(self, image: int) -> int:
        """Give the present length of an image's time axis."""
        return min(array.n_t for array in self._arrays[image].values())

    def close(self, last_t: Sequence[int]) -> None:
        """Cut each image's time axis after its last time point, and take over the time scale that was measured.

        Raises
        ------
        StoreError
            If that cannot be written.
        """
        try:
            for arrays, last in zip(self._arrays, last_t, strict=True):
                for array in arrays.values():
                    array.resize_t(max(1, last + 1))
            self._describe()
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot complete the label images of {self._root}: {first_sentence(error)}") from error

    def _checked(self, name: str, plane: NDArray[np.integer[Any]]) -> NDArray[np.uint32]:
        wanted = (self.layout.height, self.layout.width)
        if plane.shape != wanted or plane.dtype.kind not in "iu":
            raise StoreError(f"labels of {name} must be integers of shape {wanted}, got {plane.dtype} {plane.shape}.")
        low, high = int(plane.min()), int(plane.max())
        if low < 0 or high > np.iinfo(np.uint32).max:
            raise StoreError(f"labels of {name} must lie from 0 to 4294967295, got {low} to {high}.")
        return np.ascontiguousarray(plane, np.uint32)

    def _open(self, image: Image, name: str) -> TimeArray:
        sizes = (1, self.layout.height, self.layout.width)
        metadata = sharded("uint32", _AXES, sizes, n_t=self.layout.n_t, compressor=_COMPRESSOR)
        return TimeArray(self._root / image.path / "labels" / name / "0", metadata, self._context)

    def _describe(self) -> None:
        """Write the groups, the arrays being there: first each label image, then the list that names them."""
        for image in self.layout.images:
            folder = self._root / image.path
            for name in LABEL_NAMES:
                attributes = {"ome": self._label_image(image, name, folder), "livestain": self._provenance}
                write_group(folder / "labels" / name, attributes)
            write_group(folder / "labels", {"ome": _plain(v05.LabelsGroup(labels=list(LABEL_NAMES)))})

    def _label_image(self, image: Image, name: str, folder: Path) -> dict[str, Any]:
        # As the image's own: what is not known has scale 1 and no unit. An image may know its interval better than
        # the layout, once its run has ended.
        pixel_um, step_um, interval_s = self.layout.pixel_size_um, image.z_step_um, self.layout.interval_s
        if interval_s and (folder / "zarr.json").is_file():
            interval_s = read_interval_s(folder)
        scale = [interval_s or 1.0, step_um or 1.0, pixel_um or 1.0, pixel_um or 1.0]
        time = v05.TimeAxis(name="t", unit="second") if interval_s else v05.TimeAxis(name="t")
        space = [
            v05.SpaceAxis(name=axis, unit="micrometer") if known else v05.SpaceAxis(name=axis)
            for axis, known in (("z", step_um), ("y", pixel_um), ("x", pixel_um))
        ]
        dataset = v05.Dataset(path="0", coordinateTransformations=[v05.ScaleTransformation(scale=scale)])
        label = v05.LabelImage.model_validate(
            {
                "multiscales": [v05.Multiscale(name=name, axes=[time, *space], datasets=[dataset])],
                "image-label": v05.ImageLabel(source=v05.LabelSource(image="../../")),
            }
        )
        return _plain(label)


class CellLabels:
    """Reads the outlines of a run's cells, and writes nothing: the folder may be on a medium that is read-only.

    Parameters
    ----------
    folder
        The run folder.
    layout
        What its images hold.

    Raises
    ------
    StoreError
        If a position has no label image of cells, or one that cannot be read.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._reader = PlaneReader(folder / IMAGES_NAME)
        self._paths = [f"{image.path}/labels/cells/0".lstrip("/") for image in layout.images]
        if missing := [path for path in self._paths if not self._reader.has(path)]:
            raise StoreError(
                f"{folder} has no label images of its cells: {IMAGES_NAME}/{missing[0]} is not there. To make them, "
                f"measure it anew: livestain measure {folder} --again"
            )

    def read(self, image: int, t: int) -> NDArray[np.uint32]:
        """Read the cells of one time point, (Y, X) uint32, the value is a cell's id; zeros where nothing was written.

        Raises
        ------
        StoreError
            If they cannot be read.
        """
        try:
            plane: NDArray[np.uint32] = self._reader.read(self._paths[image], t, 0)
        except (OSError, ValueError, IndexError) as error:
            raise StoreError(
                f"cannot read the outlines of t={t} from {self._folder / IMAGES_NAME / self._paths[image]}: "
                f"{first_sentence(error)} To make them again: livestain measure {self._folder} --again"
            ) from error
        return plane


def _plain(model: Any) -> dict[str, Any]:
    plain: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return plain
