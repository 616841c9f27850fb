"""What the simulated and the replay camera share: exposure in real time, bursts, region of interest, failure."""

from __future__ import annotations

import itertools
import time
from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from pymmcore_plus.experimental.unicore import CameraDevice

from livestain._errors import RigError
from livestain.simulate._properties import parse_float, parse_int

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

__all__ = ["TimedCamera", "circular_buffer_mb"]

LONGEST_MS = 60_000.0


def circular_buffer_mb(height: int, width: int, bytes_per_pixel: int, frames: int) -> int:
    """Return a size for `core.setCircularBufferMemoryFootprint` that holds at least `frames` images.

    UniMMCore's sequence buffer reports an overflow that is none when it wraps with a frame that does not end at
    the buffer's end, so the size has to be a whole multiple of the frame size; it is also in whole mebibytes.
    This is the smallest size that is both.

    Parameters
    ----------
    height, width
        Image size in pixels (of the ROI, where one is set).
    bytes_per_pixel
        2 for uint16.
    frames
        How many frames the buffer shall hold at least.

    Returns
    -------
    size_mb
        In mebibytes of 1,048,576 bytes.
    """
    frame = height * width * bytes_per_pixel
    block = int(np.lcm(frame, 1 << 20))
    return -(-max(frames, 1) * frame // block) * block >> 20


class TimedCamera(CameraDevice):
    """A camera whose exposures take their time.

    Properties
    ----------
    Exposure : float
        ms; a snap takes at least this long.
    FrameInterval_ms : float
        In a burst frames come every max(Exposure, FrameInterval_ms), or later where making them takes longer.
    FailAtExposure : int
        0 = never. From the n-th exposure after this was set, every exposure raises: cameras do fail.

    The right size of the core's circular buffer is `circular_buffer_mb`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exposure_ms = 10.0
        self._interval_ms = 0.0
        self._fail_at = 0
        self._taken = 0
        self._roi: tuple[int, int, int, int] | None = None
        self.register_property(
            "FrameInterval_ms",
            property_type=float,
            getter=TimedCamera.get_frame_interval_ms,
            setter=TimedCamera.set_frame_interval_ms,
        )
        self.register_property(
            "FailAtExposure",
            property_type=int,
            getter=TimedCamera.get_fail_at_exposure,
            setter=TimedCamera.set_fail_at_exposure,
        )

    # ------------------------------------------------------------------ what a camera provides

    @abstractmethod
    def sensor_shape(self) -> tuple[int, int]:
        """Return (height, width) of the whole sensor in pixels."""

    @abstractmethod
    def expose(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Return the next image, cut to the region of interest."""

    # ------------------------------------------------------------------ what the core asks for

    def shape(self) -> tuple[int, int]:
        """Return (height, width) of an image, the region of interest taken into account."""
        if self._roi is not None:
            return self._roi[3], self._roi[2]
        return self.sensor_shape()

    def get_roi(self) -> tuple[int, int, int, int]:
        """Return x, y, width, height."""
        height, width = self.sensor_shape()
        return self._roi or (0, 0, width, height)

    def set_roi(self, x: int, y: int, width: int, height: int) -> None:
        """Read out only a part of the sensor.

        Raises
        ------
        RigError
            The region does not lie within the sensor.
        """
        rows, cols = self.sensor_shape()
        if min(x, y) < 0 or min(width, height) < 1 or x + width > cols or y + height > rows:
            raise RigError(
                f"ROI x={x}, y={y}, width={width}, height={height} does not lie within the camera's {cols}x{rows} "
                "pixels; give one that does, or clear it."
            )
        whole = (x, y, width, height) == (0, 0, cols, rows)
        self._roi = None if whole else (int(x), int(y), int(width), int(height))

    def clear_roi(self) -> None:
        """Read out the whole sensor again."""
        self._roi = None

    def get_exposure(self) -> float:
        """Return the exposure in ms."""
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        """Set the exposure in ms."""
        self._exposure_ms = parse_float("Exposure", exposure, 0.01, LONGEST_MS)

    def get_binning(self) -> int:
        """Return 1."""
        return 1

    def set_binning(self, value: int) -> None:
        """Accept 1, so that configuration files that set it load; nothing else is offered."""
        parse_int("Binning", value, 1, 1)

    def get_frame_interval_ms(self) -> float:
        """Return the shortest time between frames of a burst in ms."""
        return self._interval_ms

    def set_frame_interval_ms(self, value: float) -> None:
        """Set the shortest time between frames of a burst in ms."""
        self._interval_ms = parse_float("FrameInterval_ms", value, 0, LONGEST_MS)

    def get_fail_at_exposure(self) -> int:
        """Return the exposure from which the camera fails, 0 for never."""
        return self._fail_at

    def set_fail_at_exposure(self, value: int) -> None:
        """Fail from the `value`-th exposure after this call; 0 for never."""
        self._fail_at = parse_int("FailAtExposure", value, 0, 2**31 - 1)
        self._taken = 0

    def start_sequence(
        self, n: int | None, get_buffer: Callable[[Sequence[int], DTypeLike], np.ndarray]
    ) -> Iterator[Mapping[str, str]]:
        """Take `n` images (without end for None), each no earlier than its time."""
        due_s = time.perf_counter() + self._exposure_ms / 1000
        for _ in itertools.count() if n is None else range(n):
            self._fail_if_told()
            image = self.expose()
            time.sleep(max(0.0, due_s - time.perf_counter()))
            get_buffer(image.shape, image.dtype)[...] = image
            yield self.frame_metadata()
            interval_s = max(self._exposure_ms, self._interval_ms) / 1000
            due_s = max(due_s + interval_s, time.perf_counter())

    def frame_metadata(self) -> dict[str, str]:
        """Return what goes with the image just taken."""
        return {}

    def _fail_if_told(self) -> None:
        self._taken += 1
        if 0 < self._fail_at <= self._taken:
            raise RigError(
                f"Camera {self.get_label()!r} failed at exposure {self._taken}, because its FailAtExposure is "
                f"{self._fail_at}; set it to 0 for a camera that works."
            )
