"""Runs on a core that a script or a program owns: `livestain.run` waits for the end, `livestain.start` does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from livestain._errors import ExperimentError, RigError
from livestain._experiment import Experiment
from livestain._session import run_experiment
from livestain._stop import Stop
from livestain._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pymmcore_plus import CMMCorePlus
    from useq import MDASequence

    from livestain._experiment import Measure, Output, Rig, Stain
    from livestain._frame import Stained
    from livestain._run import Status
    from livestain._session import Result

__all__ = ["Running", "run", "start"]


def run(
    core: CMMCorePlus,
    sequence: MDASequence,
    *,
    stains: Sequence[Stain | Mapping[str, Any]] = (),
    measure: Measure | Mapping[str, Any] | None = None,
    rig: Rig | Mapping[str, Any] | None = None,
    output: Output | Mapping[str, Any] | None = None,
    on_progress: Callable[[Status], None] | None = None,
    on_stained: Callable[[Stained], None] | None = None,
    stop: Stop | None = None,
) -> Result:
    """Acquire, stain and store a sequence on a core that is loaded; wait for the end.

    Parameters
    ----------
    core
        The microscope, loaded from a configuration file. It is left loaded, with its own engine.
    sequence
        What to acquire.
    stains, measure, output
        As the sections of an experiment file have them: objects, or mappings of the same words.
    rig
        What the configuration cannot say: `channels` with their contrast, `optics`, `pixel_size_um`, `instrument`.
    on_progress, on_stained, stop
        As for `run_experiment`.

    Returns
    -------
    Result
        With the run folder.

    Raises
    ------
    LivestainError
        If the run could not begin, or was ended by its camera or its disk. Everything journalled is on disk.
    """
    experiment = _described(core, sequence, stains, measure, rig, output)
    folder = experiment.run_folder("run")
    return run_experiment(experiment, folder, core=core, on_progress=on_progress, on_stained=on_stained, stop=stop)


def start(
    core: CMMCorePlus,
    sequence: MDASequence,
    *,
    stains: Sequence[Stain | Mapping[str, Any]] = (),
    measure: Measure | Mapping[str, Any] | None = None,
    rig: Rig | Mapping[str, Any] | None = None,
    output: Output | Mapping[str, Any] | None = None,
    on_stained: Callable[[Stained], None] | None = None,
) -> Running:
    """Begin what `run` does, and return at once: for programs whose event loop must go on.

    `on_stained` is called from a thread of the run's own: a window is to be told by its toolkit's signal.

    Raises
    ------
    ExperimentError, RigError
        If the sections are not understood. What the rig or a model refuses is raised by `Running.result`.
    """
    experiment = _described(core, sequence, stains, measure, rig, output)
    return Running(core, experiment, experiment.run_folder("run"), on_stained)


class Running:
    """A run that goes on in threads of its own; made by `start`.

    Attributes
    ----------
    folder
        The run folder; it is there once rig and models are ready.
    status
        How the run stands, about ten times a second; None before its first frame.
    """

    def __init__(
        self, core: CMMCorePlus, experiment: Experiment, folder: Path, on_stained: Callable[[Stained], None] | None
    ) -> None:
        self.folder = folder
        self.status: Status | None = None
        self._stop = Stop()
        self._result: Result | None = None

        def work() -> None:
            self._result = run_experiment(
                experiment, folder, core=core, on_progress=self._note, on_stained=on_stained, stop=self._stop
            )

        self._worker = Worker("run", work)
        self._worker.start()

    def _note(self, status: Status) -> None:
        self.status = status

    @property
    def done(self) -> bool:
        """Whether the run has ended, well or not."""
        return self._worker.done

    def stop(self) -> None:
        """Ask the run to end; asked again, it also leaves predictions that it owes to `livestain backfill`."""
        self._stop.ask()

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait for the end of the run.

        Raises
        ------
        LivestainError
            What ended the run, or kept it from beginning.
        TimeoutError
            If it has not ended within `timeout_s`; it goes on.
        """
        if not self._worker.wait(timeout_s):
            raise TimeoutError(f"the run {self.folder} has not ended within {timeout_s:g} s; it goes on.")
        self._worker.finish()
        assert self._result is not None  # noqa: S101  (a run without a result has raised)
        return self._result


def _described(
    core: CMMCorePlus,
    sequence: MDASequence,
    stains: Sequence[Any],
    measure: Any,
    rig: Any,
    output: Any,
) -> Experiment:
    """Make the experiment that a file would hold, so that what was run can be run again from the command line."""
    given = dict(rig) if hasattr(rig, "items") else rig.model_dump(exclude_unset=True) if rig is not None else {}
    for name in ("properties", "circular_buffer_mb"):
        if name in given:
            raise ExperimentError(f"rig.{name} is for a core that livestain loads; set it on your own core instead.")
    config = given.setdefault("config", core.systemConfigurationFile())
    if config is None or not Path(config).is_file():
        raise RigError(
            "the core was not loaded from a configuration file, of which the run folder keeps a copy, so that what was "
            "run can be run again. Save one with core.saveSystemConfiguration('rig.cfg') and give rig={'config': "
            "'rig.cfg'}."
        )
    sections = {"stains": tuple(stains), "measure": measure, "output": output}
    try:
        return Experiment.model_validate(
            {"rig": given, "sequence": sequence} | {name: value for name, value in sections.items() if value}
        )
    except ValidationError as errors:
        raise ExperimentError(
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors.errors())
        ) from errors
