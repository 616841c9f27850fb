"""Random patches for training: drawn around stained cells, read straight from the chunks, normalised as deployed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from livestain_models._errors import DataError
from livestain_models.data.augment import draw_geometry, pasted, place, vary_contrast
from livestain_models.data.scales import to_units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from livestain_models.data.augment import Geometry, Patch
    from livestain_models.data.fields import Field
    from livestain_models.data.scales import Scales
    from livestain_models.recipe import Augment, PlanesWanted

__all__ = ["Batch", "Normaliser", "Patches"]

_BLOCK_PX = 16  # of the coarse map of stain
_KEPT_BYTES = 1 << 29  # of normalised fields, for each process
Window = tuple[int, ...]
Span = tuple[int, int]


class Normaliser(Protocol):
    """Grey values made comparable, as in the deployed graph; `of_field` is asked for only where `needs_field`."""

    cell_px: int
    margin_px: int
    needs_field: bool

    def __call__(self, planes: Tensor, /) -> Tensor:
        """Normalise, (1, P, H, W) float32 -> the same shape."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from.

    Parameters
    ----------
    x : Tensor
        (N, P, h, w) float32, normalised planes.
    y : Tensor
        (N, C, h, w), or (N, C, P, h, w) for volumes, float32, network units.
    labels : Tensor or None
        (N, h, w) int64.
    """

    x: Tensor
    y: Tensor
    labels: Tensor | None

    def to(self, device: Any) -> Batch:
        """Move to a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return Batch(self.x.to(device), self.y.to(device), labels)


