"""Gives one line a cell of a cell table: when it came and from whom, and how its time ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.measure.columns import cell_rows, read_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from livestain.measure.columns import CellTable

__all__ = ["CENSORED", "DEATH", "DIVISION", "History", "cell_histories", "condition_of"]

CENSORED, DEATH, DIVISION = 0, 1, 2


@dataclass(frozen=True, slots=True)
class History:
    """One cell.

    Attributes
    ----------
    position, cell, parent
        Which cell; parent 0 where it is not known.
    root
        The first cell of its family that was seen.
    first_s, last_s
        First and last frame in which it was seen alive; NaN if it never was.
    end
        CENSORED: it left the field, was lost, or the run ended; DEATH; or DIVISION. A cell that divides was not dead,
        whatever its rows say: round cells are easily taken for dead ones.
    next_s
        The frame after last_s in which it was dead, or its daughters were there; NaN for a censored cell.
    dead_at_first, known
        Whether it was dead when first seen; whether it ever had a state.
    rows
        Its rows in the table, in order of time.
    """

    position: str
    cell: int
    parent: int
    root: int
    first_s: float
    last_s: float
    end: int
    next_s: float
    dead_at_first: bool
    known: bool
    rows: NDArray[np.intp]

    @property
    def end_s(self) -> float:
        """When it ended: half-way between the frames that enclose a death or a division, else when last seen alive."""
        return self.last_s if self.end == CENSORED else (self.last_s + self.next_s) / 2


def cell_histories(table: CellTable, *, states_needed: bool = True) -> list[History]:
    """Read the histories of all cells from a cell table, ordered by their first frame.

    Parameters
    ----------
    table
        With position, cell, parent, time_s and state.
    states_needed
        Without it a cell without a state counts as alive: growth needs no class head.

    Raises
    ------
    LivestainError
        Columns are missing, or times are.
    """
    columns = read_columns(table, ("position", "cell", "parent", "time_s", "state"))
    groups = cell_rows(columns)
    names = [(str(columns["position"][rows[0]]), int(columns["cell"][rows[0]])) for rows in groups]
    parents = {name: (name[0], int(columns["parent"][rows[0]])) for name, rows in zip(names, groups, strict=True)}
    daughters_s: dict[tuple[str, int], float] = {}
    for name, rows in zip(names, groups, strict=True):
        first_s = float(columns["time_s"][rows[0]])
        daughters_s[parents[name]] = min(first_s, daughters_s.get(parents[name], np.inf))
    alive = ("live", "injured") if states_needed else ("live", "injured", "")
    found = [
        _history(columns, rows, parents[name][1], _root(name, parents), daughters_s.get(name), alive)
        for name, rows in zip(names, groups, strict=True)
    ]
    return sorted(found, key=lambda history: float(columns["time_s"][history.rows[0]]))


def condition_of(position: str, conditions: Mapping[str, str] | None) -> str:
    """Give what a position was treated with; itself where nobody says."""
    return position if conditions is None else conditions.get(position, position)


def _root(name: tuple[str, int], parents: Mapping[tuple[str, int], tuple[str, int]]) -> int:
    seen = {name}
    while parents[name] in parents and parents[name] not in seen:  # a table with a ring of parents must not hang
        name = parents[name]
        seen.add(name)
    return name[1]


def _history(
    columns: Mapping[str, NDArray[Any]],
    rows: NDArray[np.intp],
    parent: int,
    root: int,
    daughters_s: float | None,
    alive: tuple[str, ...],
) -> History:
    time_s, states = columns["time_s"][rows], columns["state"][rows]
    divides = daughters_s is not None and daughters_s > float(time_s[-1])
    if divides:
        alive = (*alive, "dead")
    dead = np.flatnonzero((states == "dead") & (not divides))
    before = slice(None) if not dead.size else slice(0, dead[0])
    living = np.flatnonzero(np.isin(states[before], alive))
    first_s, last_s = (float(time_s[living[0]]), float(time_s[living[-1]])) if living.size else (np.nan, np.nan)
    end, next_s = CENSORED, np.nan
    if dead.size and living.size:
        end, next_s = DEATH, float(time_s[dead[0]])
    elif divides and daughters_s is not None and living.size:
        end, next_s = DIVISION, daughters_s
    return History(
        position=str(columns["position"][rows[0]]),
        cell=int(columns["cell"][rows[0]]),
        parent=parent,
        root=root,
        first_s=first_s,
        last_s=last_s,
        end=end,
        next_s=next_s,
        dead_at_first=bool(dead.size and not living.size),
        known=bool((states != "").any()) or bool(living.size),
        rows=rows,
    )
