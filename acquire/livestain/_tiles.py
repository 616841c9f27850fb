"""Cuts frames of any size into tiles on a network's grid, mirrored beyond the frame's edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from livestain._errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livestain_models.contract import Contract
    from livestain_models.tensors import Sizes

__all__ = ["Tile", "check_tile_px", "fill_reflected", "plan_tiles"]


@dataclass(frozen=True, slots=True)
class Tile:
    """One axis of a tile: where it lies in the frame and which part of it is kept.

    ``start`` and ``size`` are what the network sees, multiples of its grid; ``keep_start`` to ``keep_stop``
    is the part of the frame that is taken from it. All in pixels of the frame.
    """

    start: int
    size: int
    keep_start: int
    keep_stop: int

    @property
    def kept_of_frame(self) -> slice:
        return slice(self.keep_start, self.keep_stop)

    @property
    def kept_of_tile(self) -> slice:
        return slice(self.keep_start - self.start, self.keep_stop - self.start)


def plan_tiles(length: int, max_tile_px: int, sizes: Sizes) -> Iterator[Tile]:
    """Cut one axis into equal tiles on the network's grid.

    The outer edges of the first and the last tile are those of the padded frame, so that the network meets
    its own border only where it would meet it in the whole frame; elsewhere a halo as wide as its receptive
    field is thrown away. That makes tiled and untiled output the same, without blending.

    Parameters
    ----------
    length : int
        Of the frame along this axis, in pixels.
    max_tile_px : int
        Longest tile, unless the graph takes none that is so short.
    sizes : Sizes
        What the graph takes. Without a halo there is one tile.

    Yields
    ------
    Tile
        From low to high; the kept parts cover the frame once.
    """
    padded, size = sizes.padded(length), sizes.tile(max_tile_px)
    if sizes.halo_px is None or padded <= size:
        yield Tile(0, padded, 0, length)
        return
    halo = sizes.up(sizes.halo_px)
    keep_start = 0
    while keep_start < length:
        start = min(max(keep_start - halo, 0), padded - size)
        # A tile begins on the grid; where the smallest size is no multiple of it, what is kept begins off it.
        start = start // sizes.step_px * sizes.step_px
        keep_stop = length if start + size >= padded else start + size - halo
        yield Tile(start, size, keep_start, min(keep_stop, length))
        keep_start = keep_stop


def fill_reflected(planes: np.ndarray, top: int, left: int, tile: np.ndarray) -> None:
    """Copy a window of (P, H, W) planes into a (P, h, w) tile, mirrored beyond the last row and column."""
    height = min(planes.shape[1] - top, tile.shape[1])
    width = min(planes.shape[2] - left, tile.shape[2])
    tile[:, :height, :width] = planes[:, top : top + height, left : left + width]
    if width < tile.shape[2]:
        columns = _mirrored(left + width, left + tile.shape[2], planes.shape[2])
        tile[:, :height, width:] = planes[:, top : top + height, columns]
    if height < tile.shape[1]:
        rows = _mirrored(top + height, top + tile.shape[1], planes.shape[1])
        columns = _mirrored(left, left + tile.shape[2], planes.shape[2])
        tile[:, height:, :] = planes[:, rows[:, None], columns]


def _mirrored(start: int, stop: int, length: int) -> np.ndarray:
    """Fold indices start..stop back into 0..length-1, the edge pixel not repeated; any number of folds."""
    period = max(2 * (length - 1), 1)
    folded = np.arange(start, stop) % period
    return np.where(folded < length, folded, period - folded)


def check_tile_px(sizes: Sizes, contract: Contract, max_tile_px: int) -> None:
    """Raise a ModelError where tiles of this size would be all halo."""
    halo_px = 0 if sizes.halo_px is None else sizes.up(sizes.halo_px)
    least = max(sizes.least_px, 2 * halo_px + sizes.step_px)
    tile_px = sizes.tile(max_tile_px)
    if tile_px < least or (sizes.most_px is None and tile_px > max_tile_px):
        raise ModelError(
            f"max_tile_px {max_tile_px} is too small for {contract.id}: with its halo of {sizes.halo_px} px on "
            f"each side and its grid of {sizes.step_px} px a tile needs at least {least} px."
        )
