"""How a graph wants its frames: the order of its axes, and the sizes it takes along one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["OURS", "Sizes", "TensorLayout"]

_COARSEST_GRID_PX = 32  # the pooling grid of a U-Net with five levels; deeper ones are not told from the outside


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that a graph takes along one image axis: least_px + n * step_px, up to most_px.

    Parameters
    ----------
    least_px, step_px : int
        The smallest size, and the grid on which frames are padded and tiles begin.
    most_px : int or None
        The largest; None is without end.
    halo_px : int or None
        Width of the border of a tile that is thrown away. None: the frame may not be cut into tiles.
    """

    least_px: int
    step_px: int
    most_px: int | None
    halo_px: int | None

    @classmethod
    def on_grid(cls, multiple_px: int, halo_px: int | None) -> Sizes:
        """Any whole multiple."""
        return cls(multiple_px, multiple_px, None, halo_px)

    @classmethod
    def fixed(cls, size_px: int, halo_px: int | None) -> Sizes:
        """One size only; tiles of it still begin on a grid, as a network that pools needs: the coarsest that fits."""
        grid_px, halo = math.gcd(size_px, _COARSEST_GRID_PX), halo_px or 0
        while grid_px > 1 and 2 * -(-halo // grid_px) * grid_px + grid_px > size_px:
            grid_px //= 2
        return cls(size_px, grid_px, size_px, halo_px)

    def allows(self, length_px: int) -> bool:
        """Whether the graph takes an image of this size."""
        above_px = length_px - self.least_px
        return above_px >= 0 == above_px % self.step_px and length_px <= (self.most_px or length_px)

    def padded(self, length_px: int) -> int:
        """Give the length that a frame is padded to, tiles aside."""
        return self.least_px + self.up(max(length_px - self.least_px, 0))

    def tile(self, max_tile_px: int) -> int:
        """Give the longest tile that is allowed; the smallest there is where that is longer."""
        most_px = min(max_tile_px, self.most_px or max_tile_px)
        return self.least_px + max(most_px - self.least_px, 0) // self.step_px * self.step_px

    def up(self, length_px: int) -> int:
        """Round up to whole steps."""
        return -(-length_px // self.step_px) * self.step_px


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """The named axes of a graph's tensor, of which three count: planes (or stains), y, and x.

    Parameters
    ----------
    axes : tuple of str
        In the graph's order. All but `planes`, "y" and "x" have size 1.
    planes : str or None
        The axis that holds planes or stains; None where there is none, hence one plane.
    """

    axes: tuple[str, ...]
    planes: str | None

    def shape(self, planes: int, height: int, width: int) -> tuple[int, ...]:
        """Give the tensor's shape."""
        sizes = {"y": height, "x": width}
        if self.planes is not None:
            sizes[self.planes] = planes
        return tuple(sizes.get(axis, 1) for axis in self.axes)

    def view(self, tensor: np.ndarray) -> np.ndarray:
        """See the tensor as (P, H, W), without a copy."""
        counted = [axis for axis in (self.planes, "y", "x") if axis is not None]
        single = [i for i, axis in enumerate(self.axes) if axis not in counted]
        moved = tensor.transpose([*single, *(self.axes.index(axis) for axis in counted)])[(0,) * len(single)]
        return np.asarray(moved if self.planes is not None else moved[None])

    def tensor(self, planes: np.ndarray) -> np.ndarray:
        """Copy (P, H, W) into a fresh tensor."""
        tensor = np.empty(self.shape(*planes.shape), planes.dtype)
        self.view(tensor)[...] = planes
        return tensor

    def index(self, axis: str) -> int | None:
        """Tell which axis of (P, H, W) a named one is; None for one of size 1."""
        return {self.planes: 0, "y": 1, "x": 2}.get(axis)


OURS = TensorLayout(("batch", "channel", "y", "x"), "channel")
