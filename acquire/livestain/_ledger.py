"""What a journal says of a run: which planes are there, which predictions are owed, how late the rest came."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._frame import Place
from livestain._inputs import Inputs, Wanted
from livestain._latency import BOUNDARIES, RunStats, percentiles
from livestain._lines import layout_from_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from livestain._frame import Job
    from livestain._layout import Layout

__all__ = ["Ledger", "wanted_inputs"]


class Ledger:
    """Adds up the lines of a journal, in a few bytes for each plane, however long the run.

    Parameters
    ----------
    header
        The journal's first line.
    lines
        Lines to begin with; more can be added.
    """

    def __init__(self, header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]] = ()) -> None:
        self.layout = layout_from_header(header)
        self._inputs = Inputs(self.layout, wanted_inputs(self.layout, header["stains"]))
        channels = len(self.layout.channels)
        self._planes = [_Planes(channels, image.n_z) for image in self.layout.images]
        self._stained = self._stained_live = 0
        self._ended: str | None = None  # the first end is the run's own; recover and backfill come after
        self._latency = {name: array("f") for name in (*BOUNDARIES, "raw_camera_to_disk_ms")}
        for line in lines:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the journal."""
        match line["kind"]:
            case "raw":
                self._mark(line["at"], line["crc32"])
                if "camera_to_disk_ms" in line:
                    self._latency["raw_camera_to_disk_ms"].append(line["camera_to_disk_ms"])
            case "end":
                self._ended = line["reason"] if self._ended is None else self._ended
            case "lost":
                self._lose(Place(*line["at"]))
            case "missing":
                image, t, c, z = line["at"]
                self._planes[image].at(t).missed[t, c, z] = True
            case "stain" if line["status"] == "stained":
                self._add_stained(line)

    def _add_stained(self, line: Mapping[str, Any]) -> None:
        known = Place(*line["at"][0]) in self
        for at, crc32 in zip(line["at"], line["crc32"], strict=True):
            self._mark(at, crc32)
        if known:
            return  # made again: what is on disk changed, what viewers once saw did not
        self._stained += 1
        if line["live"]:
            self._stained_live += 1
            for name in BOUNDARIES:
                self._latency[name].append(line[name])

    def _lose(self, place: Place) -> None:
        planes = self._planes[place.image].at(place.t)
        planes.there[place.t, place.c, place.z] = False
        if self.layout.channels[place.c].predicted:
            self._stained -= 1
        else:
            planes.missed[place.t, place.c, place.z] = True

    def _mark(self, at: Iterable[int], crc32: int) -> None:
        image, t, c, z = at
        planes = self._planes[image].at(t)
        planes.there[t, c, z] = True
        planes.crc32[t, c, z] = crc32

    def __contains__(self, place: Place) -> bool:
        """Whether the plane is on disk, as far as the journal knows."""
        there = self._planes[place.image].there
        return place.t < len(there) and bool(there[place.t, place.c, place.z])

    def planes(self) -> Iterator[tuple[Place, int]]:
        """Give the place and the checksum of every plane that is on disk."""
        for image, planes in enumerate(self._planes):
            for t, c, z in np.argwhere(planes.there).tolist():
                yield Place(image, t, c, z), int(planes.crc32[t, c, z])

    def there(self, image: int) -> NDArray[np.bool_]:
        """Say which planes of an image are on disk, (t, c, z); t may reach beyond the last that is."""
        return self._planes[image].there

    @property
    def ended(self) -> str | None:
        """How the run ended; None while it goes on, or where it was killed."""
        return self._ended

    def last_t(self, image: int) -> int:
        """Give the last time point of an image that has a plane, -1 if there is none."""
        times = np.flatnonzero(self._planes[image].there.any(axis=(1, 2)))
        return int(times[-1]) if times.size else -1

    def owed(self) -> list[Job]:
        """Give every prediction that the raw planes allow and that is not on disk, in order of time."""
        found = [
            (t, image, stain, z)
            for image in range(len(self._planes))
            for stain in range(len(self._inputs.wanted))
            for t, z in np.argwhere(self._owed(image, stain)).tolist()
        ]
        jobs = (
            self._inputs.job(stain, Place(image, t, self._inputs.wanted[stain].channel, z))
            for t, image, stain, z in sorted(found)
        )
        return list(jobs)

    def _owed(self, image: int, stain: int) -> NDArray[np.bool_]:
        """Say for each (t, z) whether its prediction could be made and is not there."""
        wanted = self._inputs.wanted[stain]
        there = self._planes[image].there
        (target, *_) = self.layout.targets(stain, Place(image, 0, wanted.channel, 0))
        whole = np.zeros((len(there), there.shape[2]), np.bool_)
        if there.shape[2] >= wanted.planes:
            windows = np.lib.stride_tricks.sliding_window_view(there[:, wanted.channel], wanted.planes, axis=1)
            whole[:, wanted.below : there.shape[2] - wanted.above] = windows.all(axis=-1)
        owed: NDArray[np.bool_] = whole & ~there[:, target.c]
        return owed

    def stats(self) -> RunStats:
        """Count, and take the percentiles of the latencies."""
        acquired = [not channel.predicted for channel in self.layout.channels]
        pairs = [(i, s) for i in range(len(self._planes)) for s in range(len(self._inputs.wanted))]
        *boundaries, raw = (percentiles(values) for values in self._latency.values())
        return RunStats(
            ended=self._ended,
            frames_expected=self.layout.n_frames,
            frames_acquired=sum(int(planes.there[:, acquired].sum()) for planes in self._planes),
            frames_missing=sum(int((planes.missed & ~planes.there).sum()) for planes in self._planes),
            frames_stained=self._stained,
            stained_live=self._stained_live,
            frames_pending=sum(int(self._owed(image, stain).sum()) for image, stain in pairs),
            latency=dict(zip(BOUNDARIES, boundaries, strict=True)),
            raw_camera_to_disk_ms=raw,
        )


class _Planes:
    """What is known of each plane of one image, by (t, c, z); t grows as lines come."""

    def __init__(self, channels: int, n_z: int) -> None:
        self.there = np.zeros((0, channels, n_z), np.bool_)
        self.missed = np.zeros((0, channels, n_z), np.bool_)
        self.crc32 = np.zeros((0, channels, n_z), np.uint32)

    def at(self, t: int) -> _Planes:
        """Make room for time point `t`; by doubling, so that a long journal is read in linear time."""
        if t >= len(self.there):
            more = max(64, 2 * len(self.there), t + 1) - len(self.there)
            pad = ((0, more), (0, 0), (0, 0))
            self.there, self.missed = np.pad(self.there, pad), np.pad(self.missed, pad)
            self.crc32 = np.pad(self.crc32, pad)
        return self


def wanted_inputs(layout: Layout, stains: Iterable[Mapping[str, Any]]) -> list[Wanted]:
    """Say which channel number and how many planes each stain of a header takes.

    With several cameras a preset has a channel for each: the first camera's is stained.
    """
    names = [channel.name for channel in layout.channels]

    def number(preset: str) -> int:
        return next(i for i, name in enumerate(names) if name == preset or name.startswith(f"{preset} ("))

    return [Wanted(number(stain["channel"]), stain["planes"]) for stain in stains]
