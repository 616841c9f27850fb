"""How likely links, splits and mergers are, as gains over their tracks being missed and their segments being new.

Every factor is a probability density over that of a segment that has nothing to do with the track: such segments are
spread evenly over the field, with the sizes of the other segments. Places and sizes scatter with heavy tails
(Student's t, 8 degrees of freedom), so that one odd value does not outvote the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import gammaln, ndtr

from livestain.measure import _tracks
from livestain.measure._assign import Event, Links

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livestain.measure._motion import Motion
    from livestain.measure._sightings import Detections

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

__all__ = ["Late", "Scene", "expected", "late_splits", "link_gains", "mergers", "scene_of", "split_gains", "splits"]

P_MISSED = 0.02  # of a cell in the field at a time point; orders of magnitude count here, not values
P_GONE = 0.002  # of a cell, for good, within the field
P_DEBRIS = 0.3  # of what was seen only once
P_NEW = 0.02  # of a segment: not seen before though inside the field
P_NEW_AT_BORDER = 0.1
P_SPLIT = 0.01  # of a cell at a time point: division, or a segment in two pieces
P_SPLIT_ROUND = 0.1  # of a cell that has rounded up
ROUND = 0.4  # by how much the log area of a round cell is below that of the same cell spread out
P_MERGER = 0.02  # of two neighbours at a time point
P_REJOIN = 0.03  # of two pieces that split a frame ago
P_LIVELY = 0.01  # of a step of half a radius or so, however still the other cells are
MOST_BY_SIZE = 8.0  # that agreeing sizes can add to a gain
P_STRANGE = 0.3  # of a segment that was not there before to be of any size
P_ODD = 0.02  # of a size that tells nothing
DOF = 8.0
NEIGHBOURS = 8
_T1 = float(gammaln((DOF + 1) / 2) - gammaln(DOF / 2) - 0.5 * np.log(DOF * np.pi))


@dataclass(frozen=True, slots=True)
class Scene:
    """Tracks as expected at a time point and the segments found there; places in the sample's frame.

    `scatter_um` (n,) is the uncertainty per axis of `expected_um`; `missed` (n,) and `new` (m,) are log
    probabilities; `log_density` is of segments per um2; `usual`, `usual_scatter` (3,) describe their log sizes.
    """

    tracks: _tracks.Tracks
    expected_um: Floats
    scatter_um: Floats
    sizes: Floats
    missed: Floats
    found_um: Floats
    found_sizes: Floats
    found_border: Bools
    new: Floats
    log_density: float
    usual: Floats
    usual_scatter: Floats
    exists: Floats
    size_scatter: Floats
    radius_um: float

    @property
    def track_radius_um(self) -> Floats:
        """(n,): of a disc of the track's area."""
        return np.where(np.isnan(self.sizes[:, 0]), self.radius_um, np.sqrt(np.exp(self.sizes[:, 0]) / np.pi))

    @property
    def found_radius_um(self) -> Floats:
        """(m,): of a disc of the segment's area."""
        area = self.found_sizes[:, 0]
        return np.where(np.isnan(area), self.radius_um, np.sqrt(np.exp(area) / np.pi))


def expected(tracks: _tracks.Tracks, motion: Motion, t: int) -> tuple[Floats, Floats]:
    """Return (n, 2) expected places in the sample's frame, and (n,) their scatter per axis."""
    steps = t - tracks["seen"]
    first, second = _tracks.step_back(tracks, 0), _tracks.step_back(tracks, 1)
    place = tracks["past"][:, 0, 1:3] + motion.predict(first, second, steps)
    moving, fresh = motion.scatter_um
    scatter = np.where(np.isnan(first[:, 0]), fresh, moving) * steps**0.8
    return place, scatter


