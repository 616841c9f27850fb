"""Where focus is: planes fit the phase of cells best if their distance from focus is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from livestain._errors import ExperimentError
from livestain.phase._quick import quick_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from livestain.phase.transfer import BrightField

__all__ = ["Focus", "find_focus"]

STEP_UM = 0.5


@dataclass(frozen=True, slots=True)
class Focus:
    """What to add to every z.

    Attributes
    ----------
    offset_um
        The middle of the offsets that fit; NaN if none can be told.
    low_um, high_um
        Their ends.
    residual
        Of the best fit.
    reason
        Why there is no offset, or "".
    """

    offset_um: float
    low_um: float
    high_um: float
    residual: float
    reason: str = ""


def find_focus(
    optics: BrightField,
    z_um: Sequence[float],
    planes: NDArray[np.generic],
    labels: NDArray[np.generic],
    *,
    search_um: float = 4.0,
    margin_um: float = 1.3,
    dark_counts: float = 0.0,
) -> Focus:
    """Find the offset from `z_um` to the planes' true distance from focus, in steps of `STEP_UM`, from one field.

    It takes three planes: two at any distance from focus have a phase that explains them. The sign of z must be right
    (`sign.find_sign`). It takes a few seconds: once for a run or a position.

    Parameters
    ----------
    optics, z_um, planes, labels, margin_um, dark_counts
        As for `SupportedPhase`.
    search_um
        How far to look to both sides.

    Raises
    ------
    ExperimentError
        `search_um` is below a step; or as `SupportedPhase` does.
    """
    if not STEP_UM <= search_um <= 50:
        raise ExperimentError(f"search_um is {search_um!r}; give how far focus may be off, {STEP_UM:g} to 50 um.")
    if len(z_um) < 3:
        reason = "two planes fit at any focus: take a third plane, or give the offset of focus"
        return Focus(np.nan, np.nan, np.nan, np.nan, reason)
    count = round(search_um / STEP_UM)
    offsets = np.asarray(STEP_UM * np.arange(-count, count + 1), float)
    residuals, noise = np.empty(offsets.size), 0.0
    for number, offset in enumerate(offsets):
        heights_um = [z + float(offset) for z in z_um]
        found = quick_fit(optics, heights_um, planes, labels, margin_um=margin_um, dark_counts=dark_counts)
        if np.isnan(found.residual):  # no fit at all; a bad one has its residual
            return Focus(np.nan, np.nan, np.nan, np.nan, found.reasons[0])
        residuals[number] = found.residual
        if found.residual <= residuals[: number + 1].min():
            noise = found.noise
    return _chosen(offsets, residuals, noise)


def _chosen(offsets: NDArray[np.float64], residuals: NDArray[np.float64], noise: float) -> Focus:
    """Return the middle of the offsets around the best that fit about as well."""
    best = int(residuals.argmin())
    fits = residuals <= 1.25 * residuals[best] + 0.5 * noise
    low = high = best
    while low > 0 and fits[low - 1]:
        low -= 1
    while high < offsets.size - 1 and fits[high + 1]:
        high += 1
    ends = float(offsets[low]), float(offsets[high])
    least = float(residuals[best])
    if low == 0 or high == offsets.size - 1:
        return Focus(np.nan, *ends, least, f"the best focus lies at the end of the search ({ends[0]:g} to {ends[1]:g})")
    return Focus(sum(ends) / 2, *ends, least)
