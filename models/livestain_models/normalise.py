"""Grey values made comparable, inside the graph: what training and the microscope do is the same code."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from livestain_models._some import some_of
from livestain_models.fast import FastUNet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from livestain_models.data import Field
    from livestain_models.recipe import Network, PlanesWanted

__all__ = ["FieldContrast", "FixedContrast", "LocalContrast", "local_contrast", "normaliser_of"]

_SPREAD = 0.5  # root mean square of the normalised input: leaves room for strong objects below the limit of 5
_GAIN_FIELDS = 16  # enough to measure it on


class LocalContrast(nn.Module):  # type: ignore[misc] # torch counts as untyped here, see pyproject.toml
    """Grey values relative to their surroundings: flat field, lamp and exposure drop out.

    Planes are divided by the mean over a window of about 144 px, minus one, times a gain, clipped. The
    window is local, so that a tile and the whole frame are normalised alike; statistics of a frame would
    differ.

    Parameters
    ----------
    gain : float
        Brings the contrast of cells (a few percent) to the order of one.
    limit : float
        Where the result is clipped, so that dust and bubbles stay in range; infinite for a network that clips itself.
    step_px : int
        How many pixels each way share one value of the background.
    """

    cell_px = 16  # the background's grid; frames and tiles must start on it
    window_cells = 9
    # Half the window, one cell to interpolate with, and half a cell within it; rounded up to whole cells.
    margin_px = 96
    needs_field = False

    def __init__(self, gain: float = 10.0, limit: float = 5.0, step_px: int = 1) -> None:
        super().__init__()
        self.gain, self.limit, self.step_px = gain, limit, step_px

    def forward(self, planes: Tensor) -> Tensor:
        """Normalise, (N, P, H, W) float grey values -> the same shape, within +-limit."""
        background = self.background(planes)
        if self.step_px > 1:
            background = functional.interpolate(background, scale_factor=float(self.step_px), mode="nearest")
        contrast = (planes / background - 1.0) * self.gain
        return contrast if self.limit == math.inf else contrast.clamp(-self.limit, self.limit)

    def background(self, planes: Tensor) -> Tensor:
        """Measure the mean around each place, at least 1: (N, P, H, W) -> (N, P, H / step_px, W / step_px)."""
        count = planes.shape[1]
        # A runtime averages one large plane in one thread, and convolves it in all of them.
        mean = functional.conv2d(planes, planes.new_full((count, 1, 4, 4), 1 / 16), stride=4, groups=count)
        mean = functional.avg_pool2d(mean, self.cell_px // 4)  # (N, P, H/16, W/16)
        window, reach = self.window_cells, self.window_cells // 2
        for size, padding in (((window, 1), (reach, 0)), ((1, window), (0, reach))):
            mean = functional.avg_pool2d(mean, size, stride=1, padding=padding, count_include_pad=False)
        scale = self.cell_px / self.step_px
        mean = functional.interpolate(mean, scale_factor=scale, mode="bilinear", align_corners=False)
        return mean.clamp(min=1.0)  # a black frame stays finite

    def describe(self) -> str:
        """Say in words what is done to the grey values."""
        clipped = "" if self.limit == math.inf else f", clipped at +-{self.limit:g}"
        return (
            "inside the graph: each pixel over the mean of its surroundings (a window of about "
            f"{self.cell_px * self.window_cells} px), minus 1, times {self.gain:g}{clipped}"
        )


class FieldContrast(nn.Module):  # type: ignore[misc]
    """Each plane less its median over the field, over its spread: the range between the 5th and 95th percentile.

    Robust against dust, but a frame cannot be stained in tiles. Percentiles are those of every 8th pixel
    each way: sorting a whole frame would take longer than the network.

    Parameters
    ----------
    limit : float
        Where the result is clipped.
    """

    cell_px = 8
    margin_px = 0
    needs_field = True

    def __init__(self, limit: float = 5.0) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, planes: Tensor) -> Tensor:
        """Normalise, (N, P, H, W) float grey values -> the same shape, within +-limit."""
        median, spread = self.statistics(planes)
        return ((planes - median) / spread).clamp(-self.limit, self.limit)

    def statistics(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Measure median and spread, (N, P, H, W) -> two of (N, P, 1, 1)."""
        # From the middle of each cell, so that a field of one cell still has a pixel.
        sample = planes[:, :, 4 :: self.cell_px, 4 :: self.cell_px].flatten(2)  # (N, P, pixels)
        ranked = sample.sort(dim=2).values
        count = sample.shape[2]
        low, median, high = (ranked[:, :, share * count // 20, None, None] for share in (1, 10, 19))
        return median, (high - low).clamp(min=1.0)  # a constant field stays finite

    def of_field(self, field: Field, window: Sequence[int]) -> FixedContrast:
        """Give the normalisation of parts of one field, measured on the whole of it."""
        whole = field.input(window, slice(None), slice(None)).astype(np.float32)
        return FixedContrast(*self.statistics(torch.from_numpy(whole)[None]), limit=self.limit)

    def describe(self) -> str:
        """Say in words what is done to the grey values."""
        return (
            "inside the graph: each plane less its median over the whole frame, over the range between its 5th and "
            f"95th percentile (of every {self.cell_px}th pixel each way), clipped at +-{self.limit:g}"
        )


class FixedContrast:
    """The normalisation of one field, to be applied to its parts."""

    def __init__(self, median: Tensor, spread: Tensor, limit: float) -> None:
        self._median, self._spread, self._limit = median, spread, limit

    def __call__(self, planes: Tensor) -> Tensor:
        """Normalise a part, (1, P, h, w) float grey values -> the same shape."""
        return ((planes - self._median) / self._spread).clamp(-self._limit, self._limit)


def normaliser_of(network: Network, fields: Sequence[Field], wanted: PlanesWanted) -> LocalContrast | FieldContrast:
    """Build the normalisation that a recipe asks for; a gain it leaves open is measured.

    Parameters
    ----------
    network : Network
    fields : sequence of Field
        To learn from.
    wanted : PlanesWanted
    """
    if network.normalise == "field":
        return FieldContrast()
    return local_contrast(network, network.gain or _measured_gain(fields, wanted))


def local_contrast(network: Network, gain: float) -> LocalContrast:
    """Build the local normalisation as a network takes it.

    Parameters
    ----------
    network : Network
    gain : float
    """
    if network.kind == "fast":
        return LocalContrast(gain, limit=math.inf, step_px=FastUNet.fold_px)
    return LocalContrast(gain)


def _measured_gain(fields: Sequence[Field], wanted: PlanesWanted) -> float:
    unit = LocalContrast(1.0, limit=1.0)
    squares = []
    for field in some_of(fields, _GAIN_FIELDS):
        height, width = (side // unit.cell_px * unit.cell_px for side in field.size_px)
        planes = field.input(field.windows(wanted)[0], slice(0, height), slice(0, width)).astype(np.float32)
        squares.append(float(unit(torch.from_numpy(planes)[None]).square().mean()))
    return float(f"{_SPREAD / max(float(np.sqrt(np.mean(squares))), 1e-4):.3g}")
