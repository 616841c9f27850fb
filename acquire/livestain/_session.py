"""Runs an experiment from its description to a finished run folder."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from livestain._errors import LivestainError, StoreError
from livestain._inputs import Inputs
from livestain._journal import JOURNAL_NAME, read_header, read_lines
from livestain._latest import Latest, Viewer
from livestain._ledger import Ledger, wanted_inputs
from livestain._measure_run import MeasuringThread, measure_run
from livestain._prepare import open_model, prepare
from livestain._priority import run_first
from livestain._provenance import provenance_of, stains_header
from livestain._pulse import Pulse
from livestain._reading import save_experiment
from livestain._run import DataPath
from livestain._staining import Stainer
from livestain._standing import standing_of
from livestain._stop import Stop
from livestain._store import Store, refuse_existing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pymmcore_plus import CMMCorePlus

    from livestain._experiment import Experiment
    from livestain._frame import Stained
    from livestain._latency import RunStats
    from livestain._measure_run import Measured
    from livestain._prepare import Prepared
    from livestain._run import Status

__all__ = ["EXPERIMENT_NAME", "Result", "run_experiment"]

log = logging.getLogger("livestain")

EXPERIMENT_NAME = "experiment.yaml"


@dataclass(frozen=True, slots=True)
class Result:
    """A run that ended.

    Attributes
    ----------
    folder
        The run folder.
    reason
        "completed" or "canceled".
    stats
        Counts and latencies from the journal.
    expected
        How many frames the sequence asked for, None if that is not known beforehand.
    troubles
        What went wrong without ending the run, as sentences.
    measured
        What was measured of the cells; None where that was not asked for, or is left to `livestain measure`.
    """

    folder: Path
    reason: str
    stats: RunStats
    expected: int | None
    troubles: tuple[str, ...]
    measured: Measured | None = None

    @property
    def complete(self) -> bool:
        """Whether every frame that was asked for is there with its predictions."""
        stats = self.stats
        all_came = not stats.frames_missing and self.expected in (None, stats.frames_acquired)
        return self.reason == "completed" and all_came and not stats.frames_pending

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked it to end before all was acquired, or before all was measured."""
        return self.reason == "canceled" or (self.measured is not None and self.measured.stopped)


def run_experiment(
    experiment: Experiment,
    folder: Path,
    *,
    core: CMMCorePlus | None = None,
    on_ready: Callable[[Prepared], None] = lambda _: None,
    on_progress: Callable[[Status], None] | None = None,
    on_stained: Callable[[Stained], None] | None = None,
    on_measured: Callable[[int], None] = lambda _: None,
    stop: Stop | None = None,
) -> Result:
    """Acquire, stain and store one experiment.

    Parameters
    ----------
    experiment
        What to run.
    folder
        The run folder, which must not exist.
    core
        A core that is loaded already: it is taken as it is, and left loaded. Without it the rig's is loaded.
    on_ready
        Called once, when rig and models are ready and no frame has been taken.
    on_progress
        Called about ten times a second with the status. If it raises it is switched off.
    on_stained
        A viewer: called in a thread of its own with the newest prediction. If it raises it is switched off.
    on_measured
        Called with the count of measured time points while the rest is measured, once all frames are on disk.
    stop
        Asks the run to end; Ctrl-C and SIGTERM ask it too.

    Raises
    ------
    LivestainError
        If the run could not begin, or was ended by its camera or its disk. Everything journalled is on disk.
    """
    refuse_existing(folder)
    first = ExitStack()
    first.enter_context(run_first())
    with first, prepare(experiment, core) as ready:
        on_ready(ready)
        provenance = provenance_of(experiment, ready)
        header = {"stains": stains_header(experiment, ready), "provenance": provenance}
        store = Store.create(folder, ready.layout, header, sync=experiment.output.sync)
        stop = stop or Stop()
        with stop.on_signals(), _run_log(folder):
            log.info("run %s: %s", folder, yaml.safe_dump(provenance["software"], default_flow_style=True).strip())
            try:
                _save_inputs(experiment, folder)
                reason, troubles, interval_s = _acquire(experiment, ready, store, stop, on_progress, on_stained)
            except BaseException as error:
                log.error("the run ended with an error", exc_info=error)  # noqa: TRY400
                _close_after_error(store)
                raise
            store.close(reason, interval_s=interval_s)
            journal = folder / JOURNAL_NAME
            stats = Ledger(read_header(journal), read_lines(journal)).stats()
            log.info("run %s: %s", reason, stats.as_json())
            first.close()  # what is left to do may wait for others
            measured = _measure_the_rest(experiment, folder, stop, on_measured, troubles)
    return Result(folder, reason, stats, ready.layout.n_frames, tuple(troubles), measured)


