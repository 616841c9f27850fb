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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._layout import Image, Layout

__all__ = ["PHASE_NAME", "PhaseImages"]

PHASE_NAME = "phase.ome.zarr"
_T_BLOCK = 64  # time points by which an array grows: one resize costs as much as a plane's commit
_WINDOW_RAD = (0.0, 3.0)  # how viewers show it at first


class PhaseImages:
    """Arrays (t, c=1, z=1, y, x) float32 in rad, NaN where phase could not be measured, one for each position.

    A plane is one chunk, written to a temporary name and renamed. What is there already is opened again.

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
        If an array cannot be made or opened.
    """

    def __init__(self, folder: Path, layout: Layout, *, provenance: Mapping[str, Any], sync: bool = False) -> None:
        images = tuple(replace(image, n_z=1, z_step_um=None) for image in layout.images)
        self._layout = replace(layout, images=images, channels=(Channel("Phase (rad)"),))
        self._root = folder.resolve() / PHASE_NAME  # tensorstore takes no path with ".." in it
        self._context = ts.Context({"file_io_sync": sync})
        try:
            self._arrays: list[ts.TensorStore] = [self._open(image) for image in images]
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
            if t >= self._arrays[image].shape[0]:
                grown = -(-(t + 1) // _T_BLOCK) * _T_BLOCK
                self._resize(image, min(grown, self._layout.n_t or grown))
            self._arrays[image][t, 0, 0].write(phase_rad.astype(np.float32, copy=False)).result()
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot write phase into {self._root}: {first_sentence(error)}") from error

    def close(self, last_t: Sequence[int]) -> None:
        """Cut each image's time axis after its last time point."""
        for image, last in enumerate(last_t):
            self._resize(image, max(1, last + 1))

    def _resize(self, image: int, n_t: int) -> None:
        exclusive_max = [n_t, None, None, None, None]
        self._arrays[image] = self._arrays[image].resize(exclusive_max=exclusive_max).result()

    def _open(self, image: Image) -> ts.TensorStore:
        path = self._root / image.path / "0"
        height, width = self._layout.height, self._layout.width
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(path)},
            "metadata": {
                "shape": [min(_T_BLOCK, self._layout.n_t or _T_BLOCK), 1, 1, height, width],
                "data_type": "float32",
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1, 1, height, width]}},
                "codecs": [
                    {"name": "bytes", "configuration": {"endian": "little"}},
                    {
                        "name": "blosc",
                        "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 4},
                    },
                ],
                "dimension_names": ["t", "c", "z", "y", "x"],
                "fill_value": "NaN",
            },
        }
        there = (path / "zarr.json").is_file()
        if there:
            del spec["metadata"]
        return ts.open(spec, context=self._context, open=there, create=not there).result()