def scene_of(
    tracks: _tracks.Tracks, place_um: Floats, scatter_um: Floats, found: Detections, drift_um: Floats,
    motion: Motion, field_um: tuple[float, float],
) -> Scene:  # fmt: skip
    """Put together what the gains are computed from; `drift_um` is the stage's, so far."""
    logs = found.sizes
    n = max(len(found), 1)
    known = np.isfinite(logs).sum(axis=0) > 4
    usual, spread = np.full(3, np.nan), np.full(3, 0.5)
    for k in np.flatnonzero(known):
        usual[k] = np.nanmedian(logs[:, k])
        spread[k] = max(0.2, 1.4826 * float(np.nanmedian(np.abs(logs[:, k] - usual[k]))))
    inside = _edge_distance(place_um + drift_um, field_um)
    gone = ndtr(-inside / (scatter_um + 0.3 * motion.radius_um))
    return Scene(
        tracks=tracks,
        expected_um=place_um,
        scatter_um=scatter_um,
        sizes=_tracks.sizes(tracks),
        missed=np.log(np.maximum(P_MISSED, gone)),
        found_um=found.at_um - drift_um,
        found_sizes=logs,
        found_border=found.at_border,
        new=np.log(np.where(found.at_border, P_NEW_AT_BORDER, P_NEW)),
        log_density=float(np.log(n / (field_um[0] * field_um[1]))),
        usual=usual,
        usual_scatter=spread,
        exists=np.where(tracks["blob"] > 0, 0, _still_exists(found.t - tracks["seen"] - 1, tracks["sightings"])),
        size_scatter=motion.size_scatter,
        radius_um=motion.radius_um,
    )


def _still_exists(missed: Ints, sightings: Ints) -> Floats:
    """Return the log probability that a track is a cell that still exists, after it was missed some times in a row."""
    gone = np.where(sightings > 1, P_GONE, P_DEBRIS)
    unseen = P_MISSED ** missed.astype(np.float64)
    return np.asarray(np.where(missed > 0, np.log(unseen / (unseen + gone)), 0.0))


def link_gains(scene: Scene) -> Links:
    """Return all links with a gain above zero, among each track's eight nearest segments."""
    # An unlikely miss must not pay for an impossible jump: cells do not travel three diameters between two frames.
    most = 6 * np.maximum(scene.radius_um, scene.scatter_um)
    i, j = _near(scene.expected_um, scene.found_um, NEIGHBOURS, most)
    apart = scene.found_um[j] - scene.expected_um[i]
    same = _moved(scene, apart, i)
    daughter = np.log(P_SPLIT * P_MISSED) + _plane(apart, np.hypot(scene.scatter_um[i], 0.6 * scene.radius_um))
    gain = scene.exists[i] - scene.log_density - scene.missed[i] - scene.new[j]
    gain -= 3.0 * shadows(scene.tracks)[i]  # the cells that a blob is made of come first
    near = np.maximum(same, daughter) + gain > -MOST_BY_SIZE
    i, j, same, daughter, gain = i[near], j[near], same[near], daughter[near], gain[near]
    gain += _tracks.log_sum(same + size_gain(scene, i, j), daughter + size_gain(scene, i, j, of_daughter=True))
    keep = gain > 0
    return Links(i[keep], j[keep], gain[keep])


def _moved(scene: Scene, apart_um: Floats, i: Ints) -> Floats:
    """Return the log density per um2 of being off the expected place; a few cells are livelier than the others."""
    scatter = scene.scatter_um[i]
    lively = np.maximum(scatter, 0.5 * scene.radius_um)
    return _tracks.log_sum(np.log1p(-P_LIVELY) + _plane(apart_um, scatter), np.log(P_LIVELY) + _plane(apart_um, lively))


def size_gain(scene: Scene, i: Ints, j: Ints, *, of_daughter: bool = False) -> Floats:
    """Return how much the sizes of segments `j` speak for tracks `i`, or for their being one of two daughters."""
    change = scene.found_sizes[j] - scene.sizes[i]
    cut = scene.found_border[j] | scene.tracks["border"][i]
    scatter = _with_cut(scene.size_scatter, cut, scene.scatter_um[i] / scene.radius_um)
    if of_daughter:
        change = change - np.array([-0.35, -np.log(2), -np.log(2)])  # a rounded mother's daughters spread again
        scatter = np.hypot(scatter, [0.3, 0.08, 0.08])
    gain = _line(change, scatter) - _usual(scene, scene.found_sizes[j])
    gain = _tracks.log_sum(gain + np.log1p(-P_ODD), np.log(P_ODD))
    known = ~np.isnan(gain)
    total = np.where(known, gain, 0).sum(axis=1)
    # The border cuts area, mass and DNA alike: together they say no more than one of them.
    return np.asarray(np.where(cut, total / np.maximum(known.sum(axis=1), 1), total))


def _with_cut(scatter: Floats, cut: Bools, moved: Floats) -> Floats:
    """Return (n, 3) scatters of log sizes, wider where the border cuts cells that may have `moved`, in radii."""
    return np.asarray(np.hypot(scatter, np.where(cut, 0.15 + moved, 0.0)[:, None]))


