"""Whether the run, the stain and the machine are well, as far as the run folder tells."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._frame import Place
from livestain._lines import iso_time
from livestain._pulse import PULSE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from livestain._latency import Percentiles
    from livestain.live.run_folder import RunFolder

__all__ = ["Health", "Warn", "health"]

_SILENT_AFTER_S = 30  # a run writes its sign of life once a second; a shared folder may show it late
_MOST_WARNINGS = 50
_LOG_TAIL_BYTES = 1 << 18
_LOG_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (WARNING|ERROR|CRITICAL) \S+ \[.*?\] (.*)")


@dataclass(frozen=True, slots=True)
class Warn:
    """Something to look at, and when it happened: ISO, in the time zone that it carries; "" where that is not known."""

    time: str
    text: str


@dataclass(frozen=True, slots=True)
class Health:
    """How a run stands.

    Attributes
    ----------
    state
        "running"; "silent" where there is neither an end nor a sign of life for half a minute; else how it ended:
        "completed", "canceled", "errored", "recovered".
    phase
        What a running run does: "acquiring", "ending", "finishing"; "" else.
    acquired, expected, stained, pending, missing
        Counts from the journal; `expected` is None where it is not known beforehand.
    latency, frames_per_s
        By boundary in milliseconds, and camera frames a second; of the last five minutes before the newest frame.
    waiting_for_disk, disk_buffer
        Planes that wait for the disk, and how many may; None unless the run is running.
    camera_buffer_fill
        How full the camera's circular buffer is, 0 to 1; None unless the run is running.
    disk_free_bytes, disk_full_in_s
        Room on the drive, and for how long it lasts at the present rate; None where that is not known.
    next_event_s
        Seconds until the next exposure; None while the run waits for none.
    last_frame
        When the newest frame was taken, ISO; "" before the first.
    warnings
        The newest last.
    """

    state: str
    phase: str
    acquired: int
    expected: int | None
    stained: int
    pending: int
    missing: int
    latency: Mapping[str, Percentiles]
    frames_per_s: float
    waiting_for_disk: int | None
    disk_buffer: int | None
    camera_buffer_fill: float | None
    disk_free_bytes: int
    disk_full_in_s: float | None
    next_event_s: float | None
    last_frame: str
    warnings: tuple[Warn, ...]


def health(run: RunFolder, now_s: float | None = None) -> Health:
    """Look after a run; `now_s` is seconds since the epoch, else the present."""
    now_s = time.time() if now_s is None else now_s
    stats, pulse = run.stats(), _pulse(run.path)
    age_s = now_s - float(pulse.get("time_s", -np.inf))
    alive = run.ended is None and age_s < _SILENT_AFTER_S
    free = shutil.disk_usage(run.path).free
    next_s = pulse.get("next_event_s")
    return Health(
        state=run.ended or ("running" if alive else "silent"),
        phase=str(pulse.get("phase", "")) if alive else "",
        acquired=stats.frames_acquired,
        expected=stats.frames_expected,
        stained=stats.frames_stained,
        pending=stats.frames_pending,
        missing=stats.frames_missing,
        latency=run.recent.latency(),
        frames_per_s=run.recent.frames_per_s,
        waiting_for_disk=pulse.get("waiting_for_disk") if alive else None,
        disk_buffer=pulse.get("disk_buffer") if alive else None,
        camera_buffer_fill=pulse.get("camera_buffer_fill") if alive else None,
        disk_free_bytes=free,
        disk_full_in_s=_full_in_s(run, free) if alive else None,
        next_event_s=max(0.0, next_s - age_s) if alive and next_s is not None else None,
        last_frame="" if run.recent.newest_s is None else iso_time(run.recent.newest_s),
        warnings=tuple(_warnings(run))[-_MOST_WARNINGS:],
    )


def _pulse(folder: Path) -> dict[str, Any]:
    try:
        read = json.loads((folder / PULSE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the run has ended, or is writing it
    return read if isinstance(read, dict) else {}


def _full_in_s(run: RunFolder, free_bytes: int) -> float | None:
    """Divide the room by what the newest time point's planes take at the present rate of frames."""
    sizes = {False: [], True: []}  # type: dict[bool, list[int]]
    for image in range(len(run.layout.images)):
        there = run.there(image)
        if len(there):
            for c, z in np.argwhere(there[-1]).tolist():
                n_bytes = run.n_bytes(Place(image, len(there) - 1, c, z))
                sizes[run.layout.channels[c].predicted].append(n_bytes)
    raw, predicted = sum(sizes[False]), sum(sizes[True])
    bytes_per_s = run.recent.frames_per_s * (raw + predicted) / max(1, len(sizes[False]))
    return free_bytes / bytes_per_s if bytes_per_s > 0 else None


def _warnings(run: RunFolder) -> Iterator[Warn]:
    found = [Warn("" if s is None else iso_time(s), why) for s, why in run.missing]
    found += _logged(run.path / "run.log")
    return iter(sorted(found, key=lambda warn: warn.time))


def _logged(path: Path) -> Iterator[Warn]:
    """Give the warnings and errors of the log's end; the causes that follow them stay in the log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return
    for match in map(_LOG_LINE.match, text.splitlines()):
        if match:
            # The log is in the local time of the microscope's computer, where the page is usually served too.
            local = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").astimezone()
            yield Warn(local.astimezone(UTC).isoformat(timespec="milliseconds"), match[3])
