"""Gives cells the phase back that the halo of interference took, with the mask of the cells as support.

The undiffracted light is no plane wave but the sample's field U blurred over the coherence radius of the illumination,
U0 = G * U (Nguyen, Edwards, Goddard and Popescu, "Quantitative phase imaging with partially coherent illumination",
Optics Letters 39:5511, 2014; a Gaussian stands for G here). Four steps measure d = conj(U0) U1, so that U =
U0 + d / conj(U0) wherever U0 is known. Two things tell U0:

- in cells, U0 must be the blur of the very U that it gives;
- outside them U = 1, so there U0 is measured directly.

U0 is smooth: a few hundred coefficients are fitted to both at once (`_halo_fit`). Around the field, where nothing is
seen, there may be cells too; the halo that they throw into the field finds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from livestain._errors import RigError
from livestain.phase._halo_fit import Fit, Known, fit
from livestain.phase._smooth_light import SmoothLight
from livestain.phase.unwrap import unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Window = tuple[slice, slice]

__all__ = ["Recovered", "coherence_limits_um", "recover"]

_LEAST_FREE = 0.02  # of the field
_LEAST_AMPLITUDE, _LARGEST_AMPLITUDE = 0.85, 1.07  # mean of |U| in cells; in focus 0.99, 2 um out of it 0.98
_LEAST_RADIUS_PX, _LEAST_RADIUS_UM = 4.0, 5.0  # a halo within a cell cannot be told from the cell
_TILE_RADII = 11.0  # the edge of a tile at most, in coherence radii
_MOST_TILES = 24  # along an axis: what is so much finer than the field is no halo, and the work would have no end
_MOST_FAILED = 3  # tiles; then the radius or the masks are wrong, and every other tile would fail as slowly
_AROUND_RADII = 1.5  # looked at around it
_LOOKS = 6  # for strangers
_STRANGER = 0.12  # |U - 1| outside cells above which something is there
_STRANGER_PX = 5
_GLANCE = 8  # steps: enough to see strangers, and in most fields to settle


@dataclass(frozen=True, slots=True, eq=False)
class Recovered:
    """The phase without halo.

    Attributes
    ----------
    phase_rad
        (H, W) float32: unwrapped in cells; outside them what is left of the halo, and noise. NaN where it could not
        be measured.
    errors_rad
        (n, H, W) float32: n equally likely errors of `phase_rad` that vary slowly over the field, for
        `livestain.measure.mass`. They come from noise, from what lies around the field and from the coherence
        radius' own uncertainty.
    misfit
        Root mean square of the halo left outside the cells, block by block, in units of what noise explains: 1 is
        perfect; several say that the coherence radius, the masks or the empty field are off.
    strangers
        (H, W): where there is something with a phase of its own though the mask has no cell there, such as a cell that
        segmentation missed. It is no background.
    reason
        Why there is NaN; "" without.
    """

    phase_rad: NDArray[np.float32]
    errors_rad: NDArray[np.float32]
    misfit: float
    strangers: NDArray[np.bool_]
    reason: str = ""


def recover(
    signal: NDArray[np.complexfloating],
    cells: NDArray[np.bool_],
    *,
    pixel_size_um: float,
    coherence_um: float,
    coherence_sd_um: float = 0.0,
    errors: int = 16,
    seed: int = 0,
) -> Recovered:
    """Return the phase of the cells, free of halo; one to three seconds at 512 x 512.

    Parameters
    ----------
    signal
        (H, W) complex, from `Slim.signal`; NaN in saturated pixels.
    cells
        (H, W), True in cells; better two or three pixels too wide than too narrow.
    pixel_size_um
        Edge of a pixel in the sample.
    coherence_um, coherence_sd_um
        Standard deviation of the Gaussian G: a number of the rig, see `livestain.phase.coherence`; and how sure it is.
    errors
        How many errors to draw; 0 for none.
    seed
        Of the draws.

    Raises
    ------
    RigError
        A pixel size or coherence radius that cannot be, or images of different shapes.
    """
    _check(signal, cells, pixel_size_um, coherence_um, coherence_sd_um)
    lost = ~np.isfinite(signal)
    reason = _cannot(cells, lost)
    if reason:
        nothing = np.full(cells.shape, np.nan, np.float32)
        return Recovered(nothing, np.zeros((0, *cells.shape), np.float32), np.nan, np.zeros(cells.shape, bool), reason)
    known = what_is_known(signal, cells, pixel_size_um)
    whole = _whole(known, coherence_um / pixel_size_um, errors, np.random.default_rng(seed))
    phase = _phase(whole)
    if coherence_sd_um > 0 and errors:
        wider = replace(known, cells=whole.cells), (coherence_um + coherence_sd_um) / pixel_size_um
        shift = np.nan_to_num(_phase(_whole(*wider, 0, np.random.default_rng(seed))) - phase)
        whole.errors += np.random.default_rng([seed, 1]).standard_normal((errors, 1, 1)).astype(np.float32) * shift
    unknown = ~np.isfinite(whole.field)
    reason = _implausible(np.abs(whole.field[cells & ~unknown]), phase[cells & ~unknown])
    phase[lost | unknown | bool(reason)] = np.nan
    if not reason and unknown.any():
        reason = (
            "removing the halo did not converge: the light around the cells fits no such cells; check the cell masks, "
            "the coherence radius, the empty field and the order of the phase steps"
        )
    elif not reason and lost.any():
        reason = f"the camera is saturated in {lost.mean():.2%} of the pixels; shorten the exposure"
    return Recovered(phase, whole.errors, whole.misfit, whole.cells & ~cells, reason)


def coherence_limits_um(shape: tuple[int, ...], pixel_size_um: float) -> tuple[float, float]:
    """Return the least and the largest coherence radius that a field (H, W) can be freed of halo with."""
    least_px = max(_LEAST_RADIUS_PX, max(shape) / (_MOST_TILES * _TILE_RADII))
    return max(least_px * pixel_size_um, _LEAST_RADIUS_UM), min(shape) * pixel_size_um


def _check(
    signal: NDArray[np.complexfloating],
    cells: NDArray[np.bool_],
    pixel_size_um: float,
    coherence_um: float,
    coherence_sd_um: float,
) -> None:
    if signal.ndim != 2 or signal.shape != cells.shape:
        raise RigError(f"The phase signal has shape {signal.shape} and the cell mask {cells.shape}; give one field.")
    if not (np.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise RigError(f"The pixel size is {pixel_size_um} um; calibrate it (Micro-Manager: Devices > Pixel Size).")
    low_um, high_um = coherence_limits_um(signal.shape, pixel_size_um)
    if not low_um <= coherence_um <= high_um:
        raise RigError(
            f"The coherence radius is {coherence_um:g} um; in a field of {signal.shape[1]} x {signal.shape[0]} px of "
            f"{pixel_size_um:g} um it is {low_um:.3g} to {high_um:.3g} um."
        )
    if not (np.isfinite(coherence_sd_um) and 0 <= coherence_sd_um < coherence_um):
        raise RigError(f"The coherence radius {coherence_um} um has a standard deviation of {coherence_sd_um} um.")


def _cannot(cells: NDArray[np.bool_], lost: NDArray[np.bool_]) -> str:
    free = float(np.mean(~cells & ~lost))
    if free < _LEAST_FREE:
        return f"only {free:.1%} of the field is free of cells: too little to know the undiffracted light"
    if lost.mean() > 0.05:
        return f"the camera is saturated in {lost.mean():.0%} of the pixels; shorten the exposure"
    return ""


def fit_with_strangers(known: Known, modes: SmoothLight) -> tuple[Known, Fit]:
    """Fit, and where something outside the cells turns out not to be empty, let it be a cell too and fit again."""
    found = fit(known, modes, steps=_GLANCE)
    for _ in range(_LOOKS):
        deviation = np.where(known.cells, 0, found.field - 1)
        smooth = np.hypot(*(ndimage.uniform_filter(part, _STRANGER_PX) for part in (deviation.real, deviation.imag)))
        seeds = ~known.cells & (smooth > max(_STRANGER, 3 * float(np.median(smooth[~known.cells]))))
        seeds = ndimage.binary_opening(seeds)
        if not seeds.any():
            break
        cells = known.cells | ndimage.binary_dilation(seeds, iterations=_STRANGER_PX)
        if np.mean(~cells) < _LEAST_FREE:
            break
        known = replace(known, cells=cells)
        found = fit(known, modes, start=found.coefficients, steps=_GLANCE)
    return known, found if found.converged else fit(known, modes, start=found.coefficients)


def _implausible(amplitude: NDArray[np.float64], phase_rad: NDArray[np.float32]) -> str:
    """Return why the field in the cells cannot be right, or ""."""
    if amplitude.size == 0:
        return ""
    if float(np.median(phase_rad)) < 0:
        return (
            "cells come out thinner than nothing: turn the sign of the phase steps (measure.phase.sign), or order the "
            "presets by their delay, beginning with none"
        )
    mean = float(amplitude.mean())
    if not _LEAST_AMPLITUDE < mean < _LARGEST_AMPLITUDE:
        return (
            f"cells come out with {mean:.0%} of the light that enters them, and they are transparent: check the order "
            "and the focus of the phase steps, the empty field and the coherence radius"
        )
    return ""


def what_is_known(signal: NDArray[np.complexfloating], cells: NDArray[np.bool_], pixel_size_um: float) -> Known:
    """Return the signal ready to be fitted, lost pixels taken from their neighbours: the blur hardly sees a few."""
    lost = ~np.isfinite(signal)
    whole = signal.astype(np.complex128)
    if lost.any():
        nearest = ndimage.distance_transform_edt(lost, return_distances=False, return_indices=True)
        whole = whole[tuple(nearest)]
    return Known(whole, cells, max(noise_of(whole, ~cells), 1e-4), pixel_size_um)


def noise_of(signal: NDArray[np.complexfloating], free: NDArray[np.bool_]) -> float:
    """Return the standard deviation of the signal's real part from pixel to pixel, outside cells."""
    step = np.diff(signal, axis=1)[free[:, 1:] & free[:, :-1]]
    if step.size == 0:
        return 0.0
    return float(1.4826 * np.median(np.abs(np.concatenate([step.real, step.imag]))) / np.sqrt(2))


