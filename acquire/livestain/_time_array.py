"""An array that grows with time, beside the others of a run's OME-Zarr; one shard holds one plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorstore as ts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["TimeArray", "sharded"]

_T_BLOCK = 64  # time points by which an array grows: one resize costs as much as a plane's commit
_INNER_CHUNK_PX = 512


def sharded(
    data_type: str,
    axes: Sequence[str],
    sizes: Sequence[int],
    *,
    n_t: int | None,
    compressor: tuple[str, int],
    fill_value: int | str = 0,
) -> dict[str, Any]:
    """Give the Zarr 3 metadata of a new array.

    Parameters
    ----------
    data_type
        As numpy calls it.
    axes
        Names, t first, y and x last.
    sizes
        Of the axes after t.
    n_t
        Time points that are planned; None if that is open.
    compressor
        Blosc's name and level.
    fill_value
        What is read where nothing was written.
    """
    *others, height, width = sizes
    ones = [1, *(1 for _ in others)]
    inner = [*ones, min(_INNER_CHUNK_PX, height), min(_INNER_CHUNK_PX, width)]
    shard = [*ones, *(-(-n // i) * i for n, i in zip((height, width), inner[-2:], strict=True))]
    name, level = compressor
    blosc = {"cname": name, "clevel": level, "shuffle": "shuffle", "typesize": np.dtype(data_type).itemsize}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    sharding = {
        "chunk_shape": inner,
        "codecs": [little, {"name": "blosc", "configuration": blosc | {"blocksize": 0}}],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "shape": [min(_T_BLOCK, n_t or _T_BLOCK), *sizes],
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list(axes),
        "fill_value": fill_value,
    }


class TimeArray:
    """One array on disk. A plane is written to a temporary name and renamed: it is there whole or not at all.

    Parameters
    ----------
    path
        Of the array; tensorstore takes no path with ".." in it.
    metadata
        From `sharded`: what it is made with, or what it must be of.
    context
        Of tensorstore: whether a write waits for the drive.
    create
        Whether to make it; None: if it is not there.

    Raises
    ------
    OSError, ValueError
        What tensorstore raises if it cannot be made or opened; or it is of another shape or type.
    """

    def __init__(
        self, path: Path, metadata: dict[str, Any], context: ts.Context, *, create: bool | None = None
    ) -> None:
        create = not self.is_there(path) if create is None else create
        spec: dict[str, Any] = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
        spec |= {"metadata": metadata} if create else {}
        self._array: ts.TensorStore = ts.open(spec, context=context, open=not create, create=create).result()
        wanted, kind = metadata["shape"][1:], metadata["data_type"]
        if list(self._array.shape[1:]) != wanted or self._array.dtype.name != kind:
            raise ValueError(f"{path} holds {self._array.dtype.name} {self._array.shape}, not {kind} (t, {wanted})")

    @staticmethod
    def is_there(path: Path) -> bool:
        """Whether an array has its metadata."""
        return (path / "zarr.json").is_file()

    def __getitem__(self, plane: tuple[int, ...]) -> ts.TensorStore:
        """Give a plane, to read or write."""
        return self._array[plane]

    @property
    def metadata(self) -> dict[str, Any]:
        """Zarr 3 metadata as they are on disk, which an older version may have written."""
        metadata: dict[str, Any] = self._array.spec().to_json()["metadata"]
        return metadata

    @property
    def one_shard_a_plane(self) -> bool:
        """Whether each plane is one file."""
        *ones, height, width = self._array.chunk_layout.write_chunk.shape or ()
        return set(ones) == {1} and (height or 0) >= self._array.shape[-2] and (width or 0) >= self._array.shape[-1]

    @property
    def n_t(self) -> int:
        """The present length of the time axis."""
        return int(self._array.shape[0])

    def reach(self, t: int, planned: int | None) -> None:
        """Make room for time point `t`: a block at a time, but no further than `planned` without need."""
        if t >= self.n_t:
            grown = -(-(t + 1) // _T_BLOCK) * _T_BLOCK
            self.resize_t(min(grown, max(planned or grown, t + 1)))

    def resize_t(self, n_t: int) -> None:
        """Set the length of the time axis."""
        if self.n_t != n_t:
            exclusive_max = [n_t, *(None for _ in self._array.shape[1:])]
            self._array = self._array.resize(exclusive_max=exclusive_max).result()
