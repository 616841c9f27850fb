"""The fast network: for frames of four megapixels on a processor without a graphics card."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

from livestain_models.unet import convolved

if TYPE_CHECKING:
    from torch import Tensor

    from livestain_models.normalise import LocalContrast

__all__ = ["FastUNet"]

_STEM_LIMIT = 6.0  # dust and bubbles stay in range


class FastUNet(nn.Module):  # type: ignore[misc] # torch counts as untyped here, see pyproject.toml
    """A U-Net like `UNet`, at a quarter of the resolution inside, whose stem takes the normalisation in.

    The stem folds 4x4 pixels into channels by one convolution, so that no work but reading the frame and writing the
    prediction is done at full resolution.

    Parameters
    ----------
    planes, channels : int
        Input and output channels.
    base : int
        Channels at the first level; doubled at each level below.
    levels : int
        Resolutions, the stem's included; H and W must be multiples of 2**(levels + 1).
    dropout : float
        Share of channels that is dropped in training, at every level.
    """

    fold_px = 4

    def __init__(
        self, planes: int = 1, channels: int = 1, base: int = 8, levels: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [base << level for level in range(levels)]  # 8, 16, 32, 64
        self.multiple_px = self.fold_px * 2 ** (levels - 1)
        self.stem = nn.Conv2d(planes, base, self.fold_px, stride=self.fold_px, bias=False)
        self.stem_norm = nn.BatchNorm2d(base)
        self.down = nn.ModuleList(
            nn.Sequential(*convolved(above, width), *convolved(width, width)) for above, width in pairwise(widths)
        )
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout2d(dropout)
        self.narrow = nn.ModuleList(nn.Conv2d(width, above, 1) for above, width in pairwise(widths))
        self.up = nn.ModuleList(nn.Sequential(*convolved(width, width)) for width in widths[:-1])
        self.head = nn.Conv2d(base, self.fold_px**2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Stain normalised planes, (N, P, H, W) float -> (N, K, H, W) float."""
        return self._unfolded(self.stem_norm(self.stem(x)))

    def on_grey(self, planes: Tensor, normalise: LocalContrast) -> Tensor:
        """Stain planes as the camera gave them; what `forward` gives for `normalise(planes)`, in less time.

        A pixel over its background, less one, times the gain, is linear in the pixel, and so is the stem: the
        background, one value for each 4x4 pixels, is divided out behind it.

        Parameters
        ----------
        planes : Tensor
            (N, P, H, W) float, grey values.
        normalise : LocalContrast
            Without a limit, and with the stem's `fold_px`.
        """
        norm = self.stem_norm
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = self.stem.weight * scale[:, None, None, None]
        shift = norm.bias - norm.running_mean * scale - normalise.gain * weight.sum(dim=(1, 2, 3))
        per_grey = normalise.gain / normalise.background(planes)  # (N, P, H/4, W/4)
        x = shift[:, None, None]
        for plane in range(planes.shape[1]):
            one = slice(plane, plane + 1)
            x = x + functional.conv2d(planes[:, one], weight[:, one], stride=self.fold_px) * per_grey[:, one]
        return self._unfolded(x)

    def _unfolded(self, x: Tensor) -> Tensor:
        skips = [x.clamp(0.0, _STEM_LIMIT)]  # (N, base, H/4, W/4)
        for level in self.down:
            skips.append(self.drop(level(self.pool(skips[-1]))))
        x = skips[-1]
        for narrow, up, skip in zip(reversed(self.narrow), reversed(self.up), skips[-2::-1], strict=True):
            x = functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest")
            x = self.drop(up(x + skip))
        return functional.pixel_shuffle(self.head(x), self.fold_px)  # (N, K, H, W)
