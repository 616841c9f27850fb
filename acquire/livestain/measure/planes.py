"""The planes of one time point, read from disk: what shows the cells, the classes, the phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from livestain._experiment import PhaseFromDefocus
from livestain._frame import Place
from livestain.measure.position import Seen
from livestain.measure.segment import Plane

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from livestain._experiment import Experiment
    from livestain._layout import Layout
    from livestain.measure.follow import TimePoint
    from livestain.measure.sources import Channel, Sources

    Image = NDArray[np.uint16]

__all__ = ["Planes"]


class Planes:
    """Reads what is measured on.

    Parameters
    ----------
    read
        Reads a plane that is on disk, (Y, X) uint16.
    sources
        Which channels are wanted.
    experiment, layout
        Where they lie.
    """

    def __init__(
        self, read: Callable[[Place], Image], sources: Sources, experiment: Experiment, layout: Layout
    ) -> None:
        self._read, self._sources, self._layout = read, sources, layout
        plan = experiment.sequence.z_plan
        self._z_um = [float(z) for z in plan] if plan is not None and plan.is_relative else []
        self._stack = experiment.measure is not None and isinstance(experiment.measure.phase, PhaseFromDefocus)

    def seen(self, point: TimePoint, time_s: float) -> Seen:
        """Read all that is measured of a time point."""
        nuclei, cells = self.outlines(point)
        phase, why = self._phase(point)
        return Seen(point.t, time_s, nuclei, cells, self._classes(point), phase, why)

    def outlines(self, point: TimePoint) -> tuple[Plane | None, Plane | None]:
        """Read what shows nuclei and cells; None where that is not there."""
        return self._segmented(point, self._sources.nuclei), self._segmented(point, self._sources.cells)

    def _segmented(self, point: TimePoint, channel: Channel | None) -> Plane | None:
        image = None if channel is None else self._plane(point, channel.number)
        return None if image is None or channel is None else Plane(image, channel.kind)

    def _classes(self, point: TimePoint) -> NDArray[np.uint16] | None:
        planes = self._there(point, self._sources.classes or ())
        return np.stack(planes) if len(planes) == 3 else None

    def _phase(self, point: TimePoint) -> tuple[NDArray[np.uint16] | None, str]:
        """Read the planes of the phase, (P, Y, X), or say why not; neither where none is wanted."""
        channels = self._sources.phase
        if not channels:
            return None, ""
        if self._stack:
            n_z, what = self._layout.images[point.image].n_z, "focal planes"
            places = [Place(point.image, point.t, channels[0], z) for z in range(n_z)]
            planes = [self._read(place) for place in places if place in point.there]
        else:
            n_z, what = len(channels), "phase images"
            planes = self._there(point, channels)
        if len(planes) < n_z:
            return None, f"{n_z - len(planes)} of {n_z} {what} are missing"
        return np.stack(planes), ""

    def _there(self, point: TimePoint, channels: tuple[int, ...]) -> list[Image]:
        found = (self._plane(point, c) for c in channels)
        return [plane for plane in found if plane is not None]

    def _plane(self, point: TimePoint, c: int) -> Image | None:
        """Read the plane of a channel that is nearest to the place where the sequence has the sample."""
        there = [place for place in point.there if place.c == c]
        if not there:
            return None
        return self._read(min(there, key=lambda place: (self._away_um(place), place.z)))

    def _away_um(self, place: Place) -> float:
        n_z = self._layout.images[place.image].n_z
        if len(self._z_um) != n_z:  # absolute, or a plan of the position's own: its middle
            return abs(place.z - n_z // 2)
        return abs(self._z_um[place.z])
