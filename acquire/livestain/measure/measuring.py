"""Measures a run folder, one time point after another: while the run goes on, or later; the result is the same.

journal -> Follower -> Position (one for each) -> cells.arrow, summary.arrow, labels/, phase.ome.zarr
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import StoreError
from livestain._experiment import PhaseFromDefocus, PhaseFromSteps, PhaseGiven
from livestain._frame import Place
from livestain._journal import JOURNAL_NAME, read_header
from livestain.measure.follow import Follower
from livestain.measure.labels import LabelImages
from livestain.measure.mass import MassScale
from livestain.measure.phase_images import PhaseImages
from livestain.measure.phases import PhaseFromFrames, PhaseOfImage, PhaseOfSteps
from livestain.measure.position import Position, Seen
from livestain.measure.segment import Plane
from livestain.measure.sources import find_sources, position_names
from livestain.measure.summary import SummaryTable, summarised
from livestain.measure.table import CellTable
from livestain.measure.viability_model import ViabilitySettings, emission_of_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._experiment import Experiment
    from livestain._layout import Layout
    from livestain.measure.follow import TimePoint
    from livestain.measure.phases import PhaseMaker
    from livestain.measure.position import Followed
    from livestain.measure.sources import Channel, Sources
    from livestain_models.contract import Output

__all__ = ["STATE_NAME", "Measuring", "check_measure", "phase_maker", "viability_settings"]

STATE_NAME = "measuring.json"
_SAVE_EVERY_S = 10.0  # a measurement that is killed repeats at most so much


class Measuring:
    """The measurement of one run.

    It takes up where an earlier one was stopped: rows behind its saved state are dropped and written again.

    Parameters
    ----------
    folder
        The run folder.
    experiment
        What was run, with a measure section.
    read
        Reads a plane that is on disk, (Y, X) uint16.
    sync
        Whether tables and labels wait for the drive (fsync).

    Raises
    ------
    LivestainError
        If something that the measurement needs is not known, or the tables cannot be written.
    """

    def __init__(
        self, folder: Path, experiment: Experiment, read: Callable[[Place], NDArray[np.uint16]], *, sync: bool = False
    ) -> None:
        assert experiment.measure is not None  # noqa: S101  (the caller asked)
        self.folder = folder
        self._experiment, self._measure, self._read = experiment, experiment.measure, read
        header = read_header(folder / JOURNAL_NAME)
        outputs = [output for stain in header["stains"] for output in stain.get("outputs", ())]
        self._follower = Follower(folder, experiment.sequence)
        self.layout: Layout = self._follower.layout
        self._names = position_names(self.layout)
        self._sources: Sources = find_sources(experiment, self.layout, outputs)
        self._confusion = {k: v for stain in header["stains"] for k, v in stain.get("confusion", {}).items()}
        self._phase = phase_maker(experiment, self.layout)
        provenance = self._provenance(header)
        self._images: PhaseImages | None = None
        if isinstance(self._measure.phase, PhaseFromSteps | PhaseFromDefocus):
            self._images = PhaseImages(folder, self.layout, provenance=provenance, sync=sync)
        self._positions = [self._position(image) for image in range(len(self.layout.images))]
        self._cells = CellTable(folder, provenance, sync=sync)
        self._summary = SummaryTable(folder, provenance, sync=sync)
        self._labels = LabelImages(folder, self.layout, provenance=provenance, sync=sync)
        self._skipped = 0
        self._measured = [-1] * len(self.layout.images)
        self._resume()
        self._saved_s = time.monotonic()

    # ------------------------------------------------------------------ one time point after another

    def step(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Measure what is complete on disk by now, unless it is told to stop; give how many time points that were."""
        done = 0
        for point in self._follower.read():
            self._add(point)
            done += 1
            if time.monotonic() - self._saved_s > _SAVE_EVERY_S:
                self.save()
            if stop():
                break
        return done

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self._follower.ended

    @property
    def waiting(self) -> int:
        """How many time points have begun but cannot be measured yet; after the end of a run they owe predictions."""
        return self._follower.waiting

    @property
    def measured(self) -> int:
        """How many time points were measured, of all positions."""
        return sum(t + 1 for t in self._measured) - self._skipped

    def _add(self, point: TimePoint) -> None:
        seen = self._seen(point)
        self._measured[point.image] = point.t
        if seen.nuclei is None and seen.cells is None:
            self._skipped += 1  # its frame never came, or was not asked for at this time point
            return
        self._write(point.image, self._positions[point.image].add(seen))

    def finish(self) -> None:
        """Write the rows that waited for time points to come, and turn the streams into Parquet files."""
        for image, position in enumerate(self._positions):
            self._write(image, position.finish())
        self._labels.close(self._measured)
        if self._images is not None:
            self._images.close(self._measured)
        self._cells.compact()
        self._summary.compact()
        (self.folder / STATE_NAME).unlink(missing_ok=True)

    def save(self) -> None:
        """Save how far it came, so that it can be taken up from there."""
        state = {
            "version": 1,
            "measured": self._measured,
            "skipped": self._skipped,
            "rows": [self._cells.n_rows, self._summary.n_rows],
            "phase": self._phase and self._phase.state(),
            "positions": [position.state() for position in self._positions],
        }
        fresh = self.folder / f"{STATE_NAME}.new"
        try:
            with fresh.open("w", encoding="utf-8") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.folder / STATE_NAME)
        except OSError as error:
            raise StoreError(f"cannot save the measurement's state in {self.folder}: {error.strerror}.") from error
        self._saved_s = time.monotonic()

    def close(self) -> None:
        """Save, and close the tables as they are."""
        self.save()
        self._cells.close()
        self._summary.close()

    # ------------------------------------------------------------------ planes

    def _seen(self, point: TimePoint) -> Seen:
        where = self._sources
        phase, why = self._phase_planes(point)
        classes = [self._plane(point, c) for c in where.classes or ()]
        return Seen(
            point.t,
            self._time_s(point),
            self._segmented(point, where.nuclei),
            self._segmented(point, where.cells),
            np.stack([c for c in classes if c is not None])
            if classes and all(c is not None for c in classes)
            else None,
            phase,
            why,
        )

    def _segmented(self, point: TimePoint, channel: Channel | None) -> Plane | None:
        image = None if channel is None else self._plane(point, channel.number)
        return None if image is None or channel is None else Plane(image, channel.kind)

    def _plane(self, point: TimePoint, c: int) -> NDArray[np.uint16] | None:
        """Read the plane of a channel that is nearest to the place where the sequence has the sample."""
        there = [place for place in point.there if place.c == c]
        if not there:
            return None
        return self._read(min(there, key=lambda place: (self._away_um(place), place.z)))

    def _away_um(self, place: Place) -> float:
        plan, n_z = self._experiment.sequence.z_plan, self.layout.images[place.image].n_z
        z_um = [float(z) for z in plan] if plan is not None and plan.is_relative else []
        if len(z_um) != n_z:  # absolute, or a plan of the position's own: its middle
            return abs(place.z - n_z // 2)
        return abs(z_um[place.z])

    def _phase_planes(self, point: TimePoint) -> tuple[NDArray[np.uint16] | None, str]:
        channels = self._sources.phase
        if not channels:
            return None, ""
        if isinstance(self._measure.phase, PhaseFromDefocus):
            n_z = self.layout.images[point.image].n_z
            places = [Place(point.image, point.t, channels[0], z) for z in range(n_z)]
            if missing := sum(place not in point.there for place in places):
                return None, f"{missing} of {n_z} focal planes are missing"
            return np.stack([self._read(place) for place in places]), ""
        planes = [self._plane(point, c) for c in channels]
        if missing := sum(plane is None for plane in planes):
            return None, f"{missing} of {len(planes)} phase images are missing"
        return np.stack([plane for plane in planes if plane is not None]), ""

    def _time_s(self, point: TimePoint) -> float:
        interval_s = self._measure.interval_s
        first_s = self._follower.first_frame_s
        if interval_s is not None or point.time_s is None or first_s is None:
            return point.t * float(interval_s or self.layout.interval_s)
        return round(point.time_s - first_s, 3)

    # ------------------------------------------------------------------ rows

    def _write(self, image: int, done: Followed) -> None:
        for t, cells, nuclei in done.labels:
            self._labels.write(image, t, cells, nuclei)
        for t, time_s, columns, reason in done.rows:
            rows = self._with_constants(image, columns)
            self._cells.append(rows)
            position = self._names[image]
            self._summary.append(summarised(rows, position=position, image=image, t=t, time_s=time_s, reason=reason))

    def _with_constants(self, image: int, columns: dict[str, Any]) -> dict[str, Any]:
        n = len(columns["cell"])
        optics = self._experiment.rig.optics
        return columns | {
            "position": [self._names[image]] * n,
            "image": np.full(n, image, np.int32),
            "wavelength_um": np.full(n, optics.wavelength_um if optics else np.nan),
            "alpha_ml_per_g": np.full(n, self._measure.alpha_ml_per_g),
        }

    # ------------------------------------------------------------------ setting up

    def _position(self, image: int) -> Position:
        layout = self.layout
        height_um, width_um = (n * layout.pixel_size_um for n in (layout.height, layout.width))
        optics, phase = self._experiment.rig.optics, self._measure.phase
        has_mass = phase is not None and not (isinstance(phase, PhaseGiven) and phase.rad_per_grey is None)
        scale = None
        if has_mass and optics is not None:
            scale = MassScale(layout.pixel_size_um, optics.wavelength_um, self._measure.alpha_ml_per_g)
        viability = None
        if self._sources.classes:
            viability = viability_settings(self._experiment, layout, self._confusion)

        def keep(t: int, phase_rad: NDArray[np.float32]) -> None:
            if self._images is not None:
                self._images.write(image, t, phase_rad)

        return Position(height_um, width_um, layout.pixel_size_um, self._phase, scale, viability, keep)

    def _provenance(self, header: dict[str, Any]) -> dict[str, Any]:
        plain = self._measure.model_dump(mode="json", exclude_none=True)
        optics = self._experiment.rig.optics
        return {
            "measure": plain,
            "optics": optics.model_dump(mode="json", exclude_none=True) if optics else None,
            "pixel_size_um": self.layout.pixel_size_um,
            "sources": asdict(self._sources),
            **{key: header["provenance"][key] for key in ("software", "predicted") if key in header["provenance"]},
        }

    def _resume(self) -> None:
        """Go on where an earlier measurement was stopped, or begin anew."""
        file = self.folder / STATE_NAME
        if not file.exists():
            self._cells.truncate(0)
            self._summary.truncate(0)
            return
        state = json.loads(file.read_text(encoding="utf-8"))
        self._measured, self._skipped = state["measured"], state["skipped"]
        self._cells.truncate(state["rows"][0])
        self._summary.truncate(state["rows"][1])
        if self._phase:
            self._phase.restore(state["phase"])
        self._follower = Follower(self.folder, self._experiment.sequence, self._measured)
        again = [set(position.restore(one)) for position, one in zip(self._positions, state["positions"], strict=True)]
        if any(again):
            for point in Follower(self.folder, self._experiment.sequence).read():
                if point.t in again[point.image]:
                    self._positions[point.image].see_again(self._seen(point))


def check_measure(experiment: Experiment, layout: Layout, outputs: Sequence[Output]) -> None:
    """Hold a measure section against the run that it is for, before the first frame.

    Raises
    ------
    LivestainError
        If a channel, the pixel size, the wavelength, a calibration or the time between frames is missing.
    """
    sources = find_sources(experiment, layout, [{"name": output.name, "kind": output.kind} for output in outputs])
    phase_maker(experiment, layout)
    if sources.classes:
        viability_settings(experiment, layout, {})


def phase_maker(experiment: Experiment, layout: Layout) -> PhaseMaker | None:
    """Give what makes phase of an experiment's planes, None where it makes none.

    Raises
    ------
    LivestainError
        If a calibration cannot be read.
    """
    phase, optics = experiment.measure and experiment.measure.phase, experiment.rig.optics
    if isinstance(phase, PhaseGiven):
        return PhaseOfImage(phase, layout.pixel_size_um)
    if phase is None or optics is None:
        return None
    if isinstance(phase, PhaseFromSteps):
        return PhaseOfSteps(phase, optics, layout.pixel_size_um)
    plan = experiment.sequence.z_plan
    return PhaseFromFrames(optics, [] if plan is None else list(plan), layout.pixel_size_um)


def viability_settings(
    experiment: Experiment, layout: Layout, confusion: Mapping[str, float | str]
) -> ViabilitySettings:
    """Give what is assumed of the cells' deaths, and how the model errs by its package's `confusion`.

    Raises
    ------
    LivestainError
        If the time between two frames is not known.
    """
    assert experiment.measure is not None  # noqa: S101  (the caller asked)
    return ViabilitySettings(
        interval_s=experiment.measure.interval_s or layout.interval_s, emission=emission_of_scores(confusion)
    )
