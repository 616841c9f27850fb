"""The last minutes of a run: how late its frames come and how many there are, from the journal's newest lines."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from livestain._latency import BOUNDARIES, percentiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from livestain._latency import Percentiles

__all__ = ["Recent", "Rhythm"]

_KEEP_S = 300.0
_KEEP_AT_LEAST, _KEEP_AT_MOST = 100, 20_000  # of a slow run, its last frames; of a fast one, what memory allows
_RHYTHM_OF = 10  # visits that a rhythm is read from
_UNEVEN = 0.25  # of the interval, by which a visit may come early or late


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Of visits, the frames of one position at one time point, that come at regular times.

    `newest_s` is when the newest began, in seconds since the epoch; `busy_s` the longest of the newest, from its first
    frame to its last prediction on disk.
    """

    newest_s: float
    interval_s: float
    busy_s: float


@dataclass(slots=True)
class _Visit:
    key: tuple[int, int]  # image, t
    began_s: float
    busy_s: float = 0.0  # 0: none of its predictions is on disk


class Recent:
    """Latencies and frames of the last five minutes before the newest frame; of slower runs, of the last 100 frames.

    Any thread may add and ask.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames_s: deque[float] = deque(maxlen=_KEEP_AT_MOST)
        self._live: deque[tuple[float, tuple[float, ...]]] = deque(maxlen=_KEEP_AT_MOST)
        self._visits: deque[_Visit] = deque(maxlen=_RHYTHM_OF + 1)
        self.newest_s: float | None = None  # when the newest frame was taken, in seconds since the epoch

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the journal."""
        with self._lock:
            if line["kind"] == "raw" and line.get("time") is not None:
                self.newest_s = datetime.fromisoformat(line["time"]).timestamp()
                self._frames_s.append(self.newest_s)
                self._visit(line["at"], self.newest_s)
            elif line.get("status") == "stained" and line["live"] and self.newest_s is not None:
                self._live.append((self.newest_s, tuple(line[name] for name in BOUNDARIES)))
                self._visit(line["at"][0], self.newest_s + line["camera_to_disk_ms"] / 1e3)
            self._forget()

    def _visit(self, at: Sequence[int], now_s: float) -> None:
        """Begin a visit with its first frame, and let it last until its last prediction is on disk."""
        key = (at[0], at[1])
        known = next((visit for visit in reversed(self._visits) if visit.key == key), None)
        if known is None:
            self._visits.append(_Visit(key, now_s))
        else:
            known.busy_s = max(known.busy_s, now_s - known.began_s)

    def _forget(self) -> None:
        oldest_s = (self.newest_s or 0) - _KEEP_S
        while len(self._frames_s) > _KEEP_AT_LEAST and self._frames_s[0] < oldest_s:
            self._frames_s.popleft()
        while len(self._live) > _KEEP_AT_LEAST and self._live[0][0] < oldest_s:
            self._live.popleft()

    def latency(self) -> dict[str, Percentiles]:
        """Give each boundary's percentiles in milliseconds, of live predictions."""
        with self._lock:
            rows = list(self._live)
        return {name: percentiles(row[i] for _, row in rows) for i, name in enumerate(BOUNDARIES)}

    def p99_ms(self, boundary: str) -> float:
        """Give the 99th percentile of one boundary; NaN without a live prediction."""
        place = list(BOUNDARIES).index(boundary)
        with self._lock:  # the writer waits for it: only copied within
            rows = list(self._live)
        return percentiles(row[place] for _, row in rows).p99

    def rhythm(self) -> Rhythm | None:
        """Give the rhythm of the newest visits; None where they come unevenly, or none was stained live."""
        with self._lock:
            visits = [(visit.began_s, visit.busy_s) for visit in self._visits]
        intervals_s = [later - earlier for (earlier, _), (later, _) in pairwise(visits)]
        busy_s = max((busy for _, busy in visits), default=0.0)
        if len(intervals_s) < _RHYTHM_OF or busy_s <= 0:
            return None
        interval_s = median(intervals_s)
        if max(abs(each - interval_s) for each in intervals_s) > _UNEVEN * interval_s or interval_s <= 0:
            return None
        return Rhythm(visits[-1][0], interval_s, busy_s)

    @property
    def frames_per_s(self) -> float:
        """Camera frames a second; NaN before the second frame."""
        with self._lock:
            n = len(self._frames_s)
            span_s = self._frames_s[-1] - self._frames_s[0] if n > 1 else 0.0
        return (n - 1) / span_s if span_s > 0 else float("nan")
