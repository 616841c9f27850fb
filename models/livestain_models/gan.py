"""The discriminator of mode "gan": judges whether a stain looks real, given its transmitted light."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PatchDiscriminator", "discriminator_loss", "generator_loss"]


class PatchDiscriminator(nn.Module):  # type: ignore[misc] # torch counts as untyped here, see pyproject.toml
    """PatchGAN of pix2pix (Isola et al. 2017): judges overlapping patches of 70 px.

    Spectral normalisation (Miyato et al. 2018) in place of BatchNorm keeps it steady at small batches.

    Parameters
    ----------
    planes, stains : int
        Channels of the transmitted light and of the stain.
    base : int
        Channels of the first layer.
    """

    def __init__(self, planes: int, stains: int, base: int = 32) -> None:
        super().__init__()
        widths = [planes + stains, base, 2 * base, 4 * base, 8 * base]
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            stride = 2 if index < 3 else 1
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, stride, 1)), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 4, 1, 1)))

    def forward(self, x: Tensor, stain: Tensor) -> Tensor:
        """Judge, (N, P, H, W) and (N, C, H, W) -> (N, 1, H/8 - 2, W/8 - 2), higher is more real."""
        return self.layers(torch.cat([x, stain], dim=1))


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator (Lim and Ye 2017)."""
    return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Hinge loss of the generator."""
    return -fake.mean()
