"""How likely splits and mergers are: their gains over links that are missed and segments that are new, see `_scene`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from livestain.measure import _tracks
from livestain.measure._assign import Event
from livestain.measure._scene import (
    NEIGHBOURS,
    P_MISSED,
    P_ODD,
    line_density,
    neighbours,
    plane_density,
    shadows,
    usual_density,
    with_cut,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livestain.measure._motion import Motion
    from livestain.measure._scene import Scene

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

__all__ = ["P_SPLIT", "Late", "late_splits", "mergers", "splits"]

P_SPLIT = 0.01  # of a cell at a time point: division, or a segment in two pieces
P_SPLIT_ROUND = 0.1  # of a cell that has rounded up
P_MERGER = 0.02  # of two neighbours at a time point
P_REJOIN = 0.03  # of two pieces that split a frame ago


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
    near_i, near_j = neighbours(scene.expected_um[able], scene.found_um, reach)
    i, a, b = _pairs(near_i, near_j, linked_segments)
    i = able[i]
    gain = _split_gains(
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
    i, k = neighbours(place, scene.found_um[fresh], 3 * scatter + 2.5 * scene.radius_um)
    before, after = _tracks.sizes(mothers, first=since), mothers["past"][:, since - 1, 3 : _tracks.CUT]
    gain = _split_gains(
        scene, place[i], scatter[i], before[i], mothers["border"][i], able[1][i], fresh[k]
    ) - scene.new[fresh[k]] + np.log(P_MISSED)  # fmt: skip
    # What it has to beat: the track simply went on, and the segment has nothing to do with it.
    went_on = line_density(after - before, scene.size_scatter) - usual_density(scene, after)
    went_on = np.where(np.isnan(went_on), 0, np.maximum(went_on, np.log(P_ODD))).sum(axis=1)
    went_on += -np.log(2 * np.pi * motion.scatter_um[0] ** 2) - 1 - scene.log_density
    gain -= went_on[i]
    return [Late(int(able[0][i[n]]), int(fresh[k[n]]), since, float(gain[n])) for n in np.flatnonzero(gain > 0)]


def _rounded(tracks: _tracks.Tracks, log_area: Floats) -> Floats:
    """Return what rounding up adds to the log probability of a split: living cells do so before they divide."""
    last = tracks["past"][:, 0, 3]
    area = np.fmin(log_area, last)
    return np.asarray(
        np.where(
            (tracks["spread"] - area > _tracks.ROUND) & ~(tracks["alive"] < 0.5), np.log(P_SPLIT_ROUND / P_SPLIT), 0.0
        )
    )


def _split_gains(
    scene: Scene, place_um: Floats, scatter_um: Floats, mother: Floats, border: Bools, a: Ints, b: Ints
) -> Floats:
    """Return log P(split) and of its geometry and sizes, less those of two unrelated segments.

    The two lie about the mother's place, touching or nearly; mass and DNA are conserved and, in a division, halved;
    area is conserved only roughly, as daughters of a rounded mother spread again.
    """
    share = _share_of(scene.found_sizes[a], scene.found_sizes[b])
    middle = scene.found_um[a] * share[:, None] + scene.found_um[b] * (1 - share)[:, None]
    gain = plane_density(middle - place_um, np.hypot(scatter_um, 0.25 * scene.radius_um))
    apart = np.hypot(*(scene.found_um[a] - scene.found_um[b]).T)
    touching = scene.found_radius_um[a] + scene.found_radius_um[b]
    gain += line_density(apart / touching - 0.85, np.array(0.25)) - np.log(
        touching * 2 * np.pi * np.maximum(apart, 1e-3)
    )
    gain -= 2 * scene.log_density
    la, lb = scene.found_sizes[a], scene.found_sizes[b]
    total, ratio = _tracks.log_sum(la, lb) - mother, la - lb
    cut = border | scene.found_border[a] | scene.found_border[b]
    conserved = np.hypot(1.5 * scene.size_scatter, 0.05)
    conserved[0] = max(conserved[0], 0.2)
    moved = scatter_um / scene.radius_um
    conserved = with_cut(conserved, cut, moved)
    alike = with_cut(np.hypot(1.4 * scene.size_scatter, 0.08), cut, moved)
    halves = _tracks.log_sum(np.log(0.75) + line_density(ratio, alike),
                          np.log(0.25) + line_density(ratio, np.array(0.7)))  # fmt: skip
    whole = line_density(total, conserved)
    # Pieces cover what the cell did; daughters of a mother who was round just now cover more, the later the more.
    respread = line_density(total[:, 0] - 0.45, np.hypot(0.3, conserved[:, 0]))
    whole[:, 0] = _tracks.log_sum(np.log(0.3) + whole[:, 0], np.log(0.7) + respread)
    by_size = whole + halves - usual_density(scene, la) - usual_density(scene, lb)
    by_size = np.where(np.isnan(by_size), 0, np.maximum(by_size, np.log(P_ODD) * 2))
    return np.asarray(np.log(P_SPLIT) + gain + by_size.sum(axis=1))


# ---------------------------------------------------------------------- mergers


def mergers(scene: Scene, linked_tracks: Bools) -> list[Event]:
    """Return the likely mergers: two neighbours under one segment, at least one of which would be missed otherwise."""
    able = scene.tracks["blob"] == 0
    if not (able & ~linked_tracks).any() or not len(scene.found_um):
        return []
    near_j, near_i = neighbours(scene.found_um, scene.expected_um, 3 * scene.radius_um + scene.found_radius_um)
    keep = able[near_i]
    j, i, k = _pairs(near_j[keep], near_i[keep], linked_tracks)
    apart = np.hypot(*(scene.expected_um[i] - scene.expected_um[k]).T)
    touching = scene.track_radius_um[i] + scene.track_radius_um[k]
    scatter = np.maximum(scene.scatter_um[i], scene.scatter_um[k])
    keep = apart < 1.2 * touching + scatter
    i, j, k, scatter = i[keep], j[keep], k[keep], scatter[keep]
    share = _share_of(scene.sizes[i], scene.sizes[k])
    middle = scene.expected_um[i] * share[:, None] + scene.expected_um[k] * (1 - share)[:, None]
    gain = plane_density(scene.found_um[j] - middle, np.hypot(scatter, 0.25 * scene.radius_um)) - scene.log_density
    total = scene.found_sizes[j] - _tracks.log_sum(scene.sizes[i], scene.sizes[k])
    by_size = line_density(total, np.hypot(1.5 * scene.size_scatter, [0.12, 0.05, 0.05])) - usual_density(
        scene, scene.found_sizes[j]
    )
    gain += np.where(np.isnan(by_size), 0, np.maximum(by_size, np.log(P_ODD))).sum(axis=1)
    ids = scene.tracks["id"]
    siblings = (scene.tracks["sibling"][i] == ids[k]) & (scene.tracks["role"][i] != _tracks.NONE)
    gain += np.log(np.where(siblings, P_REJOIN, P_MERGER)) - scene.missed[i] - scene.missed[k] - scene.new[j]
    return [Event((int(i[n]), int(k[n])), (int(j[n]),), float(gain[n])) for n in np.flatnonzero(gain > 0)]


# ---------------------------------------------------------------------- both


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


def _share_of(la: Floats, lb: Floats) -> Floats:
    """Return the share of the first of two segments: of the mass if both have one, else of the area, else half."""
    share = 1 / (1 + np.exp(lb - la))
    best = np.where(np.isnan(share[:, 1]), share[:, 0], share[:, 1])
    return np.asarray(np.where(np.isnan(best), 0.5, best))
