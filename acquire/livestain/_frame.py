"""What travels: a camera frame, a stain's job, a stained result, and the place each has on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Frame", "Job", "Note", "Place", "Stained"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a plane lives: the image (a position of the stage) and its t, c, z in that image's array.

    It is computed from `MDAEvent.index`, never by counting frames.
    """

    image: int
    t: int
    c: int
    z: int

    def __str__(self) -> str:
        return f"image {self.image}, t={self.t}, c={self.c}, z={self.z}"


@dataclass(frozen=True, slots=True)
class Frame:
    """One raw plane from the camera.

    Attributes
    ----------
    place
        Where it goes on disk.
    image
        (Y, X) uint8 or uint16. Shared by everyone who sees the frame: never edited in place.
    received_ns
        When the core had the frame, on the `time.perf_counter_ns` clock.
    time_s
        The same moment as seconds since the epoch (UTC).
    meta
        What the journal keeps beside it: exposure, stage position, camera.
    """

    place: Place
    image: NDArray[np.unsignedinteger]
    received_ns: int
    time_s: float
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One prediction to make: the planes a model asked for, and where its outputs go.

    `frames` is empty when the planes have to be read back from disk (`sources` says from where).
    """

    stain: int
    sources: tuple[Place, ...]
    targets: tuple[Place, ...]
    frames: tuple[Frame, ...] = ()

    @property
    def live(self) -> bool:
        """Whether the planes came straight from the camera, not back from disk."""
        return bool(self.frames)


@dataclass(frozen=True, slots=True)
class Stained:
    """The outputs of one job.

    Attributes
    ----------
    job
        What was asked. `job.targets[i]` is the place of `planes[i]`.
    planes
        (C, Y, X) uint16, owned by this object.
    provider
        The execution provider that ran, e.g. "CPUExecutionProvider".
    net_ms, host_to_host_ms
        Time inside the session; time from planes in memory to prediction in memory.
    shown_ns
        When the prediction was available to viewers, on the `time.perf_counter_ns` clock.
    """

    job: Job
    planes: NDArray[np.uint16]
    provider: str
    net_ms: float
    host_to_host_ms: float
    shown_ns: int


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the journal that has no plane: a missing frame, a prediction that waits or failed."""

    line: dict[str, Any]
