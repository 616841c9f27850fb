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
    """What one stain takes: `planes` focal planes, in the order of z, of channel number `channel`."""

    channel: int
    planes: int

    @property
    def below(self) -> int:
        """How many planes the window has below its centre."""
        return (self.planes - 1) // 2

    @property
    def above(self) -> int:
        """How many planes the window has above its centre."""
        return self.planes // 2


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
        self.wanted = tuple(wanted)
        self._stacks: dict[int, dict[Place, Frame]] = {}  # by channel: the frames of its present stack

    def add(self, frame: Frame) -> list[Job]:
        """Take a frame; return the jobs that are complete with it."""
        if all(w.channel != frame.place.c for w in self.wanted):
            return []
        stack = self._stack_of(frame)
        jobs = (self.job(stain, centre) for stain, centre in self._centres_of_windows_with(frame.place))
        return [
            replace(job, frames=tuple(stack[s] for s in job.sources))
            for job in jobs
            if all(s in stack for s in job.sources)
        ]

    def job(self, stain: int, centre: Place) -> Job:
        """Give the job that predicts the plane at `centre`, its planes to be read from disk."""
        wanted = self.wanted[stain]
        z = range(centre.z - wanted.below, centre.z + wanted.above + 1)
        sources = tuple(replace(centre, z=k) for k in z)
        return Job(stain, sources, self._layout.targets(stain, centre))

    def _stack_of(self, frame: Frame) -> dict[Place, Frame]:
        """Keep the frames of one stack for each channel: memory is one stack, however long the run.

        That suffices because a stack is acquired before the stage moves on (`check_contracts` sees to it).
        """
        if all(w.planes == 1 for w in self.wanted):
            return {frame.place: frame}
        stack = self._stacks.setdefault(frame.place.c, {})
        if stack and replace(next(iter(stack)), z=0) != replace(frame.place, z=0):
            stack.clear()
        stack[frame.place] = frame
        return stack

    def _centres_of_windows_with(self, place: Place) -> Iterator[tuple[int, Place]]:
        n_z = self._layout.images[place.image].n_z
        for stain, wanted in enumerate(self.wanted):
            if wanted.channel == place.c:
                first = max(wanted.below, place.z - wanted.above)
                last = min(n_z - 1 - wanted.above, place.z + wanted.below)
                yield from ((stain, replace(place, z=z)) for z in range(first, last + 1))
