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
    or exposure that could not be set, and a snap that failed, and goes on; here such an event is reported as
    missing with its reason, and three in a row end the run.

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
            super().setup_event(event)
        if said:
            events = _events(event)
            for one in events:
                self._missing(one, "; ".join(said))
            raise SkipEvent(len(events), "; ".join(said))

    def exec_event(self, event: MDAEvent) -> Generator[Any, Any, None]:
        """Expose, and tap every frame before it goes to anyone else."""
        events = _events(event)
        n_cameras = self.mmcore.getNumberOfCameraChannels()
        clock = _CoreClock(event.metadata.get("runner_t0"))
        payloads = frames = 0
        with _warnings_of_this_thread() as said:
            source = iter(super().exec_event(event))
            payload = next(source, _END)
            while payload is not _END:
                if payload is None:
                    why = f"the camera ended its burst after {frames} of {len(events) * n_cameras} frames"
                    self._missing(events[min(payloads // n_cameras, len(events) - 1)], why)
                else:
                    self._failures = 0
                    frames += 1
                    self._on_frame(self._frame(payload, clock))
                payloads += 1
                signal = yield payload
                payload = _send(source, signal)
        if payloads == 0 and isinstance(event.action, AcquireImage):
            self._missing(event, "; ".join(said) or "the camera gave no image")

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

    def _missing(self, event: MDAEvent, why: str) -> None:
        self._on_missing(self._place(event.index), why)
        self._failures += 1
        if self._failures >= _FAILURES_IN_A_ROW:
            index = ", ".join(f"{axis}={number}" for axis, number in event.index.items())
            raise RigError(
                f"{self._failures} frames in a row did not come; the last at {index}: {why}. The run is ended. Look "
                "at the camera, its cable and its driver; every frame before is on disk."
            )


_END = object()


def _send(source: Iterator[Any], signal: Any) -> Any:
    # The runner talks to the engine through send(): without forwarding it, cancel would not end a burst.
    if hasattr(source, "send"):
        try:
            return source.send(signal)
        except StopIteration:
            return _END
    return next(source, _END)


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
    keep: dict[str, Any] = {"exposure_ms": meta.get("exposure_ms"), "camera": meta.get("camera_device")}
    position = meta.get("position") or {"x": event.x_pos, "y": event.y_pos, "z": event.z_pos}
    keep["position_um"] = [position.get(axis) for axis in "xyz"]
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
