"""Finds the coherence radius of the illumination, which halo removal needs, from the halo of a field with cells.

Around a cell the undiffracted light is the cell's own field, blurred. Of all radii the true one explains best what is
seen there; it is a number of the rig, found once and kept with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar

from livestain._errors import RigError
from livestain.phase._halo_fit import Known, fit
from livestain.phase._smooth_light import SmoothLight
from livestain.phase.halo import fit_with_strangers, what_is_known

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Coherence", "estimate_coherence"]

_LEAST_FREE = 0.1
_LEAST_CELLS = 0.01
_LARGEST_SHARE = 0.3  # of the field's shorter side; a wider halo leaves no trace to see
_SMALLEST_SHARE = 0.05
_WIDEST_RADII = 9.5
_RATIO = 1.25  # between radii tried
_STEPS = 12
_PRECISION = 0.004  # of the logarithm


@dataclass(frozen=True, slots=True)
class Coherence:
    """The coherence radius.

    Attributes
    ----------
    um
        Standard deviation of the Gaussian; NaN where it could not be found.
    sd_um
        How sure: from what the quarters of the field say each for itself; NaN with `um`.
    misfit
        As `Recovered.misfit` at the radius.
    reason
        Why `um` is NaN; "" where it is not.
    """

    um: float
    sd_um: float
    misfit: float
    reason: str = ""


def estimate_coherence(
    signal: NDArray[np.complexfloating], cells: NDArray[np.bool_], *, pixel_size_um: float
) -> Coherence:
    """Estimate the coherence radius from one field; 10 to 30 s at 512 x 512.

    Parameters
    ----------
    signal
        (H, W) complex, from `Slim.signal` with an empty field measured on this rig.
    cells
        (H, W), True in cells; a field half full of single cells is best.
    pixel_size_um
        Edge of a pixel in the sample.

    Raises
    ------
    RigError
        The pixel size cannot be, or the shapes differ.
    """
    if signal.ndim != 2 or signal.shape != cells.shape:
        raise RigError(f"The phase signal has shape {signal.shape} and the cell mask {cells.shape}; give one field.")
    if not (np.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise RigError(f"The pixel size is {pixel_size_um} um; calibrate it (Micro-Manager: Devices > Pixel Size).")
    reason = _cannot(signal, cells)
    if reason:
        return _unknown(reason)
    field_px = min(cells.shape)
    low, high = max(4.0, _SMALLEST_SHARE * field_px), _LARGEST_SHARE * field_px
    known = what_is_known(signal, cells, pixel_size_um)
    start = _descend(_cost_of(known), low, high)
    if start is None:
        return _unknown(
            f"the halo fits no coherence radius between {low * pixel_size_um:.3g} and {high * pixel_size_um:.3g} um; "
            "check the cell masks, the order of the phase steps and the empty field"
        )
    known = _middle(known, start)
    known, found = fit_with_strangers(known, SmoothLight.of(known.cells.shape, start))
    radius = _closest(_cost_of(known), start)
    quarters = [math.log(_closest(_cost_of(part), radius)) for part in _quarters(known)]
    if len(quarters) < 3:
        return _unknown("fewer than three quarters of the field hold both cells and room between them")
    found = fit(known, SmoothLight.of(known.cells.shape, radius))
    spread = float(np.std(quarters, ddof=1)) / math.sqrt(len(quarters))
    um = radius * pixel_size_um
    return Coherence(um, um * max(spread, _PRECISION), found.misfit)


def _cannot(signal: NDArray[np.complexfloating], cells: NDArray[np.bool_]) -> str:
    share = float(cells.mean())
    if not _LEAST_CELLS <= share <= 1 - _LEAST_FREE:
        return f"cells cover {share:.1%} of the field; {_LEAST_CELLS:.0%} to {1 - _LEAST_FREE:.0%} are needed"
    if np.mean(~np.isfinite(signal)) > 0.01:
        return "more than 1 % of the pixels are saturated; shorten the exposure"
    return ""


def _unknown(reason: str) -> Coherence:
    nan = float("nan")
    return Coherence(nan, nan, nan, reason)


def _cost_of(known: Known) -> Callable[[float], float]:
    """Return the function radius in pixels -> what the best fit leaves unexplained, for each pixel outside cells."""

    def cost(radius_px: float) -> float:
        part = _middle(known, radius_px)
        free = max(int(np.count_nonzero(~part.cells)), 1)
        return fit(part, SmoothLight.of(part.cells.shape, radius_px), steps=_STEPS).cost / free

    return cost


def _middle(known: Known, radius_px: float) -> Known:
    """Return the middle of the field, as many radii wide as a fit takes seconds for."""
    cut = []
    for length in known.cells.shape:
        wide = min(length, math.ceil(_WIDEST_RADII * radius_px))
        cut.append(slice((length - wide) // 2, (length - wide) // 2 + wide))
    window = (cut[0], cut[1])
    return replace(known, signal=known.signal[window], cells=known.cells[window])


def _descend(cost: Callable[[float], float], low: float, high: float) -> float | None:
    """Go down from the largest radius, where fits are cheap, until the cost has clearly risen again."""
    if low > high:  # a field of a few pixels
        return None
    tried: list[tuple[float, float]] = []
    radius = high
    while radius >= low:
        tried.append((cost(radius), radius))
        best = min(tried)
        if tried[-1][0] > 2 * best[0] and best is not tried[0]:
            break
        radius /= _RATIO
    best = min(tried)
    return None if best is tried[0] or best is tried[-1] else best[1]


def _closest(cost: Callable[[float], float], near: float) -> float:
    """Return the radius of least cost within a factor of `_RATIO` (and a little) of `near`."""
    reach = 1.3 * math.log(_RATIO)
    bounds = (math.log(near) - reach, math.log(near) + reach)
    least = minimize_scalar(
        lambda log: math.log(cost(math.exp(log))), bounds=bounds, method="bounded", options={"xatol": _PRECISION}
    )
    return math.exp(float(least.x))


def _quarters(known: Known) -> list[Known]:
    """Return the quarters of the field that have both cells and room."""
    height, width = (n // 2 for n in known.cells.shape)
    parts = []
    for rows in (slice(None, height), slice(height, None)):
        for cols in (slice(None, width), slice(width, None)):
            cells = known.cells[rows, cols]
            if _LEAST_CELLS <= cells.mean() <= 1 - _LEAST_FREE:
                parts.append(Known(known.signal[rows, cols], cells, known.noise, known.pixel_size_um))
    return parts
