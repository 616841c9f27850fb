"""Varies training patches: geometry of input and stain together in one resampling, contrast of the input alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.transforms.spatial.array import AffineGrid, Flip, Resample, Rotate90
from monai.utils import convert_to_tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from livestain_models.recipe import Augment

__all__ = ["Geometry", "Patch", "augment", "draw_geometry", "pasted", "place", "vary_contrast"]

_BEND_KNOTS = 6
_LEAST_BLUR_PX = 0.1  # below that a Gaussian's neighbours weigh nothing


@dataclass(frozen=True, slots=True)
class Patch:
    """One sample.

    Parameters
    ----------
    x : Tensor
        (P, h, w) float32, normalised planes.
    y : Tensor
        (C, h, w) or (C, P, h, w) float32, stains.
    labels : Tensor or None
        (h, w) int64.
    """

    x: Tensor
    y: Tensor
    labels: Tensor | None


@dataclass(frozen=True, slots=True)
class Geometry:
    """How one patch lies in its field: turned and zoomed about its centre, and bent.

    Parameters
    ----------
    rotate_rad : float
    zoom : float
        Above 1 cells look larger.
    shear : tuple of float
        Slant along y and x.
    quarters : int
        Quarter turns.
    mirror : bool
    bend_px : np.ndarray or None
        (2, 6, 6), displacements along rows and columns on a coarse grid over the patch.
    """

    rotate_rad: float = 0.0
    zoom: float = 1.0
    shear: tuple[float, float] = (0.0, 0.0)
    quarters: int = 0
    mirror: bool = False
    bend_px: np.ndarray | None = None

    @property
    def resamples(self) -> bool:
        """Whether pixels come to lie between pixels; flips and quarter turns only move them."""
        return self.rotate_rad != 0 or self.zoom != 1 or self.shear != (0.0, 0.0) or self.bend_px is not None

    def reach_px(self, patch_px: int) -> tuple[int, int]:
        """How many rows and columns of the field, around the patch's centre, the patch is made of."""
        if not self.resamples:
            return patch_px, patch_px
        _, matrix = self._grid()((patch_px, patch_px), lazy=True)
        half = matrix[:2, :2].abs().sum(1) * (patch_px - 1) / 2  # to the farthest corner of the patch
        # A pixel more to interpolate with; a bicubic curve overshoots its points by less than a quarter.
        most = 1 if self.bend_px is None else 1 + 1.25 * float(np.abs(self.bend_px).max())
        rows, columns = (2 * math.ceil(float(side) + most) for side in half)
        return rows, columns

    def apply(self, images: Tensor, centre: tuple[float, float], patch_px: int, *, nearest: bool = False) -> Tensor:
        """Cut a patch out of images, turned and zoomed, with one resampling at most.

        Parameters
        ----------
        images : Tensor
            (K, H, W) float32.
        centre : tuple of float
            Where the patch's centre lies: row and column, in pixels from the top left corner of the images.
        patch_px : int
        nearest : bool
            For labels, which have no in-between.

        Returns
        -------
        Tensor
            (K, patch_px, patch_px), mirrored where the patch reaches beyond the images.
        """
        patch = self._resampled(images, centre, patch_px, nearest) if self.resamples else _cut(images, centre, patch_px)
        patch = Rotate90(k=self.quarters)(patch) if self.quarters else patch
        patch = Flip(spatial_axis=1)(patch) if self.mirror else patch
        plain: Tensor = convert_to_tensor(patch, track_meta=False)
        return plain.contiguous()

    def _resampled(self, images: Tensor, centre: tuple[float, float], patch_px: int, nearest: bool) -> Tensor:  # noqa: FBT001
        grid, _ = self._grid()((patch_px, patch_px))  # (3, h, w): rows, columns and ones, from the images' middle
        middle = [(size - 1) / 2 for size in images.shape[1:]]
        # The patch's centre lies between its pixels; its first pixel's centre is half a pixel down and right.
        offset = [at - 0.5 - zero for at, zero in zip(centre, middle, strict=True)]
        grid = convert_to_tensor(grid, track_meta=False) + torch.tensor([*offset, 0.0])[:, None, None]
        if self.bend_px is not None:
            coarse = torch.from_numpy(self.bend_px)[None]
            grid[:2] += functional.interpolate(coarse, (patch_px, patch_px), mode="bicubic", align_corners=True)[0]
        resample = Resample(mode="nearest" if nearest else "bilinear", padding_mode="reflection")
        found: Tensor = resample(images, grid=grid)
        return found

    def _grid(self) -> AffineGrid:
        # MONAI's matrix leads from the patch to the field, so that its scale is the inverse of the zoom.
        return AffineGrid(
            rotate_params=self.rotate_rad, shear_params=self.shear, scale_params=(1 / self.zoom, 1 / self.zoom)
        )


