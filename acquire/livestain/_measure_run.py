"""Measures a run in a thread beside it, and to its end afterwards; `livestain measure` does the latter alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from livestain._errors import ExperimentError, LivestainError
from livestain._images import Images
from livestain._journal import JOURNAL_NAME, read_header
from livestain._lines import layout_from_header
from livestain._priority import thread_last
from livestain._reading import load_experiment
from livestain._store import locked
from livestain._worker import Worker
from livestain.measure._rows import read_rows, read_schema
from livestain.measure.measuring import Measuring
from livestain.measure.products import files_of, make_products
from livestain.measure.saved import STATE_NAME, begun_with, is_finished

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from livestain._experiment import Experiment
    from livestain._frame import Place

__all__ = ["Measured", "MeasuringThread", "measure_run"]

log = logging.getLogger("livestain")

_IDLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Measured:
    """How a measurement ended.

    Attributes
    ----------
    time_points
        Measured, of all positions.
    waiting
        Time points that have begun and lack frames or predictions, where the measurement came so far.
    finished
        Whether the run is measured to its end.
    stopped
        Whether it was asked to end before that; the next call goes on.
    already
        Whether it was finished before, and nothing was done.
    files
        What there is of it, tables first.
    notes
        What could not be made, and why.
    """

    time_points: int
    waiting: int
    finished: bool
    stopped: bool = False
    already: bool = False
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


class MeasuringThread:
    """Measures while a run goes on; if it fails the run does not, and `livestain measure` makes up for it.

    Parameters
    ----------
    folder, experiment, read
        As for `Measuring`.
    """

    def __init__(self, folder: Path, experiment: Experiment, read: Callable[[Place], NDArray[np.uint16]]) -> None:
        self._folder, self._experiment, self._read = folder, experiment, read
        self._stop = False
        self.trouble: str | None = None
        self._worker = Worker("measure", self._work)
        self._worker.start()

    def _work(self) -> None:
        thread_last()  # the model's frames come first
        try:
            with (
                threadpool_limits(1, user_api="blas"),
                Measuring(self._folder, self._experiment, self._read) as measuring,
            ):
                while not self._stop:
                    if not measuring.step(lambda: self._stop):
                        self._worker.pause(_IDLE_S)
        except Exception as error:
            said = str(error) if isinstance(error, LivestainError) else f"{type(error).__name__}: {error}."
            self.trouble = (
                f"beside the run, {said} The run is not touched by it, and is measured from disk after its end; "
                f"should that fail too: livestain measure {self._folder}"
            )
            log.warning("the measurement failed", exc_info=error)

    def close(self) -> None:
        """Save how far it came and end the thread."""
        self._stop = True
        self._worker.wake()
        self._worker.wait()


def measure_run(
    folder: Path,
    *,
    settings: Experiment | None = None,
    again: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Measured:
    """Measure a run that has ended, or go on where that was stopped; one that is measured to its end is left alone.

    Parameters
    ----------
    folder
        The run folder.
    settings
        An experiment whose measure section and optics are taken in place of the run's own; begins anew, unless a
        measurement with the same ones was stopped.
    again
        Begin anew.
    on_progress
        Called with the count of measured time points after each.
    stop
        Asked after each time point; a measurement that was stopped is taken up by the next call.

    Raises
    ------
    LivestainError
        If the folder is no run, has no measure section, lacks what the measurement needs, or is being written; if
        what was stopped there is damaged or has other settings; or a time point cannot be measured.
    """
    layout = layout_from_header(read_header(folder / JOURNAL_NAME))
    if is_finished(folder) and settings is None and not again:
        read_schema(folder, "cells")  # damage is said
        n = len(read_rows(folder, "summary"))
        return Measured(n, 0, finished=True, already=True, files=files_of(folder, layout))
    experiment = load_experiment(folder / "experiment.yaml")
    if settings is not None:
        rig = experiment.rig.model_copy(update={"optics": settings.rig.optics or experiment.rig.optics})
        experiment = experiment.model_copy(update={"measure": settings.measure, "rig": rig})
    if experiment.measure is None:
        raise ExperimentError(
            f"{folder} was run without a measure section. Write one into a copy of its experiment.yaml (docs/cells.md "
            f"says how) and run: livestain measure {folder} --settings COPY.yaml"
        )
    # Its matrices are small: on several cores BLAS's threads wait for one another, and take the cores from the model.
    with locked(folder), threadpool_limits(1, user_api="blas"):
        again = again or (settings is not None and not begun_with(folder, experiment))
        with Measuring(folder, experiment, Images(folder, layout).read, again=again) as measuring:
            stopped = False

            def asked() -> bool:
                nonlocal stopped
                on_progress(measuring.measured)
                stopped = stopped or stop()
                return stopped

            while not stopped and measuring.step(asked):
                pass
            if stopped or measuring.waiting or not measuring.ended:
                return Measured(measuring.measured, measuring.waiting, finished=False, stopped=stopped)
            measuring.finish()
        made = make_products(folder, measuring.layout)
        (folder / STATE_NAME).unlink(missing_ok=True)  # not before: a kill would have it all measured again
    return Measured(measuring.measured, 0, finished=True, files=made.files, notes=made.notes)
