"""Follows which cells live, are injured or dead, frame by frame: one bad frame kills no cell, and dead stays dead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError
from livestain.measure.viability_model import DEAD, StateModel, normalised, that_divided

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from livestain.measure.viability_model import ViabilitySettings

__all__ = ["States", "Viability"]


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """What became of one frame; final.

    Attributes
    ----------
    t
        Which frame.
    cells
        (n,) int64.
    states
        (n,) str: "live", "injured", "dead", or "" for a cell that has no probability yet.
    belief
        (n, 3) float64: how likely each state is, given all frames up to `t` + lag; NaN where the state is "". A cell
        that was called dead stays so even if later frames speak against it: then its belief says so.
    """

    t: int
    cells: NDArray[np.int64]
    states: NDArray[np.str_]
    belief: NDArray[np.float64]


@dataclass(slots=True, eq=False)
class _Frame:
    """A frame in the window: what each cell looked like, and what was believed after it."""

    t: int
    cells: NDArray[np.int64]
    likelihood: NDArray[np.float64]  # (n, 3), ones where a cell was not classified
    seen: NDArray[np.bool_]
    forward: NDArray[np.float64]  # (n, 3)
    mothers: NDArray[np.int64]  # of the cells that are there


@dataclass(slots=True)
class _Known:
    """What is remembered of a cell between frames."""

    t: int
    belief: list[float]
    classified: bool
    dead: bool = False


class Viability:
    """A hidden Markov model of each cell (`StateModel`), smoothed over the next few frames.

    Forward filter and fixed-lag backward pass as in Rabiner (1989, Proc. IEEE 77:257). Memory is that of `lag`
    frames and of the cells seen in the last `forget`.

    Parameters
    ----------
    settings
        What is assumed.
    """

    def __init__(self, settings: ViabilitySettings) -> None:
        self.settings = settings
        self._model = StateModel(settings)
        self._window: list[_Frame] = []
        self._known: dict[int, _Known] = {}

    def add(self, t: int, cells: ArrayLike, parents: ArrayLike, probabilities: ArrayLike) -> list[States]:
        """Take the next frame; give those that are final now, the oldest first.

        Parameters
        ----------
        t
            Larger than that of the frame before.
        cells, parents
            (n,) integers; a parent of 0 is unknown. The first belief of a daughter is her mother's last,
            knowing that what divides is not dead.
        probabilities
            (n, 3) of live, injured and dead; a row with NaN is a cell that was not classified.

        Raises
        ------
        LivestainError
            Frames out of order, shapes that do not fit, a cell twice, or values that are no probabilities.
        """
        names, mothers = np.asarray(cells, dtype=np.int64), np.asarray(parents, dtype=np.int64)
        given = np.asarray(probabilities, dtype=np.float64)
        given = given.reshape(0, 3) if not given.size else given
        self._check(t, names, mothers, given)
        likelihood, seen = self._model.likelihood(given)
        before = [self._before(t, c, p) for c, p in zip(names.tolist(), mothers.tolist(), strict=True)]
        forward = normalised(np.array([b for b, _ in before]).reshape(-1, 3) * likelihood)
        for i, cell in enumerate(names.tolist()):
            was = self._known.get(cell)
            classified = bool(seen[i]) or before[i][1]
            self._known[cell] = _Known(t, forward[i].tolist(), classified, was is not None and was.dead)
        self._window.append(_Frame(t, names, likelihood, seen, forward, np.unique(mothers[mothers > 0])))
        return self._finished(self.settings.lag)

    def finish(self) -> list[States]:
        """Give the frames that are left, at the end of a run."""
        return self._finished(0)

    # ------------------------------------------------------------------ forward

    def _check(self, t: int, cells: NDArray[np.int64], parents: NDArray[np.int64], given: NDArray[np.float64]) -> None:
        if self._window and t <= self._window[-1].t:
            raise LivestainError(f"Frames come in order: t={t} came after t={self._window[-1].t}.")
        if cells.ndim != 1 or parents.shape != cells.shape or given.shape != (cells.size, 3):
            raise LivestainError(
                f"Each cell has one parent and three probabilities; got cells {cells.shape}, parents {parents.shape} "
                f"and probabilities {given.shape}."
            )
        if np.unique(cells).size != cells.size:
            raise LivestainError(f"t={t} names a cell twice; each cell of a frame has one row.")
        if bool((np.isinf(given) | (given < 0) | (given > 1 + 1e-6)).any()):
            raise LivestainError(
                f"Probabilities at t={t} lie between {np.nanmin(given):g} and {np.nanmax(given):g}, not 0 and 1; "
                "divide the class planes by their full scale (cell_probabilities does)."
            )

    def _before(self, t: int, cell: int, parent: int) -> tuple[list[float], bool]:
        """Give a cell's belief just before frame `t`, and whether it, or its mother, was ever classified."""
        known = self._known.get(cell) or self._known.get(parent)
        if known is None:
            return list(self.settings.at_first), False
        belief = np.asarray(known.belief)
        if cell not in self._known:
            belief = normalised(belief * that_divided())
        passed = belief @ self._model.transition(t - known.t)
        return passed.tolist(), known.classified

    # ------------------------------------------------------------------ backward

    def _finished(self, keep: int) -> list[States]:
        done = []
        while len(self._window) > keep:
            done.append(self._first_states())
            del self._window[0]
        if done:
            since = done[-1].t - self.settings.forget
            self._known = {cell: known for cell, known in self._known.items() if known.t >= since}
        return done

    def _first_states(self) -> States:
        first = self._window[0]
        belief = normalised(first.forward * self._backward())
        likes_dead, seen_later = self._evidence()
        ever = np.array([self._known[c].classified for c in first.cells.tolist()], dtype=bool) | seen_later
        dead = (belief[:, DEAD] > 0.5) & (likes_dead >= self.settings.confirm)
        for i, cell in enumerate(first.cells.tolist()):
            known = self._known[cell]
            known.dead = bool(dead[i] or known.dead)
            dead[i] = known.dead
        states = np.where(dead, "dead", np.where(belief[:, 1] > belief[:, 0], "injured", "live"))
        states[~ever] = ""
        belief[~ever] = np.nan
        return States(first.t, first.cells, states, belief)

    def _backward(self) -> NDArray[np.float64]:
        """Give how likely the later frames of the window are from each state of the first; (n, 3)."""
        first = self._window[0]
        later = np.ones((first.cells.size, 3))
        since = np.full(first.cells.size, -1)  # t of the frame that `later` speaks about the cells in
        for frame in reversed(self._window[1:]):
            here, row = _rows(first.cells, frame.cells)
            for t in np.unique(since[here]):
                which = here & (since == t)
                step = self._model.transition(int(t) - frame.t) if t >= 0 else np.eye(3)
                later[which] = later[which] @ step.T
            later[here] *= frame.likelihood[row]
            divided = np.isin(first.cells, frame.mothers) & ~here
            later[divided] = that_divided()
            since[here | divided] = frame.t
        for t in np.unique(since[since >= 0]):
            later[since == t] = later[since == t] @ self._model.transition(int(t) - first.t).T
        return later

    def _evidence(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Count the frames of the window in which a cell looks rather dead than not, and say if it was ever seen."""
        first = self._window[0]
        looks, seen = np.zeros(first.cells.size, np.int64), np.zeros(first.cells.size, bool)
        for frame in self._window:
            here, row = _rows(first.cells, frame.cells)
            like = frame.likelihood[row]
            looks[here] += frame.seen[row] & (like[:, DEAD] > like[:, :DEAD].max(axis=1))
            seen[here] |= frame.seen[row]
        return looks, seen

    # ------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        """Give everything that the next frame needs, for JSON; numbers come back exactly."""
        window = [
            {
                "t": frame.t,
                "cells": frame.cells.tolist(),
                "likelihood": frame.likelihood.tolist(),
                "seen": frame.seen.tolist(),
                "forward": frame.forward.tolist(),
                "mothers": frame.mothers.tolist(),
            }
            for frame in self._window
        ]
        known = [[cell, k.t, k.belief, k.classified, k.dead] for cell, k in self._known.items()]
        return {"window": window, "known": known}

    @classmethod
    def from_state(cls, settings: ViabilitySettings, state: Mapping[str, Any]) -> Viability:
        """Go on where `state` was taken, with the same settings."""
        new = cls(settings)
        for frame in state["window"]:
            new._window.append(
                _Frame(
                    int(frame["t"]),
                    np.array(frame["cells"], np.int64),
                    np.array(frame["likelihood"], np.float64).reshape(-1, 3),
                    np.array(frame["seen"], bool),
                    np.array(frame["forward"], np.float64).reshape(-1, 3),
                    np.array(frame["mothers"], np.int64),
                )
            )
        new._known = {cell: _Known(t, belief, classified, dead) for cell, t, belief, classified, dead in state["known"]}
        return new


def _rows(wanted: NDArray[np.int64], there: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Give which of the `wanted` cells are `there`, and in which row."""
    order = np.argsort(there)
    at = np.searchsorted(there[order], wanted)
    here = at < there.size
    here[here] = there[order][at[here]] == wanted[here]
    return here, order[at[here]]