def draw_geometry(settings: Augment, rng: np.random.Generator) -> Geometry:
    """Draw how a patch is turned, zoomed, slanted and mirrored."""
    turn = math.radians(settings.rotate_deg)
    return Geometry(
        rotate_rad=float(rng.uniform(-turn, turn)),
        # Even in the logarithm: as often twice as large as half as large.
        zoom=math.exp(rng.uniform(math.log(settings.scale[0]), math.log(settings.scale[1]))),
        shear=(
            float(rng.uniform(-settings.shear, settings.shear)),
            float(rng.uniform(-settings.shear, settings.shear)),
        ),
        quarters=int(rng.integers(4)) if settings.flips else 0,
        mirror=bool(rng.integers(2)) if settings.flips else False,
        bend_px=_drawn_bend(settings.elastic_px, rng) if settings.elastic_px else None,
    )


def _drawn_bend(elastic_px: float, rng: np.random.Generator) -> np.ndarray:
    bend = rng.standard_normal((2, _BEND_KNOTS, _BEND_KNOTS), np.float32) * np.float32(elastic_px)
    return np.asarray(bend.clip(-3 * elastic_px, 3 * elastic_px), np.float32)


def augment(
    x: Tensor, y: Tensor, labels: Tensor | None, settings: Augment, rng: np.random.Generator, patch_px: int
) -> Patch:
    """Cut a varied patch out of the middle of a larger piece.

    Parameters
    ----------
    x : Tensor
        (P, H, W) float32, normalised planes.
    y : Tensor
        (C, H, W) or (C, P, H, W) float32, stains in network units.
    labels : Tensor or None
        (H, W) integers.
    settings : Augment
    rng : np.random.Generator
        The same state gives the same patch, bit by bit.
    patch_px : int

    Returns
    -------
    Patch
    """
    geometry = draw_geometry(settings, rng)
    height, width = x.shape[1:]
    patch = place(geometry, x, y, labels, (height / 2, width / 2), patch_px)
    return replace(patch, x=vary_contrast(patch.x, settings, rng))


def place(
    geometry: Geometry, x: Tensor, y: Tensor, labels: Tensor | None, centre: tuple[float, float], patch_px: int
) -> Patch:
    """Give input, stains and labels the same geometry; shapes as in `augment`, `centre` as in `Geometry.apply`."""
    planes = x.shape[0]
    images = torch.cat([x, y.reshape(-1, *y.shape[-2:])])  # one grid, one pass
    moved = geometry.apply(images, centre, patch_px)
    return Patch(
        moved[:planes],
        moved[planes:].reshape(*y.shape[:-2], patch_px, patch_px),
        None
        if labels is None
        else geometry.apply(labels[None].float(), centre, patch_px, nearest=True)[0].round().long(),
    )