@dataclass(slots=True, eq=False)
class _Whole:
    """A field put together from its tiles; NaN in tiles whose light could not be found."""

    field: NDArray[np.complex128]
    cells: NDArray[np.bool_]
    errors: NDArray[np.float32]
    misfit: float


def _whole(known: Known, radius_px: float, errors: int, rng: np.random.Generator) -> _Whole:
    shape = known.cells.shape
    whole = _Whole(np.full(shape, np.nan, complex), known.cells.copy(), np.zeros((errors, *shape), np.float32), 0.0)
    failed = 0
    for seen, kept, at in _tiles(shape, radius_px):
        part = replace(known, signal=known.signal[seen], cells=known.cells[seen])
        if np.mean(~part.cells) < _LEAST_FREE:
            continue
        part, found = fit_with_strangers(part, SmoothLight.of(part.cells.shape, radius_px))
        if not found.converged:
            failed += 1
            if failed >= _MOST_FAILED:
                break
            continue
        whole.field[at] = found.field[kept]
        whole.cells[at] = part.cells[kept]
        whole.errors[:, *at] = _errors(found, part.signal, errors, rng)[:, *kept]
        whole.misfit = max(whole.misfit, found.misfit)
    return whole


def _tiles(shape: tuple[int, int], radius_px: float) -> Iterator[tuple[Window, Window, Window]]:
    """Return for each tile the window to look at, the part of it to keep, and where that goes in the field.

    The effort grows with the sixth power of a field's edge, and light reaches no farther than two or three radii.
    """

    def axis(length: int) -> list[tuple[slice, slice, slice]]:
        count = max(1, math.ceil(length / (_TILE_RADII * radius_px)))
        edges = np.linspace(0, length, count + 1).round().astype(int).tolist()
        around = math.ceil(_AROUND_RADII * radius_px)
        parts = []
        for low, high in pairwise(edges):
            first, last = max(low - around, 0), min(high + around, length)
            parts.append((slice(first, last), slice(low - first, high - first), slice(low, high)))
        return parts

    for y in axis(shape[0]):
        for x in axis(shape[1]):
            yield (y[0], x[0]), (y[1], x[1]), (y[2], x[2])


def _phase(whole: _Whole) -> NDArray[np.float32]:
    phase = np.nan_to_num(np.angle(whole.field))
    unwrapped = unwrap(np.where(whole.cells, phase, 0), ~whole.cells)
    return np.where(whole.cells, unwrapped, phase).astype(np.float32)


def _errors(found: Fit, signal: NDArray[np.complex128], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return draws of the error that the fit's uncertainty leaves in the phase, (count, H, W)."""
    drawn = np.zeros((count, *signal.shape), np.float32)
    if count == 0:
        return drawn
    # of U = U0 + d / conj(U0): change of arg U = Im(change of U / U)
    direct = 1 / found.field.astype(np.complex64)
    crossed = direct * (signal / np.conj(found.light) ** 2).astype(np.complex64)
    for number, coefficients in enumerate(found.draw(count, rng)):
        change = (found.modes.light(coefficients) - 1).astype(np.complex64)
        drawn[number] = (direct * change - crossed * np.conj(change)).imag
    return drawn
