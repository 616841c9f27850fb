"""Where a camera was full: what it shows there is too little, and every phase from it is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["saturated"]

_FULL_WELLS = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
_ENOUGH_TO_BE_FULL = 16  # pixels at one of these: fewer is chance


def saturated(
    planes: Sequence[NDArray[np.generic]] | NDArray[np.generic], full_counts: float | None = None
) -> NDArray[np.bool_] | None:
    """Return where the camera was full in any of the planes, (H, W); None where it was not.

    Parameters
    ----------
    planes
        (H, W) each, of uint8, uint16 or float counts.
    full_counts
        What the camera gives when it is full; then one pixel is enough. Without it, a full 8, 10, 12, 14 or 16 bits
        that 16 pixels are at.
    """
    full: NDArray[np.bool_] | None = None
    for plane in planes:
        top = float(plane.max())
        if full_counts is None and top not in _FULL_WELLS:
            continue
        at: NDArray[np.bool_] = np.greater_equal(plane, top if full_counts is None else full_counts)
        if at.any() and (full_counts is not None or at.sum() >= _ENOUGH_TO_BE_FULL):
            full = at if full is None else full | at
    return full
