"""Gathers the planes that a model asks for: one plane, or a window of focal planes around each one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from livestain._frame import Frame, Job, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from livestain._layout import Layout

__all__ = ["Inputs", "Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one stain takes: `planes` focal planes of channel number `channel`."""

    channel: int
    planes: int


class Inputs:
    """Turns frames into jobs, by index and never by order of arrival.

    A model of P planes predicts the middle plane of every window of P planes; for P = 1 that is the frame
    itself. A stack of fewer than P planes gives no job.

    Parameters
    ----------
    layout
        Where planes and predictions live.
    wanted
        One entry for each stain, in their order.
    """

    def __init__(self, layout: Layout, wanted: Iterable[Wanted]) -> None:
        self._layout = layout
        self._wanted = tuple(wanted)
        self._stacks: dict[int, dict[Place, Frame]] = {}  # by channel: the frames of its present stack

    def add(self, frame: Frame) -> list[Job]:
        """Take a frame; return the jobs that are complete with it."""
        if all(w.channel != frame.place.c for w in self._wanted):
            return []
        stack = self._stack_of(frame)
        return [
            Job(stain, sources, self._layout.targets(stain, centre), tuple(stack[s] for s in sources))
            for stain, centre, sources in self._windows_with(frame.place)
            if all(s in stack for s in sources)
        ]

    def jobs_on_disk(self, places: Iterable[Place]) -> Iterator[Job]:
        """Give every job that the raw planes at `places` allow; their planes are to be read from disk."""
        there = set(places)
        for place in sorted(there, key=lambda p: (p.t, p.image, p.c, p.z)):
            for stain, centre, sources in self._windows_with(place):
                if centre == place and there.issuperset(sources):
                    yield Job(stain, sources, self._layout.targets(stain, centre))

    def _stack_of(self, frame: Frame) -> dict[Place, Frame]:
        """Keep the frames of one stack for each channel: memory is one stack, however long the run."""
        if all(w.planes == 1 for w in self._wanted):
            return {frame.place: frame}
        stack = self._stacks.setdefault(frame.place.c, {})
        if stack and replace(next(iter(stack)), z=0) != replace(frame.place, z=0):
            stack.clear()
        stack[frame.place] = frame
        return stack

    def _windows_with(self, place: Place) -> Iterator[tuple[int, Place, tuple[Place, ...]]]:
        """Yield (stain, centre, sources) of every window that holds the plane at `place`."""
        n_z = self._layout.images[place.image].n_z
        for stain, wanted in enumerate(self._wanted):
            if wanted.channel != place.c:
                continue
            below, above = (wanted.planes - 1) // 2, wanted.planes // 2
            for z in range(max(below, place.z - above), min(n_z - above, place.z + below + 1)):
                sources = tuple(replace(place, z=k) for k in range(z - below, z + above + 1))
                yield stain, replace(place, z=z), sources
