"""The acquisition engine: pymmcore-plus's own, with a tap that hands every camera frame on at once."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pymmcore_plus.core._sequencing import SequencedEvent
from pymmcore_plus.mda import MDAEngine, SkipEvent
from useq import AcquireImage

from livestain._errors import RigError
from livestain._frame import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from pymmcore_plus import CMMCorePlus
    from useq import MDAEvent

    from livestain._frame import Place

__all__ = ["TappedEngine"]

_FAILURES_IN_A_ROW = 3  # one bad exposure must not end a week; a dead camera must


class TappedEngine(MDAEngine):
    """`MDAEngine` that gives each frame to `on_frame`, and each frame that did not come to `on_missing`.

    Both are called in the acquisition thread and may only enqueue. pymmcore-plus only logs a stage, channel
    or exposure that could not be set, and a snap that failed, and goes on. Here such an event fails: its frames
    are reported missing with the reason, and three failed events in a row end the run.

    Parameters
    ----------
    core
        The microscope.
    place
        Says where the plane of an `MDAEvent.index` goes.
    on_frame, on_missing
        The tap's two ends: a frame; or the place of a missing one and why it is missing.
    """

    def __init__(
        self,
        core: CMMCorePlus,
        place: Callable[[Mapping[str, int]], Place],
        on_frame: Callable[[Frame], None],
        on_missing: Callable[[Place, str], None],
    ) -> None:
        super().__init__(core)
        self._place = place
        self._on_frame = on_frame
        self._on_missing = on_missing
        self._failures = 0

    def setup_event(self, event: MDAEvent) -> None:
        """Move the hardware; skip the event, loudly, if it did not move as told."""
        with _warnings_of_this_thread() as said:
            try:
                super().setup_event(event)
            except Exception as error:  # noqa: BLE001  (a driver may raise anything; one failure is no end)
                said.append(_reason(error))
        if said:
            self._failed(event, set(), "; ".join(said))
            raise SkipEvent(len(_events(event)), "; ".join(said))

    def exec_event(self, event: MDAEvent) -> Generator[Any, Any, None]:
        """Expose, and tap every frame before it goes to anyone else."""
        came: set[Place] = set()
        cancelled = False
        clock = _CoreClock(event.metadata.get("runner_t0"))
        with _warnings_of_this_thread() as said:
            source = iter(super().exec_event(event))
            try:
                payload = _next(source, said)
                while payload is not _END:
                    if payload is not None:
                        frame = self._frame(payload, clock)
                        came.add(frame.place)
                        self._on_frame(frame)
                    signal = yield payload
                    cancelled = cancelled or signal == "cancel"
                    payload = _next(source, said, signal)
            finally:
                if isinstance(event, SequencedEvent) and self.mmcore.isSequenceRunning():
                    self.mmcore.stopSequenceAcquisition()  # or camera and light would stay on
        if not cancelled:
            self._failed(event, came, "; ".join(said))

    def _frame(self, payload: Any, clock: _CoreClock) -> Frame:
        image, event, meta = payload
        received_ns = clock.received_ns(meta)
        return Frame(
            place=self._place(event.index),
            image=image,
            received_ns=received_ns,
            time_s=time.time() - (time.perf_counter_ns() - received_ns) / 1e9,
            meta=_journal_meta(event, meta),
        )

    def _failed(self, event: MDAEvent, came: set[Place], why: str) -> None:
        """Report the frames of an event that did not come; raise if it is the third such event in a row."""
        missing = [place for place in self._places_of(event) if place not in came]
        if not missing:
            self._failures = 0
            return
        if len(missing) < len(came) + len(missing) > 1:
            why = f"the camera ended its burst after {len(came)} of {len(came) + len(missing)} frames. {why}".strip()
        for place in missing:
            self._on_missing(place, why or "the camera gave no image")
        self._failures += 1
        if self._failures >= _FAILURES_IN_A_ROW:
            raise RigError(
                f"{self._failures} events in a row failed; the last at {missing[0]}: {why}. The run is ended; every "
                "frame before is on disk. Look at the device that is named, its cable and its driver."
            )

    def _places_of(self, event: MDAEvent) -> list[Place]:
        n_cameras = self.mmcore.getNumberOfCameraChannels()
        return [
            self._place({**one.index, "cam": camera})
            for one in _events(event)
            if isinstance(one.action, AcquireImage)  # an autofocus shares the index of the image after it
            for camera in range(n_cameras)
        ]


_END = object()


def _next(source: Iterator[Any], said: list[str], signal: Any = None) -> Any:
    """Take the engine's next payload; a driver's error ends the event and is noted in `said`.

    The runner's signals go on to the engine: without them, cancel would not end a burst.
    """
    try:
        return source.send(signal) if hasattr(source, "send") else next(source)
    except StopIteration:
        return _END
    except MemoryError:
        raise  # the circular buffer overflowed: frames are lost, which no retry brings back
    except Exception as error:  # noqa: BLE001  (a driver may raise anything; one failure is no end)
        said.append(_reason(error))
        return _END


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().rstrip(".")


def _events(event: MDAEvent) -> tuple[MDAEvent, ...]:
    return event.events if isinstance(event, SequencedEvent) else (event,)


class _CoreClock:
    """Puts the core's own stamp of a frame on the `perf_counter_ns` clock."""

    def __init__(self, runner_t0_s: float | None) -> None:
        self._runner_t0_s = runner_t0_s

    def received_ns(self, meta: Mapping[str, Any]) -> int:
        """When the core had the frame: its buffer's stamp in a burst, the end of the snap otherwise."""
        now_ns = time.perf_counter_ns()
        stamp = meta.get("camera_metadata", {}).get("TimeReceivedByCore")
        if stamp is not None:
            # The stamp is local time without a zone; a change of clocks shifts it by whole half hours.
            age_s = (datetime.now() - datetime.fromisoformat(stamp)).total_seconds()
            age_s -= round(age_s / 1800) * 1800
            return now_ns - int(max(0.0, age_s) * 1e9)
        if self._runner_t0_s is not None and "runner_time_ms" in meta:
            return min(now_ns, int(self._runner_t0_s * 1e9 + meta["runner_time_ms"] * 1e6))
        return now_ns


def _journal_meta(event: MDAEvent, meta: Mapping[str, Any]) -> dict[str, Any]:
    # In a hardware sequence the core knows only its first exposure; the event knows its own.
    exposure_ms = event.exposure if event.exposure is not None else meta.get("exposure_ms")
    keep: dict[str, Any] = {"exposure_ms": exposure_ms, "camera": meta.get("camera_device")}
    if position := meta.get("position"):
        keep["position_um"] = [position.get(axis) for axis in "xyz"]
    else:  # not asked of the stage, which takes time: where it was told to go
        keep["commanded_um"] = [event.x_pos, event.y_pos, event.z_pos]
    if "images_remaining_in_buffer" in meta:
        keep["core_buffer"] = meta["images_remaining_in_buffer"]
    return keep


@contextmanager
def _warnings_of_this_thread() -> Iterator[list[str]]:
    """Collect what pymmcore-plus warns of in this thread: its engine tells of failed hardware only by its log."""
    said: list[str] = []
    thread = threading.get_ident()

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                said.append(record.getMessage().strip().rstrip("."))

    handler = Collect(level=logging.WARNING)
    logger = logging.getLogger("pymmcore-plus")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
