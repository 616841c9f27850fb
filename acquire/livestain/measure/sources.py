"""Which channels of a run the measurement reads: nuclei, cells, classes and phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from livestain._errors import ExperimentError
from livestain._experiment import PhaseFromDefocus, PhaseFromSteps, PhaseGiven
from livestain.measure.viability_model import STATES
from livestain.phase.halo import coherence_limits_um

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from livestain._experiment import Experiment, Measure, Optics, Rig
    from livestain._layout import Layout

__all__ = ["Channel", "Sources", "check_phase", "find_sources"]

Kind = Literal["distance", "stain", "phase", "image"]


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that is measured on: its number in the images, its name, and what its grey levels mean."""

    number: int
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Sources:
    """The channels of one run.

    Attributes
    ----------
    nuclei, cells
        What nuclei and cells are segmented on; at least one of them.
    classes
        Channel numbers of live, injured and dead, or None.
    phase
        Channel numbers of the phase images: four steps, one stack, or the given phase. Empty without.
    """

    nuclei: Channel | None
    cells: Channel | None
    classes: tuple[int, int, int] | None
    phase: tuple[int, ...]


def find_sources(experiment: Experiment, layout: Layout, outputs: Sequence[Mapping[str, Any]]) -> Sources:
    """Find the channels that `experiment.measure` asks for, or those that a model made for it.

    Parameters
    ----------
    experiment
        What was or will be run.
    layout
        Its channels.
    outputs
        What the models' outputs are, as `livestain_models.contract.Output` has it: {"name", "kind"}.

    Raises
    ------
    ExperimentError
        If a channel that is named is not there, nothing can be segmented, or phase lacks what it needs.
    """
    measure = experiment.measure
    assert measure is not None  # noqa: S101  (the caller asked)
    kinds = {f"{output['name']} (predicted)": str(output["kind"]) for output in outputs}
    there = _Named(layout, kinds, measure)
    nuclei = there.find("nuclei", measure.nuclei, _default_nuclei(kinds))
    cells = there.find("cells", measure.cells, _default_cells(kinds, measure))
    if nuclei is None and cells is None:
        raise ExperimentError(
            "measure: no channel shows where the cells are. Add a stain whose model predicts a distance map or nuclei "
            "(`livestain models list`), or name a channel: measure.nuclei or measure.cells."
        )
    phase = _phase_channels(measure, there)
    check_phase(measure, experiment.rig, layout)
    return Sources(nuclei, cells, _classes(layout, kinds), phase)


def check_phase(measure: Measure, rig: Rig, layout: Layout) -> None:
    """Refuse a measurement that would have to guess a pixel size, a wavelength, the dark, an aperture or a focus.

    Raises
    ------
    ExperimentError
        With what is missing and where it belongs.
    """
    if layout.pixel_size_um <= 0:
        raise ExperimentError(
            "measure: the pixel size is unknown, and areas, speeds and masses need it. Add ConfigPixelSize and "
            "PixelSize_um lines to the .cfg, or pixel_size_um to the rig."
        )
    phase, optics = measure.phase, rig.optics
    has_mass = phase is not None and not (isinstance(phase, PhaseGiven) and phase.rad_per_grey is None)
    if has_mass and optics is None:
        raise ExperimentError(
            "measure.phase: the wavelength of the transmitted light is unknown, and mass needs it. Add it to the rig: "
            "optics: {wavelength_um: 0.55}."
        )
    estimated = isinstance(phase, PhaseFromSteps) and phase.empty_field is None  # an empty field knows its own dark
    if optics is not None and optics.dark_counts is None and (estimated or isinstance(phase, PhaseFromDefocus)):
        raise ExperimentError(
            "measure.phase: what the camera gives without light is unknown, and taken as 0 it would make every mass a "
            "few percent low. Take an image with the light off and add its mean to the rig: "
            "optics: {wavelength_um: 0.55, dark_counts: 100}."
        )
    if isinstance(phase, PhaseFromSteps):
        _check_steps(phase, layout)
    if isinstance(phase, PhaseFromDefocus):
        _check_defocus(optics, layout)


def _check_steps(phase: PhaseFromSteps, layout: Layout) -> None:
    for name in phase.channels:
        if phase.channels.count(name) > 1:
            raise ExperimentError(
                f"measure.phase.channels names {name!r} more than once: {', '.join(phase.channels)}. Give four "
                "presets, each a quarter wave after the one before it."
            )
    low_um, high_um = coherence_limits_um((layout.height, layout.width), layout.pixel_size_um)
    if phase.coherence_um is not None and not low_um <= phase.coherence_um <= high_um:
        raise ExperimentError(
            f"measure.phase.coherence_um is {phase.coherence_um:g}; in frames of {layout.width} x {layout.height} px "
            f"of {layout.pixel_size_um:g} um it can be {low_um:.3g} to {high_um:.3g}. It belongs to the lamp and its "
            "aperture, and is some ten to thirty um; leave it out, and the first field with enough cells tells."
        )


