"""Dry mass of every cell from a phase image: m = wavelength / (2 pi alpha) * pixel area * sum of phase.

alpha is the specific refraction increment, 0.18 mL/g (= um^3/pg) for what cells are made of (Barer, Nature 169:366,
1952; Zangle and Teitell, Nature Methods 11:1221, 2014). Nucleus and cytoplasm are projections: light that passes the
nucleus passes cytoplasm above and below it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from livestain._errors import RigError
from livestain.measure.background import fit_background

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livestain.measure.background import Background

    Real = NDArray[np.float64]

__all__ = ["ALPHA_ML_PER_G", "MassScale", "Masses", "dry_masses"]

ALPHA_ML_PER_G = 0.18
_LARGEST_SHARE = 0.8  # of the field for one cell; single cells are stored in tight crops
_WRAP = 1.5 * np.pi  # a step between neighbouring pixels that no cell makes
_WRAPS = 4
_ALONG_PX = 12.0  # over which an error of the outline keeps its direction


@dataclass(frozen=True, slots=True)
class MassScale:
    """What turns radians into picograms.

    Parameters
    ----------
    pixel_size_um
        Edge of a pixel in the sample.
    wavelength_um
        Of the light, in vacuum.
    alpha_ml_per_g
        Specific refraction increment.

    Raises
    ------
    RigError
        One is missing (None, 0, NaN) or in other units.
    """

    pixel_size_um: float
    wavelength_um: float
    alpha_ml_per_g: float = ALPHA_ML_PER_G

    def __post_init__(self) -> None:
        checks = (
            ("pixel size", "um", self.pixel_size_um, 0.01, 20.0, "calibrate it (Micro-Manager: Devices > Pixel Size)"),
            ("wavelength", "um", self.wavelength_um, 0.2, 2.0, "give that of the lamp or its filter, such as 0.55"),
            ("alpha", "mL/g", self.alpha_ml_per_g, 0.05, 0.5, "0.18 is usual for cells"),
        )
        for name, unit, value, low, high, remedy in checks:
            if not isinstance(value, int | float) or not low <= value <= high:
                raise RigError(
                    f"Dry mass needs the {name}, between {low:g} and {high:g} {unit}, and has {value!r}; {remedy}."
                )

    @property
    def pg_per_rad(self) -> float:
        """Picograms a radian of one pixel."""
        return self.wavelength_um / (2 * math.pi * self.alpha_ml_per_g) * self.pixel_size_um**2


@dataclass(frozen=True, slots=True, eq=False)
class Masses:
    """One row a cell, by rising id; float64 columns as in the cell table, NaN where `reason` says why.

    Of a cell at the border (`at_border`) it is the mass of the part in the field. `dry_mass_sd_pg` is one standard
    deviation: noise of the pixels as correlated as the background shows it, error of the background, of the outline,
    and what `errors_rad` says.
    """

    cell: NDArray[np.int64]
    area_um2: Real
    nucleus_area_um2: Real
    dry_mass_pg: Real
    dry_mass_sd_pg: Real
    nucleus_projected_dry_mass_pg: Real
    cytoplasm_projected_dry_mass_pg: Real
    at_border: NDArray[np.bool_]
    reason: tuple[str, ...]


def dry_masses(
    phase_rad: NDArray[np.floating],
    cells: NDArray[np.integer],
    nuclei: NDArray[np.generic] | None = None,
    *,
    scale: MassScale,
    errors_rad: NDArray[np.float32] | None = None,
    strangers: NDArray[np.bool_] | None = None,
    edge_sd_px: float = 0.7,
    background_order: int = 2,
    phase_reason: str = "",
) -> Masses:
    """Weigh every cell of a field.

    Parameters
    ----------
    phase_rad
        (H, W) float, unwrapped, rad; NaN where unknown.
    cells
        (H, W) integer labels, 0 for background; may have gaps.
    nuclei
        (H, W), not 0 in nuclei: what of a cell is nucleus.
    scale
        Pixel size, wavelength, alpha.
    errors_rad
        (n, H, W): equally likely errors of the phase (`Recovered.errors_rad`).
    strangers
        (H, W): True where there is no cell but no background either (`Recovered.strangers`).
    edge_sd_px
        Standard deviation of where the outline is.
    background_order
        Of the surface that is subtracted.
    phase_reason
        Why the phase is NaN, where it is known; goes into `reason`.

    Raises
    ------
    RigError
        The images differ in shape, or labels are negative.
    """
    labels, inside = _labels(phase_rad, cells, nuclei)
    ids, places = _numbered(labels)
    free = labels == 0 if strangers is None else (labels == 0) & ~strangers
    background = fit_background(phase_rad, free, order=background_order)
    area = _totals(places, len(ids), np.ones(labels.shape))
    lost = _totals(places, len(ids), ~np.isfinite(phase_rad))
    wraps = _wraps(phase_rad, labels, places, len(ids))
    reasons = _reasons(area / labels.size, lost, wraps, background, phase_reason)
    known = np.array([not reason for reason in reasons], bool)
    above = np.nan_to_num(np.asarray(phase_rad, np.float64) - background.surface_rad)
    mass = np.where(known, _totals(places, len(ids), above), np.nan)
    variance = np.full(len(area), np.nan)
    if known.any():
        each = _variance(background, above, labels, places, area, edge_sd_px, errors_rad)
        variance[known] = each[known]
    nucleus_area, nucleus_mass = np.full((2, len(area)), np.nan)
    if inside is not None:
        nucleus_area = _totals(places, len(ids), inside)
        projected = _totals(places, len(ids), np.where(inside, above, 0))
        nucleus_mass = np.where(known & (nucleus_area > 0), projected, np.nan)
        found = zip(reasons, nucleus_area, strict=True)
        reasons = [reason or ("" if pixels else "no nucleus was found in the cell") for reason, pixels in found]
    pg, um2 = scale.pg_per_rad, scale.pixel_size_um**2
    return Masses(
        cell=ids[1:],
        area_um2=area * um2,
        nucleus_area_um2=nucleus_area * um2,
        dry_mass_pg=mass * pg,
        dry_mass_sd_pg=np.sqrt(variance) * pg,
        nucleus_projected_dry_mass_pg=nucleus_mass * pg,
        cytoplasm_projected_dry_mass_pg=(mass - nucleus_mass) * pg,
        at_border=np.isin(ids[1:], _border(labels)),
        reason=tuple(reasons),
    )


def _totals(places: NDArray[np.intp], count: int, image: NDArray[np.generic]) -> Real:
    """Return the sum of an image over each cell; `places` (flat) tells which cell a pixel is of, 0 for none."""
    return np.asarray(np.bincount(places, image.ravel(), count)[1:], np.float64)


def _labels(
    phase_rad: NDArray[np.floating], cells: NDArray[np.integer], nuclei: NDArray[np.generic] | None
) -> tuple[NDArray[np.integer], NDArray[np.bool_] | None]:
    shapes = {"phase": np.shape(phase_rad), "cells": np.shape(cells)}
    if nuclei is not None:
        shapes["nuclei"] = np.shape(nuclei)
    if len(set(shapes.values())) > 1 or len(shapes["phase"]) != 2 or 0 in shapes["phase"]:
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise RigError(f"Phase and labels are not images of one shape: {said}.")
    if not np.issubdtype(np.asarray(cells).dtype, np.integer) or np.min(cells) < 0:
        raise RigError(f"Cell labels are whole numbers from 0 up; got {np.asarray(cells).dtype} from {np.min(cells)}.")
    return np.asarray(cells), None if nuclei is None else np.asarray(nuclei) != 0


def _numbered(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return the ids, 0 first, and for each pixel the place of its own among them (flat)."""
    ids = np.unique(np.append(0, labels))
    return ids.astype(np.int64), np.searchsorted(ids, labels.ravel())


