"""Reads planes out of a run folder's arrays while somebody else writes them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import tensorstore as ts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["PlaneReader"]


class PlaneReader:
    """Opens the arrays of a store as they are asked for, and again once they have grown; any thread may read.

    Parameters
    ----------
    root
        The store, such as RUN/images.ome.zarr.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()  # tensorstore takes no path with ".." in it
        # A reader must leave the processor to the run: one thread decodes, and nothing is kept.
        self._context = ts.Context({"data_copy_concurrency": {"limit": 1}, "cache_pool": {"total_bytes_limit": 0}})
        self._arrays: dict[str, ts.TensorStore] = {}
        self._lock = threading.Lock()

    def read(self, array: str, *index: int) -> NDArray[Any]:
        """Read the plane at `index` of the array at the path `array` within the store.

        Raises
        ------
        OSError, ValueError, IndexError
            What tensorstore raises if the array is not there, is damaged or does not reach so far.
        """
        opened = self._opened(array, index[0])
        if index[0] >= opened.shape[0]:
            raise IndexError(f"{self._root / array} ends before t={index[0]}")
        plane: NDArray[Any] = opened[index].read().result()
        return plane

    def has(self, array: str) -> bool:
        """Whether there is such an array."""
        return (self._root / array / "zarr.json").is_file()

    def _opened(self, array: str, t: int) -> ts.TensorStore:
        with self._lock:
            known = self._arrays.get(array)
            if known is None or t >= known.shape[0]:
                spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(self._root / array)}}
                known = ts.open(spec, context=self._context, open=True, read=True, write=False).result()
                self._arrays[array] = known
            return known
