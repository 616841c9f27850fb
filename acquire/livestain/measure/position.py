"""The cells of one position: from the planes of one time point after another to rows of the table that are final.

planes -> segment -> phase -> mass -+
                  -> classes -------+-> Tracker (a few time points behind) -> Viability (a few more) -> rows
                                              |
                                              +-> label images
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.measure.class_probabilities import cell_probabilities
from livestain.measure.features import Features
from livestain.measure.mass import MassScale, dry_masses
from livestain.measure.phases import RELATIVE_RAD_PER_GREY, PhaseOfImage
from livestain.measure.segment import Plane, segment
from livestain.measure.track import Tracker, Tracking
from livestain.measure.viability import Viability

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from livestain.measure.phases import FieldPhase, PhaseMaker
    from livestain.measure.segment import Segmentation
    from livestain.measure.track import Finished
    from livestain.measure.viability import States
    from livestain.measure.viability_model import ViabilitySettings

__all__ = ["Followed", "Position", "Seen"]

# Standard deviation of where a predicted outline is. With it 62 % of the simulated cells' masses lie within one
# standard deviation of the truth and 85 % within two; cells that touch share the error.
_EDGE_SD_UM = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The planes of one time point; None where there is none.

    `nuclei`, `cells` are what to segment on; `classes` (3, Y, X) uint16 live, injured, dead; `phase` (P, Y, X), and
    `why_no_phase` where it should be there and is not.
    """

    t: int
    time_s: float
    nuclei: Plane | None
    cells: Plane | None
    classes: NDArray[np.uint16] | None = None
    phase: NDArray[np.unsignedinteger] | None = None
    why_no_phase: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """What is final: rows of time points, and label images of time points.

    `rows` holds (t, time_s, columns of the cell table, why there is no row), `labels` (t, cells, nuclei).
    """

    rows: list[tuple[int, float, dict[str, Any], str]]
    labels: list[tuple[int, NDArray[np.uint32], NDArray[np.uint32]]]


