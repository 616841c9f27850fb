"""Phase from defocus for the eye and for staining: one cached inverse filter, a few milliseconds a field.

It keeps edges and grain but loses most of a cell's mass, which lies at frequencies that hardly pass: mass comes from
`supported`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from livestain._errors import ExperimentError
from livestain.phase.transfer import BrightField, transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["InverseFilter"]

LAMP_UM = 40.0  # what is smoother than this is the lamp's
_LAMP_STEP_PX = 8


class InverseFilter:
    """Turns planes through focus into phase; everything that depends on the rig alone is computed once.

    The filter is Tikhonov's: phase = sum of H_p d_p / (sum of H_p^2 + regularisation), where H_p are the planes'
    transfer functions and d_p their contrasts, each less its mean over the planes, so that dust and lamp drop out.
    Fields continue as their mirror image beyond the border.

    Parameters
    ----------
    optics
        The stand.
    z_um
        (P,) distance of each plane from focus, two or more; see `transfer.cross_transfer` for the sign.
    shape
        (Y, X) of the planes.
    absorption
        Nepers of amplitude absorbed for each rad of phase; None solves for absorption beside phase, which three planes
        can do and two cannot well.
    regularisation
        As a share of the transfer's greatest power: more is smoother, and flatter inside cells.
    dark_counts
        What the camera gives without light.

    Raises
    ------
    ExperimentError
        The heights or the regularisation cannot be.
    """

    def __init__(
        self,
        optics: BrightField,
        z_um: Sequence[float],
        shape: tuple[int, int],
        *,
        absorption: float | None = 0.0,
        regularisation: float = 3e-4,
        dark_counts: float = 0.0,
    ) -> None:
        if len(z_um) < 2 or not np.isfinite(z_um).all() or max(z_um) == min(z_um):
            raise ExperimentError(f"z_um is {list(z_um)}; phase from defocus needs planes at two or more heights.")
        if not 0 < regularisation < np.inf:
            raise ExperimentError(f"regularisation is {regularisation!r}; give a share above 0, e.g. 3e-4.")
        self._shape = (len(z_um), *shape)
        self._dark_counts = np.float32(dark_counts)
        filters = _filters(optics, z_um, shape, absorption, regularisation)
        self._mixes, self._filters = _fewest(filters)
        self._smooth = tuple(_smoother(n, LAMP_UM / optics.pixel_size_um) for n in shape)

    def __call__(self, planes: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return phase (Y, X) float32 in rad of (P, Y, X) counts; its mean is 0. NaN where a plane is dark or NaN.

        Raises
        ------
        ExperimentError
            The planes' shape is not that of this rig.
        """
        if planes.shape != self._shape:
            raise ExperimentError(f"planes are {planes.shape}; this filter was made for {self._shape}.")
        few = planes[:, ::_LAMP_STEP_PX, ::_LAMP_STEP_PX].astype(np.float32) - self._dark_counts
        light = few.mean(axis=(1, 2))
        if not (np.isfinite(light).all() and light.min() > 0):
            return np.full(self._shape[1:], np.nan, np.float32)
        lamp = self._smooth[0] @ (few / light[:, None, None]).mean(axis=0) @ self._smooth[1].T
        mixed = self._mixed(planes, light)
        mixed /= lamp
        spectra = fft.dctn(mixed, axes=(1, 2), norm="ortho", overwrite_x=True, workers=2)
        spectra *= self._filters
        whole = spectra[0] if len(spectra) == 1 else spectra.sum(axis=0)
        return np.asarray(fft.idctn(whole, norm="ortho", overwrite_x=True, workers=2), np.float32)

    def _mixed(self, planes: NDArray[np.generic], light: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mixtures (R, Y, X) that the filters work on; brightness of the planes is levelled."""
        shares = (self._mixes / light).astype(np.float32)
        mixed = np.empty((len(shares), *self._shape[1:]), np.float32)
        mixed[:] = (-self._dark_counts * shares.sum(axis=1))[:, None, None]
        counts, part = np.empty_like(mixed[0]), np.empty_like(mixed[0])
        for number, plane in enumerate(planes):
            if shares[:, number].any():
                counts[:] = plane
                for one, share in zip(mixed, shares[:, number], strict=True):
                    one += np.multiply(counts, share, out=part)
        return mixed


def _filters(
    optics: BrightField, z_um: Sequence[float], shape: tuple[int, int], absorption: float | None, regularisation: float
) -> NDArray[np.float64]:
    """Return (P, Y, X) what each plane's contrast spectrum is multiplied by to give the phase's."""
    both = transfer(optics, z_um, shape)
    phase = both.phase.astype(float) + (absorption or 0.0) * both.absorption
    phase -= phase.mean(axis=0)
    power = (phase**2).sum(axis=0)
    ridge = regularisation * power.max()
    if absorption is not None:
        return np.asarray(phase / (power + ridge))
    other = both.absorption - both.absorption.mean(axis=0, dtype=float)
    crossed, other_power = (phase * other).sum(axis=0), (other**2).sum(axis=0)
    rest = (power + ridge) * (other_power + ridge) - crossed**2
    return np.asarray(((other_power + ridge) * phase - crossed * other) / rest)


def _fewest(filters: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Write filters (P, Y, X) as few filters (R, Y, X) of mixtures (R, P) of the planes: each saves a transform."""
    flat = filters.reshape(len(filters), -1)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    mixes = vectors[:, values > 1e-8 * values.max()].T
    mixes[np.abs(mixes) < 1e-6] = 0
    return mixes, (mixes @ flat).reshape(-1, *filters.shape[1:]).astype(np.float32)


def _smoother(n: int, width_px: float) -> NDArray[np.float32]:
    """Return the matrix (n, n / step) that takes every `_LAMP_STEP_PX`th pixel to a smooth curve through all."""
    distance = np.arange(n)[:, None] - np.arange(0, n, _LAMP_STEP_PX)[None, :]
    bell = np.exp(-0.5 * (distance / width_px) ** 2)
    return np.asarray(bell / bell.sum(axis=1, keepdims=True), np.float32)
