"""`livestain collect`: acquires pairs of transmitted light and real stain, and says what they are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import yaml

from livestain._errors import ExperimentError, LivestainError
from livestain._journal import JOURNAL_NAME, read_header
from livestain._lines import layout_from_header
from livestain._reading import load_experiment
from livestain._session import EXPERIMENT_NAME, Result, run_experiment
from livestain._store import refuse_existing
from livestain.pairs.checker import PairsChecker
from livestain.pairs.first_recipe import RECIPE_NAME, differences_from_recipe, write_first_recipe
from livestain.pairs.places import check_places
from livestain.pairs.plan import PairsPlan, plan_pairs
from livestain.pairs.report import NOT_LOOKED_AT, NOT_WHOLE, PairsReport, judge, position_name, write_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livestain._experiment import Experiment
    from livestain._prepare import Prepared
    from livestain._run import Status
    from livestain.pairs.pair_check import PairCheck

__all__ = ["Collected", "Listener", "collect", "look_again"]

_BITS = 16  # where the camera cannot be asked any more; a pile-up at fewer bits is found all the same


class Listener(Protocol):
    """What shows a person how it goes."""

    def ready(self, prepared: Prepared) -> None:
        """Take note: the rig is ready, and no frame has been taken."""

    def warn(self, sentence: str) -> None:
        """Take note of what is not ideal."""

    def update(self, status: Status) -> None:
        """Take note of how the run stands, about ten times a second."""

    def checked(self, check: PairCheck, position: str, plan: PairsPlan) -> None:
        """Take note of what was seen of one stain at one position, while the run goes on."""

    def checking(self, done: int, total: int) -> None:
        """Take note of how many positions were looked at once the run has ended, about ten times a second."""


@dataclass(frozen=True, slots=True)
class Collected:
    """Pairs that were acquired and looked at.

    Attributes
    ----------
    folder
        The run folder.
    result
        How the run ended; None if it was only looked at again.
    report
        What the pairs are worth.
    recipe, recipe_is_new
        The training recipe beside the run folders, and whether it was written now.
    """

    folder: Path
    result: Result | None
    report: PairsReport
    recipe: Path
    recipe_is_new: bool


def collect(experiment: Experiment, folder: Path, listener: Listener) -> Collected:
    """Acquire pairs into a run folder, look at every one, and write `pairs.json` and the first recipe.

    Parameters
    ----------
    experiment
        As for a run; `rig.channels` gives one channel a contrast, the others are real stains.
    folder
        The run folder, which must not exist.
    listener
        Shows what happens.

    Raises
    ------
    LivestainError
        Before the first frame if the pairs would be of no use; later what ended the run. What is whole by then can be
        looked at with `look_again`.
    """
    refuse_existing(folder)
    watch = _Watch(experiment, folder, plan_pairs(experiment), listener)
    try:
        result = run_experiment(experiment, folder, on_ready=watch.ready, on_progress=watch.progress)
    except BaseException as error:
        seen = watch.checker.abandon() if watch.checker else 0
        if seen and isinstance(error, LivestainError):
            listener.warn(f"the positions that are whole can be used; to look at them: livestain collect {folder}")
        raise
    assert watch.checker is not None  # noqa: S101  (the run was ready, or it would have raised)
    try:
        return _finish(experiment, folder, watch.plan, watch.checker, listener, result)
    except KeyboardInterrupt:
        watch.checker.abandon()
        listener.warn(f"every frame is on disk, but not every pair was looked at; to do so: livestain collect {folder}")
        raise


class _Watch:
    """Follows a run from the moment that the rig is ready, and tells the listener."""

    def __init__(self, experiment: Experiment, folder: Path, plan: PairsPlan, listener: Listener) -> None:
        self.plan = plan
        self.checker: PairsChecker | None = None
        self._folder, self._instrument, self._listener = folder, experiment.rig.instrument, listener

    def ready(self, prepared: Prepared) -> None:
        """Hold the plan against the rig; begin to look for positions that are whole."""
        self._listener.ready(prepared)
        for sentence in check_places(self.plan, prepared, self._instrument):
            self._listener.warn(sentence)
        for sentence in _other_afternoons(self._folder, self.plan, self._instrument):
            self._listener.warn(sentence)
        self.checker = PairsChecker(self._folder, self.plan, prepared.layout, prepared.camera.bits)

    def progress(self, status: Status) -> None:
        """Tell how the run stands and what was seen since the last call."""
        self._listener.update(status)
        if self.checker is not None:
            for check in self.checker.fresh():
                position = position_name(self.checker.layout.images[check.image])
                self._listener.checked(check, position, self.plan)


def look_again(folder: Path, listener: Listener) -> Collected:
    """Look at the pairs of a run folder that is there: one that was killed and recovered, or not looked at to the end.

    Raises
    ------
    LivestainError
        The folder is no run, or was not acquired as pairs.
    """
    layout = layout_from_header(read_header(folder / JOURNAL_NAME))
    experiment = load_experiment(folder / EXPERIMENT_NAME)
    plan = plan_pairs(experiment)
    if not layout.pixel_size_um:
        raise ExperimentError(f"{folder} has no pixel size, so nothing can be said of it in micrometres.")
    checker = PairsChecker(folder, plan, layout, _BITS)
    return _finish(experiment, folder, plan, checker, listener, None)


def _finish(
    experiment: Experiment,
    folder: Path,
    plan: PairsPlan,
    checker: PairsChecker,
    listener: Listener,
    result: Result | None,
) -> Collected:
    layout, instrument = checker.layout, experiment.rig.instrument
    checks, all_seen = checker.finish(listener.checking)
    report = judge(checks, plan, layout, unseen=NOT_WHOLE if all_seen else NOT_LOOKED_AT)
    write_pairs(folder, plan, report, instrument)
    if not report.n_good:
        return Collected(folder, result, report, folder.parent / RECIPE_NAME, recipe_is_new=False)
    recipe, new = write_first_recipe(folder.parent, plan, layout, n_positions=report.n_good, instrument=instrument)
    for sentence in () if new else differences_from_recipe(recipe, plan, layout):
        listener.warn(sentence)
    return Collected(folder, result, report, recipe, recipe_is_new=new)


def _other_afternoons(folder: Path, plan: PairsPlan, instrument: str | None) -> Iterator[str]:
    """Compare exposures with those of the runs that are there: one scale of brightness is measured for a microscope."""
    said: set[str] = set()
    for other in sorted(folder.parent.glob(f"*/{EXPERIMENT_NAME}"), reverse=True):
        try:
            written = yaml.safe_load(other.read_text(encoding="utf-8"))
            there = {channel["config"]: channel.get("exposure") for channel in written["sequence"]["channels"]}
            same = written["rig"].get("instrument") == instrument
        except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
            yield f"{other} cannot be read ({error}), so its exposures could not be compared with these."
            continue
        for target in plan.targets:
            exposure_ms = there.get(target)
            if same and exposure_ms is not None and exposure_ms != plan.exposure_ms[target] and target not in said:
                said.add(target)
                yield (
                    f"{target} is exposed for {plan.exposure_ms[target]:g} ms, and was for {exposure_ms:g} ms in "
                    f"{other.parent}. Training takes one scale of brightness for a microscope: keep to one exposure, "
                    "or give this one another rig.instrument."
                )
