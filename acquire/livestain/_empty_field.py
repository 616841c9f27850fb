"""Takes the light of an empty field: the calibration of phase from steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from livestain._contracts import check_sequence
from livestain._errors import ExperimentError
from livestain._experiment import PhaseFromSteps
from livestain._rig import camera_of, close_core, open_core
from livestain.phase.empty_field import EmptyField

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pymmcore_plus import CMMCorePlus

    from livestain._experiment import Experiment

__all__ = ["take_empty_field"]


def take_empty_field(experiment: Experiment, out: Path, *, repeats: int = 8) -> EmptyField:
    """Take the four steps where the stage is now, average them and save the calibration.

    Parameters
    ----------
    experiment
        Its measure section names the four presets, its sequence their exposures.
    out
        The .npz to write.
    repeats
        Sets of frames to average.

    Raises
    ------
    ExperimentError
        If the experiment has no phase steps, or the camera's dark level is not known.
    RigError
        If the rig cannot be loaded, or the field is not empty.
    """
    measure, optics = experiment.measure, experiment.rig.optics
    if measure is None or not isinstance(measure.phase, PhaseFromSteps):
        raise ExperimentError("an empty field is the calibration of phase steps: give the experiment measure.phase.")
    if optics is None or optics.dark_counts is None:
        raise ExperimentError(
            "the camera's dark level is unknown: take an image with the light off and write its mean into the rig: "
            "optics: {dark_counts: 100, ...}."
        )
    core = open_core(experiment.rig)
    try:
        camera_of(core, experiment.rig)
        check_sequence(core, experiment.sequence)
        frames = np.stack([_steps(core, experiment, measure.phase) for _ in range(repeats)])
    finally:
        close_core(core)
    found = EmptyField.from_frames(frames, dark_counts=optics.dark_counts, sign=measure.phase.sign)
    found.save(out)
    return found


def _steps(core: CMMCorePlus, experiment: Experiment, phase: PhaseFromSteps) -> NDArray[np.unsignedinteger]:
    presets = {channel.config: channel for channel in experiment.sequence.channels}
    if missing := [name for name in phase.channels if name not in presets]:
        raise ExperimentError(
            f"measure.phase.channels has {missing[0]!r}, but the sequence acquires {', '.join(presets)}. Add "
            "the channel to sequence.channels."
        )
    taken = []
    for name in phase.channels:
        channel = presets[name]
        core.setConfig(channel.group, name)
        core.waitForConfig(channel.group, name)
        if channel.exposure is not None:
            core.setExposure(channel.exposure)
        taken.append(core.snap())
    return np.stack(taken)
