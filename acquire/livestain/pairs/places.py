"""`livestain collect`, with the rig ready and before the first frame: does every place give a whole pair."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from livestain._errors import ExperimentError, RigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import useq

    from livestain._layout import Layout
    from livestain._prepare import Prepared
    from livestain.pairs.plan import PairsPlan

__all__ = ["check_places"]

_FIELDS_TO_SPLIT = 3  # training, validation and test need a place of the sample each


def check_places(plan: PairsPlan, ready: Prepared, instrument: str | None) -> list[str]:
    """Hold the plan against the rig and go through every event that will be run.

    Returns
    -------
    list of str
        What is not ideal, as sentences.

    Raises
    ------
    ExperimentError, RigError
        If the pairs would be of no use.
    """
    layout = ready.layout
    if not layout.pixel_size_um:
        raise RigError(
            "the rig has no pixel size, and a model is made for one. Add ConfigPixelSize and PixelSize_um lines to the "
            ".cfg, or write into the experiment:\n\n    rig:\n      pixel_size_um: 0.325"
        )
    if layout.n_cameras > 1:
        raise RigError(
            f"the rig takes every channel with {layout.n_cameras} cameras ({', '.join(ready.camera.names)}). Pairs "
            "come from one: set the core's camera to one of them, e.g. rig.properties: [[Core, Camera, "
            f"{ready.camera.names[0]}]]"
        )
    events = [(layout.place(e.index), e.z_pos) for e in ready.sequence if type(e.action).__name__ == "AcquireImage"]
    at: dict[int, list[tuple[str, int]]] = {i: [] for i in range(len(layout.images))}
    for place, _ in events:
        at[place.image].append((layout.channels[place.c].name, place.z))
    for image, frames in at.items():
        _check_place(plan, layout, image, frames)
    return [
        *_few_places(len(at)),
        *_order(plan, at, [place.image for place, _ in events]),
        *_off_centre(ready.sequence),
        *_no_instrument(instrument),
    ]


def _check_place(plan: PairsPlan, layout: Layout, image: int, frames: Sequence[tuple[str, int]]) -> None:
    n_z, step_um = layout.images[image].n_z, layout.images[image].z_step_um or 1.0
    for name in (plan.input, *plan.targets):
        planes = [z for channel, z in frames if channel == name]
        where = f"position {layout.images[image].name!r}" if layout.images[image].name else "the sequence"
        if not planes:
            raise ExperimentError(
                f"{where} takes no image of channel {name!r}, so it gives no pair. (A position's own z_plan beside the "
                "sequence's makes useq leave channels out.) Keep one z_plan, that of the sequence, or give every "
                "position its own."
            )
        if name == plan.input and len(planes) < n_z:
            raise ExperimentError(
                f"{name!r} has do_stack: false, so of {n_z} planes of the z_plan it takes {len(planes)}. The planes of "
                "transmitted light are what the model looks at: take do_stack away from it (leave it at the stains), "
                "or take the z_plan away if one plane is enough."
            )
        if len(planes) == 1 and n_z > 1 and n_z % 2 == 0:
            raise ExperimentError(
                f"the z_plan has {n_z} planes, and an even number has no middle one: {name!r}, with do_stack: false, "
                f"would be taken at plane {planes[0] + 1} of {n_z}, half a step beside the stack's middle. Make the "
                f"number odd, e.g. {n_z + 1} planes: z_plan: {{range: {n_z * step_um:g}, step: {step_um:g}}}"
            )
        if len(planes) == 1 and planes[0] != n_z // 2:
            raise ExperimentError(
                f"{name!r} would be taken at plane {planes[0] + 1} of {n_z}, not at the middle one, where training "
                "looks for it. Give the channel do_stack: false and the sequence one z_plan for all positions."
            )


def _few_places(n: int) -> Iterator[str]:
    if n == 1:
        yield (
            "there is only one position. Training, validation and test need a place of the sample each, so take at "
            f"least {_FIELDS_TO_SPLIT}, better 20 or more: sequence.grid_plan: {{rows: 5, columns: 5}}, or more "
            "stage_positions."
        )
    elif n < _FIELDS_TO_SPLIT:
        yield (
            f"there are only {n} positions; training, validation and test need one each, so take at least "
            f"{_FIELDS_TO_SPLIT}, better 20 or more."
        )


def _order(plan: PairsPlan, at: Mapping[int, Sequence[tuple[str, int]]], visited: Sequence[int]) -> Iterator[str]:
    if any(_fluorescence_first(plan, frames) for frames in at.values()):
        yield (
            f"at a position, fluorescence is taken before all of {plan.input!r} is: the light for the stain bleaches "
            f"and harms, and that would show in the input. Put {plan.input!r} first in sequence.channels and z behind "
            "c in axis_order: tpgcz."
        )
    visits = sum(1 for _ in itertools.groupby(visited))
    if visits > len(at):
        yield (
            f"the stage comes to every position {visits // len(at)} times, once for each channel, and cells and stage "
            "will have moved in between. Put c behind p and g in axis_order: tpgcz."
        )


def _fluorescence_first(plan: PairsPlan, frames: Sequence[tuple[str, int]]) -> bool:
    names = [name for name, _ in frames]
    last_input = len(names) - 1 - names[::-1].index(plan.input)
    return any(name in plan.targets for name in names[:last_input])


def _off_centre(sequence: useq.MDASequence) -> Iterator[str]:
    z_plan = sequence.z_plan
    if z_plan is None or not z_plan.is_relative or all(channel.do_stack for channel in sequence.channels):
        return
    z_um = list(z_plan)
    middle_um = z_um[len(z_um) // 2]
    if abs(middle_um) > 0.01:
        yield (
            f"the z_plan is not symmetric: its middle plane, where the stain is taken, lies {middle_um:+g} um from the "
            "positions' z. If the stain is in focus at their z, write range and step instead of above and below."
        )


def _no_instrument(instrument: str | None) -> Iterator[str]:
    if instrument is None:
        yield (
            "the microscope has no name. With one (rig.instrument: room 4 inverted), pairs of several microscopes can "
            "lie in one folder, and a model can be tested on one that it never saw."
        )