def shadows(tracks: _tracks.Tracks) -> Bools:
    """Return which tracks are one outline around two others that are still waited for."""
    return np.isin(tracks["id"], tracks["blob"][tracks["blob"] > 0])


# ---------------------------------------------------------------------- splits


def splits(scene: Scene, linked_segments: Bools, linked_tracks: Bools) -> list[Event]:
    """Return the likely splits: a track into two segments of which at least one would be new otherwise.

    A track that has split lately splits again only if what it lost then was debris, and is gone.
    """
    lasting = linked_tracks | (scene.tracks["sightings"] > 1)
    siblings = np.isin(scene.tracks["sibling"], scene.tracks["id"][lasting])
    role = scene.tracks["role"]
    able = np.flatnonzero(((role == _tracks.NONE) | ((role == _tracks.MOTHER) & ~siblings)) & ~shadows(scene.tracks))
    free = np.flatnonzero(~linked_segments)
    if not len(able) or not len(free):
        return []
    reach = 3 * scene.scatter_um[able] + 2.0 * scene.track_radius_um[able]
    near_i, near_j = _near(scene.expected_um[able], scene.found_um, NEIGHBOURS, reach)
    i, a, b = _pairs(near_i, near_j, linked_segments)
    i = able[i]
    gain = split_gains(
        scene, scene.expected_um[i], scene.scatter_um[i], scene.sizes[i], scene.tracks["border"][i], a, b
    )
    gain += _rounded(scene.tracks, scene.sizes[:, 0])[i]
    gain -= scene.missed[i] + scene.new[a] + scene.new[b]
    return [Event((int(i[k]),), (int(a[k]), int(b[k])), float(gain[k])) for k in np.flatnonzero(gain > 0)]


@dataclass(frozen=True, slots=True)
class Late:
    """A split whose second daughter shows only now, as `segment`; the first was the track `row`, `since` sightings."""

    row: int
    segment: int
    since: int
    gain: float


def late_splits(scene: Scene, tracks: _tracks.Tracks, motion: Motion, owner: Ints, t: int) -> list[Late]:
    """Return splits one or two time points ago that explain tracks begun at `t`, each track and segment once.

    `tracks` hold their sightings at `t`; `owner` (m,) are the tracks that the scene's segments belong to.
    """
    new = np.flatnonzero((tracks["born"] == t) & (tracks["role"] == _tracks.NONE) & ~tracks["made_of"].any(axis=1))
    # At the border cells come and go, whole or in part: what shrinks there has not divided.
    inside = (tracks["role"] == _tracks.NONE) & ~tracks["border"]
    new = new[~tracks["border"][new]]
    able = np.flatnonzero((tracks["seen"] == t) & inside & (tracks["since"] > 2))
    if not len(new) or not len(able):
        return []
    segment_of = dict(zip(owner.tolist(), range(len(owner)), strict=True))
    own = np.array([segment_of[cell] for cell in tracks["id"][able].tolist()])
    fresh = np.array([segment_of[cell] for cell in tracks["id"][new].tolist()])
    found: list[Late] = []
    for since in (2, 3):
        old = (tracks["since"][able] > since) & (tracks["past"][able, since - 1, 0] >= t - 2)
        found += _late(scene, tracks, motion, (able[old], own[old]), fresh, since)
    chosen: list[Late] = []
    for late in sorted(found, key=lambda split: -split.gain):
        if not any(late.row == c.row or late.segment == c.segment for c in chosen):
            chosen.append(late)
    return chosen


def _late(
    scene: Scene, tracks: _tracks.Tracks, motion: Motion, able: tuple[Ints, Ints], fresh: Ints, since: int
) -> list[Late]:
    """Return the likely late splits of the tracks `able` (rows, segments) `since` sightings ago."""
    mothers = tracks[able[0]]
    place = mothers["past"][:, since, 1:3]
    scatter = motion.scatter_um[1] * (mothers["past"][:, 0, 0] - mothers["past"][:, since, 0]) ** 0.8
    i, k = _near(place, scene.found_um[fresh], NEIGHBOURS, 3 * scatter + 2.5 * scene.radius_um)
    before, after = _tracks.sizes(mothers, first=since), mothers["past"][:, since - 1, 3 : _tracks.CUT]
    gain = split_gains(
        scene, place[i], scatter[i], before[i], mothers["border"][i], able[1][i], fresh[k]
    ) - scene.new[fresh[k]] + np.log(P_MISSED)  # fmt: skip
    # What it has to beat: the track simply went on, and the segment has nothing to do with it.
    went_on = _line(after - before, scene.size_scatter) - _usual(scene, after)
    went_on = np.where(np.isnan(went_on), 0, np.maximum(went_on, np.log(P_ODD))).sum(axis=1)
    went_on += -np.log(2 * np.pi * motion.scatter_um[0] ** 2) - 1 - scene.log_density
    gain -= went_on[i]
    return [Late(int(able[0][i[n]]), int(fresh[k[n]]), since, float(gain[n])) for n in np.flatnonzero(gain > 0)]


