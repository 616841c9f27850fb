"""A camera that plays recorded images, so that real data runs through the real engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from livestain._errors import RigError
from livestain.simulate._bench import open_bench
from livestain.simulate._camera import TimedCamera
from livestain.simulate._properties import parse_choice, parse_float, parse_int
from livestain.simulate._recording import Recording, open_recording

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import DTypeLike, NDArray

__all__ = ["ReplayCamera"]


class ReplayCamera(TimedCamera):
    """Serves the planes of a recording as exposures; frame size and type are the recording's.

    Load it before the stage and, to choose planes, a `ZStage` from `livestain.simulate.devices` after it.

    Properties
    ----------
    Source : str
        A TIFF stack, a folder of TIFFs, or an OME-Zarr; relative to the working folder, or absolute. uint8 or
        uint16. Setting it rewinds.
    Axis : "t" or "z"
        "t": successive exposures give successive planes. "z": the Z stage chooses the plane.
    StepSize_um, FirstPlane_um : float
        With Axis z: distance between planes, and the stage position of the first one.
    Loop : 0 or 1
        With Axis t: start over after the last plane. Without, an exposure past the end is an error.
    NextFrame : int
        With Axis t: the plane that the next exposure gives.
    Exposure, FrameInterval_ms, FailAtExposure
        See `TimedCamera`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bench = open_bench()
        self._bench.joined.add("Camera")
        self._recording: Recording | None = None
        self._axis = "t"
        self._step_um, self._first_um = 1.0, 0.0
        self._loop = False
        self._next = 0
        cls = ReplayCamera
        offered: tuple[tuple[str, type, Callable[..., Any], Callable[..., None]], ...] = (
            ("Source", str, cls.get_source, cls.set_source),
            ("Axis", str, cls.get_axis, cls.set_axis),
            ("StepSize_um", float, cls.get_step_um, cls.set_step_um),
            ("FirstPlane_um", float, cls.get_first_um, cls.set_first_um),
            ("Loop", int, cls.get_loop, cls.set_loop),
            ("NextFrame", int, cls.get_next, cls.set_next),
        )
        for name, kind, getter, setter in offered:
            # Pre-init, so that a saved configuration has it; each can be set at any time.
            self.register_property(
                name, property_type=kind, getter=getter, setter=setter, is_pre_init=name != "NextFrame"
            )

    # ------------------------------------------------------------------ the camera

    def sensor_shape(self) -> tuple[int, int]:
        """Return (height, width) of the recording's planes."""
        return self._opened().shape

    def dtype(self) -> DTypeLike:
        """Return the recording's type."""
        return self._opened().dtype

    def expose(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Return the plane that is due, cut to the region of interest.

        Raises
        ------
        RigError
            The recording is at its end, or the Z stage stands outside it.
        """
        recording = self._opened()
        index = self._plane_at_stage(recording) if self._axis == "z" else self._advance(recording)
        plane = recording.read(index)
        x, y, width, height = self.get_roi()
        return plane[y : y + height, x : x + width]

    def _advance(self, recording: Recording) -> int:
        if self._next >= recording.count:
            if not self._loop:
                raise RigError(
                    f"The recording {recording.source} has {recording.count} frames and all were played; acquire "
                    "fewer, set Loop to 1, or set NextFrame to 0 to rewind."
                )
            self._next %= recording.count
        self._next += 1
        return self._next - 1

    def _plane_at_stage(self, recording: Recording) -> int:
        index = round((self._bench.z_um - self._first_um) / self._step_um)
        if not 0 <= index < recording.count:
            last_um = self._first_um + (recording.count - 1) * self._step_um
            raise RigError(
                f"The Z stage is at {self._bench.z_um:g} um, but the planes of {recording.source} lie from "
                f"{self._first_um:g} to {last_um:g} um; move it there, or set FirstPlane_um and StepSize_um."
            )
        return index

    def _opened(self) -> Recording:
        if self._recording is None:
            raise RigError(
                f"Camera {self.get_label()!r} has nothing to play; set its Source to a TIFF stack, a folder of TIFFs "
                "or an OME-Zarr."
            )
        return self._recording

    # ------------------------------------------------------------------ properties

    def get_source(self) -> str:
        """Return the recording's path as it was given, "" for none."""
        return "" if self._recording is None else str(self._recording.source)

    def set_source(self, value: str) -> None:
        """Open a recording; "" closes."""
        self._recording = open_recording(Path(value).expanduser()) if value else None
        self._next = 0
        self.clear_roi()

    def get_axis(self) -> str:
        """Return "t" or "z"."""
        return self._axis

    def set_axis(self, value: str) -> None:
        """Choose planes by time ("t") or by the Z stage ("z")."""
        self._axis = parse_choice("Axis", value, ("t", "z"))

    def get_step_um(self) -> float:
        """Return the distance between planes in um."""
        return self._step_um

    def set_step_um(self, value: float) -> None:
        """Set the distance between planes in um."""
        self._step_um = parse_float("StepSize_um", value, 1e-3, 1e4)

    def get_first_um(self) -> float:
        """Return the stage position of the first plane in um."""
        return self._first_um

    def set_first_um(self, value: float) -> None:
        """Set the stage position of the first plane in um."""
        self._first_um = parse_float("FirstPlane_um", value, -1e5, 1e5)

    def get_loop(self) -> int:
        """Return 1 where the recording starts over at its end."""
        return int(self._loop)

    def set_loop(self, value: int) -> None:
        """Start over at the end (1), or not (0)."""
        self._loop = bool(parse_int("Loop", value, 0, 1))

    def get_next(self) -> int:
        """Return the plane that the next exposure gives."""
        return self._next

    def set_next(self, value: int) -> None:
        """Play on from this plane."""
        self._next = parse_int("NextFrame", value, 0, max(self._opened().count - 1, 0))
