"""What a measure section asks for: what makes the phase, weighs it, and tells the living from the dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestain._errors import ExperimentError
from livestain._experiment import PhaseFromSteps, PhaseGiven
from livestain.measure.mass import MassScale
from livestain.measure.phases import PhaseFromFrames, PhaseOfImage, PhaseOfSteps
from livestain.measure.viability_model import ViabilitySettings, emission_of_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livestain._experiment import Experiment
    from livestain._layout import Layout
    from livestain.measure.phases import PhaseMaker

__all__ = ["mass_scale", "phase_maker", "viability_settings"]


def phase_maker(experiment: Experiment, layout: Layout) -> PhaseMaker | None:
    """Give what makes phase of an experiment's planes, None where it makes none.

    Raises
    ------
    LivestainError
        If a calibration cannot be read, or is of another camera.
    """
    phase, optics = experiment.measure and experiment.measure.phase, experiment.rig.optics
    if isinstance(phase, PhaseGiven):
        return PhaseOfImage(phase, layout.pixel_size_um)
    if phase is None or optics is None:
        return None
    if isinstance(phase, PhaseFromSteps):
        return PhaseOfSteps(phase, optics, layout.pixel_size_um, (layout.height, layout.width))
    plan = experiment.sequence.z_plan
    return PhaseFromFrames(optics, [] if plan is None else list(plan), layout.pixel_size_um)


def mass_scale(experiment: Experiment, layout: Layout) -> MassScale | None:
    """Give what turns an experiment's phase into picograms, None where it has none or its phase is relative."""
    measure, optics = experiment.measure, experiment.rig.optics
    if measure is None or measure.phase is None or optics is None:
        return None
    if isinstance(measure.phase, PhaseGiven) and measure.phase.rad_per_grey is None:
        return None
    return MassScale(layout.pixel_size_um, optics.wavelength_um, measure.alpha_ml_per_g)


def viability_settings(
    experiment: Experiment, layout: Layout, confusion: Mapping[str, float | str]
) -> ViabilitySettings:
    """Give what is assumed of the cells' deaths, and how the model errs by its package's `confusion`.

    Raises
    ------
    ExperimentError
        If the time between two time points is not known.
    """
    assert experiment.measure is not None  # noqa: S101  (the caller asked)
    interval_s = experiment.measure.interval_s or layout.interval_s
    if interval_s <= 0:
        raise ExperimentError(
            "measure: a model says which cells live, and to say when one died the time from one time point to the "
            "next must be known; the sequence has none (its camera runs free, or its intervals differ). Give the "
            "time_plan an interval, or say what it is in the sample: measure: {interval_s: 600}."
        )
    return ViabilitySettings(interval_s=interval_s, emission=emission_of_scores(confusion))
