"""What a report needs of a journal beyond its counts: reasons, ends, providers, and latency over time."""

from __future__ import annotations

from array import array
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._journal import JOURNAL_NAME, Tail

if TYPE_CHECKING:
    from livestain.live.run_folder import RunFolder

__all__ = ["Told", "read_told"]

_LOST = "it was on disk, and was gone or damaged when the run was recovered"


@dataclass(slots=True)
class Told:
    """One pass over a journal.

    Attributes
    ----------
    first, last
        When the first and the last frame was taken; None without a frame.
    ends
        (reason, time) of each end, in order; the first is the run's own, later ones are of `recover` and `backfill`.
    missing, pending
        Reasons, and how often each: of frames that are not there, and of predictions that are owed.
    providers
        By number of the stain: what ran the network, and for how many predictions.
    cameras
        Names.
    latency_s, latency
        When live predictions came, in seconds since the first frame, and by boundary ("net_ms",
        "camera_to_disk_ms") how late, in milliseconds; all of one length.
    """

    first: datetime | None = None
    last: datetime | None = None
    ends: list[tuple[str, str]] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)
    pending: Counter[str] = field(default_factory=Counter)
    providers: dict[int, Counter[str]] = field(default_factory=dict)
    cameras: set[str] = field(default_factory=set)
    latency_s: Any = None
    latency: dict[str, Any] = field(default_factory=dict)


class _Reading:
    def __init__(self) -> None:
        self.told = Told()
        self.first = self.last = ""
        self.missing: dict[tuple[int, ...], str] = {}
        self.pending: dict[tuple[int, ...], str] = {}
        self.when: list[str] = []
        self.latency = {"net_ms": array("d"), "camera_to_disk_ms": array("d")}

    def add(self, line: dict[str, Any]) -> None:
        match line["kind"]:
            case "raw":
                self._add_raw(line)
            case "stain":
                self._add_stain(line)
            case "missing":
                self.missing[tuple(line["at"])] = str(line.get("why") or "no reason was given")
            case "lost":
                self.missing[tuple(line["at"])] = _LOST
            case "end":
                self.told.ends.append((str(line.get("reason", "")), str(line.get("time", ""))))

    def _add_raw(self, line: dict[str, Any]) -> None:
        time = line.get("time")
        if time:  # all in UTC and of one form, so they compare as text
            self.first = min(self.first or time, time)
            self.last = max(self.last, time)
        if camera := line.get("camera"):
            self.told.cameras.add(str(camera))
        if self.missing:
            self.missing.pop(tuple(line["at"]), None)

    def _add_stain(self, line: dict[str, Any]) -> None:
        at = tuple(line["at"][0])
        if line["status"] != "stained":
            self.pending[at] = str(line.get("why") or "no reason was given")
            return
        self.pending.pop(at, None)
        self.missing.pop(at, None)
        self.told.providers.setdefault(line["stain"], Counter())[
            str(line.get("provider") or "a provider that is not recorded")
        ] += 1
        if line["live"] and self.last:
            self.when.append(self.last)
            for name, values in self.latency.items():
                values.append(line[name])


def read_told(run: RunFolder) -> Told:
    """Read a run's journal once; of lines that are damaged the run's notes tell."""
    reading = _Reading()
    tail = Tail(run.path / JOURNAL_NAME, lambda _: None)
    while lines := tail.read():
        for line in lines:
            with suppress(KeyError, IndexError, TypeError, ValueError):
                reading.add(line)
    told = reading.told
    predicted = [channel.predicted for channel in run.layout.channels]
    told.missing = Counter(why for at, why in reading.missing.items() if not predicted[at[2]])
    told.pending = Counter(reading.pending.values())
    if reading.first:
        told.first, told.last = datetime.fromisoformat(reading.first), datetime.fromisoformat(reading.last)
    start_s = told.first.timestamp() if told.first else np.nan
    told.latency_s = np.array([datetime.fromisoformat(time).timestamp() for time in reading.when]) - start_s
    told.latency = {name: np.array(values) for name, values in reading.latency.items()}
    return told
