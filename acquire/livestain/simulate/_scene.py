"""Lays the cells of one field out on a canvas: the map each channel sees, and the labels that are the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from livestain.simulate._shape import Patch, Shape, draw_cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from livestain.simulate._cells import Population

__all__ = ["ALPHA_UM3_PER_PG", "WAVELENGTH_UM", "Field", "Kind", "Painter"]

WAVELENGTH_UM = 0.55
ALPHA_UM3_PER_PG = 0.18  # specific refraction increment of protein (Barer 1952)

Kind = Literal["phase", "nuclei", "membrane", "dead"]


@dataclass(frozen=True, slots=True)
class Field:
    """A window on the sample: its centre in whole sample pixels, and its (height, width) in pixels."""

    row: int
    col: int
    height: int
    width: int


class Painter:
    """Keeps drawn cells until their shape changes, so that a scene costs little more than pasting.

    `world_px` is the edge of the periodic world in pixels.
    """

    def __init__(self, seed: int, pixel_size_um: float, world_px: int) -> None:
        self._seed, self._px, self._world = seed, pixel_size_um, world_px
        self._drawn: dict[int, tuple[int, Patch]] = {}

    def paint(self, population: Population, field: Field, kind: Kind) -> NDArray[np.float32]:
        """Return the map (height, width) float32 of one kind: phase in rad, or a stain's density.

        The phase of a cell sums to its dry mass: m = wavelength / (2 pi alpha) * sum(phase) * pixel area.
        """
        canvas = np.zeros((field.height, field.width), np.float32)
        rad = 2 * np.pi * ALPHA_UM3_PER_PG / (WAVELENGTH_UM * self._px**2)
        for row, patch, at in self._visible(population, field):
            there, here = at
            if kind == "phase":
                canvas[there] += patch.mass[here] * np.float32(rad * row["mass_pg"])
            elif kind == "nuclei":
                canvas[there] += patch.nuclei[here]
            elif kind == "membrane":
                canvas[there] += patch.membrane[here]
            elif patch.dead is not None:
                canvas[there] += patch.dead[here]
        return canvas

    def labels(self, population: Population, field: Field) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Return cell and nucleus labels (height, width); where cells overlap the thicker one owns the pixel."""
        height = np.zeros((field.height, field.width), np.float32)
        cells = np.zeros(height.shape, np.uint16)
        nuclei = np.zeros(height.shape, np.uint16)
        for row, patch, (there, here) in self._visible(population, field):
            mass = patch.mass[here] * np.float32(row["mass_pg"])
            outline = patch.outline[here]
            wins = (outline > 0) & (mass >= height[there])
            height[there][wins] = mass[wins]
            cells[there][wins] = row["id"]
            nuclei[there][wins] = np.where(outline[wins] & 2, row["id"], 0)
        return cells, nuclei

    def _visible(
        self, population: Population, field: Field
    ) -> Iterator[tuple[np.void, Patch, tuple[tuple[slice, slice], tuple[slice, slice]]]]:
        cells = population.cells
        rows = self._offset(cells["y_um"], field.row) + field.height // 2
        cols = self._offset(cells["x_um"], field.col) + field.width // 2
        reach = np.ceil(1.7 * cells["drawn"][:, 0] / self._px) + 2
        near = (rows > -reach) & (rows < field.height + reach) & (cols > -reach) & (cols < field.width + reach)
        seen = set()
        for index in np.flatnonzero(near).tolist():
            row = cells[index]
            patch = self._patch(row)
            seen.add(int(row["id"]))
            at = _overlap(int(rows[index]), int(cols[index]), patch.mass.shape[0], field)
            if at is not None:
                yield row, patch, at
        for gone in self._drawn.keys() - seen:
            del self._drawn[gone]

    def _offset(self, position_um: NDArray[np.float64], centre: int) -> NDArray[np.int64]:
        """Return pixels from the field's centre to each cell, by the shorter way round the world."""
        there = np.round(position_um / self._px).astype(np.int64) - centre
        return (there + self._world // 2) % self._world - self._world // 2

    def _patch(self, row: np.void) -> Patch:
        cell, epoch = int(row["id"]), int(row["epoch"])
        kept = self._drawn.get(cell)
        if kept is None or kept[0] != epoch:
            patch = draw_cell(Shape(*row["drawn"].tolist()), self._seed, cell, self._px)
            kept = self._drawn[cell] = (epoch, patch)
        return kept[1]


def _overlap(row: int, col: int, size: int, field: Field) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Return the slices of the canvas and of a patch centred at (row, col) that lie on one another."""
    top, left = row - size // 2, col - size // 2
    low_row, low_col = max(top, 0), max(left, 0)
    high_row, high_col = min(top + size, field.height), min(left + size, field.width)
    if low_row >= high_row or low_col >= high_col:
        return None
    there = (slice(low_row, high_row), slice(low_col, high_col))
    here = (slice(low_row - top, high_row - top), slice(low_col - left, high_col - left))
    return there, here
