"""Who is who between two time points: the one-to-one matching of tracks and segments with the largest gain.

A gain is a logarithm of probabilities: how much likelier the frame is if a link (or a split, or a merger) is true
than if its tracks were missed and its segments were new. Gains add up, so the best matching is the likeliest one.
Only links with a gain above zero exist. Most are beyond doubt; the others fall into small groups, each solved by itself
(Jonker-Volgenant, scipy).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

__all__ = ["Event", "Links", "choose", "match"]


@dataclass(frozen=True, slots=True)
class Links:
    """Possible links, one row each: track, segment, gain (above zero)."""

    track: Ints
    segment: Ints
    gain: Floats

    def only(self, keep: Bools | Ints) -> Links:
        """Return some of the rows, by mask or by index."""
        return Links(self.track[keep], self.segment[keep], self.gain[keep])


@dataclass(frozen=True, slots=True)
class Event:
    """One track that becomes two segments (a split), or two tracks under one segment (a merger)."""

    tracks: tuple[int, ...]
    segments: tuple[int, ...]
    gain: float


def match(links: Links) -> Bools:
    """Return which links are taken: the matching with the largest sum of gains, as a mask over `links`."""
    taken = np.zeros(len(links.gain), bool)
    if not len(links.gain):
        return taken
    # Worth more than all that could replace it at both its ends: such a link is in every best matching.
    taken = links.gain > _best_other(links.track, links.gain) + _best_other(links.segment, links.gain)
    rest = np.flatnonzero(~np.isin(links.track, links.track[taken]) & ~np.isin(links.segment, links.segment[taken]))
    if not len(rest):
        return taken
    group = _groups(links.only(rest))
    order = np.argsort(group, kind="stable")
    for rows in np.split(rest[order], np.flatnonzero(np.diff(group[order])) + 1):
        taken[rows if len(rows) == 1 else rows[_solve(links.only(rows))]] = True
    return taken


def _best_other(end: Ints, gain: Floats) -> Floats:
    """Return for every link the best gain of the other links at the same end, 0 if there is none."""
    order = np.lexsort((-gain, end))
    first = np.append(True, end[order][1:] != end[order][:-1])
    start = np.flatnonzero(first)[np.cumsum(first) - 1]  # of each one's run, its best link first
    second = np.minimum(start + 1, len(end) - 1)
    has_second = (second != start) & (end[order][second] == end[order])
    other = np.where(first, np.where(has_second, gain[order][second], 0.0), gain[order][start])
    best = np.empty(len(end))
    best[order] = other
    return best


def choose(
    links: Links, events: list[Event], taken: Bools, n_tracks: int, n_segments: int
) -> tuple[Bools, list[Event]]:
    """Return which links and which events are taken together; `taken` is what `match` says of the links alone.

    Events are tried from the largest gain on. One is taken if the sum of all gains grows by it, when those whose
    partners it takes look for others among the free. That is a local search, not the optimum over all events; but
    events hardly ever compete for the same cells.
    """
    taken = taken.copy()
    board = _Board(links, taken, n_tracks, n_segments)
    chosen: list[Event] = []
    for event in sorted(events, key=lambda e: (-e.gain, e.tracks, e.segments)):
        if not board.hopeful(event):
            continue
        tracks, segments = list(event.tracks), list(event.segments)
        lost = board.links_of(event)
        open_track, open_segment = board.free_track.copy(), board.free_segment.copy()
        open_track[links.track[lost]] = open_segment[links.segment[lost]] = True
        open_track[tracks] = open_segment[segments] = False
        rows = np.flatnonzero(open_track[links.track] & open_segment[links.segment])
        won = rows[_solve(links.only(rows))]
        if event.gain + links.gain[won].sum() <= links.gain[lost].sum():
            continue
        chosen.append(event)
        taken[lost], taken[won] = False, True
        board.take(event, lost, won)
    return taken, chosen


class _Board:
    """Who is linked to whom while events are tried; says cheaply which of them cannot win."""

    def __init__(self, links: Links, taken: Bools, n_tracks: int, n_segments: int) -> None:
        self._links = links
        self._gain = links.gain.tolist()
        rows = np.flatnonzero(taken)
        track, segment = np.full(n_tracks, -1), np.full(n_segments, -1)  # the link that each one has
        track[links.track[rows]] = segment[links.segment[rows]] = rows
        self.free_track, self.free_segment = track < 0, segment < 0
        self._track, self._segment = track.tolist(), segment.tolist()
        best_track, best_segment = np.zeros(n_tracks), np.zeros(n_segments)
        np.maximum.at(best_track, links.track, np.where(taken, 0, links.gain))
        np.maximum.at(best_segment, links.segment, np.where(taken, 0, links.gain))
        # What each one could win by another link than its own, at most.
        self._other_track, self._other_segment = best_track.tolist(), best_segment.tolist()
        self._used: set[tuple[str, int]] = set()

    def links_of(self, event: Event) -> Ints:
        """Return the links that the event would break."""
        rows = {self._track[i] for i in event.tracks} | {self._segment[j] for j in event.segments}
        return np.array(sorted(rows - {-1}), np.int64)

    def hopeful(self, event: Event) -> bool:
        """Whether the event is free to happen and might raise the sum of gains."""
        if any(("track", i) in self._used for i in event.tracks):
            return False
        if any(("segment", j) in self._used for j in event.segments):
            return False
        most = event.gain
        for row in self.links_of(event).tolist():
            i, j = int(self._links.track[row]), int(self._links.segment[row])
            most -= self._gain[row]
            most += self._other_track[i] if i not in event.tracks else 0.0
            most += self._other_segment[j] if j not in event.segments else 0.0
        return most > 0

    def take(self, event: Event, lost: Ints, won: Ints) -> None:
        """Let the event happen: `lost` links break, `won` links form."""
        track, segment = self._links.track, self._links.segment
        for row in lost.tolist():
            i, j = int(track[row]), int(segment[row])
            self._track[i] = self._segment[j] = -1
            self._other_track[i] = max(self._other_track[i], self._gain[row])
            self._other_segment[j] = max(self._other_segment[j], self._gain[row])
        for row in won.tolist():
            self._track[int(track[row])] = self._segment[int(segment[row])] = row
        self._used |= {("track", i) for i in event.tracks} | {("segment", j) for j in event.segments}
        self.free_track[track[lost]] = self.free_segment[segment[lost]] = True
        self.free_track[track[won]] = self.free_segment[segment[won]] = False
        self.free_track[list(event.tracks)] = self.free_segment[list(event.segments)] = False


def _groups(links: Links) -> Ints:
    """Return for every link the number of its connected group."""
    n_tracks = int(links.track.max(initial=0)) + 1
    n = n_tracks + int(links.segment.max(initial=0)) + 1
    graph = coo_array((np.ones(len(links.gain), np.int8), (links.track, links.segment + n_tracks)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1][links.track], np.int64)


def _solve(links: Links) -> Ints:
    """Return the rows of the best matching within one group."""
    if not len(links.gain):
        return np.zeros(0, np.int64)
    if (links.track == links.track[0]).all() or (links.segment == links.segment[0]).all():
        return np.array([np.argmax(links.gain)])
    tracks, i = np.unique(links.track, return_inverse=True)
    segments, j = np.unique(links.segment, return_inverse=True)
    gain = np.zeros((len(tracks), len(segments)))
    gain[i, j] = links.gain
    best_i, best_j = linear_sum_assignment(gain, maximize=True)
    row = np.full(gain.shape, -1)
    row[i, j] = np.arange(len(i))
    rows = row[best_i, best_j]
    return rows[rows >= 0]
