"""From a rig to a core that is ready, and the checks that hold an experiment against both."""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pymmcore
from pymmcore_plus import CMMCorePlus

from livestain._errors import ExperimentError, ModelError, RigError
from livestain._layout import Channel, Layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import useq

    from livestain._experiment import Experiment, Rig, Stain
    from livestain_models.contract import Contract

__all__ = ["Camera", "camera_of", "check_contracts", "check_sequence", "lay_out", "open_core"]


def open_core(rig: Rig) -> CMMCorePlus:
    """Load a rig's configuration and set what it asks for beyond it.

    Raises
    ------
    RigError
        If the file cannot be read, or the core refuses it; the message names the line where the core does.
    """
    core = _load(rig.config)
    # An acquisition's last callbacks may come while the interpreter is going down, and abort it.
    atexit.register(pymmcore.CMMCore.registerCallback, core, None)
    try:
        for device, name, value in rig.properties:
            core.setProperty(device, name, value)
        core.waitForSystem()
    except Exception as error:
        core.unloadAllDevices()
        raise RigError(f"rig.properties: {device}.{name} cannot be set to {value!r}: {_reason(error)}") from error
    _size_buffer(core, rig.circular_buffer_mb)
    return core


def _load(config: Path) -> CMMCorePlus:
    try:
        text = config.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RigError(
            f"the rig's configuration {config} cannot be read: {error.strerror}. Give the path of a .cfg file."
        ) from error
    if any(line.startswith("#py ") for line in text.splitlines()):
        from pymmcore_plus.experimental.unicore import UniMMCore

        core: CMMCorePlus = UniMMCore()
    else:
        core = CMMCorePlus()
    try:
        core.loadSystemConfiguration(config)
    except Exception as error:
        core.unloadAllDevices()
        raise RigError(
            f"the core refuses {config}: {_reason(error)} `livestain check {config}` reads the file for faults."
        ) from error
    return core


def _size_buffer(core: CMMCorePlus, at_most_mb: int) -> None:
    """Set the circular buffer; the pure-Python core wants a whole multiple of the frame's size."""
    frame_bytes = core.getImageWidth() * core.getImageHeight() * core.getBytesPerPixel()
    size_mb = at_most_mb
    if frame_bytes:
        fitting = (mb for mb in range(at_most_mb, 0, -1) if (mb << 20) % frame_bytes == 0)
        size_mb = next(fitting, at_most_mb)
    core.setCircularBufferMemoryFootprint(size_mb)


@dataclass(frozen=True, slots=True)
class Camera:
    """What the camera of a rig delivers."""

    names: tuple[str, ...]
    height: int
    width: int
    bytes_per_pixel: int
    bits: int
    pixel_size_um: float


def camera_of(core: CMMCorePlus, rig: Rig) -> Camera:
    """Ask the core for its camera.

    Raises
    ------
    RigError
        If there is none, or it gives pixels that livestain does not store (colour, 32 bit).
    """
    label = core.getCameraDevice()
    if not label:
        raise RigError(
            f"{rig.config} gives the core no camera: add a line `Property,Core,Camera,<label>` with the label of "
            "a camera that is declared there."
        )
    if core.getNumberOfComponents() != 1 or core.getBytesPerPixel() not in (1, 2):
        raise RigError(
            f"the camera {label!r} gives {core.getNumberOfComponents()} components of "
            f"{core.getBytesPerPixel()} bytes a pixel; livestain stores grey images of 8 to 16 bits. Set its "
            "PixelType to 8bit or 16bit."
        )
    names = tuple(core.getPhysicalCameraDevice(i) for i in range(core.getNumberOfCameraChannels()))
    return Camera(
        names=names,
        height=core.getImageHeight(),
        width=core.getImageWidth(),
        bytes_per_pixel=core.getBytesPerPixel(),
        bits=core.getImageBitDepth(),
        pixel_size_um=rig.pixel_size_um or core.getPixelSizeUm(),
    )


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
    first = next(iter(sequence), None)
    if first is None:
        raise ExperimentError("the sequence has no event: give it channels, a time_plan or stage_positions.")
    if sequence.z_plan and not core.getFocusDevice():
        raise ExperimentError("sequence.z_plan needs a focus drive, but the rig gives the core none.")
    if (sequence.grid_plan or len(sequence.stage_positions) > 1) and not core.getXYStageDevice():
        raise ExperimentError("sequence moves the stage, but the rig gives the core no XY stage.")


def check_contracts(experiment: Experiment, contracts: Sequence[Contract], camera: Camera) -> None:
    """Hold every model's contract against rig and sequence, before the first frame.

    Raises
    ------
    ModelError
        If a model was not made for this pixel size or contrast, or gets too few planes.
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
        _check_contrast(contract, stain, experiment.rig)
        _check_planes(contract, stain, experiment.sequence)


def _check_pixel_size(contract: Contract, camera: Camera, rig: Rig) -> None:
    if camera.pixel_size_um <= 0:
        raise RigError(
            f"the rig {rig.config} has no pixel size, but the model {contract.id} needs "
            f"{contract.pixel_size_um} um. Add ConfigPixelSize and PixelSize_um lines to the .cfg, or "
            "pixel_size_um to the rig."
        )
    off = abs(camera.pixel_size_um / contract.pixel_size_um - 1)
    if off > contract.pixel_size_tolerance:
        raise ModelError(
            f"the model {contract.id} was trained at {contract.pixel_size_um} um per pixel "
            f"(+-{contract.pixel_size_tolerance:.0%}), but the rig has {camera.pixel_size_um:g} um: its "
            "predictions would be wrong without looking wrong. Change objective or binning, correct the pixel "
            "size in the rig's configuration, or take another model."
        )


def _check_contrast(contract: Contract, stain: Stain, rig: Rig) -> None:
    channel = rig.channels.get(stain.channel)
    has = channel.contrast if channel else None
    if has is not None and has != contract.contrast:
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
    if has < wants.count:
        raise ModelError(
            f"the model {contract.id} takes {wants.count} focal planes, but channel {stain.channel!r} has {has}. "
            f"Give the sequence a z_plan of at least {wants.count} planes"
            + (f", {wants.spacing_um} um apart." if wants.spacing_um else ".")
        )
    if wants.count > 1 and wants.spacing_um and sequence.z_plan:
        z_um = list(sequence.z_plan)
        step_um = abs(z_um[1] - z_um[0])
        if abs(step_um / wants.spacing_um - 1) > 0.1:
            raise ModelError(
                f"the model {contract.id} takes planes {wants.spacing_um} um apart, but the z_plan steps "
                f"{step_um:g} um. Change the step."
            )


def lay_out(experiment: Experiment, contracts: Sequence[Contract], camera: Camera) -> Layout:
    """Lay out the run's images: the sequence's channels, then every output of every model."""
    predicted = [
        Channel(f"{output.name} (predicted)", output.color, stain=i, output=k)
        for i, contract in enumerate(contracts)
        for k, output in enumerate(contract.outputs)
    ]
    return Layout.of(
        experiment.sequence,
        height=camera.height,
        width=camera.width,
        pixel_size_um=camera.pixel_size_um or 1.0,
        cameras=camera.names,
        colors={name: channel.color for name, channel in experiment.rig.channels.items() if channel.color},
        predicted=predicted,
    )


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".") + "."
