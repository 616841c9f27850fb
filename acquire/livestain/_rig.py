"""From a rig to a core that is ready, and what its camera delivers."""

from __future__ import annotations

import atexit
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pymmcore
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine

from livestain._errors import LivestainError, RigError

if TYPE_CHECKING:
    from pathlib import Path

    from livestain._experiment import Experiment, Rig

__all__ = ["Camera", "camera_of", "camera_through", "close_core", "open_core"]


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
        remedy = f"`livestain check {config}` reads the file for faults."
        if "DemoCamera" in str(error):
            remedy = "The demo adapters come with `pip install mm-test-adapters`, or with Micro-Manager."
        raise RigError(f"the core refuses {config}: {_reason(error)} {remedy}") from error
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


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".") + "."
