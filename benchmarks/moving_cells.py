"""A field of simulated cells as a tracker meets it: cut from a larger world, and seen with a segmentation's faults.

The cells are those of the simulated microscope (they crawl, grow, divide, die and push each other away). What is seen
of them has noise in place, area and mass, missed cells, debris, cells in two pieces and two cells under one outline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from livestain.measure.track import Detections
from livestain.simulate._cells import ALIVE, Population
from livestain.simulate._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

MARGIN_UM = 60.0
VISIBLE = 0.35  # of a cell: less of it in the field is not called a cell


@dataclass(frozen=True)
class Faults:
    """How well cells are seen. Rates are per cell and frame; lengths in um; noise as one standard deviation."""

    place_um: float = 0.5
    area: float = 0.08
    mass: float = 0.05
    missed: float = 0.015
    pieces: float = 0.005
    merged: float = 0.005
    debris: float = 0.003
    with_mass: bool = True
    stage_um: float = 0.0  # random error of every return to the position
    jump_um: float = 0.0  # once, in the middle


@dataclass(frozen=True)
class TrueFrame:
    """The cells of which at least a third lies in the field: numbers, mothers, centres of what lies in it."""

    t: int
    cell: np.ndarray
    parent: np.ndarray
    at_um: np.ndarray


def field_um(cells: int, cells_per_mm2: float = 1800.0) -> float:
    """Return the edge of a square field that holds `cells` on average; they start fewer and divide."""
    return float(np.sqrt(cells / cells_per_mm2) * 1000)


def watch(
    seed: int, frames: int, interval_min: float, cells: int = 200, faults: Faults | None = None, cycle_h: float = 20.0
) -> Iterator[tuple[TrueFrame, Detections]]:
    """Yield the truth and what is seen of it, frame by frame."""
    faults = faults or Faults()
    edge_um, margin_um = field_um(cells), MARGIN_UM + faults.jump_um
    settings = Settings(seed=seed, cells_per_mm2=1500.0, cycle_h=cycle_h)
    sample = Population(settings, edge_um + 2 * margin_um)
    rng = np.random.default_rng([seed, 7])
    merged: dict[tuple[int, int], int] = {}
    for t in range(frames):
        if t:
            sample.advance(interval_min * 60)
        stage = rng.normal(0, faults.stage_um, 2) + (faults.jump_um if t >= frames // 2 else 0) * np.array([1, -0.7])
        at = np.stack([sample.cells["y_um"], sample.cells["x_um"]], axis=1) - margin_um + stage
        at, visible = _cut(at, sample.cells["radius_um"], edge_um)
        there, at, visible = sample.cells[visible > VISIBLE], at[visible > VISIBLE], visible[visible > VISIBLE]
        yield (
            TrueFrame(t, there["id"].copy(), there["parent"].copy(), at),
            _seen(t, there, at, visible, edge_um, faults, merged, rng),
        )


def _seen(
    t: int, cells: np.ndarray, at: np.ndarray, visible: np.ndarray, edge_um: float, faults: Faults,
    merged: dict[tuple[int, int], int], rng: np.random.Generator,
) -> Detections:  # fmt: skip
    """Return the segments of one frame: (y, x, area, mass, alive), with everything that goes wrong."""
    radius = cells["radius_um"]
    rows = np.flatnonzero(rng.random(len(cells)) >= faults.missed)
    alive = np.where(cells["state"] == ALIVE, 0.95, 0.1)
    table = np.stack([at[:, 0], at[:, 1], visible * np.pi * radius**2, visible * cells["mass_pg"], alive], axis=1)
    gone, extra = _merged(cells, at, rows, table, faults, merged, rng)
    pieces = [row for row in rows if row not in gone and rng.random() < faults.pieces]
    for row in pieces:
        share, angle = rng.uniform(0.25, 0.75), rng.uniform(0, 2 * np.pi)
        way = 0.85 * radius[row] * np.array([np.sin(angle), np.cos(angle)])
        for part, step in ((share, 1 - share), (1 - share, -share)):
            extra.append([*(at[row] + step * way), part * table[row, 2], part * table[row, 3], alive[row]])
    extra += [
        [*rng.uniform(0, edge_um, 2), rng.uniform(30, 120), rng.uniform(10, 60), rng.uniform()]
        for _ in range(rng.poisson(faults.debris * len(rows)))
    ]
    keep = [row for row in rows if row not in gone and row not in pieces]
    return _noisy(t, np.concatenate([table[keep], np.array(extra).reshape(-1, 5)]), edge_um, faults, rng)


def _merged(
    cells: np.ndarray, at: np.ndarray, rows: np.ndarray, table: np.ndarray, faults: Faults,
    merged: dict[tuple[int, int], int], rng: np.random.Generator,
) -> tuple[set[int], list[list[float]]]:  # fmt: skip
    """Choose neighbours that lie under one outline for one or two frames; returns their rows and the outlines."""
    radius = cells["radius_um"]
    pairs = rows[cKDTree(at[rows]).query_pairs(2.2 * float(radius.max()), output_type="ndarray")]
    one, other = pairs.T
    pairs = pairs[np.hypot(*(at[one] - at[other]).T) < 1.1 * (radius[one] + radius[other])]
    chance = faults.merged * len(rows) / 2 / max(len(pairs), 1)
    gone: set[int] = set()
    extra: list[list[float]] = []
    for one, other in pairs.tolist():
        if {one, other} & gone:
            continue
        key = (int(cells["id"][one]), int(cells["id"][other]))
        left = merged.pop(key, 0)
        if not left and rng.random() < chance:
            left = int(rng.integers(1, 3))
        if left:
            if left > 1:
                merged[key] = left - 1
            gone |= {one, other}
            share = table[one, 2] / (table[one, 2] + table[other, 2])
            both = table[one, 2:] + table[other, 2:]
            extra.append([*(share * at[one] + (1 - share) * at[other]), both[0], both[1], both[2] / 2])
    return gone, extra


def _noisy(t: int, table: np.ndarray, edge_um: float, faults: Faults, rng: np.random.Generator) -> Detections:
    """Add noise, drop what fell off the field, and mix the order: a segmentation's labels mean nothing."""
    table = table[rng.permutation(len(table))]
    n = len(table)
    place = np.clip(table[:, :2] + rng.normal(0, faults.place_um, (n, 2)), 0, edge_um)
    area = table[:, 2] * np.exp(rng.normal(0, faults.area, n))
    mass = table[:, 3] * np.exp(rng.normal(0, faults.mass, n))
    border = np.minimum(place, edge_um - place).min(axis=1) < np.sqrt(area / np.pi)
    return Detections(
        t=t, y_um=place[:, 0], x_um=place[:, 1], area_um2=area,
        mass_pg=mass if faults.with_mass else np.full(n, np.nan),
        at_border=border, alive=np.clip(table[:, 4] + rng.normal(0, 0.05, n), 0, 1),
    )  # fmt: skip


def _cut(at: np.ndarray, radius: np.ndarray, edge_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of what lies in the field of each disc, and its share of the disc (by the nearest edge)."""
    side = np.where(at < edge_um - at, 1.0, -1.0)
    inward = np.minimum(at, edge_um - at)
    axis = np.argmin(inward, axis=1)
    rows = np.arange(len(at))
    h = np.clip(inward[rows, axis] / radius, -1, 1)
    share = (np.pi - np.arccos(h) + h * np.sqrt(1 - h**2)) / np.pi
    moved = at.copy()
    way = radius * (2 / 3) * (1 - h**2) ** 1.5 / (np.pi * np.maximum(share, 1e-9))
    moved[rows, axis] += side[rows, axis] * way
    return moved, share


def without_faults(faults: Faults) -> Faults:
    """Return the same noise with nothing missed, broken, merged or extra."""
    return replace(faults, missed=0, pieces=0, merged=0, debris=0)