def _reasons(share: Real, lost: Real, wraps: Real, background: Background, phase_reason: str) -> list[str]:
    """Return for each cell why it cannot be weighed, or ""."""
    reasons = []
    for part, pixels, jumps in zip(share, lost, wraps, strict=True):
        reason = ""
        if pixels:
            reason = phase_reason or f"the phase is not a number in {int(pixels)} of the cell's pixels"
        elif part > _LARGEST_SHARE:
            reason = f"one cell covers {part:.0%} of the field: no cell but a fault of segmentation"
        elif background.reason:
            reason = background.reason
        elif jumps >= _WRAPS:
            reason = "the phase is wrapped: neighbouring pixels differ by nearly a whole wave"
        reasons.append(reason)
    return reasons


def _wraps(phase_rad: NDArray[np.floating], labels: NDArray[np.integer], places: NDArray[np.intp], count: int) -> Real:
    """Return how often in each cell neighbouring pixels differ by about a turn."""
    jumps = np.zeros(labels.shape)
    for axis in (0, 1):
        here = jumps[:-1] if axis == 0 else jumps[:, :-1]
        here += (np.diff(labels, axis=axis) == 0) & (np.abs(np.diff(phase_rad, axis=axis)) > _WRAP)
    return _totals(places, count, jumps)


def _variance(
    background: Background,
    above_rad: Real,
    labels: NDArray[np.integer],
    places: NDArray[np.intp],
    area_px: Real,
    edge_sd_px: float,
    errors_rad: NDArray[np.float32] | None,
) -> Real:
    """Return the variance of each cell's sum of phase, rad^2."""
    count = len(area_px) + 1
    variance = background.sum_variance(area_px)
    sums = np.stack([_totals(places, count, term) for term in background.terms])
    variance += np.einsum("kc,kl,lc->c", sums, background.terms_covariance, sums)
    rim = np.where(_rim(labels), above_rad, 0)
    variance += edge_sd_px**2 * _ALONG_PX * _totals(places, count, rim**2)
    if errors_rad is not None and len(errors_rad):
        drawn = np.stack([_totals(places, count, error) for error in errors_rad])
        variance += (drawn**2).mean(axis=0)
    return variance


def _rim(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return True in pixels of cells beside something else."""
    rim = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    rim[1:] |= down
    rim[:-1] |= down
    rim[:, 1:] |= right
    rim[:, :-1] |= right
    return rim & (labels > 0)


def _border(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    return np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
