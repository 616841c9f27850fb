"""From a rig to a core that is ready, and the checks that hold an experiment against both."""

from __future__ import annotations

import atexit
import itertools
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pymmcore
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine

from livestain._errors import ExperimentError, LivestainError, ModelError, RigError
from livestain._layout import Channel, Layout, with_fields_of_view

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import useq

    from livestain._experiment import Experiment, Rig, Stain
    from livestain_models.contract import Contract

__all__ = [
    "Camera",
    "camera_of",
    "camera_through",
    "check_contracts",
    "check_sequence",
    "close_core",
    "lay_out",
    "open_core",
]


def open_core(rig: Rig) -> CMMCorePlus:
    """Load a rig's configuration and set what it asks for beyond it.

    Raises
    ------
    RigError
        If the file cannot be read, or the core refuses it; the message names the line where the core does.
    """
    core = _load(rig.config)
    # An acquisition's last callbacks may come while the interpreter is going down, and abort it. Weakly: a core
    # holds its circular buffer.
    atexit.register(_silence, weakref.ref(core))
    try:
        _set_properties(core, rig)
        _size_buffer(core, rig.circular_buffer_mb)
    except BaseException:
        close_core(core)
        raise
    return core


def close_core(core: CMMCorePlus) -> None:
    """Unload a core's devices and let it go."""
    core.unloadAllDevices()
    pymmcore.CMMCore.registerCallback(core, None)


def _set_properties(core: CMMCorePlus, rig: Rig) -> None:
    for device, name, value in rig.properties:
        try:
            core.setProperty(device, name, value)
        except Exception as error:
            raise RigError(f"rig.properties: {device}.{name} cannot be set to {value!r}: {_reason(error)}") from error
    try:
        core.waitForSystem()
    except Exception as error:
        raise RigError(f"the devices of {rig.config} do not come to rest: {_reason(error)}") from error


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
        close_core(core)
        raise RigError(
            f"the core refuses {config}: {_reason(error)} `livestain check {config}` reads the file for faults."
        ) from error
    return core


def _silence(reference: weakref.ref[CMMCorePlus]) -> None:
    if (core := reference()) is not None:
        pymmcore.CMMCore.registerCallback(core, None)


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

    def __str__(self) -> str:
        return f"{self.width} x {self.height} px of {self.pixel_size_um:g} um, {self.bits} bit"


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
    of_cfg_um = core.getPixelSizeUm()
    if rig.pixel_size_um and of_cfg_um and abs(of_cfg_um / rig.pixel_size_um - 1) > 0.01:
        raise RigError(
            f"rig.pixel_size_um is {rig.pixel_size_um:g}, but {rig.config} gives {of_cfg_um:g} um for the present "
            "objective and binning. Keep the one that is right."
        )
    names = tuple(core.getPhysicalCameraDevice(i) for i in range(core.getNumberOfCameraChannels()))
    return Camera(
        names=names,
        height=core.getImageHeight(),
        width=core.getImageWidth(),
        bytes_per_pixel=core.getBytesPerPixel(),
        bits=core.getImageBitDepth(),
        pixel_size_um=of_cfg_um or rig.pixel_size_um or 0.0,
    )


def camera_through(core: CMMCorePlus, experiment: Experiment) -> Camera:
    """Ask the core for its camera as the sequence will find it: after its setup and in each of its channels.

    Raises
    ------
    RigError
        If setup or a channel cannot be set, or a channel changes the camera's image or pixel size: all channels
        share one array, and a model sees only what it was held against.
    """
    sequence, rig = experiment.sequence, experiment.rig
    try:
        if sequence.setup is not None:
            MDAEngine(core).setup_event(sequence.setup)
        cameras = {}
        for channel in sequence.channels:
            core.setConfig(channel.group, channel.config)
            core.waitForSystem()
            cameras[channel.config] = camera_of(core, rig)
    except LivestainError:
        raise
    except Exception as error:
        raise RigError(f"the sequence's setup or channels cannot be set: {_reason(error)}") from error
    if len(set(cameras.values())) > 1:
        seen = "; ".join(f"{name}: {camera}" for name, camera in cameras.items())
        raise RigError(
            f"the channels of a run share frame size, bits and pixel size, but here they differ ({seen}). Put them "
            "into runs of their own."
        )
    return next(iter(cameras.values()), None) or camera_of(core, rig)


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
    if not contract.accepts_pixel_size(camera.pixel_size_um):
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
        Channel(f"{output.name} (predicted)", output.color, stain=i, output=k)
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


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".") + "."
