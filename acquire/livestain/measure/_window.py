"""The last few time points, whose tracks may still change: which track owns each segment, and what was not found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.measure._sightings import NO_NOTE, NOTES, PART, Detections, Finished

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["Page", "Window"]


@dataclass(slots=True)
class Page:
    """One time point.

    `owner`, `note` (n,) are per segment; `drift_um` is the stage's, so far; `gaps` are (cell, y_um, x_um) with
    places in the sample's frame; `observed` is False where the time point is missing altogether.
    """

    detections: Detections
    drift_um: Floats
    observed: bool
    owner: Ints
    note: Ints
    gaps: list[tuple[int, float, float]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, fit for JSON."""
        return {
            "detections": self.detections.state(),
            "drift_um": self.drift_um.tolist(),
            "observed": self.observed,
            "owner": self.owner.tolist(),
            "note": self.note.tolist(),
            "gaps": [list(gap) for gap in self.gaps],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Page:
        """Return the page that `state` was taken of."""
        return cls(
            Detections.from_state(state["detections"]),
            np.array(state["drift_um"], np.float64),
            state["observed"],
            np.array(state["owner"], np.int64),
            np.array(state["note"], np.int64),
            [(int(cell), float(y), float(x)) for cell, y, x in state["gaps"]],
        )


class Window:
    """Pages in order of time, and the mother of every cell in them."""

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self.parents: dict[int, int] = {}

    def open(self, detections: Detections, drift_um: Floats, *, observed: bool) -> Page:
        """Begin the next time point, with nobody owning its segments yet."""
        nobody = np.zeros(len(detections), np.int64)
        page = Page(detections, drift_um.copy(), observed, nobody, nobody.copy())
        self.pages.append(page)
        return page

    def since(self, t: int) -> list[Page]:
        """Return the pages from `t` on."""
        return [page for page in self.pages if page.detections.t >= t]

    def spread_drift(self, before_um: Floats, now_um: Floats) -> None:
        """Spread the drift since the last observed time point evenly over the missing ones after it."""
        missing = 0
        while missing < len(self.pages) and not self.pages[-1 - missing].observed:
            missing += 1
        for k in range(missing):
            self.pages[-1 - k].drift_um = now_um + (before_um - now_um) * (k + 1) / (missing + 1)

    def bridge(self, cell: int, t0: int, at0_um: Floats, t1: int, at1_um: Floats) -> None:
        """Enter interpolated places of `cell` strictly between two sightings, in the sample's frame."""
        for page in self.pages:
            t = page.detections.t
            if t0 < t < t1:
                y, x = at0_um + (at1_um - at0_um) * (t - t0) / (t1 - t0)
                page.gaps.append((cell, float(y), float(x)))

    def rename(self, cell: int, new: int, t: int) -> None:
        """Give all that `cell` owns from `t` on to `new`. A gap that `new` was seen in is none."""
        for page in self.since(t):
            page.owner[page.owner == cell] = new
            renamed = [(new if c == cell else c, y, x) for c, y, x in page.gaps]
            seen = {c for c in (new,) if (page.owner == c).any()}
            unique = {gap[0]: gap for gap in renamed if gap[0] not in seen}
            page.gaps = list(unique.values())

    def holds(self, cell: int, born: int, t: int) -> bool:
        """Whether `cell`, first seen at `born`, has a row before `t`, written or still open."""
        open_ = [page for page in self.pages if page.detections.t < t]
        return born < self.pages[0].detections.t or any((page.owner == cell).any() for page in open_)

    def drop(self, cell: int, t: int, note: int, *, before: float = np.inf) -> None:
        """Take away all that `cell` owns from `t` on and before another time point, noting why."""
        for page in self.since(t):
            if page.detections.t >= before:
                continue
            gone = page.owner == cell
            page.owner[gone], page.note[gone] = 0, note
            page.gaps = [gap for gap in page.gaps if gap[0] != cell]

    def drop_before(self, cell: int, t: int, note: int) -> None:
        """Take away all that `cell` owns before `t`, noting why."""
        for page in self.pages:
            if page.detections.t < t:
                gone = page.owner == cell
                page.owner[gone], page.note[gone] = 0, note
                page.gaps = [gap for gap in page.gaps if gap[0] != cell]

    def close(self, field_um: tuple[float, float]) -> Finished | None:
        """Take out the oldest page. None if it was never observed and nobody was missed in it."""
        page = self.pages.pop(0)
        # A cell that the stage took out of the field for a moment was not missed there.
        limit = np.array(field_um)
        page.gaps = [
            gap
            for gap in page.gaps
            if (gap[1:] + page.drift_um >= 0).all() and (gap[1:] + page.drift_um <= limit).all()
        ]
        # Splits that are undone and opened again can bridge a time point twice, or one that a cell was seen at.
        seen = set(page.owner.tolist())
        page.gaps = list({gap[0]: gap for gap in page.gaps if gap[0] not in seen}.values())
        if not page.observed and not page.gaps:
            return None
        owners, count = np.unique(page.owner, return_counts=True)
        broken = np.isin(page.owner, owners[(count > 1) & (owners > 0)])
        note = np.where(broken, PART, np.where(page.owner > 0, NO_NOTE, page.note))
        gaps = sorted(page.gaps)
        places = np.array([gap[1:] for gap in gaps], np.float64).reshape(-1, 2) + page.drift_um
        gap_cell = np.array([gap[0] for gap in gaps], np.int64)
        return Finished(
            detections=page.detections,
            cell=page.owner,
            parent=self._mothers(page.owner),
            note=tuple(NOTES[n] for n in note.tolist()),
            gap_cell=gap_cell,
            gap_parent=self._mothers(gap_cell),
            gap_y_um=places[:, 0],
            gap_x_um=places[:, 1],
        )

    def _mothers(self, cells: Ints) -> Ints:
        return np.array([self.parents.get(cell, 0) for cell in cells.tolist()], np.int64)

    def forget(self, living: Ints) -> None:
        """Forget the mothers of cells that are neither alive nor in a page: memory must not grow with time."""
        keep = set(living.tolist())
        for page in self.pages:
            keep.update(page.owner.tolist(), (gap[0] for gap in page.gaps))
        self.parents = {cell: mother for cell, mother in self.parents.items() if cell in keep}

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, fit for JSON."""
        return {"pages": [page.state() for page in self.pages], "parents": sorted(self.parents.items())}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Window:
        """Return the window that `state` was taken of."""
        window = cls()
        window.pages = [Page.from_state(page) for page in state["pages"]]
        window.parents = {int(cell): int(mother) for cell, mother in state["parents"]}
        return window
