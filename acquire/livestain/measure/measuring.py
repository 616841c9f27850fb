"""Measures a run folder, one time point after another: while the run goes on, or later; the result is the same.

journal -> Follower -> Position (one for each) -> cells.arrow, summary.arrow, labels/, phase.ome.zarr
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from livestain._errors import LivestainError
from livestain._experiment import PhaseFromDefocus, PhaseFromSteps
from livestain._journal import JOURNAL_NAME, read_header
from livestain._lines import layout_from_header
from livestain.measure.follow import Follower
from livestain.measure.labels import LabelImages
from livestain.measure.makers import mass_scale, phase_maker, viability_settings
from livestain.measure.phase_images import PhaseImages
from livestain.measure.planes import Planes
from livestain.measure.position import Position
from livestain.measure.saved import Saved, forget, settings_of, unusable
from livestain.measure.sources import find_sources
from livestain.measure.summary import SummaryTable, summarised
from livestain.measure.table import ONLY_POSITION, CellTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._experiment import Experiment
    from livestain._frame import Place
    from livestain._layout import Layout
    from livestain.measure.follow import TimePoint
    from livestain.measure.position import Followed
    from livestain.measure.sources import Sources
    from livestain_models.contract import Output

__all__ = ["Measuring", "check_measure"]

_SAVE_EVERY_S = 10.0  # a measurement that is killed repeats at most so much


class Measuring:
    """The measurement of one run.

    It takes up where an earlier one was stopped: rows behind its saved state are dropped and written again. As a
    context it is closed at the end, and may be taken up again.

    Parameters
    ----------
    folder
        The run folder.
    experiment
        What was run, with a measure section.
    read
        Reads a plane that is on disk, (Y, X) uint16.
    again
        Begin anew, whatever is there.
    sync
        Whether tables and labels wait for the drive (fsync).

    Raises
    ------
    LivestainError
        If something that the measurement needs is not known, what is there cannot be gone on with, or the tables
        cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        experiment: Experiment,
        read: Callable[[Place], NDArray[np.uint16]],
        *,
        again: bool = False,
        sync: bool = False,
    ) -> None:
        assert experiment.measure is not None  # noqa: S101  (the caller asked)
        self.folder = folder
        self._experiment, self._measure = experiment, experiment.measure
        header = read_header(folder / JOURNAL_NAME)
        outputs = [output for stain in header["stains"] for output in stain.get("outputs", ())]
        self.layout: Layout = layout_from_header(header)
        self._names = [name or ONLY_POSITION for name in self.layout.position_names]
        self._sources: Sources = find_sources(experiment, self.layout, outputs)
        self._planes = Planes(read, self._sources, experiment, self.layout)
        self._confusion = {k: v for stain in header["stains"] for k, v in stain.get("confusion", {}).items()}
        self._phase = phase_maker(experiment, self.layout)
        self._positions = [self._position(image) for image in range(len(self.layout.images))]
        self._settings = settings_of(experiment)
        saved = None if again else Saved.load(folder)
        self._measured, self._skipped = [-1] * len(self.layout.images), 0
        if saved is not None:
            saved.check(folder, self._settings, len(self.layout.images))
            self._take_up(saved)
        after = [
            min((t - 1 for t in p.unseen), default=m) for p, m in zip(self._positions, self._measured, strict=True)
        ]
        self._follower = Follower(folder, experiment.sequence, after)
        if saved is None:
            forget(folder, self.layout)
        self._open(self._provenance(header), saved.rows if saved else (0, 0), sync=sync)
        self._saved_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the tables; after an error without saving: a time point that failed half way is measured again."""
        try:
            if kind is None and not self._finished:
                self.save()
        finally:
            with self._cells:
                self._summary.close()

    # ------------------------------------------------------------------ one time point after another

    def step(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Measure what is complete on disk by now, unless it is told to stop; give how many time points that were.

        Raises
        ------
        LivestainError
            If one cannot be measured: which, why, and how to go on.
        """
        done = 0
        for point in self._follower.read():
            try:
                new = self._add(point)
            except Exception as error:
                raise self._failed(f"at t={point.t} of {self._names[point.image]}", error) from error
            if not new:
                continue
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

    def _add(self, point: TimePoint) -> bool:
        """Measure a time point; False if that was done before a stop, and only its outlines were wanted again."""
        position = self._positions[point.image]
        if point.t <= self._measured[point.image]:
            position.see_again(point.t, *self._planes.outlines(point))
            return False
        seen = self._planes.seen(point, self._time_s(point))
        self._measured[point.image] = point.t
        if (seen.nuclei is None and seen.cells is None) or math.isnan(seen.time_s):
            self._skipped += 1  # its frame never came, was not asked for at this time point, or has no time
        else:
            self._write(point.image, position.add(seen))
        return True

    def finish(self) -> None:
        """Write the rows that waited for time points to come, and turn the streams into Parquet files.

        The saved state stays: what is made of the tables may still fail, and then only that is to be done again.
        """
        try:
            for image, position in enumerate(self._positions):
                self._write(image, position.finish())
            self._labels.close(self._measured)
            if self._images is not None:
                self._images.close(self._measured)
            self._cells.compact()
            self._summary.compact()
        except Exception as error:
            raise self._failed("at its end", error) from error
        self._finished = True

    def save(self) -> None:
        """Save how far it came, so that it can be taken up from there."""
        Saved(
            settings=self._settings,
            measured=self._measured,
            skipped=self._skipped,
            rows=(self._cells.n_rows, self._summary.n_rows),
            phase=self._phase.state() if self._phase else None,
            positions=[position.state() for position in self._positions],
        ).save(self.folder)
        self._saved_s = time.monotonic()

    def _failed(self, where: str, error: Exception) -> LivestainError:
        said = str(error) if isinstance(error, LivestainError) else f"{type(error).__name__}: {error}."
        return LivestainError(
            f"the measurement failed {where}: {said} What was measured before it is kept; to go on from there: "
            f"livestain measure {self.folder}"
        )

    def _time_s(self, point: TimePoint) -> float:
        """Give its time since the first frame; NaN if nobody knows, of a camera that runs free."""
        interval_s, first_s = self._measure.interval_s, self._follower.first_frame_s
        if interval_s is None and point.time_s is not None and first_s is not None:
            return round(point.time_s - first_s, 3)
        return point.t * (interval_s or self.layout.interval_s or math.nan)

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
        scale = mass_scale(self._experiment, layout)
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

    def _take_up(self, saved: Saved) -> None:
        """Go on where an earlier measurement was stopped."""
        self._measured, self._skipped = list(saved.measured), saved.skipped
        try:
            if self._phase:
                self._phase.restore(saved.phase or {})
            for position, state in zip(self._positions, saved.positions, strict=True):
                position.restore(state)
        except (KeyError, TypeError, ValueError, IndexError) as error:  # of a livestain that kept other things
            raise unusable(self.folder, f"does not say what this livestain needs ({error!r})") from error

    def _open(self, provenance: dict[str, Any], rows: tuple[int, int], *, sync: bool) -> None:
        """Open what is written, with as many rows as the saved state knows."""
        self._images: PhaseImages | None = None
        if isinstance(self._measure.phase, PhaseFromSteps | PhaseFromDefocus):
            self._images = PhaseImages(self.folder, self.layout, provenance=provenance, sync=sync)
        self._labels = LabelImages(self.folder, self.layout, provenance=provenance, sync=sync)
        self._cells = CellTable(self.folder, provenance, sync=sync)
        self._summary = SummaryTable(self.folder, provenance, sync=sync)
        self._cells.truncate(rows[0])
        self._summary.truncate(rows[1])
        self._finished = False


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
