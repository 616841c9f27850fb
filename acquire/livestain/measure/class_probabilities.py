"""Averages a model's class head over each cell: how likely it is live, injured, dead in one frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from livestain._errors import LivestainError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["cell_probabilities"]

_LEAST_INSIDE = 0.05  # of a cell must not be background to the class head, or its classes are rounding noise


def cell_probabilities(
    planes: NDArray[np.unsignedinteger], labels: NDArray[np.integer], cells: ArrayLike, *, full_scale: float = 65535.0
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Average a class head's planes over each cell.

    Parameters
    ----------
    planes
        (3, Y, X) unsigned integers: live, injured, dead; `full_scale` is probability 1.
    labels
        (Y, X) integers: which cell (or its nucleus) a pixel belongs to, 0 for none.
    cells
        (n,) the cells that are asked for.

    Returns
    -------
    probabilities
        (n, 3) float64, of sum 1; NaN where there is a reason.
    reasons
        Why a cell has none, "" where it has.

    Raises
    ------
    LivestainError
        Shapes or types do not fit.
    """
    asked = np.asarray(cells, dtype=np.int64)
    if planes.shape != (3, *labels.shape) or planes.dtype.kind != "u" or labels.dtype.kind not in "iu":
        raise LivestainError(
            f"Class planes must be unsigned integers of shape (3, {', '.join(map(str, labels.shape))}) beside labels "
            f"that are integers, got {planes.dtype} {planes.shape} and labels of {labels.dtype}."
        )
    inside = labels > 0
    names, index = np.unique(labels[inside].astype(np.int64), return_inverse=True)
    counts = np.bincount(index, minlength=names.size)
    sums = np.stack([np.bincount(index, plane[inside], names.size) for plane in planes], axis=1)
    probabilities = np.full((asked.size, 3), np.nan)
    found = np.isin(asked, names)
    row = np.searchsorted(names, asked[found])
    means = sums[row] / (counts[row, None] * full_scale)
    total = means.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        probabilities[found] = np.where(total >= _LEAST_INSIDE, means / total, np.nan)
    known = np.isfinite(probabilities[:, 0])
    reasons = tuple(
        "" if ok else ("the model sees background there" if there else "no pixel of the cell in the labels")
        for ok, there in zip(known, found, strict=True)
    )
    return probabilities, reasons
