"""Phase beyond pi: unwraps what is in the cells, given that around them it is 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["unwrap"]

_ROUNDS = 8
_STILL = 0.5  # rad by which the last round may have changed anything


def unwrap(wrapped_rad: NDArray[np.floating], free: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Return the phase of which `wrapped_rad` is known only up to 2 pi.

    The least-squares phase of the wrapped differences comes from a cosine transform (Ghiglia and Romero, JOSA A
    11:107, 1994); it is brought onto the data by whole turns, and what is left is unwrapped in the same way until no
    pixel changes its turns.

    Parameters
    ----------
    wrapped_rad
        (H, W) float, finite.
    free
        (H, W), True where the phase is 0 but for noise; without it, or where it is nowhere True, the median is
        within -pi to pi.

    Returns
    -------
    phase_rad
        (H, W) float32, `wrapped_rad` plus whole turns.
    """
    wrapped = np.asarray(wrapped_rad, np.float64)
    level = free if free is not None and free.any() else np.ones(wrapped.shape, bool)
    smooth = np.zeros(wrapped.shape)
    turns = np.zeros(wrapped.shape)
    for _ in range(_ROUNDS):
        change = _least_squares(wrapped - smooth)
        change -= np.median((smooth + change - wrapped)[level])
        smooth += change
        before, turns = turns, np.round((smooth - wrapped) / (2 * np.pi))
        if np.array_equal(turns, before) and np.abs(change).max() < _STILL:
            break
    return (wrapped + 2 * np.pi * turns).astype(np.float32)


def _least_squares(wrapped: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the phase whose differences fit the wrapped differences of `wrapped` best."""
    height, width = wrapped.shape
    down, right = np.zeros_like(wrapped), np.zeros_like(wrapped)
    down[:-1] = _wrap(np.diff(wrapped, axis=0))
    right[:, :-1] = _wrap(np.diff(wrapped, axis=1))
    curvature = down + right
    curvature[1:] -= down[:-1]
    curvature[:, 1:] -= right[:, :-1]
    rows = 2 * np.cos(np.pi * np.arange(height) / height)
    cols = 2 * np.cos(np.pi * np.arange(width) / width)
    laplacian = rows[:, None] + cols[None, :] - 4
    laplacian[0, 0] = 1
    spectrum = fft.dctn(curvature) / laplacian
    spectrum[0, 0] = 0
    return np.asarray(fft.idctn(spectrum))


def _wrap(rad: NDArray[np.float64]) -> NDArray[np.float64]:
    return (rad + np.pi) % (2 * np.pi) - np.pi