def _check_defocus(optics: Optics | None, layout: Layout) -> None:
    if optics is None or optics.objective_na is None or optics.condenser_na is None:
        raise ExperimentError(
            "measure.phase: phase from defocus needs both numerical apertures. Add them to the rig: "
            "optics: {wavelength_um: 0.55, objective_na: 0.75, condenser_na: 0.3, dark_counts: 100}."
        )
    for image in layout.images:
        if image.n_z < 2 or image.z_step_um is None:
            raise ExperimentError(
                f"measure.phase: phase from defocus needs two or more evenly spaced focal planes, but "
                f"{image.name or 'the sequence'} has {image.n_z}. Give the sequence a z_plan, such as "
                "{range: 6, step: 3}, and let the channel keep do_stack."
            )
        if image.n_z == 2 and optics.focus_offset_um is None:
            raise ExperimentError(
                f"measure.phase: {image.name or 'the sequence'} has two focal planes, and two fit the cells at any "
                "focus. Take a third plane, or say where bright field is in focus: optics: {focus_offset_um: 0} where "
                "that is at 0 of the z_plan; it is what to add to a plane's z to get its distance from focus."
            )


class _Named:
    """Finds channels by the name that a person writes: with or without " (predicted)"."""

    def __init__(self, layout: Layout, kinds: Mapping[str, str], measure: Measure) -> None:
        self._layout, self._kinds = layout, kinds
        self._phase = measure.phase.channel if isinstance(measure.phase, PhaseGiven) else None

    def find(self, field: str, written: str | None, default: str | None) -> Channel | None:
        name = written or default
        if name is None:
            return None
        number = self._layout.channel(name)
        if number is None:
            number = self._layout.channel(f"{name} (predicted)")
        if number is None:
            there = ", ".join(repr(channel.name) for channel in self._layout.channels)
            raise ExperimentError(f"measure.{field}: the run has no channel {name!r}. There are: {there}.")
        found = self._layout.channels[number]
        kind: Kind = "phase" if found.name == self._phase else "image"
        if found.predicted:
            kind = "distance" if self._kinds.get(found.name) == "distance" else "stain"
        return Channel(number, found.name, kind)

    def acquired(self, field: str, name: str) -> Channel | None:
        """Find a channel that the camera has taken: what a model draws has no phase."""
        found = self.find(field, name, None)
        if found is not None and self._layout.channels[found.number].predicted:
            raise ExperimentError(
                f"measure.{field}: {name!r} is predicted by a model, and phase comes from what the camera takes. Name "
                "an acquired channel."
            )
        return found


def _default_nuclei(kinds: Mapping[str, str]) -> str | None:
    of_nuclei = [name for name in kinds if not name.startswith("Cell")]
    distances = [name for name in of_nuclei if kinds[name] == "distance"]
    stains = [name for name in of_nuclei if kinds[name] == "stain" and name.startswith(("Nuclei", "DNA", "DAPI"))]
    return next(iter([*distances, *stains]), None)


def _default_cells(kinds: Mapping[str, str], measure: Measure) -> str | None:
    distances = [name for name in kinds if kinds[name] == "distance" and name.startswith("Cell")]
    membranes = [name for name in kinds if kinds[name] == "stain" and name.startswith("Membrane")]
    given = [measure.phase.channel] if isinstance(measure.phase, PhaseGiven) else []
    return next(iter([*distances, *membranes, *given]), None)


def _classes(layout: Layout, kinds: Mapping[str, str]) -> tuple[int, int, int] | None:
    numbers = [layout.channel(f"{name.capitalize()} (predicted)") for name in STATES]
    if any(n is None or kinds.get(layout.channels[n].name) != "class" for n in numbers):
        return None
    live, injured, dead = (n for n in numbers if n is not None)
    return live, injured, dead


def _phase_channels(measure: Measure, there: _Named) -> tuple[int, ...]:
    match measure.phase:
        case PhaseFromSteps(channels=names):
            found = [there.acquired(f"phase.channels[{i}]", name) for i, name in enumerate(names)]
        case PhaseFromDefocus(channel=name):
            found = [there.acquired("phase.channel", name)]
        case PhaseGiven(channel=name):
            found = [there.find("phase.channel", name, None)]
        case _:
            found = []
    return tuple(channel.number for channel in found if channel is not None)
