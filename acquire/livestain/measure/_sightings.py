"""What goes into the tracker and what comes out: the detections of one time point, and their final cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["MERGED", "NOTES", "NO_NOTE", "ONCE", "PART", "Detections", "Finished", "floats_in", "floats_out"]

NO_NOTE, PART, MERGED, ONCE = 0, 1, 2, 3
NOTES = ("", "one of several pieces of this cell", "two cells under one outline", "seen in one frame only")


@dataclass(frozen=True, slots=True)
class Detections:
    """What segmentation found at one time point, one row a segment.

    Attributes
    ----------
    t
        The time point's index; it only has to grow.
    y_um, x_um, area_um2
        (n,) float64: centre within the field, and area. Positions are finite.
    mass_pg
        (n,) float64: dry mass, NaN where unknown. Not given: unknown everywhere.
    at_border
        (n,) bool: the segment touches the edge of the field. Not given: none does.
    dna
        (n,) float64: relative integral of a nuclear stain, NaN where unknown.
    alive
        (n,) float64: probability of being alive, NaN where unknown.

    Raises
    ------
    LivestainError
        Columns differ in length, or a position is not finite.
    """

    t: int
    y_um: Floats
    x_um: Floats
    area_um2: Floats
    mass_pg: Floats = None  # type: ignore[assignment]  # filled below
    at_border: NDArray[np.bool_] = None  # type: ignore[assignment]
    dna: Floats = None  # type: ignore[assignment]
    alive: Floats = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        n = len(self.y_um)
        for name in ("y_um", "x_um", "area_um2", "mass_pg", "dna", "alive"):
            given = getattr(self, name)
            column = np.full(n, np.nan) if given is None else np.asarray(given, np.float64)
            object.__setattr__(self, name, column)
        border = np.zeros(n, bool) if self.at_border is None else np.asarray(self.at_border, bool)
        object.__setattr__(self, "at_border", border)
        lengths = {
            name: len(getattr(self, name)) for name in ("x_um", "area_um2", "mass_pg", "at_border", "dna", "alive")
        }
        if any(length != n for length in lengths.values()):
            raise LivestainError(
                f"The detections of t={self.t} have {n} values of y_um but {lengths}; give one value a segment."
            )
        if not (np.isfinite(self.y_um).all() and np.isfinite(self.x_um).all()):
            bad = int(np.argmin(np.isfinite(self.y_um) & np.isfinite(self.x_um)))
            raise LivestainError(
                f"Detection {bad} of t={self.t} is at y={self.y_um[bad]}, x={self.x_um[bad]} um; leave out segments "
                "that have no position."
            )

    def __len__(self) -> int:
        return len(self.y_um)

    @classmethod
    def none(cls, t: int) -> Detections:
        """Return a time point at which nothing was found."""
        return cls(t, np.empty(0), np.empty(0), np.empty(0))

    @property
    def at_um(self) -> Floats:
        """(n, 2): y and x."""
        return np.stack([self.y_um, self.x_um], axis=1)

    @property
    def sizes(self) -> Floats:
        """(n, 3): logarithms of area, mass and DNA; NaN where unknown or not positive (noise can make a mass so)."""
        raw = np.stack([self.area_um2, self.mass_pg, self.dna], axis=1)
        logs = np.full(raw.shape, np.nan)
        return np.log(raw, out=logs, where=np.isfinite(raw) & (raw > 0))

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, fit for JSON."""
        columns = {name: floats_out(getattr(self, name)) for name in _FLOAT_COLUMNS}
        return {"t": self.t, "at_border": self.at_border.tolist(), **columns}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Detections:
        """Return the detections that `state` was taken of, bit for bit."""
        columns = {name: floats_in(state[name]) for name in _FLOAT_COLUMNS}
        return cls(t=state["t"], at_border=np.array(state["at_border"], bool), **columns)


_FLOAT_COLUMNS = ("y_um", "x_um", "area_um2", "mass_pg", "dna", "alive")


@dataclass(frozen=True, slots=True)
class Finished:
    """A time point whose tracks will not change any more.

    Attributes
    ----------
    detections
        What was given to the tracker (none where the time point was missing).
    cell, parent
        (n,) int64: the cell of every detection and that cell's mother; 0 is none. A cell may have several
        detections: segmentation broke it into pieces, so its area and mass are their sums.
    note
        Why a detection has no cell, or that it is one piece of it; "" for all others.
    gap_cell, gap_parent, gap_y_um, gap_x_um
        (g,): cells that were not found at this time point but before and after it; the place is interpolated.
    """

    detections: Detections
    cell: NDArray[np.int64]
    parent: NDArray[np.int64]
    note: tuple[str, ...]
    gap_cell: NDArray[np.int64]
    gap_parent: NDArray[np.int64]
    gap_y_um: Floats
    gap_x_um: Floats

    @property
    def t(self) -> int:
        """The time point's index."""
        return self.detections.t

    def cells(self) -> NDArray[np.void]:
        """Return one row a cell, sorted by cell: cell, parent, y_um, x_um, gap. Pieces become one, weighted by area."""
        cell, first, piece = np.unique(self.cell, return_index=True, return_inverse=True)
        area = np.where(np.isfinite(self.detections.area_um2), self.detections.area_um2, 0) + 1e-9
        total = np.bincount(piece, area, len(cell))
        seen = np.zeros(len(cell), ROW)
        seen["cell"], seen["parent"] = cell, self.parent[first]
        for name, values in (("y_um", self.detections.y_um), ("x_um", self.detections.x_um)):
            seen[name] = np.bincount(piece, area * values, len(cell)) / total
        gaps = np.zeros(len(self.gap_cell), ROW)
        gaps["cell"], gaps["parent"], gaps["gap"] = self.gap_cell, self.gap_parent, True
        gaps["y_um"], gaps["x_um"] = self.gap_y_um, self.gap_x_um
        rows = np.concatenate([seen[cell > 0], gaps])
        return rows[np.argsort(rows["cell"], kind="stable")]


ROW = np.dtype([("cell", "i8"), ("parent", "i8"), ("y_um", "f8"), ("x_um", "f8"), ("gap", "?")])


def floats_out(values: Floats) -> list[Any]:
    """Return nested lists of `values` with None for NaN, which JSON does not have."""
    objects = values.astype(object)
    objects[np.isnan(values)] = None
    return list(objects.tolist())


def floats_in(values: list[Any]) -> Floats:
    """Undo `floats_out`."""
    return np.array(values, np.float64)  # None becomes NaN
