"""The fast network: for frames of four megapixels on a processor without a graphics card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

from livestain_models.unet import UNet

if TYPE_CHECKING:
    from torch import Tensor

    from livestain_models.normalise import LocalContrast

__all__ = ["FastUNet"]

_STEM_LIMIT = 6.0  # dust and bubbles stay in range


class FastUNet(UNet):
    """`UNet` at a quarter of the resolution inside, whose stem takes the normalisation in.

    The stem folds 4x4 pixels into channels by one convolution, so that no work but reading the frame and writing the
    prediction is done at full resolution. H and W must be multiples of 2**(levels + 1).
    """

    fold_px = 4

    def first_level(self, planes: int, base: int) -> nn.Sequential:
        """Build the stem: it folds by itself."""
        return nn.Sequential(
            nn.Conv2d(planes, base, self.fold_px, stride=self.fold_px, bias=False), nn.BatchNorm2d(base)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Stain normalised planes, (N, P, H, W) float -> (N, K, H, W) float."""
        return self._from_stem(self.down[0](x))

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
        stem, norm = self.down[0]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = stem.weight * scale[:, None, None, None]
        shift = norm.bias - norm.running_mean * scale - normalise.gain * weight.sum(dim=(1, 2, 3))
        per_grey = normalise.gain / normalise.background(planes)  # (N, P, H/4, W/4)
        x = shift[:, None, None]
        for plane in range(planes.shape[1]):
            one = slice(plane, plane + 1)
            x = x + functional.conv2d(planes[:, one], weight[:, one], stride=self.fold_px) * per_grey[:, one]
        return self._from_stem(x)

    def _from_stem(self, x: Tensor) -> Tensor:
        return self.from_first_level(x.clamp(0.0, _STEM_LIMIT))