def _measure_the_rest(
    experiment: Experiment, folder: Path, stop: Stop, on_measured: Callable[[int], None], troubles: list[str]
) -> Measured | None:
    """Measure what the thread beside the run did not come to; its failure is a trouble, and not the run's end."""
    if experiment.measure is None:
        return None
    asked = stop.times
    try:
        measured = measure_run(folder, on_progress=on_measured, stop=lambda: stop.times > asked)
    except Exception as error:
        log.warning("the measurement failed", exc_info=error)
        troubles.append(f"the cells could not be measured: {error}")
        return None
    if not measured.finished:
        stopped = "was stopped and is " if measured.stopped else "is "
        troubles.append(f"the measurement of the cells {stopped}{standing_of(folder)}")
    return measured


def _acquire(
    experiment: Experiment,
    ready: Prepared,
    store: Store,
    stop: Stop,
    on_progress: Callable[[Status], None] | None,
    on_stained: Callable[[Stained], None] | None,
) -> tuple[str, list[str], float | None]:
    def reopen(i: int, on_cpu: bool) -> Any:  # noqa: FBT001  (Stainer's protocol)
        stain, package, layout = experiment.stains[i], ready.packages[i], ready.layout
        return open_model(stain, package, layout.height, layout.width, "cpu" if on_cpu else None)

    latest = Latest()
    viewer = Viewer(latest, on_stained) if on_stained else None
    stainer = Stainer(ready.models, store.images.read, reopen)
    frame_bytes = ready.layout.height * ready.layout.width * 2
    path = DataPath(
        ready.core,
        store,
        Inputs(ready.layout, wanted_inputs(ready.layout, store.header["stains"])),
        stainer,
        latest,
        depth=max(8, (experiment.output.write_buffer_mb << 20) // frame_bytes),
        stain_remaining=experiment.output.stain_remaining,
    )
    measuring = MeasuringThread(store.folder, experiment, store.images.read) if experiment.measure else None
    pulse = Pulse(store.folder)
    watch = _Watch(lambda: path.status(ready.layout.n_frames, stop), pulse, on_progress)
    try:
        reason = path.run(ready.sequence, stop, watch)
    finally:
        latest.close()
        if viewer:
            viewer.close()
        if measuring:
            measuring.close()
        stainer.close()
        pulse.end()
    missing = [path.first_missing] if path.first_missing else []
    troubles = [*missing, *stainer.troubles, *watch.troubles, *_said(viewer), *_said(measuring)]
    late_s = path.late_interval_s
    if late_s is not None:
        troubles.append(
            f"time points came every {late_s:.3g} s, not every {ready.layout.interval_s:g} s as asked: exposures and "
            "movements take longer than that. The images' time scale is the measured one."
        )
    return reason, troubles, late_s


def _said(helper: Viewer | MeasuringThread | None) -> list[str]:
    return [helper.trouble] if helper and helper.trouble else []


class _Watch:
    """Gives the sign of life and shows how the run stands; neither may end a run, and each fails by itself."""

    def __init__(self, status: Callable[[], Status], pulse: Pulse, show: Callable[[Status], None] | None) -> None:
        self._status, self._pulse, self._show = status, pulse, show
        self._said: dict[str, str] = {}

    def __call__(self) -> None:
        try:
            status = self._status()
        except Exception as error:  # noqa: BLE001  (a driver's or a drive's, for a moment: it is asked again)
            self._say("how the run stands could not be asked", error)
            return
        self._pulse.beat(status)
        try:
            if self._show is not None:
                self._show(status)
        except Exception as error:  # noqa: BLE001  (whatever a display may raise)
            self._show = None
            self._say("the progress display failed", error)

    def _say(self, what: str, error: Exception) -> None:
        if what not in self._said:
            self._said[what] = f"{what} ({type(error).__name__}: {error})."
            log.warning(what, exc_info=error)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What failed, each once, as sentences."""
        return tuple(self._said.values())


def _save_inputs(experiment: Experiment, folder: Path) -> None:
    try:
        save_experiment(experiment, folder / EXPERIMENT_NAME)
    except OSError as error:
        raise StoreError(f"cannot write into {folder}: {error.strerror}.") from error


def _close_after_error(store: Store) -> None:
    try:
        store.close("errored")
    except LivestainError as error:
        log.error("%s", error)  # noqa: TRY400  (the error that ended the run is on its way and matters more)


@contextmanager
def _run_log(folder: Path) -> Iterator[None]:
    """Send what livestain and pymmcore-plus log into run.log for the time of the run."""
    handler = logging.FileHandler(folder / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(threadName)s] %(message)s"))
    # pymmcore-plus would tell of every event, formatted in the thread that takes the frames; the journal has them all.
    levels = {log: logging.INFO, logging.getLogger("pymmcore-plus"): logging.WARNING}
    before = {logger: logger.level for logger in levels}
    for logger, level in levels.items():
        logger.setLevel(level)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()
