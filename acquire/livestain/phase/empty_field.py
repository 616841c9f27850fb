"""The light of a field without cells: what four-step phase is measured against, kept with the rig."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from livestain._errors import RigError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["EmptyField"]

CALIBRATED = "empty field"
ESTIMATED = "estimated from cell-free pixels"
_VERSION = 1
_SMOOTH_PX = 8.0  # a lens' own phase changes slowly: smoothed, one calibration adds no noise to a thousand images
_LARGEST_WAVE = 0.2  # |U1| / |U0| above this is an object, not dirt on a lens
_LEAST_FREE = 0.02  # of the field, to fit its light
_TAKE = "Take four frames of an empty field again: livestain empty-field."
_LEAST_LIGHT_COUNTS = 2.0  # above the camera's offset, in the darkest pixel in a thousand


@dataclass(frozen=True, slots=True, eq=False)
class EmptyField:
    """Light and phase of the rig without a sample.

    Attributes
    ----------
    light_counts
        (H, W) float32: |U0|^2, camera offset removed.
    phase_rad
        (H, W) float32: what the optics alone contribute to the phase.
    dark_counts
        The camera's offset: its mean with no light.
    source
        "empty field", or "estimated from cell-free pixels": then specks of dust are not in it.
    """

    light_counts: NDArray[np.float32]
    phase_rad: NDArray[np.float32]
    dark_counts: float
    source: str = CALIBRATED

    @classmethod
    def from_frames(cls, frames: NDArray[np.generic], *, dark_counts: float, sign: int = 1) -> EmptyField:
        """Make the calibration from one or more sets of four frames of a field without cells.

        With I_n = |U0|^2 + |U1|^2 + 2 |U0| |U1| cos(dphi + n pi/2), |U0|^2 is the larger root x of
        x^2 - x (I0 + I1 + I2 + I3)/4 + |D|^2 = 0, D = ((I0 - I2) + i (I3 - I1)) / 4; without dirt, their mean.

        Parameters
        ----------
        frames
            (4, H, W) or (n, 4, H, W), integer or float counts.
        dark_counts
            The camera's offset, measured with the light off. It has no default: taken as 0 where it is 100 of
            4000 counts, every mass is 2.5 % low.
        sign
            As in `Slim`.

        Raises
        ------
        RigError
            There is no light, or there are objects in the field.
        """
        sets = np.asarray(frames, np.float32)
        sets = sets[None] if sets.ndim == 3 else sets
        if sets.ndim != 4 or sets.shape[1] != 4 or sets.size == 0:
            raise RigError(
                f"The empty field has frames of shape {np.shape(frames)}; give (4, height, width), or (n, 4, height, "
                "width) for n repeats."
            )
        mean = sets.mean(axis=0) - np.float32(dark_counts)
        _check_light(mean.mean(axis=0), dark_counts)
        wave = ((mean[0] - mean[2]) + 1j * sign * (mean[3] - mean[1])) / 4
        # noise makes |D| of a clean field larger than it is, so what little there is gets smoothed first
        wave = ndimage.gaussian_filter(wave.real, _SMOOTH_PX) + 1j * ndimage.gaussian_filter(wave.imag, _SMOOTH_PX)
        half = mean.mean(axis=0) / 2
        light = half + np.sqrt(np.maximum(half**2 - np.abs(wave) ** 2, 0))
        objects = float(np.mean(np.abs(wave) > _LARGEST_WAVE * light))
        if objects > 0.01:
            raise RigError(
                f"{objects:.0%} of the field that should be empty holds objects; move the stage to a place without "
                "cells, or to a dish with medium only, and take the four frames again."
            )
        return cls(light.astype(np.float32), np.angle(light + wave).astype(np.float32), float(dark_counts))

    @classmethod
    def estimated(cls, frames: NDArray[np.generic], free: NDArray[np.bool_], *, dark_counts: float) -> EmptyField:
        """Estimate the light from the cell-free pixels of a field with cells: less exact, and `source` says so.

        The step without a delay shows |U0 + U1|^2, which where there is nothing is the empty field's light, halo
        or not. A quadratic surface through it leaves out dust.

        Parameters
        ----------
        frames
            (4, H, W) counts; the first is the step without a delay.
        free
            (H, W), True where there is no cell.
        dark_counts
            The camera's offset.

        Raises
        ------
        RigError
            There is no light, or there are too few cell-free pixels.
        """
        first = np.asarray(frames[0], np.float32) - np.float32(dark_counts)
        if free.shape != first.shape:
            raise RigError(f"The cell-free mask has shape {free.shape} and the frames {first.shape}; give one field.")
        if free.mean() < _LEAST_FREE:
            raise RigError(
                f"{free.mean():.1%} of the field is free of cells, too little to estimate its light "
                f"({_LEAST_FREE:.0%} is needed); take an empty field as calibration."
            )
        _check_light(first[free], dark_counts)
        light = _surface(first, free)
        return cls(light, np.zeros_like(light), float(dark_counts), ESTIMATED)

    def save(self, path: Path) -> None:
        """Write the calibration as .npz.

        Raises
        ------
        StoreError
            The file cannot be written.
        """
        try:
            with path.open("wb") as file:
                np.savez_compressed(
                    file,
                    version=_VERSION,
                    light_counts=self.light_counts,
                    phase_rad=self.phase_rad,
                    dark_counts=self.dark_counts,
                    source=self.source,
                )
        except OSError as error:
            raise StoreError(
                f"the empty-field calibration cannot be written to {path}: {error.strerror or error}. Choose a folder "
                "that exists and has room."
            ) from error

    @classmethod
    def load(cls, path: Path) -> EmptyField:
        """Read a calibration.

        Raises
        ------
        StoreError
            The file is not there, is damaged, or is none.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                version = int(file["version"])
                light, phase = file["light_counts"], file["phase_rad"]
                dark, source = float(file["dark_counts"]), str(file["source"])
        except OSError as error:
            raise StoreError(
                f"the empty-field calibration {path} cannot be read: {error.strerror or error}. {_TAKE}"
            ) from error
        except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise StoreError(
                f"{path} is no empty-field calibration, or a damaged one: it is not what `livestain empty-field` "
                f"writes. {_TAKE}"
            ) from error
        if version != _VERSION:
            raise StoreError(f"{path} is a calibration of version {version}; this livestain reads {_VERSION}.")
        fits = light.ndim == 2 and light.shape == phase.shape and light.size > 0
        if not (fits and np.isfinite(phase).all() and np.isfinite(light).all() and light.min() > 0):
            raise StoreError(
                f"{path} is a calibration with light {light.shape} and phase {phase.shape} that are not two images of "
                f"one shape with light everywhere. {_TAKE}"
            )
        if not np.isfinite(dark):
            raise StoreError(f"{path} is a calibration whose dark level is {dark}, which is no number. {_TAKE}")
        return cls(light.astype(np.float32), phase.astype(np.float32), dark, source)


