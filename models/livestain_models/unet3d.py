"""The small U-Net in three dimensions: the stack is a volume, and every plane of it is predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["UNet3D"]


class UNet3D(nn.Module):  # type: ignore[misc] # torch counts as untyped here, see pyproject.toml
    """`unet.UNet` with volume convolutions, after Cicek et al. 2016 and Ounkomol et al. 2018.

    Depth is never reduced: live stacks have few planes, and any number of them is allowed.

    Parameters
    ----------
    channels : int
        Output channels.
    base : int
        Channels at the first level; doubled at each level below.
    levels : int
        Resolutions, the stem's included; H and W must be multiples of 2**levels.
    dropout : float
        Share of channels that is dropped in training, at every level.
    """

    def __init__(self, channels: int = 1, base: int = 16, levels: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        widths = [base << level for level in range(levels)]
        self.multiple_px = 2**levels
        self.down = nn.ModuleList(
            nn.Sequential(*_conv(inputs, outputs), *_conv(outputs, outputs))
            for inputs, outputs in zip([4, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.drop = nn.Dropout3d(dropout)
        self.narrow = nn.ModuleList(nn.Conv3d(2 * width, width, 1) for width in widths[:-1])
        self.up = nn.ModuleList(nn.Sequential(*_conv(width, width)) for width in widths[:-1])
        self.head = nn.Conv3d(base, 4 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Stain a normalised stack, (N, P, H, W) float -> (N, K, P, H, W) float."""
        x = functional.pixel_unshuffle(x.unsqueeze(2), 2)  # (N, P, 4, H/2, W/2)
        x = x.transpose(1, 2)  # (N, 4, P, H/2, W/2)
        skips: list[Tensor] = []
        for level in self.down:
            x = self.drop(level(self.pool(x) if skips else x))  # (N, base << level, P, H/2 >> level, ...)
            skips.append(x)
        for narrow, up, skip in zip(reversed(self.narrow), reversed(self.up), skips[-2::-1], strict=True):
            x = functional.interpolate(narrow(x), scale_factor=(1.0, 2.0, 2.0), mode="nearest")
            x = self.drop(up(x + skip))  # (N, base << level, P, H/2 >> level, ...)
        x = functional.pixel_shuffle(self.head(x).transpose(1, 2), 2)  # (N, P, K, H, W)
        return x.transpose(1, 2)  # (N, K, P, H, W)


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    conv = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]
