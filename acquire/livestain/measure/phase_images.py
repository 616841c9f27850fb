"""The phase images of a run, in rad, beside its images: RUN/phase.ome.zarr, laid out as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorstore as ts

from livestain._errors import StoreError
from livestain._images import first_sentence
from livestain._layout import Channel
from livestain._ome import groups, write_group
from livestain._time_array import TimeArray, sharded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._layout import Image, Layout

__all__ = ["PHASE_NAME", "PhaseImages"]

PHASE_NAME = "phase.ome.zarr"
_AXES = ("t", "c", "z", "y", "x")
_COMPRESSOR = ("lz4", 5)
_WINDOW_RAD = (0.0, 3.0)  # how viewers show it at first


class PhaseImages:
    """Arrays (t, c=1, z=1, y, x) float32 in rad, NaN where phase could not be measured, one for each position.

    A plane is one shard, written to a temporary name and renamed. What is there already is opened again.

    Parameters
    ----------
    folder
        The run folder.
    layout
        Of the run's images.
    provenance
        How phase was made, kept under the key "livestain" of each image.
    sync
        Whether a write waits for the drive (fsync).

    Raises
    ------
    StoreError
        If an array cannot be made or opened, or is of another shape than the images.
    """

    def __init__(self, folder: Path, layout: Layout, *, provenance: Mapping[str, Any], sync: bool = False) -> None:
        images = tuple(replace(image, n_z=1, z_step_um=None) for image in layout.images)
        self._layout = replace(layout, images=images, channels=(Channel("Phase (rad)"),))
        self._root = folder.resolve() / PHASE_NAME  # tensorstore takes no path with ".." in it
        self._context = ts.Context({"file_io_sync": sync})
        try:
            self._arrays = [self._open(image) for image in images]
            for path, attributes in groups(self._layout, provenance, {0: _WINDOW_RAD}).items():
                write_group(self._root / path, attributes)
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot make or open {self._root}: {first_sentence(error)}") from error

    def write(self, image: int, t: int, phase_rad: NDArray[np.float32]) -> None:
        """Write the phase of one time point, (Y, X); it is on disk when this returns.

        Raises
        ------
        StoreError
            If the disk refuses.
        """
        try:
            self._arrays[image].reach(t, self._layout.n_t)
            self._arrays[image][t, 0, 0].write(phase_rad.astype(np.float32, copy=False)).result()
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot write phase into {self._root}: {first_sentence(error)}") from error

    def close(self, last_t: Sequence[int]) -> None:
        """Cut each image's time axis after its last time point.

        Raises
        ------
        StoreError
            If the disk refuses.
        """
        try:
            for array, last in zip(self._arrays, last_t, strict=True):
                array.resize_t(max(1, last + 1))
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot complete {self._root}: {first_sentence(error)}") from error

    def _open(self, image: Image) -> TimeArray:
        sizes = (1, 1, self._layout.height, self._layout.width)
        metadata = sharded(
            "float32", _AXES, sizes, n_t=self._layout.n_t, compressor=_COMPRESSOR, fill_value="NaN"
        )  # fmt: skip
        return TimeArray(self._root / image.path / "0", metadata, self._context)