def _rounded(tracks: _tracks.Tracks, log_area: Floats) -> Floats:
    """Return what rounding up adds to the log probability of a split: living cells do so before they divide."""
    last = tracks["past"][:, 0, 3]
    area = np.fmin(log_area, last)
    return np.asarray(
        np.where((tracks["spread"] - area > ROUND) & ~(tracks["alive"] < 0.5), np.log(P_SPLIT_ROUND / P_SPLIT), 0.0)
    )


def _pairs(i: Ints, j: Ints, linked: Bools) -> tuple[Ints, Ints, Ints]:
    """Return all (track, segment, other segment) of pairs that share a track, one of the segments being free."""
    order = np.lexsort((j, i))
    i, j = i[order], j[order]
    rows, firsts, seconds = [], [], []
    for step in range(1, NEIGHBOURS):
        same = np.flatnonzero(i[:-step] == i[step:])
        same = same[~(linked[j[same]] & linked[j[same + step]])]
        rows.append(i[same])
        firsts.append(j[same])
        seconds.append(j[same + step])
    return np.concatenate(rows), np.concatenate(firsts), np.concatenate(seconds)


def split_gains(
    scene: Scene, place_um: Floats, scatter_um: Floats, mother: Floats, border: Bools, a: Ints, b: Ints
) -> Floats:
    """Return log P(split) and of its geometry and sizes, less those of two unrelated segments.

    The two lie about the mother's place, touching or nearly; mass and DNA are conserved and, in a division, halved;
    area is conserved only roughly, as daughters of a rounded mother spread again.
    """
    share = _share_of(scene.found_sizes[a], scene.found_sizes[b])
    middle = scene.found_um[a] * share[:, None] + scene.found_um[b] * (1 - share)[:, None]
    gain = _plane(middle - place_um, np.hypot(scatter_um, 0.25 * scene.radius_um))
    apart = np.hypot(*(scene.found_um[a] - scene.found_um[b]).T)
    touching = scene.found_radius_um[a] + scene.found_radius_um[b]
    gain += _line(apart / touching - 0.85, np.array(0.25)) - np.log(touching * 2 * np.pi * np.maximum(apart, 1e-3))
    gain -= 2 * scene.log_density
    la, lb = scene.found_sizes[a], scene.found_sizes[b]
    total, ratio = _tracks.log_sum(la, lb) - mother, la - lb
    cut = border | scene.found_border[a] | scene.found_border[b]
    conserved = np.hypot(1.5 * scene.size_scatter, 0.05)
    conserved[0] = max(conserved[0], 0.2)
    moved = scatter_um / scene.radius_um
    conserved = _with_cut(conserved, cut, moved)
    alike = _with_cut(np.hypot(1.4 * scene.size_scatter, 0.08), cut, moved)
    halves = _tracks.log_sum(np.log(0.75) + _line(ratio, alike),
                          np.log(0.25) + _line(ratio, np.array(0.7)))  # fmt: skip
    whole = _line(total, conserved)
    # Pieces cover what the cell did; daughters of a mother who was round just now cover more, the later the more.
    respread = _line(total[:, 0] - 0.45, np.hypot(0.3, conserved[:, 0]))
    whole[:, 0] = _tracks.log_sum(np.log(0.3) + whole[:, 0], np.log(0.7) + respread)
    by_size = whole + halves - _usual(scene, la) - _usual(scene, lb)
    by_size = np.where(np.isnan(by_size), 0, np.maximum(by_size, np.log(P_ODD) * 2))
    return np.asarray(np.log(P_SPLIT) + gain + by_size.sum(axis=1))


