"""Holds an experiment against its rig and its models, before the first frame."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from livestain._errors import ExperimentError, ModelError, RigError
from livestain._layout import Channel, Layout, with_fields_of_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    import useq
    from pymmcore_plus import CMMCorePlus

    from livestain._experiment import Experiment, Rig, Stain
    from livestain._rig import Camera
    from livestain_models.contract import Contract, Output

__all__ = ["check_contracts", "check_sequence", "lay_out"]


def check_sequence(core: CMMCorePlus, sequence: useq.MDASequence) -> None:
    """Refuse a sequence that asks for channels or stages the rig does not have.

    Raises
    ------
    ExperimentError
        With what is asked for, what there is, and the remedy.
    """
    for i, channel in enumerate(sequence.channels):
        presets = core.getAvailableConfigs(channel.group) if core.isGroupDefined(channel.group) else ()
        if channel.config not in presets:
            there = ", ".join(presets) or f"no such group; groups: {', '.join(core.getAvailableConfigGroups())}"
            raise ExperimentError(
                f"sequence.channels[{i}]: the rig has no preset {channel.config!r} in group {channel.group!r} "
                f"(there: {there}). Name one of these, or give the channel its group."
            )
        if channel.z_offset and not sequence.z_plan:
            raise ExperimentError(
                f"sequence.channels[{i}]: z_offset {channel.z_offset:g} would have no effect, because an offset counts "
                "from the planes of a z_plan and there is none. Add z_plan: {relative: [0]}."
            )
    if sequence.z_plan and not core.getFocusDevice():
        raise ExperimentError("sequence.z_plan needs a focus drive, but the rig gives the core none.")
    if (sequence.grid_plan or len(sequence.stage_positions) > 1) and not core.getXYStageDevice():
        raise ExperimentError("sequence moves the stage, but the rig gives the core no XY stage.")


def check_contracts(experiment: Experiment, contracts: Sequence[Contract], camera: Camera) -> None:
    """Hold every model's contract against rig and sequence, before the first frame.

    Raises
    ------
    ModelError
        If a model was not made for this pixel size, depth or contrast, or gets too few planes. What a
        package made elsewhere does not say cannot be held against the rig: see ``Contract.warnings``.
    ExperimentError
        If a stain's channel is not acquired.
    """
    for stain, contract in zip(experiment.stains, contracts, strict=True):
        acquired = [c.config for c in experiment.sequence.channels] or ["Camera"]
        if stain.channel not in acquired:
            raise ExperimentError(
                f"stains: the model {stain.model} is to stain channel {stain.channel!r}, but the sequence acquires "
                f"{', '.join(acquired)}. Add the channel to sequence.channels or change stains.channel."
            )
        _check_pixel_size(contract, camera, experiment.rig)
        _check_bits(contract, camera)
        _check_contrast(contract, stain, experiment.rig)
        _check_planes(contract, stain, experiment.sequence)


def _check_pixel_size(contract: Contract, camera: Camera, rig: Rig) -> None:
    if contract.pixel_size_um is None:
        return
    if camera.pixel_size_um <= 0:
        raise RigError(
            f"the rig {rig.config} has no pixel size, but the model {contract.id} needs "
            f"{contract.pixel_size_um} um. Add ConfigPixelSize and PixelSize_um lines to the .cfg, or "
            "pixel_size_um to the rig."
        )
    if not contract.accepts_pixel_size(camera.pixel_size_um):
        raise ModelError(
            f"the model {contract.id} was trained at {contract.pixel_size_um} um per pixel "
            f"(+-{contract.pixel_size_tolerance:.0%}), but the rig has {camera.pixel_size_um:g} um: its "
            "predictions would be wrong without looking wrong. Change objective or binning, correct the pixel "
            "size in the rig's configuration, or take another model."
        )


def _check_bits(contract: Contract, camera: Camera) -> None:
    dtype = np.dtype(contract.input_dtype)
    if dtype.kind in "ui" and camera.bits > (takes := int(np.iinfo(dtype).max).bit_length()):
        raise ModelError(
            f"the model {contract.id} takes images of {takes} bits, but the camera gives {camera.bits}. Set the camera "
            f"to {takes} bits in the .cfg or under rig.properties, or take another model."
        )


def _check_contrast(contract: Contract, stain: Stain, rig: Rig) -> None:
    channel = rig.channels.get(stain.channel)
    has = channel.contrast if channel else None
    if None not in (has, contract.contrast) and has != contract.contrast:
        raise ModelError(
            f"the model {contract.id} stains {contract.contrast} images, but the rig says that channel "
            f"{stain.channel!r} is {has}. Take a model for {has}, or correct rig.channels."
        )


def _check_planes(contract: Contract, stain: Stain, sequence: useq.MDASequence) -> None:
    wants = contract.planes
    has = len(list(sequence.z_plan)) if sequence.z_plan else 1
    channel = next((c for c in sequence.channels if c.config == stain.channel), None)
    if channel is not None and not channel.do_stack:
        has = 1
    plans = [sequence.z_plan, *(getattr(p.sequence, "z_plan", None) for p in sequence.stage_positions if p.sequence)]
    if has < wants.count:
        raise ModelError(
            f"the model {contract.id} takes {wants.count} focal planes, but channel {stain.channel!r} has {has}. "
            f"Give the sequence a z_plan of at least {wants.count} planes"
            + (f", {wants.spacing_um} um apart." if wants.spacing_um else ".")
        )
    for plan in plans if wants.count > 1 else ():
        if plan is not None:
            _check_stack(contract, list(plan))
    if wants.count > 1 and not _stack_before_stage(sequence):
        raise ModelError(
            f"the model {contract.id} takes {wants.count} focal planes, but axis_order {''.join(sequence.axis_order)} "
            "moves the stage or time between the planes of a stack. Put z behind t, p and g, as in tpgcz."
        )


def _least_high(output: Output) -> float:
    """Give the grey level up to which an output is shown at least.

    Maps have a scale of their own. A stain is shown to a fifth of the brightest that its model was trained on, where
    the package says what that is.
    """
    if output.kind in ("class", "distance"):
        return 65535.0
    if output.kind == "stain" and output.unit == "relative" and output.full_scale is not None:
        return 65535 * float(np.clip((0.2 - output.zero) / (output.full_scale - output.zero), 0, 1))
    return 0.0


def _check_stack(contract: Contract, z_um: list[float]) -> None:
    wants = contract.planes
    steps_um = [above - below for below, above in itertools.pairwise(z_um)]
    step_um = wants.spacing_um or (steps_um[0] if steps_um else 0.0)
    if not all(0.9 * step_um <= step <= 1.1 * step_um for step in steps_um):
        said = f"{wants.spacing_um:g} um apart" if wants.spacing_um else "evenly spaced"
        raise ModelError(
            f"the model {contract.id} takes {wants.count} rising planes {said}, but a z_plan goes to "
            f"{', '.join(f'{z:g}' for z in z_um[:8])} um. Change its step, or its direction (go_up: true)."
        )


def _stack_before_stage(sequence: useq.MDASequence) -> bool:
    order = [str(getattr(axis, "value", axis)) for axis in sequence.axis_order]
    return all(order.index("z") > order.index(axis) for axis in "tpg" if axis in order)


def lay_out(experiment: Experiment, contracts: Sequence[Contract], camera: Camera) -> tuple[useq.MDASequence, Layout]:
    """Lay out the run's images: the sequence's channels, then every output of every model.

    Returns
    -------
    tuple
        The sequence to run, which knows the camera's field of view, and its layout.

    Raises
    ------
    ExperimentError
        If the sequence cannot be laid out, or has no event.
    """
    predicted = [
        Channel(f"{output.name} (predicted)", output.color, stain=i, output=k, least_high=_least_high(output))
        for i, contract in enumerate(contracts)
        for k, output in enumerate(contract.outputs)
    ]
    width_um, height_um = camera.width * camera.pixel_size_um, camera.height * camera.pixel_size_um
    sequence = with_fields_of_view(experiment.sequence, width_um, height_um)
    layout = Layout.of(
        sequence,
        height=camera.height,
        width=camera.width,
        pixel_size_um=camera.pixel_size_um,
        cameras=camera.names,
        colors={name: channel.color for name, channel in experiment.rig.channels.items() if channel.color},
        predicted=predicted,
    )
    if layout.n_frames == 0:
        raise ExperimentError("the sequence has no event: give it channels, a time_plan or stage_positions.")
    return sequence, layout
