"""The hills of a landscape, parted along their valleys: a watershed whose shallow valleys do not count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["hills"]

_ALL, _HERE, _NEXT = slice(None), slice(None, -1), slice(1, None)
# Each pixel against its neighbours to the right, below, and on both diagonals below: every pair once.
_PAIRS = (
    ((_ALL, _HERE), (_ALL, _NEXT)),
    ((_HERE, _ALL), (_NEXT, _ALL)),
    ((_HERE, _HERE), (_NEXT, _NEXT)),
    ((_HERE, _NEXT), (_NEXT, _HERE)),
)


def hills(height: NDArray[np.float32], inside: NDArray[np.bool_], merged_above: float) -> NDArray[np.int32]:
    """Label the hills of a landscape.

    Every pixel belongs to the summit that its steepest way up leads to. Two hills are one where the pass between them
    is higher than `merged_above` of the lower summit: the higher the share, the more hills.

    Parameters
    ----------
    height
        (Y, X), at least 0 inside.
    inside
        (Y, X) bool; the rest is 0 in the result, and no way leads through it.
    merged_above
        0 to 1.

    Returns
    -------
    np.ndarray
        (Y, X) int32, hills from 1 without gaps.

    References
    ----------
    Merging by the height of the pass: Najman and Schmitt 1996, doi:10.1109/34.546254.
    """
    here, summit = _summits(height, inside)
    tops, number = np.unique(summit, return_inverse=True)
    labels = np.zeros(height.shape, np.int32)
    labels.ravel()[here] = number + 1
    peaks = [0.0, *height.ravel()[tops].tolist()]
    root = _merge(peaks, _passes(height, labels), merged_above)
    left, names = np.unique(root, return_inverse=True)
    return np.asarray(names.astype(np.int32)[labels]) if left.size > 1 else labels


def _summits(height: NDArray[np.float32], inside: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the flat indices of all pixels inside, and of the summit of each."""
    # Height above, index below in one integer: no two pixels are alike, so plateaus drain too. The bits of a
    # non-negative float32 rise with it.
    bits = np.maximum(height, 0).astype(np.float32).view(np.int32).astype(np.int64)
    key = np.where(inside, (bits << 32) | np.arange(height.size).reshape(height.shape), -1)
    rows = key.copy()
    np.maximum(rows[1:], key[:-1], out=rows[1:])
    np.maximum(rows[:-1], key[1:], out=rows[:-1])
    best = rows.copy()
    np.maximum(best[:, 1:], rows[:, :-1], out=best[:, 1:])
    np.maximum(best[:, :-1], rows[:, 1:], out=best[:, :-1])
    here = np.flatnonzero(inside)
    up = best.ravel() & 0xFFFFFFFF
    summit = up[here]
    while True:  # each round doubles the way
        further = up[summit]
        if np.array_equal(further, summit):
            return here, summit
        up[here] = summit = further


def _passes(height: NDArray[np.float32], labels: NDArray[np.int32]) -> Iterator[tuple[int, int, float]]:
    """Give (hill, hill, height of the highest pass) of hills that touch, from the highest pass down."""
    count = int(labels.max()) + 1
    pairs, heights = [], []
    for one, other in _PAIRS:
        a, b = labels[one], labels[other]
        between = (a != b) & (a > 0) & (b > 0)
        x, y = a[between].astype(np.int64), b[between].astype(np.int64)
        pairs.append(np.minimum(x, y) * count + np.maximum(x, y))
        heights.append(np.minimum(height[one][between], height[other][between]))
    pair, high = np.concatenate(pairs), np.concatenate(heights)
    falling = np.argsort(-high, kind="stable")
    pair, first = np.unique(pair[falling], return_index=True)
    high = high[falling][first]
    order = np.argsort(-high, kind="stable")
    a, b = np.divmod(pair[order], count)
    return zip(a.tolist(), b.tolist(), high[order].tolist(), strict=True)


def _merge(peaks: list[float], passes: Iterator[tuple[int, int, float]], merged_above: float) -> list[int]:
    """Give for each hill the one that it ends up in."""
    root = list(range(len(peaks)))

    def top(hill: int) -> int:
        while root[hill] != hill:
            root[hill] = root[root[hill]]
            hill = root[hill]
        return hill

    for one, other, high in passes:
        a, b = top(one), top(other)
        if a != b and high >= merged_above * min(peaks[a], peaks[b]):
            lower, higher = (a, b) if peaks[a] < peaks[b] else (b, a)
            root[lower] = higher
    return [top(hill) for hill in range(len(peaks))]
