"""Tracks as expected at a time point, the segments found there, and how probable places and sizes are.

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

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livestain.measure._motion import Motion
    from livestain.measure._sightings import Detections

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

__all__ = [
    "NEIGHBOURS",
    "P_MISSED",
    "P_ODD",
    "Scene",
    "expected",
    "line_density",
    "neighbours",
    "plane_density",
    "scene_of",
    "shadows",
    "usual_density",
    "with_cut",
]

P_MISSED = 0.02  # of a cell in the field at a time point; orders of magnitude count here, not values
P_GONE = 0.002  # of a cell, for good, within the field
P_DEBRIS = 0.3  # of what was seen only once
P_NEW = 0.02  # of a segment: not seen before though inside the field
P_NEW_AT_BORDER = 0.1
P_STRANGE = 0.3  # of a segment that was not there before to be of any size
P_ODD = 0.02  # of a size that tells nothing
DOF = 8.0
NEIGHBOURS = 8
_T1 = float(gammaln((DOF + 1) / 2) - gammaln(DOF / 2) - 0.5 * np.log(DOF * np.pi))


@dataclass(frozen=True, slots=True)
class Scene:
    """Tracks as expected at a time point and the segments found there; places in the sample's frame.

    `scatter_um` (n,) is the uncertainty per axis of `expected_um`; `missed` (n,) and `new` (m,) are log
    probabilities, and so is `exists` (n,), that a track missed before is still a cell; `log_density` is of segments per
    um2; `usual`, `usual_scatter` (3,) describe their log sizes, `size_scatter` (3,) how these change in a frame.
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


def _edge_distance(at_um: Floats, field_um: tuple[float, float]) -> Floats:
    """Return how far inside the field places are; negative outside."""
    size = np.array(field_um)
    return np.asarray(np.minimum(at_um, size - at_um).min(axis=1, initial=np.inf))


def shadows(tracks: _tracks.Tracks) -> Bools:
    """Return which tracks are one outline around two others that are still waited for."""
    return np.isin(tracks["id"], tracks["blob"][tracks["blob"] > 0])


# ---------------------------------------------------------------------- neighbours and densities


def neighbours(from_um: Floats, to_um: Floats, reach_um: Floats | float) -> tuple[Ints, Ints]:
    """Return index pairs (from, to): each point's eight nearest within its reach."""
    if not len(from_um) or not len(to_um):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    reach = np.broadcast_to(reach_um, len(from_um))[:, None]
    ranks = np.arange(1, min(NEIGHBOURS, len(to_um)) + 1)
    distance, to = cKDTree(to_um).query(from_um, k=ranks, distance_upper_bound=float(reach.max()))
    keep = distance < reach
    return np.nonzero(keep)[0], np.asarray(to)[keep]


def plane_density(apart_um: Floats, scatter_um: Floats) -> Floats:
    """Return the log density per um2 of an (n, 2) deviation."""
    z2 = (apart_um**2).sum(axis=1) / scatter_um**2
    return np.asarray(-np.log(2 * np.pi * scatter_um**2) - (DOF / 2 + 1) * np.log1p(z2 / DOF))


def line_density(deviation: Floats, scatter: Floats) -> Floats:
    """Return the log density of a deviation along one axis; NaN stays NaN."""
    return np.asarray(_T1 - np.log(scatter) - (DOF + 1) / 2 * np.log1p((deviation / scatter) ** 2 / DOF))


def usual_density(scene: Scene, log_sizes: Floats) -> Floats:
    """Return the log density of (n, 3) log sizes of segments that nothing is known of: like the others, or debris."""
    away = log_sizes - np.where(np.isnan(scene.usual), log_sizes, scene.usual)
    return _tracks.log_sum(
        np.log1p(-P_STRANGE) + line_density(away, scene.usual_scatter),
        np.log(P_STRANGE) + line_density(away, np.array(1.5)),
    )


def with_cut(scatter: Floats, cut: Bools, moved: Floats) -> Floats:
    """Return (n, 3) scatters of log sizes, wider where the border cuts cells that may have `moved`, in radii."""
    return np.asarray(np.hypot(scatter, np.where(cut, 0.15 + moved, 0.0)[:, None]))