class Patches(Dataset[Batch]):  # type: ignore[misc] # torch counts as untyped here, see pyproject.toml
    """A batch for every step; which one depends on seed, step and rank alone, so that a run resumes exactly.

    Sample `i` of a step is the same however many processes share the batch. Use it with
    ``DataLoader(patches, batch_size=None)``.

    Parameters
    ----------
    fields : sequence of Field
        To learn from.
    planes : PlanesWanted
    scales : dict
        By instrument, a scale for each target.
    normalise : Normaliser
    augment : Augment
    patch_px : int
        Side of a patch. Fields smaller than that are mirrored.
    batch : int
        Patches a step, over all processes.
    foreground : float
        Share of the patches that are drawn around stained pixels; where there are classes, around each of those that
        a field has equally often, so that the rare ones are seen.
    seed : int
    rank, world : int
        Number of this process, and of all.
    steps : int
        Length.
    volume : bool
        Give the stain in every plane of the window.

    Raises
    ------
    DataError
        No fields, a stack too thin, a field smaller than one cell of the normalisation, or a batch that cannot be
        shared.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        *,
        planes: PlanesWanted,
        scales: Scales,
        normalise: Normaliser,
        augment: Augment,
        patch_px: int,
        batch: int,
        foreground: float,
        seed: int,
        steps: int,
        rank: int = 0,
        world: int = 1,
        volume: bool = False,
    ) -> None:
        if not fields:
            raise DataError("There is no field to draw patches from.")
        if batch % world:
            raise DataError(
                f"train.batch {batch} cannot be shared by {world} processes; make it a multiple of {world}."
            )
        self._fields, self._scales, self._normalise = tuple(fields), scales, normalise
        self._windows = [field.windows(planes) for field in fields]
        self._augment, self._patch_px, self._foreground = augment, patch_px, foreground
        self._seed, self._steps, self._volume = seed, steps, volume
        self._mine = range(rank, batch, world)
        # Made when first needed, in each process for itself.
        self._maps: dict[tuple[int, int], np.ndarray] = {}
        self._normalisers: dict[tuple[int, Window], Callable[[Tensor], Tensor]] = {}
        self._kept: dict[tuple[int, Window], Tensor] = {}
        self._room = _KEPT_BYTES

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self._steps:
            raise IndexError(step)
        patches = [self._sample(np.random.default_rng((self._seed, step, sample))) for sample in self._mine]
        labels = [patch.labels for patch in patches if patch.labels is not None]
        return Batch(
            torch.stack([patch.x for patch in patches]),
            torch.stack([patch.y for patch in patches]),
            torch.stack(labels) if labels else None,
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}, "_normalisers": {}, "_kept": {}, "_room": _KEPT_BYTES}

    def _sample(self, rng: np.random.Generator) -> Patch:
        patch = self._draw(rng)
        # Asked only where it can be, so that a recipe without it draws as before.
        if self._augment.paste and rng.random() < self._augment.paste:
            return pasted(patch, self._draw(rng), rng)
        return patch

    def _draw(self, rng: np.random.Generator) -> Patch:
        number = int(rng.integers(len(self._fields)))
        field = self._fields[number]
        window = self._windows[number][int(rng.integers(len(self._windows[number])))]
        centre = self._centre(number, window, rng)
        geometry = draw_geometry(self._augment, rng)
        rows, columns = (
            _span(at, reach, size)
            for at, reach, size in zip(centre, geometry.reach_px(self._patch_px), field.size_px, strict=True)
        )
        patch = self._cut(number, window, (rows, columns), centre, geometry)
        return type(patch)(vary_contrast(patch.x, self._augment, rng), patch.y, patch.labels)

    def _cut(
        self, number: int, window: Window, spans: tuple[Span, Span], centre: tuple[int, int], geometry: Geometry
    ) -> Patch:
        field, (rows, columns) = self._fields[number], (slice(*span) for span in spans)
        read = field.target_stack if self._volume else field.target
        stain = to_units(read(window, rows, columns), self._scales[field.instrument])
        labels = field.labels_of(rows, columns)
        return place(
            geometry,
            self._normalised(number, window, spans),
            torch.from_numpy(stain),
            None if labels is None else torch.from_numpy(labels),
            (centre[0] - rows.start, centre[1] - columns.start),
            self._patch_px,
        )

    def _normalised(self, number: int, window: Window, spans: tuple[Span, Span]) -> Tensor:
        """Normalise a part of a field as if it were the whole: (P, h, w).

        While there is room, whole fields are normalised once and kept; both ways give the same bits.
        """
        key, field = (number, window), self._fields[number]
        (top, bottom), (left, right) = spans
        size = 4 * len(window) * field.size_px[0] * field.size_px[1]
        if key not in self._kept and self._room >= size:
            self._kept[key] = self._normalised_part(number, window, ((0, field.size_px[0]), (0, field.size_px[1])))
            self._room -= size
        if key in self._kept:
            return self._kept[key][:, top:bottom, left:right]
        return self._normalised_part(number, window, spans)

    def _normalised_part(self, number: int, window: Window, spans: tuple[Span, Span]) -> Tensor:
        field, cell, margin = self._fields[number], self._normalise.cell_px, self._normalise.margin_px
        # Whole cells, on the field's grid; beyond its last pixels it is mirrored, as the microscope pads frames.
        wide = [
            (max(start - margin, 0) // cell * cell, min(-(-(stop + margin) // cell), -(-size // cell)) * cell)
            for (start, stop), size in zip(spans, field.size_px, strict=True)
        ]
        raw = field.input(window, slice(*wide[0]), slice(*wide[1])).astype(np.float32)
        missing = [stop - start - size for (start, stop), size in zip(wide, raw.shape[1:], strict=True)]
        if any(missing):
            raw = np.pad(raw, [(0, 0), *((0, more) for more in missing)], mode="reflect")
        with torch.no_grad():
            found = self._normaliser(number, window)(torch.from_numpy(raw)[None])[0]
        (top, bottom), (left, right) = (
            (start - outer, stop - outer) for (start, stop), (outer, _) in zip(spans, wide, strict=True)
        )
        return found[:, top:bottom, left:right]

    def _normaliser(self, number: int, window: Window) -> Callable[[Tensor], Tensor]:
        if not self._normalise.needs_field:
            return self._normalise
        key = (number, window)
        if key not in self._normalisers:
            of_field: Any = self._normalise.of_field  # type: ignore[attr-defined]
            self._normalisers[key] = of_field(self._fields[number], window)
        return self._normalisers[key]

    def _centre(self, number: int, window: Window, rng: np.random.Generator) -> tuple[int, int]:
        """Choose the patch's centre: a stained pixel, or any; the patch stays within the field where it can."""
        size_px = self._fields[number].size_px
        # Drawn in any case, so that what follows does not depend on the choice.
        stained, where, row, column = rng.random() < self._foreground, rng.random(), rng.random(), rng.random()
        if stained:
            cumulative = self._map(number, window)
            block = int(np.searchsorted(cumulative, where * cumulative[-1], side="right"))
            across = -(-size_px[1] // _BLOCK_PX)
            y, x = (block // across + row) * _BLOCK_PX, (block % across + column) * _BLOCK_PX
        else:
            y, x = row * size_px[0], column * size_px[1]
        return _inside(y, self._patch_px, size_px[0]), _inside(x, self._patch_px, size_px[1])

    def _map(self, number: int, window: Window) -> np.ndarray:
        """Cumulative weight of a field's blocks by their stain; computed once."""
        field = self._fields[number]
        z = 0 if field.targets.shape[1] == 1 else window[(len(window) - 1) // 2]
        if (number, z) not in self._maps:
            every = slice(None)
            labels = field.labels_of(every, every)
            if labels is None or not labels.any():
                units = to_units(field.target(window, every, every), self._scales[field.instrument])
                # From background to the bright end: dust far brighter than that counts no more than a cell.
                weight = units.clip(0, 1).mean(0)
            else:
                weight = _evenly(labels)
            means = _block_means(weight)
            self._maps[number, z] = np.cumsum(means.ravel() + 1e-6)
        return self._maps[number, z]


def _evenly(labels: np.ndarray) -> np.ndarray:
    """Weigh pixels so that each class but the background (0) has the same sum."""
    counts = np.bincount(labels.ravel())
    weights = np.divide(1.0, counts, out=np.zeros(counts.size), where=counts > 0) * labels.size
    weights[0] = 0.0
    found: np.ndarray = weights[labels]
    return found


def _block_means(image: np.ndarray) -> np.ndarray:
    height, width = (-(-size // _BLOCK_PX) * _BLOCK_PX for size in image.shape)
    padded = np.pad(image, [(0, height - image.shape[0]), (0, width - image.shape[1])])
    blocks = padded.reshape(height // _BLOCK_PX, _BLOCK_PX, width // _BLOCK_PX, _BLOCK_PX)
    means: np.ndarray = blocks.mean((1, 3), dtype=np.float64)
    return means


def _inside(at: float, patch_px: int, size: int) -> int:
    if size <= patch_px:
        return size // 2
    return min(max(round(at), patch_px // 2), size - patch_px + patch_px // 2)


def _span(centre: int, reach: int, size: int) -> Span:
    """Give the pixels around a centre that there are."""
    start = centre - reach // 2
    return max(start, 0), min(start + reach, size)