def pasted(patch: Patch, other: Patch, rng: np.random.Generator) -> Patch:
    """Paste a rectangle of another patch, a quarter to three quarters of each side, at the same place (CutMix)."""
    side = patch.x.shape[-1]
    height, width = (int(rng.integers(side // 4, 3 * side // 4 + 1)) for _ in range(2))
    top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
    there = (..., slice(top, top + height), slice(left, left + width))
    x, y = patch.x.clone(), patch.y.clone()
    x[there], y[there] = other.x[there], other.y[there]
    if patch.labels is None or other.labels is None:
        return Patch(x, y, None)
    labels = patch.labels.clone()
    labels[there] = other.labels[there]
    return Patch(x, y, labels)


def vary_contrast(x: Tensor, settings: Augment, rng: np.random.Generator) -> Tensor:
    """Vary the input as another lamp, focus, camera or contrast would; the stain stays as it is.

    Parameters
    ----------
    x : Tensor
        (P, h, w) float32, normalised planes.
    settings : Augment
    rng : np.random.Generator

    Returns
    -------
    Tensor
        (P, h, w) float32.
    """
    x = _without_planes(x, settings.drop_planes, rng)
    gain, gamma, blur_px, noise = (
        float(rng.uniform(*limits)) for limits in (settings.gain, settings.gamma, settings.blur_px, settings.noise)
    )
    if rng.random() < settings.invert:
        x = -x
    x = _blurred(_bent(x, gamma), blur_px) * gain
    x.add_(float(rng.uniform(-settings.offset, settings.offset)))
    if noise > 0:
        grain = torch.from_numpy(rng.standard_normal(tuple(x.shape), np.float32))
        x.add_(grain.mul_(noise * x.std()))
    return x


def _without_planes(x: Tensor, chance: float, rng: np.random.Generator) -> Tensor:
    """Put the nearest plane that is there in the place of each that is missing."""
    if chance == 0 or len(x) == 1:
        return x
    there = rng.random(len(x)) >= chance
    if not there.any():
        there[(len(x) - 1) // 2] = True
    kept = np.flatnonzero(there)
    nearest = kept[np.abs(kept[None] - np.arange(len(x))[:, None]).argmin(1)]
    return x[torch.from_numpy(nearest)]


def _bent(x: Tensor, gamma: float) -> Tensor:
    """Bend the contrast of a signed image.

    The normalised input lies on both sides of 0, its background, and a power of a negative number is none. So the
    curve is bent over the range [-r, r], r being the largest magnitude: u = (x + r) / 2r, u ** gamma. It is then moved
    and stretched so that 0 stays 0 with a slope of 1: faint cells keep their contrast, strong ones are compressed on
    one side and stretched on the other. (A power of the magnitude would have an endless slope at 0 and amplify noise.)
    """
    reach = x.abs().max()
    if gamma == 1 or reach == 0:
        return x
    bent = (x / reach).add_(1).clamp_(min=0).pow_(gamma)  # (2u) ** gamma: 1 at the background
    return bent.sub_(1).mul_(reach / gamma)


def _blurred(x: Tensor, sigma_px: float) -> Tensor:
    """Blur each plane with a Gaussian, mirrored at the edges."""
    if sigma_px < _LEAST_BLUR_PX:
        return x
    reach = min(math.ceil(3 * sigma_px), min(x.shape[1:]) - 1)
    weights = [math.exp(-0.5 * (at / sigma_px) ** 2) for at in range(reach + 1)]
    weights = [weight / (2 * sum(weights) - 1) for weight in weights]
    x = functional.pad(x, [reach] * 4, mode="reflect")  # (P, h + 2r, w + 2r)
    # Sums of shifted images: for a few taps on one channel several times faster than a convolution.
    return _weighted(_weighted(x, weights, 1), weights, 2)


def _weighted(x: Tensor, weights: Sequence[float], axis: int) -> Tensor:
    """Filter along an axis with symmetric weights, the middle one first; loses their reach at both ends."""
    reach, length = len(weights) - 1, x.shape[axis] - 2 * (len(weights) - 1)
    found = x.narrow(axis, reach, length) * weights[0]
    for at, weight in enumerate(weights[1:], start=1):
        found.add_(x.narrow(axis, reach - at, length), alpha=weight).add_(
            x.narrow(axis, reach + at, length), alpha=weight
        )
    return found


def _cut(images: Tensor, centre: tuple[float, float], patch_px: int) -> Tensor:
    """Cut without resampling; mirror images that are smaller than the patch."""
    spans = []
    for at, size in zip(centre, images.shape[1:], strict=True):
        start = round(at - patch_px / 2)
        spans.append(_mirrored(start, start + patch_px, size))
    rows, columns = spans
    if isinstance(rows, slice) and isinstance(columns, slice):
        return images[:, rows, columns]
    rows, columns = (
        torch.arange(span.start, span.stop) if isinstance(span, slice) else span for span in (rows, columns)
    )
    return images[:, rows[:, None], columns]


def _mirrored(start: int, stop: int, size: int) -> slice | Tensor:
    """Fold pixels beyond the edge back, the edge pixel not repeated, as the microscope pads its frames."""
    if start >= 0 and stop <= size:
        return slice(start, stop)
    period = max(2 * (size - 1), 1)
    folded = torch.arange(start, stop) % period
    return torch.where(folded < size, folded, period - folded)
