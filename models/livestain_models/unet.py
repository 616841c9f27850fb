"""A small U-Net with BatchNorm, and the deployable graph around it: uint16 planes in, uint16 stains out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Deployed", "LocalContrast", "UNet"]


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    # No bias before a BatchNorm: its shift does the same. BatchNorm folds into the convolution at export.
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class UNet(nn.Module):  # type: ignore[misc] # torch counts as untyped here, see pyproject.toml
    """U-Net after Ronneberger et al. 2015, at half resolution inside, its skips added.

    The stem folds 2x2 pixels into channels and the head unfolds them again: a quarter of the work of a
    network at full resolution, and in trials no worse at equal work. Adding the skips, after a 1x1
    convolution at the lower resolution, and one convolution a level on the way up halve the time on a CPU.

    Parameters
    ----------
    planes, stains : int
        Input and output channels.
    base : int
        Channels at the first level; doubled at each level below.
    levels : int
        Resolutions, the stem's included; H and W must be multiples of 2**levels.
    """

    def __init__(self, planes: int = 1, stains: int = 1, base: int = 16, levels: int = 4) -> None:
        super().__init__()
        widths = [base << level for level in range(levels)]  # 16, 32, 64, 128
        self.multiple_px = 2**levels
        self.down = nn.ModuleList(
            nn.Sequential(*_conv(inputs, outputs), *_conv(outputs, outputs))
            for inputs, outputs in zip([4 * planes, *widths], widths, strict=False)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in widths[:-1])
        self.up = nn.ModuleList(nn.Sequential(*_conv(width, width)) for width in widths[:-1])
        self.head = nn.Conv2d(base, 4 * stains, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Stain normalised planes, (N, P, H, W) float -> (N, C, H, W) float."""
        x = functional.pixel_unshuffle(x, 2)  # (N, 4P, H/2, W/2)
        skips: list[Tensor] = []
        for level in self.down:
            x = level(functional.max_pool2d(x, 2) if skips else x)  # (N, base << level, H/2 >> level, ...)
            skips.append(x)
        for narrow, up, skip in zip(reversed(self.narrow), reversed(self.up), skips[-2::-1], strict=True):
            x = functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest")
            x = up(x + skip)  # (N, base << level, H/2 >> level, ...)
        return functional.pixel_shuffle(self.head(x), 2)  # (N, C, H, W)


class LocalContrast(nn.Module):  # type: ignore[misc]
    """Grey values relative to their surroundings: flat field, lamp and exposure drop out.

    Planes are divided by the mean over a window of about 144 px, minus one, times a gain, clipped. The
    window is local, so that a tile and the whole frame are normalised alike; statistics of a frame would
    differ.

    Parameters
    ----------
    gain : float
        Brings the contrast of cells (a few percent) to the order of one.
    limit : float
        Where the result is clipped, so that dust and bubbles stay in range.
    """

    cell_px = 16  # the background's grid; frames and tiles must start on it
    window_cells = 9

    def __init__(self, gain: float = 10.0, limit: float = 5.0) -> None:
        super().__init__()
        self.gain, self.limit = gain, limit

    def forward(self, planes: Tensor) -> Tensor:
        """Normalise, (N, P, H, W) float grey values -> the same shape, within +-limit."""
        mean = functional.avg_pool2d(planes, self.cell_px)  # (N, P, H/16, W/16)
        window, reach = self.window_cells, self.window_cells // 2
        mean = functional.avg_pool2d(mean, window, stride=1, padding=reach, count_include_pad=False)
        background = functional.interpolate(
            mean, scale_factor=float(self.cell_px), mode="bilinear", align_corners=False
        )
        contrast = planes / background.clamp(min=1.0) - 1.0  # a black frame stays finite
        return (contrast * self.gain).clamp(-self.limit, self.limit)


class Deployed(nn.Module):  # type: ignore[misc]
    """What is exported: cast, normalisation, network and quantisation in one graph.

    Parameters
    ----------
    net : UNet
        Its output 1.0 is the reference brightness of training.
    normalise : LocalContrast
    grey_per_unit : float
        Grey levels of the uint16 output for a network output of 1.0.
    """

    def __init__(self, net: UNet, normalise: LocalContrast, grey_per_unit: float = 65535 / 4) -> None:
        super().__init__()
        self.net, self.normalise, self.grey_per_unit = net, normalise, grey_per_unit

    def forward(self, planes: Tensor) -> Tensor:
        """Stain camera frames, (1, P, H, W) uint16 -> (1, C, H, W) uint16."""
        stains = self.net(self.normalise(planes.to(torch.float32)))
        grey = torch.round(stains * self.grey_per_unit)  # half to even, as ONNX Round does
        return grey.clamp(0.0, 65535.0).to(torch.uint16)

    @property
    def multiple_px(self) -> int:
        """The grid on which frames and tiles must start: the network's and the background's."""
        return int(max(self.net.multiple_px, self.normalise.cell_px))

    @property
    def halo_px(self) -> int:
        """Radius within which an input pixel can change the output, rounded up to the grid."""
        # A 3x3 convolution reaches one pixel of its level, 2**(level + 1) of the frame: two a level on the
        # way down, one on the way up. Folding, pooling and upsampling add the rest of one pixel of the
        # lowest level.
        levels = len(self.net.down)
        reach = sum(2 * 2 ** (level + 1) for level in range(levels))
        reach += sum(2 ** (level + 1) for level in range(levels - 1)) + 2**levels - 1
        # The background: half its window, one cell to interpolate with, and half a cell within it.
        cell = self.normalise.cell_px
        reach += cell * (self.normalise.window_cells // 2 + 1) + cell // 2 - 1
        return int(-(-reach // self.multiple_px) * self.multiple_px)
