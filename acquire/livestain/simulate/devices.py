"""The devices of the simulated microscope, named in a configuration file.

A `.cfg` loads them with lines such as ``#py pyDevice,Camera,livestain.simulate.devices,Camera``; the `Scope`
comes first, and the others, in any order, belong to it. None of them can be sequenced in hardware but the
camera, which free-runs: a time-lapse of one channel with interval 0 becomes a burst, as with most real rigs.
"""

from __future__ import annotations

import itertools
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pymmcore_plus import FocusDirection
from pymmcore_plus.experimental.unicore import (
    GenericDevice,
    ShutterDevice,
    SLMDevice,
    StageDevice,
    StateDevice,
    XYStageDevice,
)

from livestain._errors import RigError
from livestain.simulate._bench import join_bench, open_bench
from livestain.simulate._camera import TimedCamera
from livestain.simulate._microscope import CHANNELS, Microscope
from livestain.simulate._properties import parse_choice, parse_float, parse_int
from livestain.simulate._settings import CLOCKS, PROPERTIES

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray
    from pymmcore_plus import CMMCorePlus

__all__ = ["SLM", "Camera", "ChannelWheel", "Scope", "Shutter", "XYStage", "ZStage", "microscope"]

_ids = itertools.count(1)
_microscopes: weakref.WeakValueDictionary[int, Microscope] = weakref.WeakValueDictionary()


def microscope(core: CMMCorePlus) -> Microscope:
    """Return the simulated microscope behind `core`: its truth, its settings, its clock.

    Raises
    ------
    RigError
        The core's configuration has no simulated microscope.
    """
    for label in core.getLoadedDevices():
        if core.hasProperty(label, "MicroscopeId"):
            return _microscopes[int(core.getProperty(label, "MicroscopeId"))]
    raise RigError(
        f"No simulated microscope among the devices {', '.join(core.getLoadedDevices())}; "
        "load hardware_configs/simulated.cfg, or one with a Scope from livestain.simulate.devices."
    )


class Scope(GenericDevice):
    """The body of the microscope with its sample; load it first, the other devices join it.

    Properties
    ----------
    Seed, CellsPerMm2, WorldSize_um, CellCycle_h, DeadAtStart, PixelSize_um, ObjectiveNA, CondenserNA
        The sample and the optics; setting one starts a new sample.
    Clock : "frames" or "wall"
        With "frames" each exposure, of any channel, lets SecondsPerExposure of sample time pass, and images
        depend on the seed and the exposures alone. With "wall" the sample lives Speed times real time.
    SceneStep_s
        The sample is brought up to date when at least this much time has passed for it; within it images differ
        by noise, focus, stage and channel only, so that channels taken in turn register.
    Start_h
        Hours that the culture has lived before the first exposure; setting it starts a new sample.
    DeathRate_per_h
        Share of the living cells that are hit within an hour; injured first, dead an hour later.
    FocusPosition_um, BrightFieldOffset_um
        Stage position at which fluorescence is in focus, and how far above it transmitted light is imaged:
        phase objects vanish at FocusPosition_um - BrightFieldOffset_um.
    Time_s
        Sample time of the latest exposure, read-only.
    """

    def __init__(self) -> None:
        super().__init__()
        bench = open_bench()
        self._microscope = Microscope(bench=bench)
        bench.microscope = self._microscope
        bench.joined.add("Scope")
        self._id = next(_ids)
        _microscopes[self._id] = self._microscope
        for name, (field, _, _) in PROPERTIES.items():
            self._offer(name, field, type(getattr(self._microscope.settings, field)))
        self._offer("Clock", "clock", str)
        self.register_property("Time_s", property_type=float, getter=Scope.get_time_s, is_read_only=True)
        self.register_property("MicroscopeId", property_type=int, getter=Scope.get_id, is_read_only=True)

    def get_time_s(self) -> float:
        """Return the sample time of the latest exposure."""
        return self._microscope.time_s

    def get_id(self) -> int:
        """Return the number by which `microscope` finds this one."""
        return self._id

    def _offer(self, name: str, field: str, kind: type) -> None:
        """Offer a setting of the microscope as a property."""
        self.register_property(
            name,
            property_type=kind,
            getter=partial(_get_setting, field),
            setter=partial(_set_setting, name),
            is_pre_init=True,  # so that a saved configuration has it; it can be set at any time
            allowed_values=CLOCKS if name == "Clock" else None,
        )


