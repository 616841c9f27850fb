"""The cells being followed: one row a track, with its last five sightings and what is still open about it.

Places are in the sample's frame: the field's, less all stage drift so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.measure._sightings import floats_in, floats_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Tracks = NDArray[np.void]

__all__ = [
    "COLUMNS",
    "CUT",
    "DAUGHTER",
    "MOTHER",
    "NONE",
    "PAST",
    "ROUND",
    "TRACK",
    "Tracks",
    "extend",
    "from_state",
    "log_sum",
    "new_tracks",
    "row_of",
    "sizes",
    "state",
    "step_back",
]

PAST = 5  # sightings kept
COLUMNS = 7  # of each
CUT = 6
AVERAGED = 3  # sightings that a cell's size is the mean of
NONE, MOTHER, DAUGHTER = 0, 1, 2
ROUND = 0.4  # by how much the log area of a round cell is below that of the same cell spread out

TRACK = np.dtype(
    [
        ("id", "i8"),
        ("parent", "i8"),
        ("born", "i8"),  # time point of the first sighting
        ("seen", "i8"),  # and of the last
        ("sightings", "i8"),
        ("since", "i8"),  # sightings since birth or since a split, at most PAST: what `sizes` and steps may use
        # newest first: t, y_um, x_um, log area, log mass, log DNA, 1 if cut by the border
        ("past", "f8", (PAST, COLUMNS)),
        ("spread", "f8"),  # log area when spread out: a maximum that fades, blind to mitotic rounding
        ("alive", "f8"),  # running mean of the probability of being alive
        ("border", "?"),
        # An open split: the track that stays (MOTHER) and the one that is new (DAUGHTER) know each other.
        ("role", "i8"),
        ("sibling", "i8"),
        ("split_t", "i8"),
        # before the split: log area, mass, DNA (uncut sightings only), spread, probability of being alive, rounding
        ("mother", "f8", (6,)),
        ("mother_since", "i8"),
        # Two cells under one outline: they wait for it (blob), and it knows them (made_of).
        ("blob", "i8"),
        ("made_of", "i8", (2,)),
    ]
)


def new_tracks(ids: Ints, t: int, at_um: Floats, log_sizes: Floats, alive: Floats, border: NDArray[np.bool_]) -> Tracks:
    """Return one track for each of n segments: (n, 2) places, (n, 3) log sizes."""
    tracks = np.zeros(len(ids), TRACK)
    tracks["id"], tracks["born"], tracks["seen"] = ids, t, t
    tracks["sightings"] = tracks["since"] = 1
    tracks["past"] = np.nan
    tracks["past"][:, 0, 0] = t
    tracks["past"][:, 0, 1:3], tracks["past"][:, 0, 3:CUT], tracks["past"][:, 0, CUT] = at_um, log_sizes, border
    tracks["spread"], tracks["alive"], tracks["border"] = log_sizes[:, 0], alive, border
    tracks["mother"] = np.nan
    return tracks


def extend(
    tracks: Tracks, rows: Ints, t: int, at_um: Floats, log_sizes: Floats, alive: Floats, border: NDArray[np.bool_]
) -> None:
    """Add a sighting to the tracks `rows`, in place."""
    past = tracks["past"][rows]
    past[:, 1:] = past[:, :-1]
    past[:, 0, 0] = t
    past[:, 0, 1:3], past[:, 0, 3:CUT], past[:, 0, CUT] = at_um, log_sizes, border
    tracks["past"][rows] = past
    tracks["seen"][rows], tracks["border"][rows] = t, border
    tracks["sightings"][rows] += 1
    tracks["since"][rows] = np.minimum(tracks["since"][rows] + 1, PAST)
    spread, area = tracks["spread"][rows], log_sizes[:, 0]
    tracks["spread"][rows] = np.where(
        spread > area, 0.95 * spread + 0.05 * area, np.where(np.isnan(area), spread, area)
    )
    was, now = tracks["alive"][rows], alive
    mean = np.where(np.isnan(was), now, np.where(np.isnan(now), was, 0.5 * was + 0.5 * now))
    tracks["alive"][rows] = mean


def sizes(tracks: Tracks, first: int = 0, most: int = AVERAGED, *, whole: bool = False, middle: bool = False) -> Floats:
    """Return (n, 3) log sizes, each the mean of up to `most` sightings from the `first` on that are one cell's.

    With `whole`, of those only that the border of the field did not cut; with `middle`, their median.
    """
    past = tracks["past"][:, first : first + most, 3:CUT]
    usable = (np.arange(first, first + past.shape[1]) < tracks["since"][:, None])[..., None] & ~np.isnan(past)
    if whole:
        usable = usable & (tracks["past"][:, first : first + most, CUT] == 0)[..., None]
    n = usable.sum(axis=1)
    if middle:
        ordered = np.sort(np.where(usable, past, np.nan), axis=1)  # NaN last
        at = np.stack([np.maximum(n - 1, 0) // 2, n // 2], axis=1).clip(max=past.shape[1] - 1)
        return np.asarray(np.where(n > 0, np.take_along_axis(ordered, at, axis=1).mean(axis=1), np.nan))
    total = np.where(usable, past, 0).sum(axis=1)
    return np.asarray(np.where(n > 0, total / np.maximum(n, 1), np.nan))


def step_back(tracks: Tracks, which: int) -> Floats:
    """Return (n, 2) displacements per frame: the last one (0), or the one before it (1); NaN where unknown."""
    past = tracks["past"]
    frames = past[:, which, 0] - past[:, which + 1, 0]
    step = (past[:, which, 1:3] - past[:, which + 1, 1:3]) / frames[:, None]
    return np.asarray(np.where((tracks["since"] > which + 1)[:, None], step, np.nan))


def log_sum(a: Floats, b: Floats) -> Floats:
    """Return log(e^a + e^b); NaN in, NaN out, and quietly so, unlike `numpy.logaddexp`."""
    return np.asarray(np.maximum(a, b) + np.log1p(np.exp(-np.abs(a - b))))


def row_of(tracks: Tracks, cell: int) -> int:
    """Return the row of the track `cell`, or -1."""
    rows = np.flatnonzero(tracks["id"] == cell)
    return int(rows[0]) if len(rows) else -1


def state(tracks: Tracks) -> dict[str, Any]:
    """Return the tracks, fit for JSON."""
    names = TRACK.names or ()
    return {n: floats_out(tracks[n]) if tracks[n].dtype.kind == "f" else tracks[n].tolist() for n in names}


def from_state(columns: dict[str, Any]) -> Tracks:
    """Return the tracks that `state` was taken of."""
    tracks = np.zeros(len(columns["id"]), TRACK)
    for name in TRACK.names or ():
        if len(tracks):
            tracks[name] = floats_in(columns[name]) if tracks[name].dtype.kind == "f" else columns[name]
    return tracks
