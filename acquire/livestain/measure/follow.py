"""Follows a run's journal: gives each time point of each position once everything that it will ever have is on disk.

The journal is the queue: while a run goes on it grows, afterwards it is read from its start, and both give the same
time points in the same order, that of their first frames. A time point whose prediction is owed holds up those after
it until it is made: the model makes it when it has time, `livestain backfill` later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from livestain._frame import Place
from livestain._inputs import Inputs
from livestain._journal import JOURNAL_NAME, Tail, read_header
from livestain._ledger import wanted_inputs
from livestain._lines import layout_from_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import useq

__all__ = ["Follower", "TimePoint"]


@dataclass(frozen=True, slots=True)
class TimePoint:
    """One time point of one position.

    Attributes
    ----------
    image, t
        Which position, and which time point of it.
    time_s
        When its first frame was taken, in seconds since the epoch; None where the journal does not say.
    there
        The planes of it that are on disk.
    """

    image: int
    t: int
    time_s: float | None
    there: frozenset[Place]


@dataclass(slots=True)
class _Growing:
    """What has come of a time point so far."""

    time_s: float | None
    awaited: set[Place]
    there: set[Place]


class Follower:
    """Reads a journal on, and gives the time points that are complete.

    Parameters
    ----------
    folder
        The run folder.
    sequence
        What was run; it says which planes a time point has.
    after
        For each image the last time point that is known already, -1 for none: those up to it are not given.

    Raises
    ------
    StoreError
        If the folder is no run.
    """

    def __init__(self, folder: Path, sequence: useq.MDASequence, after: Sequence[int] = ()) -> None:
        header = read_header(folder / JOURNAL_NAME)
        self.layout = layout_from_header(header)
        self._inputs = Inputs(self.layout, wanted_inputs(self.layout, header["stains"]))
        self._plan = _Plan(sequence, self.layout.n_cameras)
        self._tail = Tail(folder / JOURNAL_NAME)
        self._growing: dict[tuple[int, int], _Growing] = {}  # in the order of their first frames
        self._given = list(after) or [-1] * len(self.layout.images)
        self.ended = False
        self.first_frame_s: float | None = None

    def read(self) -> Iterator[TimePoint]:
        """Give what is complete by now; the rest waits for the next call."""
        while lines := self._tail.read():
            for line in lines:
                self._add(line)
            yield from self._complete()
        yield from self._complete()

    @property
    def waiting(self) -> int:
        """How many time points have begun and are not complete; after the end of a run, those that owe predictions."""
        return len(self._growing)

    def _add(self, line: Mapping[str, Any]) -> None:
        match line["kind"]:
            case "raw":
                place = Place(*line["at"])
                self._seen(place, _seconds(line.get("time")))
                self._drop(place, there=True)
            case "missing" | "lost":
                place = Place(*line["at"])
                self._seen(place, None)
                self._drop(place, there=False)
            case "stain" if line["status"] == "stained":
                for at in line["at"]:
                    self._drop(Place(*at), there=True)
            case "end":
                self.ended = True

    def _seen(self, place: Place, time_s: float | None) -> None:
        if self.first_frame_s is None:
            self.first_frame_s = time_s
        if place.t <= self._given[place.image]:
            return  # adopted or lost after it was measured: `livestain measure` from the start would tell
        if (place.image, place.t) not in self._growing:
            self._growing[place.image, place.t] = _Growing(time_s, self._awaited(place), set())
        growing = self._growing[place.image, place.t]
        growing.time_s = time_s if growing.time_s is None else growing.time_s  # its first frame may be missing

    def _awaited(self, place: Place) -> set[Place]:
        """Give all planes, raw and predicted, that this time point shall have."""
        n_z = self.layout.images[place.image].n_z
        raw = {replace(place, c=c, z=z) for c, z in self._plan.planes(place.t, n_z)}
        return raw | {target for job in self._jobs(raw, place, n_z) for target in job}

    def _jobs(self, raw: set[Place], place: Place, n_z: int) -> Iterator[tuple[Place, ...]]:
        for stain, wanted in enumerate(self._inputs.wanted):
            for z in range(wanted.below, n_z - wanted.above):
                job = self._inputs.job(stain, replace(place, c=wanted.channel, z=z))
                if raw.issuperset(job.sources):
                    yield job.targets

    def _drop(self, place: Place, *, there: bool) -> None:
        growing = self._growing.get((place.image, place.t))
        if growing is None:
            return
        growing.awaited.discard(place)
        if there:
            growing.there.add(place)
        elif self.layout.channels[place.c].predicted:
            growing.there.discard(place)
            growing.awaited.add(place)  # a lost prediction can be made again
        else:
            growing.there.discard(place)
            growing.awaited &= self._still_possible(place, growing)

    def _still_possible(self, gone: Place, growing: _Growing) -> set[Place]:
        """Give what can still come now that a raw plane never will: no prediction from it."""
        n_z = self.layout.images[gone.image].n_z
        raw = {p for p in growing.awaited | growing.there if not self.layout.channels[p.c].predicted}
        return raw | {target for job in self._jobs(raw, gone, n_z) for target in job}

    def _complete(self) -> Iterator[TimePoint]:
        while self._growing:
            (image, t), growing = next(iter(self._growing.items()))
            predictions_owed = any(self.layout.channels[p.c].predicted for p in growing.awaited)
            frames_to_come = not self.ended and growing.awaited
            if frames_to_come or (predictions_owed and self._can_be_made(growing, image, t)):
                return
            del self._growing[image, t]
            self._given[image] = max(self._given[image], t)
            yield TimePoint(image, t, growing.time_s, frozenset(growing.there))

    def _can_be_made(self, growing: _Growing, image: int, t: int) -> bool:
        """Whether the run, ended in the middle of this time point perhaps, has the frames of what it owes."""
        n_z = self.layout.images[image].n_z
        raw = {p for p in growing.there if not self.layout.channels[p.c].predicted}
        made = {target for job in self._jobs(raw, Place(image, t, 0, 0), n_z) for target in job}
        return bool(made & growing.awaited)


class _Plan:
    """Which raw planes a time point has: not every channel is taken at every time point, or in every plane."""

    def __init__(self, sequence: useq.MDASequence, n_cameras: int) -> None:
        channels = [(channel.acquire_every, channel.do_stack) for channel in sequence.channels] or [(1, True)]
        self._channels = [channel for channel in channels for _ in range(n_cameras)]

    def planes(self, t: int, n_z: int) -> Iterator[tuple[int, int]]:
        """Give (channel number, z) of each."""
        for c, (every, stack) in enumerate(self._channels):
            if t % every == 0:
                yield from ((c, z) for z in (range(n_z) if stack else (n_z // 2,)))


def _seconds(time: str | None) -> float | None:
    return None if time is None else datetime.fromisoformat(time).timestamp()
