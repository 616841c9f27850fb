"""How likely links are: their gains over the tracks being missed and the segments being new, see `_scene`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from livestain.measure import _tracks
from livestain.measure._assign import Links
from livestain.measure._scene import (
    P_MISSED,
    P_ODD,
    line_density,
    neighbours,
    plane_density,
    shadows,
    usual_density,
    with_cut,
)
from livestain.measure._splits import P_SPLIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livestain.measure._scene import Scene

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["link_gains"]

P_LIVELY = 0.01  # of a step of half a radius or so, however still the other cells are
MOST_BY_SIZE = 8.0  # that agreeing sizes can add to a gain


def link_gains(scene: Scene) -> Links:
    """Return all links with a gain above zero, among each track's eight nearest segments."""
    # An unlikely miss must not pay for an impossible jump: cells do not travel three diameters between two frames.
    most = 6 * np.maximum(scene.radius_um, scene.scatter_um)
    i, j = neighbours(scene.expected_um, scene.found_um, most)
    apart = scene.found_um[j] - scene.expected_um[i]
    same = _moved(scene, apart, i)
    daughter = np.log(P_SPLIT * P_MISSED) + plane_density(apart, np.hypot(scene.scatter_um[i], 0.6 * scene.radius_um))
    gain = scene.exists[i] - scene.log_density - scene.missed[i] - scene.new[j]
    gain -= 3.0 * shadows(scene.tracks)[i]  # the cells that a blob is made of come first
    near = np.maximum(same, daughter) + gain > -MOST_BY_SIZE
    i, j, same, daughter, gain = i[near], j[near], same[near], daughter[near], gain[near]
    gain += _tracks.log_sum(same + _size_gain(scene, i, j), daughter + _size_gain(scene, i, j, of_daughter=True))
    keep = gain > 0
    return Links(i[keep], j[keep], gain[keep])


def _moved(scene: Scene, apart_um: Floats, i: Ints) -> Floats:
    """Return the log density per um2 of being off the expected place; a few cells are livelier than the others."""
    scatter = scene.scatter_um[i]
    lively = np.maximum(scatter, 0.5 * scene.radius_um)
    return _tracks.log_sum(
        np.log1p(-P_LIVELY) + plane_density(apart_um, scatter), np.log(P_LIVELY) + plane_density(apart_um, lively)
    )


def _size_gain(scene: Scene, i: Ints, j: Ints, *, of_daughter: bool = False) -> Floats:
    """Return how much the sizes of segments `j` speak for tracks `i`, or for their being one of two daughters."""
    change = scene.found_sizes[j] - scene.sizes[i]
    cut = scene.found_border[j] | scene.tracks["border"][i]
    scatter = with_cut(scene.size_scatter, cut, scene.scatter_um[i] / scene.radius_um)
    if of_daughter:
        change = change - np.array([-0.35, -np.log(2), -np.log(2)])  # a rounded mother's daughters spread again
        scatter = np.hypot(scatter, [0.3, 0.08, 0.08])
    gain = line_density(change, scatter) - usual_density(scene, scene.found_sizes[j])
    gain = _tracks.log_sum(gain + np.log1p(-P_ODD), np.log(P_ODD))
    known = ~np.isnan(gain)
    total = np.where(known, gain, 0).sum(axis=1)
    # The border cuts area, mass and DNA alike: together they say no more than one of them.
    return np.asarray(np.where(cut, total / np.maximum(known.sum(axis=1), 1), total))
