"""The large network: MONAI's FlexibleUNet with a residual encoder, for cards that have the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai.networks.nets import FlexibleUNet
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LargeUNet"]


class LargeUNet(nn.Module):  # type: ignore[misc] # torch counts as untyped here, see pyproject.toml
    """MONAI's FlexibleUNet over ResNet-18 (He et al. 2016), started from random weights.

    Residual encoders only: the other backbones weigh channels by averages over the whole frame, so that a
    tile and a frame would differ.

    Parameters
    ----------
    planes, channels : int
        Input and output channels.
    dropout : float
        Share of the decoder's channels that is dropped in training.
    """

    multiple_px = 32

    def __init__(self, planes: int = 1, channels: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = FlexibleUNet(
            in_channels=planes,
            out_channels=channels,
            backbone="resnet18",
            pretrained=False,
            dropout=dropout,
            interp_mode="nearest",
            is_pad=False,  # the frame's sides are multiples of 32
        )
        _project_shortcuts(self.net.encoder)

    def forward(self, x: Tensor) -> Tensor:
        """Stain normalised planes, (N, P, H, W) float -> (N, K, H, W) float."""
        return self.net(x)


def _project_shortcuts(encoder: nn.Module) -> None:
    """Give the residual shortcuts that change the width a convolution; MONAI's pad with zeros and do not export."""
    for layer in (encoder.layer2, encoder.layer3, encoder.layer4):
        block = layer[0]
        inputs, outputs = block.conv1.in_channels, block.conv2.out_channels
        convolution = nn.Conv2d(inputs, outputs, 1, stride=block.conv1.stride, bias=False)
        block.downsample = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
