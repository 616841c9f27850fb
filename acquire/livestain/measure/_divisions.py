"""One track became two segments: division, or one cell in pieces? Two or three more frames decide.

While a split is open, the track goes on as one of the two (MOTHER) and the other is a track of its own (DAUGHTER).
Both still there at the end, and of sizes a division leaves: two new cells with the old one as their mother. Only one
there, or one again: it never happened, and the other was a piece of the cell, or nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from livestain.measure import _tracks
from livestain.measure._sightings import ONCE
from livestain.measure._tracks import CUT, DAUGHTER, MOTHER, NONE, PAST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livestain.measure._tracks import Tracks
    from livestain.measure._window import Window

    Floats = NDArray[np.float64]

__all__ = ["halved_before", "join_piece", "judge", "open_split", "reunite", "under_one_outline"]

# Two daughters are no larger than this part of their mother each, together no smaller than this, and this alike.
LIMITS = (0.75, 0.6, 1.7)  # by mass or DNA
LIMITS_OF_AREA = (0.9, 0.4, 2.2)  # of the area that she had when spread
LIMITS_OF_CUT = (0.8, 0.25, 0.7, 1.35)  # where the border cuts all three: each at most and least, the same together
# A cell rounds up to divide and spreads again: by how much its log area, or that by mass, falls or grows at least.
SPREADS = 0.25
SAME_MASS = 0.2  # logs of one cell's mass at two time points are no further apart


def open_split(tracks: Tracks, mother: int, daughter: int, t: int, since: int) -> None:
    """Begin to watch a split at `t`, `since` sightings of the row `mother` ago; both rows have theirs of now."""
    m, d = tracks[mother], tracks[daughter]
    whole = _tracks.sizes(tracks[[mother]], first=since, whole=True)[0]
    sizes = np.where(np.isnan(whole), _tracks.sizes(tracks[[mother]], first=since)[0], whole)
    m["role"], m["sibling"], m["split_t"] = MOTHER, d["id"], t
    d["role"], d["sibling"], d["split_t"] = DAUGHTER, m["id"], t
    m["mother"][:3], m["mother"][3:] = sizes, (m["spread"], m["alive"], _rounding(m, since))
    m["mother_since"] = min(int(m["since"]) - since, PAST)
    m["since"] = since
    d["alive"] = m["alive"]


def _rounding(mother: np.void, since: int) -> float:
    """Return by how much her log area by mass has fallen: of both the border takes the same share. 0: not known."""
    by_mass = mother["past"][since : int(mother["since"]), 3] - mother["past"][since : int(mother["since"]), 4]
    return float(by_mass.max() - by_mass[0]) if len(by_mass) and not np.isnan(by_mass).any() else 0.0


def judge(tracks: Tracks, window: Window, mother: int, next_id: int) -> tuple[Tracks, int]:
    """Close the split of the row `mother` for good; returns the tracks left and the next free cell number."""
    daughter = _tracks.row_of(tracks, tracks["sibling"][mother])
    t = int(tracks["split_t"][mother])
    here = [_still_there(tracks, window, row, t) for row in (mother, daughter)]
    # What was two cells under one outline falls apart without a mother; but not for ever: it may be a cell after all.
    composite = bool(tracks["made_of"][mother].any()) and tracks["sightings"][mother] <= 2 * PAST
    two = all(here) and (composite or _divided(tracks[mother], tracks[daughter]))
    lasting = [there and tracks["since"][row] > 1 for there, row in zip(here, (mother, daughter), strict=True)]
    if not two and not all(lasting):
        return reunite(tracks, window, mother, keep=daughter if lasting[1] else mother), next_id
    if two:
        old = int(tracks["id"][mother])
        t = _halved_at(tracks[mother])
        window.drop_before(int(tracks["id"][daughter]), t, ONCE)
        # A mother that was never seen by herself has no row: nobody could look her up.
        known = window.holds(old, int(tracks["born"][mother]), t)
        parent = 0 if composite or not known else old
        for row in (mother, daughter):
            if row == mother or tracks["born"][row] < window.pages[0].detections.t:
                # What is written stays as it is: a daughter that has a row already begins anew as well.
                window.rename(int(tracks["id"][row]), next_id, t)
                tracks["id"][row], tracks["born"][row], next_id = next_id, t, next_id + 1
            tracks["parent"][row] = window.parents[int(tracks["id"][row])] = parent
            tracks["made_of"][row] = 0
            tracks["spread"][row] = _tracks.sizes(tracks[[row]])[0, 0]
    for row in (mother, daughter):
        tracks["role"][row], tracks["sibling"][row] = NONE, 0
    return tracks, next_id


def reunite(tracks: Tracks, window: Window, mother: int, keep: int) -> Tracks:
    """Close a split that was none: the row `keep` goes on as the old cell; returns the tracks that are left."""
    daughter = _tracks.row_of(tracks, tracks["sibling"][mother])
    t, old, piece = int(tracks["split_t"][mother]), int(tracks["id"][mother]), int(tracks["id"][daughter])
    pieces = _in_pieces(tracks[mother], tracks[daughter])
    if keep == daughter or pieces:
        window.rename(piece, old, t)
    else:
        window.drop(piece, t, ONCE)
    _join_past(tracks, mother, daughter, keep, pieces=pieces)
    if keep == daughter:
        for name in ("seen", "border", "alive"):
            tracks[name][mother] = tracks[name][daughter]
    tracks["spread"][mother] = tracks["mother"][mother, 3]
    tracks["role"][mother], tracks["sibling"][mother] = NONE, 0
    return np.delete(tracks, daughter)


def _still_there(tracks: Tracks, window: Window, row: int, t: int) -> bool:
    """Whether a track was missed in at most one of the last frames since `t`, or went out at the border."""
    observed = [page.detections.t for page in window.since(t) if page.observed]
    weighed = not np.isnan(tracks["past"][row, 0, 4:CUT]).all()
    went_out = tracks["border"][row] and (tracks["since"][row] > 1 or weighed)
    return bool(went_out) or int(tracks["seen"][row]) >= observed[max(-2, -len(observed))]


def _divided(mother: np.void, daughter: np.void) -> bool:
    """Whether the sizes of both since the split are those of daughters, and the cell was not dead."""
    # A round cell is easily taken for a dead one, and a daughter may die; but what is dead was so before and after.
    if max(mother["mother"][4], mother["alive"], daughter["alive"]) < 0.5:
        return False
    rows = [np.array([row], _tracks.TRACK) for row in (mother, daughter)]
    whole = [_tracks.sizes(row, most=4, whole=True, middle=True)[0] for row in rows]
    every = [_tracks.sizes(row, most=4, middle=True)[0] for row in rows]
    if np.isnan([*every, mother["mother"][:3]]).any(axis=0).all():
        return True  # no size is known: two tracks out of one have to do
    # At the border cells come and go in part: one daughter at least must have been seen whole.
    known = ~np.isnan(np.add(*every) + mother["mother"][:3])
    column = 1 if known[1] else 2 if known[2] else 0  # what is conserved comes first
    uncut = np.array([not np.isnan(sizes[column]) for sizes in whole])
    if not column:  # daughters spread within the hour: the first sightings tell most
        early = [_tracks.sizes(row, first=max(int(row["since"][0]) - 2, 0), most=2)[0] for row in rows]
        whole = [np.where(u, e, np.nan) for e, u in zip(early, uncut, strict=True)]
    log_sizes = [w[column] if u else e[column] for w, e, u in zip(whole, every, uncut, strict=True)]
    shares = np.exp(np.array(log_sizes) - mother["mother"][column if column else 3])
    largest, least, unlike = LIMITS if column else LIMITS_OF_AREA
    if uncut.all():
        return bool((shares < largest).all() and shares.sum() > least and shares.max() < unlike * shares.min())
    if uncut.any():
        return bool((shares < largest).all() and shares[uncut].min() > least / 2)
    return bool(mother["mother"][5] > SPREADS) and _shared_out(mother, daughter)


def _shared_out(mother: np.void, daughter: np.void) -> bool:
    """Whether two that the border cuts, and cut her, had her mass between them."""
    before = mother["past"][int(mother["since"]) :, 4]
    if not len(before):
        return False
    first = [row["past"][int(row["since"]) - 1, 4] for row in (mother, daughter)]
    shares = np.exp(np.array(first) - before[0])
    largest, smallest, least, most = LIMITS_OF_CUT
    return bool((shares < largest).all() and (shares > smallest).all() and least < shares.sum() < most)


def halved_before(mother: np.void, daughter: np.void) -> bool:
    """Whether the track weighed half already at its sighting before this one: one daughter was missed there."""
    past, n = mother["past"][:, 4], int(mother["since"])
    before = past[2:n]
    if n < 3 or np.isnan(past[:n]).any() or np.isnan(daughter["past"][0, 4]):
        return False
    fell, unlike = past[1] - before.mean() + np.log(2), past[1] - daughter["past"][0, 4]
    return bool(abs(fell) < 0.3 and abs(unlike) < 0.35)


def under_one_outline(mother: np.void) -> int:
    """Return at how many sightings before this one the track was two daughters already, seen as one.

    A round mother's outline shrinks until she divides; that of the two together covers more, at the same mass.
    """
    area, mass, cut = mother["past"][:, 3], mother["past"][:, 4], mother["past"][:, CUT]
    for n in range(2, 0, -1):
        before = n + 1
        if before >= mother["since"] or cut[1 : before + 1].any():
            continue  # of another cell, or not known
        grew = area[1:before] - area[before] > SPREADS
        weighs = ~(np.abs(mass[1:before] - mass[before]) > SAME_MASS)
        if grew.all() and weighs.all() and mother["spread"] - area[before] > _tracks.ROUND:
            return n
    return 0


def _halved_at(mother: np.void) -> int:
    """Return when the track that went on came to weigh half: debris can open a split a little before the true one."""
    since = mother["past"][: mother["since"]][::-1]
    half = since[:, 4] < mother["mother"][1] - 0.5 * np.log(2)
    late = half.any() and not half[0] and not np.isnan(since[:, 4]).any()
    return int(since[np.argmax(half), 0]) if late else int(mother["split_t"])


def _in_pieces(mother: np.void, daughter: np.void) -> bool:
    """Whether the two together weigh (or cover) what the cell did: then both are pieces of it."""
    a, b = (_tracks.sizes(np.array([row], _tracks.TRACK))[0] for row in (mother, daughter))
    for column in (1, 2, 0):
        share = np.exp(_tracks.log_sum(a[column], b[column]) - mother["mother"][column])
        if not np.isnan(share):
            return bool(0.7 < share < 1.35)
    return True


def join_piece(tracks: Tracks, row: int, piece: int) -> None:
    """Add the sightings of the track `piece` to those of the track `row` that it is a piece of."""
    tracks["born"][row] = min(tracks["born"][row], tracks["born"][piece])
    past = tracks["past"][row]
    for sighting in tracks["past"][piece][: int(tracks["since"][piece])]:
        same = np.flatnonzero(past[:, 0] == sighting[0])
        if len(same):
            past[same[0]] = _common(past[same[0]], sighting)


def _join_past(tracks: Tracks, mother: int, daughter: int, keep: int, *, pieces: bool) -> None:
    """Put the sightings after a split together in the row `mother`: of two pieces their common centre, summed sizes."""
    ours = [past for past in tracks["past"][mother] if not np.isnan(past[0])]
    since = int(tracks["since"][mother])
    recent, before = ours[:since], ours[since:]
    kept = recent if keep == mother else []
    other = {p[0]: p for p in tracks["past"][daughter][: int(tracks["since"][daughter])] if not np.isnan(p[0])}
    mine = {p[0]: p for p in recent}
    times = sorted({p[0] for p in kept} | (set(other) if keep == daughter else set()), reverse=True)
    joined = []
    for t in times:
        both = [some[t] for some in (mine, other) if t in some]
        if not pieces:
            both = both[:1] if keep == mother else both[-1:]
        joined.append(both[0] if len(both) == 1 else _common(*both))
    if joined:  # of a daughter that was there before the split the sightings overlap
        before = [p for p in before if p[0] < joined[-1][0]]
    past = np.full((PAST, _tracks.COLUMNS), np.nan)
    rows = (joined + before)[:PAST]
    past[: len(rows)] = rows
    tracks["past"][mother] = past
    tracks["since"][mother] = min(len(joined) + int(tracks["mother_since"][mother]), len(rows))


def _common(one: Floats, other: Floats) -> Floats:
    """Return the sighting of a cell of which two pieces were seen."""
    share = 1 / (1 + np.exp(other[3] - one[3]))
    share = 0.5 if np.isnan(share) else share
    return np.concatenate(
        [
            one[:1],
            share * one[1:3] + (1 - share) * other[1:3],
            _tracks.log_sum(one[3:CUT], other[3:CUT]),
            np.maximum(one[CUT:], other[CUT:]),
        ]
    )
