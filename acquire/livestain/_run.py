"""THE DATA PATH: how a frame goes from the camera to the screen and to the disk.

camera -> MDARunner -> engine tap --+--> to_disk buffer -> writer thread: raw plane -> OME-Zarr, journal
           (acquisition thread)     |
                                    +--> to_stain buffer -> stain thread: planes -> model -> prediction
                                                              |--> to_disk: same OME-Zarr, same journal
                                                              +--> Latest (one slot; viewers poll it)
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from livestain._buffer import Buffer, BufferBroken
from livestain._engine import TappedEngine
from livestain._errors import LivestainError, RigError
from livestain._frame import Note
from livestain._lines import missing_line, stain_line
from livestain._owed import Owed
from livestain._priority import keep_off_pinned_cores
from livestain._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymmcore_plus import CMMCorePlus
    from useq import MDAEvent, MDASequence

    from livestain._frame import Frame, Job, Place, Stained
    from livestain._inputs import Inputs
    from livestain._latest import Latest
    from livestain._staining import Stainer
    from livestain._stop import Stop
    from livestain._store import Store

__all__ = ["DataPath", "Status"]

_IDLE_S = 0.05  # the model has time for a frame that waits on disk when no live one came for so long


@dataclass(frozen=True, slots=True)
class Status:
    """How a run stands, for a progress display.

    Attributes
    ----------
    phase
        "acquiring", "ending" once it was asked to, "finishing" while the rest is stained and written.
    acquired, expected, stained, owed
        Frames on disk, of how many (None: without end); predictions on disk, and those that wait for the model.
    waiting_for_disk, disk_buffer
        Planes that wait for the disk, and how many may.
    camera_buffer_fill
        How full the core's circular buffer is, 0 to 1.
    next_event_s
        Seconds until the next exposure; None while there is nothing to wait for.
    time_points
        That have begun, of the position that is furthest.
    frames_per_s, camera_to_disk_p99_ms
        Of the last five minutes; NaN where there are none.
    disk_free_bytes
        Room on the drive of the run.
    """

    phase: str
    acquired: int
    expected: int | None
    stained: int
    owed: int
    waiting_for_disk: int
    disk_buffer: int
    camera_buffer_fill: float
    next_event_s: float | None
    time_points: int
    frames_per_s: float
    camera_to_disk_p99_ms: float
    disk_free_bytes: int


class DataPath:
    """The threads of one run and the two bounded buffers between them.

    Parameters
    ----------
    core
        The microscope.
    store, inputs, stainer, latest
        Where planes are committed, how they are gathered, what stains them, what viewers see.
    depth
        How many planes may wait for the disk before the tap, and so the camera's own buffer, has to wait.
    stain_remaining
        Whether the end of the run waits for the predictions that are still owed.
    """

    def __init__(
        self,
        core: CMMCorePlus,
        store: Store,
        inputs: Inputs,
        stainer: Stainer,
        latest: Latest,
        *,
        depth: int,
        stain_remaining: bool = True,
    ) -> None:
        self._core, self._store, self._inputs, self._stainer, self._latest = core, store, inputs, stainer, latest
        self.to_disk: Buffer[Frame | Stained | Note] = Buffer(depth)
        # One frame may wait while the model works on another; with more, a live prediction would come too late.
        self.to_stain: Buffer[Job] = Buffer(max(1, stainer.n_stains))
        self._stain_remaining = stain_remaining
        self._owed = Owed(store.folder)
        self._next_event_s = 0.0  # when the next exposure is due, on the monotonic clock
        self.first_missing: str | None = None  # why a frame never came, as a sentence
        # When one place had its first and its last time point, in seconds: it measures the interval.
        self._measured: tuple[Place, float, Place, float] | None = None
        # Planes that one commit takes together: their syncs overlap, and a burst is kept up with; but a
        # prediction must not wait behind more than about 32 MiB of raw planes.
        self._batch = max(2, min(16, (32 << 20) // (store.layout.height * store.layout.width * 2)))

    # ---------------------------------------------------- acquisition thread: enqueue, nothing else

    def _frame(self, frame: Frame) -> None:
        self._check(frame)
        self._note_time(frame)
        # First to disk, where it waits when the disk is behind: a raw frame is never dropped, and never comes to
        # disk after a prediction made from it.
        self.to_disk.put(frame)
        for job in self._inputs.add(frame):
            if not self.to_stain.offer(job):
                self.to_disk.put(Note(stain_line(job, "pending", "the model was busy")))

    def _note_time(self, frame: Frame) -> None:
        first, first_s = self._measured[:2] if self._measured else (frame.place, frame.time_s)
        if dataclasses.replace(frame.place, t=first.t) == first:
            self._measured = (first, first_s, frame.place, frame.time_s)

    @property
    def late_interval_s(self) -> float | None:
        """The mean time between time points, if they could not keep up with the interval that was asked for."""
        asked_s = self._store.layout.interval_s
        if self._measured is None or not asked_s:
            return None
        first, first_s, last, last_s = self._measured
        n, elapsed_s = last.t - first.t, last_s - first_s
        # A first frame that came late makes the run seem fast, and one late frame is not a late run.
        return elapsed_s / n if elapsed_s > 1.05 * n * asked_s and elapsed_s > (n + 1) * asked_s else None

    def _check(self, frame: Frame) -> None:
        layout = self._store.layout
        if frame.image.shape != (layout.height, layout.width) or frame.image.dtype not in (np.uint8, np.uint16):
            raise RigError(
                f"the camera gave {frame.image.dtype} {frame.image.shape} at {frame.place}, but the run began with "
                f"{(layout.height, layout.width)} of 8 to 16 bits. Let no channel, property or ROI of the sequence "
                "change the camera's image."
            )

    def _missing(self, place: Place, why: str) -> None:
        self.first_missing = self.first_missing or f"the frame at {place} never came: {why}."
        self.to_disk.put(Note(missing_line(place, why)))

    # ---------------------------------------------------- writer thread

    def _write(self) -> None:
        while (batch := self.to_disk.take(self._batch)) is not None:
            self._store.commit(batch)

    # ---------------------------------------------------- stain thread

    def _stain(self) -> None:
        keep_off_pinned_cores()
        while (jobs := self.to_stain.take(timeout_s=_IDLE_S)) is not None:
            for job in jobs:
                self.to_disk.put(self._latest.show(self._stainer.stain(job)))
            if not jobs:
                self._stain_owed()
        self.to_disk.flush()  # now every raw plane and every pending line is on disk
        while self._stain_remaining and self._stain_owed():
            pass

    def _stain_owed(self) -> bool:
        """Stain one frame that had found the model busy, from its planes on disk; False if none is owed."""
        job = self._owed.next()
        if job is not None:
            self.to_disk.put(self._stainer.stain(job))
        return job is not None

    # ---------------------------------------------------- the owner of the threads

    def run(self, sequence: MDASequence, stop: Stop, watch: Callable[[], None] = lambda: None) -> str:
        """Acquire the whole sequence; return when everything is on disk.

        Parameters
        ----------
        sequence
            What to acquire.
        stop
            Asks the run to end. What was acquired is written all the same.
        watch
            Called about ten times a second from this thread, to show progress.

        Returns
        -------
        str
            "completed" or "canceled".

        Raises
        ------
        LivestainError
            What ended the run. Everything journalled is on disk.
        """
        engine = TappedEngine(self._core, self._store.layout.place, self._frame, self._missing)
        writer = Worker("writer", self._write, on_error=self.to_disk.fail)
        stainer = Worker("stain", self._stain)
        acquisition = Worker("acquisition", lambda: self._core.mda.run(sequence))
        before = self._core.mda.set_engine(engine)
        self._core.mda.events.awaitingEvent.connect(self._awaiting)
        for worker in (writer, stainer, acquisition):
            worker.start()
        try:
            while not acquisition.wait(0.1):
                watch()
                if stop.times or writer.error:
                    self._core.mda.cancel()  # again and again: a runner that has not begun yet ignores it
            asked = min(stop.times, 1)
            self.to_stain.close()
            while not stainer.wait(0.1):
                watch()
                # Asked again, or when there is nothing left to acquire: do not wait for the model.
                self._stain_remaining = self._stain_remaining and stop.times == asked
        except BaseException:
            self._stain_remaining = False  # whatever `watch` raised: end, and leave no thread behind
            raise
        finally:
            while not acquisition.wait(0.1):
                self._core.mda.cancel()
            self.to_stain.close()
            stainer.wait()
            self.to_disk.close()
            writer.wait()
            self._core.mda.events.awaitingEvent.disconnect(self._awaiting)
            if before is not None:
                self._core.mda.set_engine(before)
        watch()  # the last counts
        self._raise_first(writer.error, acquisition.error, stainer.error)
        return str(self._core.mda.status.finish_reason)

    def status(self, expected: int | None, stop: Stop) -> Status:
        """Say how the run stands; any thread may ask."""
        counts, to_disk = self._store.counts, self.to_disk.stats
        phase = "acquiring" if self._acquiring() else "finishing"
        wait_s = self._next_event_s - time.monotonic()
        return Status(
            phase="ending" if stop.times and self._acquiring() else phase,
            acquired=counts["raw"],
            expected=expected,
            stained=counts["stained"],
            owed=counts["owed"],
            waiting_for_disk=to_disk.length,
            disk_buffer=to_disk.depth,
            camera_buffer_fill=self._core.getRemainingImageCount() / max(1, self._core.getBufferTotalCapacity()),
            next_event_s=wait_s if wait_s > 0 and self._acquiring() else None,
            time_points=self._store.time_points,
            frames_per_s=self._store.recent.frames_per_s,
            camera_to_disk_p99_ms=self._store.recent.p99_ms("camera_to_disk_ms"),
            disk_free_bytes=shutil.disk_usage(self._store.folder).free,
        )

    def _acquiring(self) -> bool:
        return self._core.mda.is_running()

    def _awaiting(self, _event: MDAEvent, remaining_s: float) -> None:
        self._next_event_s = time.monotonic() + remaining_s

    def _raise_first(
        self, writer: BaseException | None, acquisition: BaseException | None, stainer: BaseException | None
    ) -> None:
        """Raise what ended the run; the disk's error first, because the others may follow from it."""
        for error, what in ((writer, "writing"), (acquisition, "the acquisition"), (stainer, "the stain thread")):
            if isinstance(error, LivestainError):
                raise error
            if isinstance(error, MemoryError) and error is acquisition:
                raise RigError(
                    "the camera's circular buffer overflowed: the disk was slower than the camera for too long "
                    f"({self.to_disk.stats.waited_ms:.0f} ms spent waiting for it). Every frame before is on "
                    "disk. Raise rig.circular_buffer_mb or output.write_buffer_mb, lower the frame rate, or "
                    "write to a faster drive."
                ) from error
            if error is not None and not isinstance(error, BufferBroken):
                raise LivestainError(
                    f"{what} ended with {type(error).__name__}: {error}. Every frame journalled is on disk; run.log "
                    "has the details."
                ) from error