def _share_of(la: Floats, lb: Floats) -> Floats:
    """Return the share of the first of two segments: of the mass if both have one, else of the area, else half."""
    share = 1 / (1 + np.exp(lb - la))
    best = np.where(np.isnan(share[:, 1]), share[:, 0], share[:, 1])
    return np.asarray(np.where(np.isnan(best), 0.5, best))


# ---------------------------------------------------------------------- mergers


def mergers(scene: Scene, linked_tracks: Bools) -> list[Event]:
    """Return the likely mergers: two neighbours under one segment, at least one of which would be missed otherwise."""
    able = scene.tracks["blob"] == 0
    if not (able & ~linked_tracks).any() or not len(scene.found_um):
        return []
    near_j, near_i = _near(scene.found_um, scene.expected_um, NEIGHBOURS, 3 * scene.radius_um + scene.found_radius_um)
    keep = able[near_i]
    j, i, k = _pairs(near_j[keep], near_i[keep], linked_tracks)
    apart = np.hypot(*(scene.expected_um[i] - scene.expected_um[k]).T)
    touching = scene.track_radius_um[i] + scene.track_radius_um[k]
    scatter = np.maximum(scene.scatter_um[i], scene.scatter_um[k])
    keep = apart < 1.2 * touching + scatter
    i, j, k, scatter = i[keep], j[keep], k[keep], scatter[keep]
    share = _share_of(scene.sizes[i], scene.sizes[k])
    middle = scene.expected_um[i] * share[:, None] + scene.expected_um[k] * (1 - share)[:, None]
    gain = _plane(scene.found_um[j] - middle, np.hypot(scatter, 0.25 * scene.radius_um)) - scene.log_density
    total = scene.found_sizes[j] - _tracks.log_sum(scene.sizes[i], scene.sizes[k])
    by_size = _line(total, np.hypot(1.5 * scene.size_scatter, [0.12, 0.05, 0.05])) - _usual(scene, scene.found_sizes[j])
    gain += np.where(np.isnan(by_size), 0, np.maximum(by_size, np.log(P_ODD))).sum(axis=1)
    ids = scene.tracks["id"]
    siblings = (scene.tracks["sibling"][i] == ids[k]) & (scene.tracks["role"][i] != _tracks.NONE)
    gain += np.log(np.where(siblings, P_REJOIN, P_MERGER)) - scene.missed[i] - scene.missed[k] - scene.new[j]
    return [Event((int(i[n]), int(k[n])), (int(j[n]),), float(gain[n])) for n in np.flatnonzero(gain > 0)]


# ---------------------------------------------------------------------- densities


def _near(from_um: Floats, to_um: Floats, most: int, reach_um: Floats | float = np.inf) -> tuple[Ints, Ints]:
    """Return index pairs (from, to): each point's `most` nearest within its reach."""
    if not len(from_um) or not len(to_um):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    reach = np.broadcast_to(reach_um, len(from_um))[:, None]
    ranks = np.arange(1, min(most, len(to_um)) + 1)
    distance, to = cKDTree(to_um).query(from_um, k=ranks, distance_upper_bound=float(reach.max()))
    keep = distance < reach
    return np.nonzero(keep)[0], np.asarray(to)[keep]


def _plane(apart_um: Floats, scatter_um: Floats) -> Floats:
    """Return the log density per um2 of an (n, 2) deviation."""
    z2 = (apart_um**2).sum(axis=1) / scatter_um**2
    return np.asarray(-np.log(2 * np.pi * scatter_um**2) - (DOF / 2 + 1) * np.log1p(z2 / DOF))


def _line(deviation: Floats, scatter: Floats) -> Floats:
    """Return the log density of a deviation along one axis; NaN stays NaN."""
    return np.asarray(_T1 - np.log(scatter) - (DOF + 1) / 2 * np.log1p((deviation / scatter) ** 2 / DOF))


def _usual(scene: Scene, log_sizes: Floats) -> Floats:
    """Return the log density of (n, 3) log sizes of segments that nothing is known of: like the others, or debris."""
    away = log_sizes - np.where(np.isnan(scene.usual), log_sizes, scene.usual)
    return _tracks.log_sum(
        np.log1p(-P_STRANGE) + _line(away, scene.usual_scatter), np.log(P_STRANGE) + _line(away, np.array(1.5))
    )


def _edge_distance(at_um: Floats, field_um: tuple[float, float]) -> Floats:
    """Return how far inside the field places are; negative outside."""
    size = np.array(field_um)
    return np.asarray(np.minimum(at_um, size - at_um).min(axis=1, initial=np.inf))
