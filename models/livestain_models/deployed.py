"""The graph around a network that is exported: uint16 planes in, uint16 outputs out; and how far it sees."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from livestain_models.fast import FastUNet
from livestain_models.large import LargeUNet
from livestain_models.unet import UNet
from livestain_models.unet3d import UNet3D

if TYPE_CHECKING:
    from torch import Tensor

    from livestain_models.heads import Heads
    from livestain_models.normalise import FieldContrast, LocalContrast
    from livestain_models.recipe import Network

__all__ = ["Deployed", "build_network", "reach_px"]

GREY = 65535.0


def build_network(network: Network, planes: int, channels: int) -> nn.Module:
    """Build the network that a recipe asks for, with random weights: (N, P, H, W) -> (N, K, H, W), or (N, K, P, H, W).

    Parameters
    ----------
    network : Network
        Of the recipe.
    planes, channels : int
        Input and output channels.
    """
    if network.kind == "unet":
        return UNet(planes, channels, network.base, network.levels, network.dropout)
    if network.kind == "fast":
        return FastUNet(planes, channels, network.base, network.levels, network.dropout)
    if network.kind == "unet3d":
        return UNet3D(channels, network.base, network.levels, network.dropout)
    return LargeUNet(planes, channels, network.dropout)


class Deployed(nn.Module):  # type: ignore[misc] # torch counts as untyped here, see pyproject.toml
    """What is exported: cast, normalisation, network and quantisation in one graph.

    Parameters
    ----------
    net : nn.Module
        (N, P, H, W) -> (N, K, H, W), or (N, K, P, H, W), of which the middle plane is taken.
    normalise : LocalContrast or FieldContrast
    heads : Heads
        What the network's channels mean.
    planes : int
        Focal planes of an input.
    deviation_factor : float
        By which predicted deviations were found too small on validation images.
    """

    def __init__(
        self,
        net: nn.Module,
        normalise: LocalContrast | FieldContrast,
        heads: Heads,
        planes: int = 1,
        deviation_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.net, self.normalise, self.heads = net, normalise, heads
        self.planes, self.deviation_factor = planes, deviation_factor

    def forward(self, planes: Tensor) -> Tensor:
        """Stain camera frames, (1, P, H, W) uint16 -> (1, C, H, W) uint16."""
        planes = planes.to(torch.float32)
        if isinstance(self.net, FastUNet):
            raw = self.net.on_grey(planes, self.normalise)
        else:
            raw = self.net(self.normalise(planes))
        grey = self.heads.deployed(middle_plane(raw), self.deviation_factor, GREY)
        grey = torch.round(grey)  # half to even, as ONNX Round does
        return grey.clamp(0.0, GREY).to(torch.uint16)

    def shares(self, raw: Tensor) -> Tensor:
        """Turn the network's output into shares of each output's full scale, (N, C, H, W)."""
        return self.heads.deployed(middle_plane(raw), self.deviation_factor)

    @property
    def multiple_px(self) -> int:
        """The grid on which frames and tiles must start: the network's and the normalisation's."""
        return int(max(self.net.multiple_px, self.normalise.cell_px))

    @property
    def halo_px(self) -> int | None:
        """Radius within which an input pixel can change the output, rounded up to the grid; None if any can."""
        if self.normalise.needs_field:
            return None
        reach = reach_px(self.net, self.planes) + self.normalise.margin_px
        return int(-(-reach // self.multiple_px) * self.multiple_px)


def middle_plane(raw: Tensor) -> Tensor:
    """Take the plane that the engine files the prediction under; a network without depth gives only that one."""
    return raw[:, :, (raw.shape[2] - 1) // 2] if raw.ndim == 5 else raw


def reach_px(net: nn.Module, planes: int) -> int:
    """Measure how far from a pixel the input can change the network's output there.

    A copy of the network with positive weights throughout and averages for maxima lets through every path
    from input to output; the gradient of one grid cell of the output is not zero exactly where such a path
    begins.

    Parameters
    ----------
    net : nn.Module
        Convolutions, BatchNorm, pooling and additions; is left as it is.
    planes : int
        Input channels.
    """
    net = _all_paths_open(net).double()
    cell = int(net.multiple_px)
    radius = 8 * cell
    while True:
        radius *= 2
        side = 2 * radius + cell  # whole cells
        # Rows reach as far as columns do, so a strip one cell wide tells.
        x = torch.ones(1, planes, side, cell, dtype=torch.float64, requires_grad=True)
        net(x)[..., radius : radius + cell, :].sum().backward()
        assert x.grad is not None  # noqa: S101 - set by backward
        reached = x.grad.abs().amax(dim=(0, 1, 3)).nonzero()[:, 0]
        first, last = int(reached.min()), int(reached.max())
        if first > 0 and last < side - 1:
            return max(radius - first, last - (radius + cell - 1))


def _all_paths_open(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net).eval()
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            fan_in = module.weight[0].numel()
            nn.init.constant_(module.weight, 1.0 / fan_in)  # values stay near one, however deep
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.MaxPool2d | nn.MaxPool3d):
            average = nn.AvgPool2d if isinstance(module, nn.MaxPool2d) else nn.AvgPool3d
            parent, _, last = name.rpartition(".")
            pool = average(module.kernel_size, module.stride, module.padding)
            setattr(net.get_submodule(parent), last, pool)
    return net.requires_grad_(requires_grad=False)
