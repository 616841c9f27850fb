"""Planes on disk as one array, for viewers: a plane is read when it is looked at, and none is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike, NDArray

__all__ = ["PlaneStack"]


class PlaneStack:
    """A read-only array (..., y, x); zeros where there is no plane. What numpy's basic slicing gives, it gives.

    Parameters
    ----------
    shape
        At least (n, y, x).
    dtype
        Of the planes.
    read
        Gives the plane, (y, x), at the indices before the last two; None where there is none.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, read: Callable[..., NDArray[Any] | None]) -> None:
        self.shape = shape
        self.ndim = len(shape)
        self.size = math.prod(shape)
        self.dtype = np.dtype(dtype)
        self._read = read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read what `key` asks for: integers, slices and an ellipsis.

        Raises
        ------
        IndexError
            If it reaches beyond the array, or asks for more.
        """
        parts = self._parts(key if isinstance(key, tuple) else (key,))
        before, within = parts[:-2], tuple(parts[-2:])
        chosen = [np.arange(n)[part] for n, part in zip(self.shape[:-2], before, strict=True)]
        leading = tuple(len(indices) for indices in chosen if indices.ndim)
        empty = np.empty(self.shape[-2:], np.bool_)[within]
        planes = np.zeros((math.prod(leading), *empty.shape), self.dtype)
        for number, index in enumerate(np.ndindex(*(indices.size for indices in chosen))):
            plane = self._read(*(int(np.ravel(indices)[i]) for indices, i in zip(chosen, index, strict=True)))
            if plane is not None:
                planes[number] = plane[within]
        return planes.reshape((*leading, *empty.shape))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001
        """Read everything."""
        return np.asarray(self[...], dtype)

    def _parts(self, key: tuple[Any, ...]) -> list[Any]:
        at = next((i for i, part in enumerate(key) if part is Ellipsis), len(key))
        before, after = key[:at], key[at + 1 :]
        missing = self.ndim - len(before) - len(after)
        parts = [*before, *[slice(None)] * missing, *after]
        if len(parts) != self.ndim or not all(isinstance(p, (slice, int, np.integer)) for p in parts):
            raise IndexError(f"an array of {self.ndim} axes is read by integers and slices, got {key}")
        return parts