def _get_setting(field: str, scope: Scope) -> Any:
    return getattr(scope._microscope.settings, field)  # noqa: SLF001 - a getter of this very device


def _set_setting(name: str, scope: Scope, value: object) -> None:
    scope._microscope.set(name, value)  # noqa: SLF001 - a setter of this very device


class Camera(TimedCamera):
    """A 16-bit camera: offset 100, gain 1 electron a count, read noise 2 electrons.

    Properties
    ----------
    Width, Height : int
        Pixels; may be set before or after initialisation, clears the ROI and starts a new sample.
    Exposure, FrameInterval_ms, FailAtExposure
        See `TimedCamera`.
    """

    def __init__(self) -> None:
        super().__init__()
        bench = join_bench("Camera")
        if not isinstance(bench.microscope, Microscope):
            raise RigError("Camera was loaded without a Scope; load livestain.simulate.devices,Scope before it.")
        self._microscope = bench.microscope
        self.register_property(
            "Width", property_type=int, getter=Camera.get_width, setter=Camera.set_width, is_pre_init=True
        )
        self.register_property(
            "Height", property_type=int, getter=Camera.get_height, setter=Camera.set_height, is_pre_init=True
        )

    def sensor_shape(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self._microscope.settings.height, self._microscope.settings.width

    def dtype(self) -> DTypeLike:
        """Return uint16."""
        return np.uint16

    def expose(self) -> NDArray[np.uint16]:
        """Return the next image, cut to the region of interest."""
        return self._microscope.expose(self.get_exposure(), self._roi)

    def frame_metadata(self) -> dict[str, str]:
        """Return the sample time, so that a frame of a burst can be compared with the truth."""
        return {"SampleTime_s": f"{self._microscope.time_s:.3f}"}

    def get_width(self) -> int:
        """Return the sensor's width in pixels."""
        return self._microscope.settings.width

    def set_width(self, value: int) -> None:
        """Set the sensor's width in pixels."""
        width = parse_int("Width", value, 32, 8192)
        self._microscope.set_sensor(self.get_height(), width)
        self.clear_roi()

    def get_height(self) -> int:
        """Return the sensor's height in pixels."""
        return self._microscope.settings.height

    def set_height(self, value: int) -> None:
        """Set the sensor's height in pixels."""
        height = parse_int("Height", value, 32, 8192)
        self._microscope.set_sensor(height, self.get_width())
        self.clear_roi()


class XYStage(XYStageDevice):
    """Moves the field over the sample; x to the right of the image, y down. It is there at once."""

    def __init__(self) -> None:
        super().__init__()
        self._bench = join_bench("XYStage")
        self._origin_um = (0.0, 0.0)

    def set_position_um(self, x: float, y: float) -> None:
        """Move to a position in um."""
        x, y = parse_float("X", x, -1e6, 1e6), parse_float("Y", y, -1e6, 1e6)
        self._bench.x_um, self._bench.y_um = x + self._origin_um[0], y + self._origin_um[1]
        self.core.events.XYStagePositionChanged.emit(self.get_label(), x, y)

    def get_position_um(self) -> tuple[float, float]:
        """Return the position in um."""
        return self._bench.x_um - self._origin_um[0], self._bench.y_um - self._origin_um[1]

    def set_origin_x(self) -> None:
        """Call the present x 0."""
        self._origin_um = (self._bench.x_um, self._origin_um[1])

    def set_origin_y(self) -> None:
        """Call the present y 0."""
        self._origin_um = (self._origin_um[0], self._bench.y_um)

    def home(self) -> None:
        """Go to the origin."""
        self.set_position_um(0.0, 0.0)

    def stop(self) -> None:
        """Stop; it stands already."""


class ZStage(StageDevice):
    """Moves the sample along the optical axis; with a replay camera it chooses the plane."""

    def __init__(self) -> None:
        super().__init__()
        self._bench = join_bench("ZStage")
        self._origin_um = 0.0
        self._direction = FocusDirection.TowardSample

    def set_position_um(self, val: float) -> None:
        """Move to a position in um."""
        position = parse_float("Z", val, -1e5, 1e5)
        self._bench.z_um = position + self._origin_um
        self.core.events.stagePositionChanged.emit(self.get_label(), position)

    def get_position_um(self) -> float:
        """Return the position in um."""
        return self._bench.z_um - self._origin_um

    def get_focus_direction(self) -> FocusDirection:
        """Return which way a larger position moves: towards the sample unless set otherwise."""
        return self._direction

    def set_focus_direction(self, sign: int) -> None:
        """Set which way a larger position moves."""
        self._direction = FocusDirection((sign > 0) - (sign < 0))

    def set_origin(self) -> None:
        """Call the present position 0."""
        self._origin_um = self._bench.z_um

    def home(self) -> None:
        """Go to the origin."""
        self.set_position_um(0.0)

    def stop(self) -> None:
        """Stop; it stands already."""


class Shutter(ShutterDevice):
    """The light's shutter.

    Properties
    ----------
    Mode : "Triggered" or "Manual"
        Triggered, the default: the camera opens it for every exposure over a trigger line, because UniMMCore
        does not operate the auto-shutter for Python cameras. Manual: there is light only while it is open.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bench = join_bench("Shutter")
        self._open = False
        self._mode = "Triggered"
        self.register_property(
            "Mode",
            property_type=str,
            getter=Shutter.get_mode,
            setter=Shutter.set_mode,
            allowed_values=("Triggered", "Manual"),
        )

    def get_open(self) -> bool:
        """Return whether it is open."""
        return self._open

    def set_open(self, open: bool) -> None:  # noqa: A002, FBT001 - the base class names it so
        """Open or close it."""
        self._open = bool(open)
        self._bench.light_on = self._open or self._mode == "Triggered"

    def get_mode(self) -> str:
        """Return who opens it."""
        return self._mode

    def set_mode(self, value: str) -> None:
        """Set who opens it."""
        self._mode = parse_choice("Mode", value, ("Triggered", "Manual"))
        self.set_open(self._open)


class ChannelWheel(StateDevice):
    """Chooses lamp and filters; its labels are the channels BF, Nuclei, Membrane, Dead and Phase."""

    def __init__(self) -> None:
        super().__init__(enumerate(CHANNELS))
        self._bench = join_bench("ChannelWheel")

    def get_state(self) -> int:
        """Return the position."""
        return CHANNELS.index(self._bench.channel)

    def set_state(self, position: int) -> None:
        """Turn to a position."""
        self._bench.channel = CHANNELS[parse_int("State", position, 0, len(CHANNELS) - 1)]


class SLM(SLMDevice):
    """A spatial light modulator in the plane where the undiffracted light is a spot: it delays that light alone.

    The delay is the mean of the 64 x 64 pixels (uint8) / 256 of a wave: 0, 64, 128, 192 are the four steps of
    spatial light interference microscopy. At 0 the channel BF is plain bright field with the open condenser; at
    any other value, and always in the channel Phase (whose lamp is dimmer, so that nothing saturates), the
    illumination is the narrow ring that interference needs.

    Properties
    ----------
    Value : float
        All pixels at once, shown immediately (what a configuration preset can set).
    """

    def __init__(self) -> None:
        super().__init__()
        self._bench = join_bench("SLM")
        self._loaded = np.zeros(self.shape(), np.uint8)
        self._exposure_ms = 0.0
        self.register_property("Value", property_type=float, getter=SLM.get_value, setter=SLM.set_value)

    def shape(self) -> tuple[int, int]:
        """Return (64, 64)."""
        return 64, 64

    def dtype(self) -> DTypeLike:
        """Return uint8."""
        return np.uint8

    def set_image(self, pixels: np.ndarray) -> None:
        """Load a pattern; `display_image` shows it."""
        self._loaded = np.array(pixels, np.uint8)

    def get_image(self) -> NDArray[np.uint8]:
        """Return the pattern loaded."""
        return self._loaded

    def display_image(self) -> None:
        """Show the pattern loaded."""
        self._bench.slm_level = float(self._loaded.mean())

    def get_value(self) -> float:
        """Return the mean of what is shown."""
        return self._bench.slm_level

    def set_value(self, value: float) -> None:
        """Show `value` on all pixels."""
        # The pattern loaded stays: an acquisition loads it, sets the channel's preset, and only then displays it.
        self._bench.slm_level = parse_float("Value", value, 0, 255)

    def set_exposure(self, interval_ms: float) -> None:
        """Set an exposure; kept, without effect."""
        self._exposure_ms = parse_float("SLM exposure", interval_ms, 0, 1e9)

    def get_exposure(self) -> float:
        """Return the exposure in ms."""
        return self._exposure_ms
