"""The common shift of a whole field between two time points: stage drift and jumps, told from the cells' own motion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["common_shift"]

FEWEST = 8  # fewer cells than this cannot be told from a stage that moved
SURE = 4.0  # standard errors
CHANCE = 0.15  # of finding a neighbour by accident: what is near is chosen so
LARGEST_VOTE = 400  # cells that vote for a jump; more add time, not certainty
MOST_BINS = 2000  # of votes, along either axis: memory is bounded however small the cells are


def common_shift(
    expected_um: Floats, found_um: Floats, near_um: float, last_um: Floats, height_um: float, width_um: float
) -> Floats:
    """Return how far everything has moved together.

    Parameters
    ----------
    expected_um, found_um
        (n, 2) and (m, 2): where the cells should be if the stage stood still, and where segments are.
    near_um
        How far a cell may be from where it should be.
    last_um
        (2,): the last time point's shift, tried first because drift tends to go on.
    height_um, width_um
        Size of the field: cells that the shift moves out of it are not missed.

    Returns
    -------
    (2,) float64
        In um; exactly zero where no shift is certain. Fewer than eight cells never are.
    """
    none = np.zeros(2)
    if min(len(expected_um), len(found_um)) < FEWEST:
        return none
    tree = cKDTree(found_um)
    density = len(found_um) / (height_um * width_um)
    near_um = min(near_um, float(np.sqrt(CHANCE / (np.pi * density))))
    field = np.array([height_um, width_um])

    def support(shift: Floats) -> tuple[float, int]:
        moved = expected_um + shift
        inside = moved[((moved > 0) & (moved < field)).all(axis=1)]
        if len(inside) < FEWEST:
            return 0.0, 0
        hits = int(np.isfinite(tree.query(inside, distance_upper_bound=near_um)[0]).sum())
        return hits / len(inside), hits

    start, (share, _) = none, support(none)
    if last_um.any() and (again := support(last_um)[0]) > share:
        start, share = last_um, again
    if share < 0.5:
        jump = _vote(expected_um, found_um, near_um)
        # A jump must explain far more than standing still does: the best of many places is good by chance.
        jump_share, hits = support(jump)
        if jump_share >= max(0.5, 1.5 * share) and hits >= FEWEST:
            start = jump
    return _refined(expected_um, found_um, tree, start, near_um)


def _vote(expected_um: Floats, found_um: Floats, near_um: float) -> Floats:
    """Return the shift that most pairs of cells agree on: the peak of the cross-difference histogram."""
    chosen = expected_um[:: len(expected_um) // LARGEST_VOTE + 1]
    shifts = (found_um[None] - chosen[:, None]).reshape(-1, 2)
    lowest = shifts.min(axis=0)
    bin_um = max(near_um, float(np.ptp(shifts, axis=0).max()) / MOST_BINS)
    bins = np.floor((shifts - lowest) / bin_um).astype(np.int64)
    votes = np.zeros(bins.max(axis=0) + 3)
    np.add.at(votes, (bins[:, 0] + 1, bins[:, 1] + 1), 1)
    # A peak may lie across bins: count each with its neighbours.
    votes = votes + np.roll(votes, 1, 0) + np.roll(votes, -1, 0)
    votes = votes + np.roll(votes, 1, 1) + np.roll(votes, -1, 1)
    peak = np.array(np.unravel_index(np.argmax(votes), votes.shape)) - 1
    at_peak = (np.abs(bins - peak) <= 1).all(axis=1)
    return np.asarray(np.median(shifts[at_peak], axis=0))


def _refined(expected_um: Floats, found_um: Floats, tree: cKDTree, start: Floats, near_um: float) -> Floats:
    """Return the median shift of mutual neighbours, or zero if it is not certain."""
    shift = start
    for _ in range(2):
        distance, j = tree.query(expected_um + shift, distance_upper_bound=near_um)
        j, back = np.asarray(j), np.asarray(cKDTree(expected_um + shift).query(found_um)[1])
        ours = np.flatnonzero(np.isfinite(distance))
        ours = ours[back[j[ours]] == ours]
        if len(ours) < FEWEST:
            return start
        apart = found_um[j[ours]] - expected_um[ours]
        shift = np.median(apart, axis=0)
    spread = 1.4826 * np.median(np.abs(apart - shift), axis=0)
    error = 1.2533 * spread / np.sqrt(len(apart))  # of a median
    certain = np.abs(shift).max() > SURE * max(float(error.max()), 1e-9)
    return np.asarray(shift) if certain else np.zeros(2)