def _check_light(light_counts: NDArray[np.float32], dark_counts: float) -> None:
    if not np.isfinite(light_counts).all() or not np.isfinite(dark_counts):
        raise RigError("The empty field, or the camera's offset, holds values that are not numbers (NaN or infinite).")
    least = float(np.quantile(light_counts, 0.001))
    if least <= _LEAST_LIGHT_COUNTS:
        raise RigError(
            f"The empty field is {least:.3g} counts above the camera's offset of {dark_counts:g} in its darkest part; "
            "open the shutter, lengthen the exposure, or correct the offset."
        )


def _surface(light: NDArray[np.float32], free: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a quadratic surface through the free pixels; pixels far off it (debris) are left out."""
    y, x = np.linspace(-1, 1, light.shape[0])[:, None], np.linspace(-1, 1, light.shape[1])[None, :]
    terms = [np.broadcast_to(x**i * y**j, light.shape) for i in range(3) for j in range(3 - i)]
    rows = np.stack([term[free] for term in terms], axis=1)
    values = light[free].astype(np.float64)
    kept = np.ones(len(values), bool)
    factors: NDArray[np.floating] = np.zeros(len(terms))
    for _ in range(4):
        factors = np.linalg.lstsq(rows[kept], values[kept], rcond=None)[0]
        off = np.abs(values - rows @ factors)
        kept = off <= 3 * 1.4826 * np.median(off) + 1e-6
    surface = sum((f * term for f, term in zip(factors, terms, strict=True)), np.zeros(light.shape))
    return np.maximum(surface, 0.05 * np.median(values)).astype(np.float32)