class Position:
    """Measures and follows the cells of one position.

    Parameters
    ----------
    height_um, width_um
        Size of the field.
    pixel_size_um
        In the sample.
    phase
        How phase is made, shared by all positions; None without.
    scale
        What turns phase into mass; None where it is relative or there is none.
    viability
        What is assumed of the class head; None without one.
    on_phase
        Takes (t, phase (Y, X) float32 rad) where phase was made of other images.
    """

    def __init__(
        self,
        height_um: float,
        width_um: float,
        pixel_size_um: float,
        phase: PhaseMaker | None,
        scale: MassScale | None,
        viability: ViabilitySettings | None,
        on_phase: Callable[[int, NDArray[np.float32]], None] = lambda *_: None,
    ) -> None:
        self._pixel_size_um = pixel_size_um
        self._phase, self._scale, self._on_phase = phase, scale, on_phase
        self._tracker = Tracker(Tracking(), height_um, width_um)
        self._viability = Viability(viability) if viability else None
        self._features: dict[int, Features] = {}  # of time points that the tracker has not finished
        self._outlines: dict[int, Segmentation] = {}
        self.unseen: set[int] = set()  # time points whose outlines a stop has taken from memory
        self._waiting: dict[int, Features] = {}  # followed, their states not final

    # ------------------------------------------------------------------ one time point

    def add(self, seen: Seen) -> Followed:
        """Take the next time point; give what is final with it."""
        found = segment(seen.nuclei, seen.cells, pixel_size_um=self._pixel_size_um)
        self._outlines[seen.t] = found
        return self.follow(self._measured(seen, found))

    def follow(self, features: Features) -> Followed:
        """Take the next time point, measured already; give what is final with it."""
        self._features[features.t] = features
        return self._followed(self._tracker.add(features.detections()))

    def see_again(self, t: int, nuclei: Plane | None, cells: Plane | None) -> None:
        """Segment a time point again if its outlines were in memory when the measurement was stopped."""
        if t in self.unseen and not (nuclei is None and cells is None):
            self._outlines[t] = segment(nuclei, cells, pixel_size_um=self._pixel_size_um)
        self.unseen.discard(t)

    def finish(self) -> Followed:
        """Give the rest: no more time points come."""
        last = self._followed(self._tracker.finish())
        if self._viability:
            last.rows.extend(self._rows(states) for states in self._viability.finish())
        return last

    def _measured(self, seen: Seen, found: Segmentation) -> Features:
        features = Features.of(seen.t, seen.time_s, found)
        if len(found) and self._phase is not None:
            features = self._weighed(features, seen, found)
        if len(found) and seen.classes is not None:
            ids = np.arange(1, len(found) + 1)
            where = np.where(np.isin(found.cells, ids[found.nucleus_area_px > 0]), found.nuclei, found.cells)
            chances, why = cell_probabilities(seen.classes, where, ids)
            features = features.classified(chances, why)
        return features

    def _weighed(self, features: Features, seen: Seen, found: Segmentation) -> Features:
        assert self._phase is not None  # noqa: S101  (the caller asked)
        if seen.phase is None:
            return features.without_mass(seen.why_no_phase or "there are no phase images at this time point")
        made = self._phase(seen.phase, found.cells)
        if self._scale is None:
            features = self._weighed_relatively(features, made)
        else:
            features = self._weighed_in_pg(features, seen.t, made, found)
        # A mask that stands in for an outline holds part of the cell. What lies under the nucleus does not depend on
        # it, but for phase within masks: in a mask too tight, nuclei came out 8 to 11 % low.
        inside_masks = made.sum_sd_rad is not None
        return features.without_mass_of(~found.outlined, nor_nucleus=inside_masks)

    def _weighed_in_pg(self, features: Features, t: int, made: FieldPhase, found: Segmentation) -> Features:
        assert self._phase is not None  # noqa: S101  (the caller has it)
        assert self._scale is not None  # noqa: S101
        if self._phase.method != PhaseOfImage.method:  # that one is on disk already
            self._on_phase(t, made.phase_rad)
        if made.sum_sd_rad is None or 0 in made.reasons:
            masses = dry_masses(
                made.phase_rad,
                made.zones,
                found.nuclei,
                scale=self._scale,
                errors_rad=made.errors_rad,
                edge_sd_px=_EDGE_SD_UM / self._pixel_size_um,
                strangers=made.strangers,
                phase_reason=made.reasons.get(0, ""),
            )
            return features.weighed(masses, self._phase.method, {})
        # Phase within masks is 0 outside, and knows its own error.
        masses = dry_masses(made.phase_rad, made.zones, found.nuclei, scale=self._scale)
        sd_pg = {cell: sd * self._scale.pg_per_rad for cell, sd in made.sum_sd_rad.items()}
        return features.weighed(masses, self._phase.method, sd_pg, made.reasons)

    def _weighed_relatively(self, features: Features, made: FieldPhase) -> Features:
        scale = MassScale(self._pixel_size_um, 0.55)  # any: it is taken out again
        masses = dry_masses(made.phase_rad, made.zones, scale=scale, edge_sd_px=_EDGE_SD_UM / self._pixel_size_um)
        grey_um2 = self._pixel_size_um**2 / (scale.pg_per_rad * RELATIVE_RAD_PER_GREY)
        why = "the phase is relative (measure.phase.rad_per_grey is not given), so there is no mass in pg"
        return features.weighed_relatively(masses, grey_um2, why)

    # ------------------------------------------------------------------ what has become final

    def _followed(self, finished: list[Finished]) -> Followed:
        done = Followed([], [])
        for one in finished:
            features = self._features.pop(one.t, None)
            found = self._outlines.pop(one.t, None)
            if features is None:
                continue  # a time point that was never there: its gaps are interpolated in the tracks only
            if found is not None:
                done.labels.append((one.t, *_labelled(found, one)))
            cells = features.of_cells(one)
            if self._viability is None:
                done.rows.append((one.t, features.time_s, cells.columns(), features.reason))
                continue
            self._waiting[one.t] = cells
            final = self._viability.add(one.t, cells["cell"], cells["parent"], cells.chances)
            done.rows.extend(self._rows(states) for states in final)
        return done

    def _rows(self, states: States) -> tuple[int, float, dict[str, Any], str]:
        cells = self._waiting.pop(states.t)
        return states.t, cells.time_s, cells.columns(states), cells.reason

    # ------------------------------------------------------------------ stopping and going on

    def state(self) -> dict[str, Any]:
        """Give all that is needed to go on with the same result, fit for JSON."""
        return {
            "tracker": self._tracker.state(),
            "viability": self._viability and self._viability.state(),
            "features": [features.state() for features in self._features.values()],
            "waiting": [features.state() for features in self._waiting.values()],
            "outlined": sorted({*self._outlines, *self.unseen}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state; `see_again` must be called with the time points in `unseen`."""
        self._tracker = Tracker.from_state(state["tracker"])
        if self._viability:
            self._viability = Viability.from_state(self._viability.settings, state["viability"])
        self._features = {one["t"]: Features.from_state(one) for one in state["features"]}
        self._waiting = {one["t"]: Features.from_state(one) for one in state["waiting"]}
        self.unseen = set(state["outlined"])


def _labelled(found: Segmentation, finished: Finished) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Give the label images with the cells' own numbers."""
    cell = np.zeros(len(found) + 1, np.uint32)
    cell[1:] = finished.cell
    return cell[found.cells], cell[found.nuclei]
