"""What was measured of each cell at one time point, column by column, before and after the tracker named the cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from livestain.measure.reasons import CELL, MASS, NUCLEUS, VIABILITY, joined, told
from livestain.measure.track import Detections
from livestain.measure.viability_model import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from livestain.measure.mass import Masses
    from livestain.measure.segment import Segmentation
    from livestain.measure.track import Finished
    from livestain.measure.viability import States

__all__ = ["Features"]

_ADDED = (
    "area_um2",
    "nucleus_area_um2",
    "dry_mass_pg",
    "nucleus_projected_dry_mass_pg",
    "cytoplasm_projected_dry_mass_pg",
    "relative_dry_mass",
)  # of a cell in several pieces, the sum
_SDS = ("dry_mass_sd_pg", "relative_dry_mass_sd")
_NUMBERS = ("y_um", "x_um", *_ADDED, *_SDS, *STATES)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The objects of one time point, or its cells once they are known.

    Attributes
    ----------
    t, time_s
        Which time point, and when.
    numbers
        float64 columns of the cell table by name, all of one length.
    at_border
        (n,) bool.
    reasons
        (n,) why numbers are NaN, by quantity (`livestain.measure.reasons`).
    method
        How mass was measured, "" without.
    reason
        Why there is no object, "" if there are some.
    ids
        "cell", "parent" int64 and "gap" bool, once the tracker has named the cells; empty before.
    """

    t: int
    time_s: float
    numbers: dict[str, NDArray[np.float64]]
    at_border: NDArray[np.bool_]
    reasons: tuple[str, ...]
    method: str = ""
    reason: str = ""
    ids: dict[str, NDArray[Any]] | None = None

    @classmethod
    def of(cls, t: int, time_s: float, found: Segmentation) -> Self:
        """Begin with what segmentation found."""
        numbers = {name: np.full(len(found), np.nan) for name in _NUMBERS}
        numbers["y_um"] = (found.y_px * found.pixel_size_um).astype(np.float64)
        numbers["x_um"] = (found.x_px * found.pixel_size_um).astype(np.float64)
        numbers["area_um2"], numbers["nucleus_area_um2"] = found.area_um2, found.nucleus_area_um2
        return cls(t, time_s, numbers, found.at_border, _of_outlines(found), reason=found.reason)

    def __len__(self) -> int:
        return len(self.at_border)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Give a column by its name."""
        if self.ids is not None and name in self.ids:
            return self.ids[name]
        return self.numbers[name]

    @property
    def chances(self) -> NDArray[np.float64]:
        """(n, 3): live, injured, dead; NaN where not classified."""
        return np.stack([self.numbers[name] for name in STATES], axis=1)

    # ------------------------------------------------------------------ what else was measured

    def without_mass(self, reason: str) -> Self:
        """Say why there is no mass."""
        return replace(self, reasons=_joined(self.reasons, [told(MASS, reason)] * len(self)))

    def without_mass_of(self, which: NDArray[np.bool_], *, nor_nucleus: bool) -> Self:
        """Take the mass of some away, whose mask holds part of the cell; the reasons are there already."""
        names = ["dry_mass_pg", "cytoplasm_projected_dry_mass_pg", "relative_dry_mass", *_SDS]
        names += ["nucleus_projected_dry_mass_pg"] if nor_nucleus else []
        gone = {name: np.where(which, np.nan, self.numbers[name]) for name in names}
        return replace(self, numbers=self.numbers | gone)

    def weighed(
        self, masses: Masses, method: str, sd_pg: Mapping[int, float], reasons: Mapping[int, str] | None = None
    ) -> Self:
        """Add masses; object i has label i + 1 there. `sd_pg` and `reasons` replace theirs where they are given."""
        at = masses.cell - 1
        numbers = dict(self.numbers)
        for name in (*_ADDED[2:5], "dry_mass_sd_pg"):
            numbers[name] = np.full(len(self), np.nan)
            numbers[name][at] = getattr(masses, name)
        for cell, sd in sd_pg.items():
            numbers["dry_mass_sd_pg"][cell - 1] = sd
        why = [""] * len(self)
        for place, text in zip(at.tolist(), masses.reason, strict=True):
            why[place] = self._of_mass(place, (reasons or {}).get(place + 1, text), numbers["dry_mass_pg"])
        numbers["dry_mass_sd_pg"][np.isnan(numbers["dry_mass_pg"])] = np.nan
        return replace(self, numbers=numbers, reasons=_joined(self.reasons, why), method=method)

    def weighed_relatively(self, masses: Masses, scale: float, reason: str) -> Self:
        """Add masses of relative phase, `scale` grey level um^2 to each of their units, and why there are no others."""
        at = masses.cell - 1
        numbers = dict(self.numbers)
        for name, of in (("relative_dry_mass", masses.dry_mass_pg), ("relative_dry_mass_sd", masses.dry_mass_sd_pg)):
            numbers[name] = np.full(len(self), np.nan)
            numbers[name][at] = of * scale
        why = [told(MASS, reason)] * len(self)
        for place, text in zip(at.tolist(), masses.reason, strict=True):
            also = self._of_mass(place, text, numbers["relative_dry_mass"])
            why[place] = joined([told(MASS, reason), also])
        return replace(self, numbers=numbers, reasons=_joined(self.reasons, why))

    def classified(self, chances: NDArray[np.float64], why: Sequence[str]) -> Self:
        """Add the class head's probabilities, (n, 3)."""
        numbers = self.numbers | {name: chances[:, k] for k, name in enumerate(STATES)}
        reasons = _joined(self.reasons, [told(VIABILITY, text) for text in why])
        return replace(self, numbers=numbers, reasons=reasons)

    def _of_mass(self, place: int, text: str, mass: NDArray[np.float64]) -> str:
        """Say what a cell's reason belongs to: one that was weighed lacks the share of its nucleus only."""
        if not np.isfinite(mass[place]):
            return told(MASS, text)
        # That no nucleus was found is told with the outlines already.
        return told(NUCLEUS, text) if self.numbers["nucleus_area_um2"][place] > 0 else ""

    # ------------------------------------------------------------------ cells

    def detections(self) -> Detections:
        """Give what the tracker goes by."""
        chances = self.chances
        return Detections(
            self.t,
            self.numbers["y_um"],
            self.numbers["x_um"],
            self.numbers["area_um2"],
            mass_pg=self._weights,
            at_border=self.at_border,
            alive=1 - chances[:, 2],
        )

    @property
    def _weights(self) -> NDArray[np.float64]:
        """(n,): mass in one unit, whichever there is; the tracker compares only."""
        known = np.isfinite(self.numbers["dry_mass_pg"]).any()
        return self.numbers["dry_mass_pg" if known else "relative_dry_mass"]

    def of_cells(self, finished: Finished) -> Self:
        """Give one row a cell, by rising number: pieces joined, gaps filled in, what is no cell left out."""
        rows = finished.cells()
        numbers = {name: np.full(len(rows), np.nan) for name in _NUMBERS}
        numbers["y_um"], numbers["x_um"] = rows["y_um"].astype(np.float64), rows["x_um"].astype(np.float64)
        border, reasons = np.zeros(len(rows), bool), []
        for i, row in enumerate(rows):
            mine = np.flatnonzero(finished.cell == row["cell"]) if not row["gap"] else np.zeros(0, np.intp)
            reasons.append(self._join(i, mine, numbers) if mine.size else told(CELL, "not found at this time point"))
            border[i] = bool(self.at_border[mine].any())
        ids = {name: rows[name].copy() for name in ("cell", "parent", "gap")}
        return replace(self, numbers=numbers, at_border=border, reasons=tuple(reasons), ids=ids)

    def _join(self, row: int, pieces: NDArray[np.intp], into: dict[str, NDArray[np.float64]]) -> str:
        for name in _ADDED:
            into[name][row] = self.numbers[name][pieces].sum()
        for name in _SDS:
            into[name][row] = np.sqrt((self.numbers[name][pieces] ** 2).sum())
        for name in STATES:
            into[name][row] = self.numbers[name][pieces].mean()
        return joined(self.reasons[k] for k in pieces)

    def columns(self, states: States | None = None) -> dict[str, Any]:
        """Give the columns of the cell table that this time point knows."""
        assert self.ids is not None  # noqa: S101  (only cells have rows)
        n = len(self)
        mass = np.isfinite(self.numbers["dry_mass_pg"])
        return {
            **self.ids,
            **self.numbers,
            "t": np.full(n, self.t, np.int32),
            "time_s": np.full(n, self.time_s),
            "mass_method": np.where(mass, self.method, "").tolist(),
            "state": [""] * n if states is None else [str(state) for state in states.states],
            "dead_belief": np.full(n, np.nan) if states is None else states.belief[:, 2],
            "at_border": self.at_border,
            "reason": list(self.reasons),
        }

    # ------------------------------------------------------------------ stopping and going on

    def state(self) -> dict[str, Any]:
        """Give it fit for JSON, every bit of it."""
        ids = self.ids and {name: values.tolist() for name, values in self.ids.items()}
        return {
            "t": self.t,
            "time_s": self.time_s,
            "numbers": {
                name: [None if np.isnan(v) else v for v in values.tolist()] for name, values in self.numbers.items()
            },
            "at_border": self.at_border.tolist(),
            "reasons": list(self.reasons),
            "method": self.method,
            "reason": self.reason,
            "ids": ids,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Read it back."""
        ids = state["ids"] and {
            name: np.array(values, np.bool_ if name == "gap" else np.int64) for name, values in state["ids"].items()
        }
        numbers = {name: np.array(values, np.float64) for name, values in state["numbers"].items()}
        border = np.array(state["at_border"], np.bool_)
        reasons = tuple(state["reasons"])
        return cls(
            state["t"], state["time_s"], numbers, border, reasons, state["method"], state["reason"], ids=ids or None
        )


def _of_outlines(found: Segmentation) -> tuple[str, ...]:
    """Say what the segmentation's reasons belong to: without an outline there is no mass, without a nucleus no share.

    Only what is outlined can lack a nucleus: a stand-in for an outline is drawn around one.
    """
    quantities = [NUCLEUS if outlined else MASS for outlined in found.outlined]
    return tuple(told(quantity, text) for quantity, text in zip(quantities, found.reasons, strict=True))


def _joined(before: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(joined(both) for both in zip(before, more, strict=True))
