"""Phase from defocus that keeps a cell's whole mass: the cells' masks as support, and no phase below zero.

The lowest spatial frequencies hardly pass from phase to contrast, so an inverse filter loses most of a cell's mass.
That a cell's phase is positive and lies within its mask supplies what the light does not (Gerchberg and Papoulis's
argument; the minimiser is FISTA, Beck and Teboulle, SIAM J. Imaging Sci. 2, 183, 2009, with the restart of O'Donoghue
and Candes 2015). Three choices make it a measurement, each measured against an Abbe model of strong cells:

- The planes' common part is left out. Dust, lamp and absorption in focus are in it, and a guess of absorption that is
  wrong by as little as 0.01 neper a radian costs half the mass; left out, 0.04 neper a radian costs 5 %.
- Residuals count by 1 / (power of the transfer + 1 %): all frequencies converge together, in some 100 steps, not 600.
- Residuals above 0.5 / um count little. Camera noise there would become mass, since positivity turns noise into phase:
  up to 50 % too much in crowds. What is left is coarse, so the work is done on a coarser grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

from livestain._errors import ExperimentError
from livestain.phase._saturated import saturated
from livestain.phase.contrast import flat_contrast, why_no_defocus
from livestain.phase.transfer import BrightField, frequencies_per_um, transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Iterations", "Supported", "SupportedPhase"]

WHITEN = 0.01  # of the transfer's greatest power
ROLL_OFF_PER_UM = 0.5
COARSE_STEP_UM = 0.65  # its Nyquist frequency has a weight of 0.09
FRINGE_UM = 3.0  # light this near to a cell is not background
MODEL_SD = 0.03  # of a cell's phase: what strong phase, absorption and tight masks add to camera noise
MISFIT = 0.2  # a residual this far above the noise's: with the wrong sign of z it is 0.5, with good masks below 0.05
_AGAIN = 60  # steps to fit once more, from a fit with other noise


@dataclass(frozen=True, slots=True)
class Iterations:
    """When to stop: after `least` steps once ten more change the phase by at most `change` of itself; or at `most`."""

    least: int = 200
    most: int = 600
    change: float = 2e-3

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most or not self.change >= 0:
            raise ExperimentError(f"{self} cannot be: it needs 1 <= least <= most, and a change of 0 or more.")


@dataclass(frozen=True, slots=True, eq=False)
class Supported:
    """A field's phase, and how far to trust it.

    Attributes
    ----------
    phase_rad
        (Y, X) float32; 0 outside `zones`, NaN where a cell could not be measured. Detail is about 1 um.
    zones
        (Y, X) int32, the labels grown by the margin, each pixel to its nearest cell: a cell's mass is the sum here,
        since a mask drawn tight leaves some of the light's phase outside.
    sum_sd_rad
        label -> standard deviation of the sum of phase over the cell's zone: the camera's noise, from fits with as much
        noise added again, and 3 % for what the weak-object model leaves out.
    residual
        Share of the contrast's power that this phase does not explain: 0 is a perfect fit, 1 is none.
    noise
        Share that camera noise alone would leave; a residual far above it says that focus, optics or masks are wrong.
    converged, steps
        Whether the change fell below the limit, and the steps that were taken.
    reasons
        label -> why this cell has no phase. The key 0 stands for the whole field, and then no cell has one.
    """

    phase_rad: NDArray[np.float32]
    zones: NDArray[np.int32]
    sum_sd_rad: dict[int, float]
    residual: float
    noise: float
    converged: bool
    steps: int
    reasons: dict[int, str]


class SupportedPhase:
    """Measures phase of one rig's planes; transfer functions are kept.

    Parameters
    ----------
    optics
        The stand.
    z_um
        (P,) distance of each plane from focus, two or more, counted along the light (`sign.find_sign` tells whether a
        stage counts so). `focus.find_focus` tells where focus is.
    shape
        (Y, X) of the planes.
    margin_um
        How far the phase may reach beyond the masks, and how near to the border no cell is measured. Wider forgives
        tight masks; in crowds it lets noise in.
    dark_counts
        What the camera gives without light.
    iterations
        When to stop.
    repeats
        Fits with added noise, for the uncertainty; 0 leaves `sum_sd_rad` empty and saves a half of the time.

    Raises
    ------
    ExperimentError
        The heights are not two or more different numbers, or the margin is not one.
    """

    def __init__(
        self,
        optics: BrightField,
        z_um: Sequence[float],
        shape: tuple[int, int],
        *,
        margin_um: float = 1.3,
        dark_counts: float = 0.0,
        iterations: Iterations | None = None,
        repeats: int = 4,
    ) -> None:
        if len(z_um) < 2 or not np.isfinite(z_um).all() or max(z_um) == min(z_um):
            raise ExperimentError(f"z_um is {list(z_um)}; mask-supported phase needs planes at two or more heights.")
        if not 0 <= margin_um <= 20:
            raise ExperimentError(f"margin_um is {margin_um!r}; give how far cells may reach beyond masks, 0 to 20.")
        self._optics, self._z_um, self._shape = optics, tuple(z_um), shape
        self._margin_px = margin_um / optics.pixel_size_um
        self._dark_counts, self._iterations, self._repeats = dark_counts, iterations or Iterations(), repeats
        self._kept = _coarse(shape, optics.pixel_size_um)
        phase = transfer(optics, self._z_um, shape, self._kept).phase
        phase -= phase.mean(axis=0)
        power = (phase**2).sum(axis=0)
        q = frequencies_per_um(shape, optics.pixel_size_um, self._kept)
        weight = np.exp(-((q / ROLL_OFF_PER_UM) ** 2)) / (power + WHITEN * power.max())
        weight[0, 0] = 0  # the planes' brightness says nothing of phase
        step = 1 / float((power * weight).max())
        self._weight = (weight * step).astype(np.float32)
        self._back = phase * self._weight  # from contrast to what drives the phase
        self._normal = np.asarray(power * self._weight, np.float32)

    def __call__(self, planes: NDArray[np.generic], labels: NDArray[np.generic]) -> Supported:
        """Measure one field.

        Parameters
        ----------
        planes
            (P, Y, X) counts, one at each height.
        labels
            (Y, X) integers, 0 where there is no cell; or a mask.

        Raises
        ------
        ExperimentError
            The arrays' shapes are not those of this rig.
        """
        if planes.shape != (len(self._z_um), *self._shape) or labels.shape != self._shape:
            raise ExperimentError(
                f"planes are {planes.shape} and labels {labels.shape}; this rig was set up for planes of "
                f"{(len(self._z_um), *self._shape)}."
            )
        cells = np.asarray(labels) > 0
        reason = why_no_defocus(planes, self._z_um, self._dark_counts)
        if not reason and not cells.any():
            reason = "there is no cell in the field"
        if reason:
            return self._nothing(reason)
        contrast = flat_contrast(planes, cells, FRINGE_UM / self._optics.pixel_size_um, self._dark_counts)
        if contrast.reason:
            return self._nothing(contrast.reason)
        return self._fit(contrast.values, np.asarray(labels), planes)

    # ------------------------------------------------------------------ inside

    def _nothing(self, reason: str, residual: float = np.nan, noise: float = np.nan, steps: int = 0) -> Supported:
        phase = np.full(self._shape, np.nan, np.float32)
        zones = np.zeros(self._shape, np.int32)
        return Supported(phase, zones, {}, residual, noise, converged=False, steps=steps, reasons={0: reason})

    def _fit(
        self, contrast: NDArray[np.float32], labels: NDArray[np.generic], planes: NDArray[np.generic]
    ) -> Supported:
        zones = _grown(labels, self._margin_px)
        whole = fft.dctn(contrast, axes=(1, 2), norm="ortho")
        whole -= whole.mean(axis=0)
        rows, cols = self._kept
        data = whole[:, :rows, :cols]
        coarse = zones[np.ix_(_nearest(self._shape[0], rows), _nearest(self._shape[1], cols))]
        drive = (self._back * data).sum(axis=0)
        phase, steps, converged = _fista(drive, self._normal, coarse > 0, self._iterations)
        power = float((self._weight * data**2).sum())
        found = fft.dctn(phase, norm="ortho")
        left = power - 2 * float((drive * found).sum()) + float((self._normal * found**2).sum())
        plane_noise = _noise_power(whole)
        noise = plane_noise * float(self._weight.sum()) * (len(whole) - 1)
        if left > MISFIT * power + noise:
            misfit = (
                f"phase within the masks leaves {100 * left / power:.0f} % of the contrast unexplained: the cells "
                "moved between the planes, or the focus offset, the order of z, the optics or the masks are wrong"
            )
            return self._nothing(misfit, left / power, noise / power, steps)
        reasons = _why_not(zones, planes)
        fine = _refined(found, self._shape) * (zones > 0)
        fine[np.isin(zones, list(reasons))] = np.nan
        spread = self._spread(drive, phase, coarse, plane_noise)
        sds = {label: sd for label, sd in spread.items() if label not in reasons}
        return Supported(fine, zones, sds, left / power, noise / power, converged, steps, reasons)

    def _spread(
        self, drive: NDArray[np.float32], phase: NDArray[np.float32], zones: NDArray[np.int32], plane_noise: float
    ) -> dict[int, float]:
        """Return the standard deviation of each cell's sum, in rad times camera pixels."""
        if not self._repeats:
            return {}
        cells = np.unique(zones[zones > 0])
        # the spectra's scale is the camera's: a sum over the coarse grid is short by the root of the pixels' ratio
        scale = np.sqrt(self._shape[0] * self._shape[1] / zones.size)
        sums = ndimage.sum_labels(phase, zones, cells) * scale
        rng, squares = np.random.default_rng(0), np.zeros(cells.size)
        again = Iterations(_AGAIN, _AGAIN)
        for _ in range(self._repeats):
            shaken = rng.standard_normal(self._back.shape, np.float32) * np.float32(np.sqrt(plane_noise))
            shaken -= shaken.mean(axis=0)
            other, _, _ = _fista(drive + (self._back * shaken).sum(axis=0), self._normal, zones > 0, again, phase)
            squares += (ndimage.sum_labels(other, zones, cells) * scale - sums) ** 2
        sd = np.sqrt(squares / self._repeats + (MODEL_SD * sums) ** 2)
        return dict(zip(cells.tolist(), sd.tolist(), strict=True))


def _coarse(shape: tuple[int, int], pixel_size_um: float) -> tuple[int, int]:
    """Return the size of the grid to work on: as coarse as `COARSE_STEP_UM`, never finer than the camera."""
    wanted = [int(np.ceil(n * pixel_size_um / COARSE_STEP_UM)) for n in shape]
    rows, cols = (min(n, fft.next_fast_len(w, real=True)) for n, w in zip(shape, wanted, strict=True))
    return rows, cols


def _nearest(n: int, kept: int) -> NDArray[np.intp]:
    """Return the camera pixel in which each of the coarse grid's points lies."""
    return np.asarray((np.arange(kept) + 0.5) * n / kept, np.intp)


def _refined(spectrum: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the image of `shape` whose lowest cosines are `spectrum`, in the camera's scale as the data were."""
    padded = np.zeros(shape, np.float32)
    padded[: spectrum.shape[0], : spectrum.shape[1]] = spectrum
    return np.asarray(fft.idctn(padded, norm="ortho", overwrite_x=True))


def _grown(labels: NDArray[np.generic], by_px: float) -> NDArray[np.int32]:
    """Return labels grown by `by_px`, each new pixel to the nearest label."""
    distance, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    grown = np.asarray(labels, np.int32)[tuple(nearest)]
    grown[distance > by_px] = 0
    return np.asarray(grown)


def _fista(
    drive: NDArray[np.float32],
    normal: NDArray[np.float32],
    support: NDArray[np.bool_],
    iterations: Iterations,
    start: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], int, bool]:
    """Minimise the weighted residual over phases that are 0 off `support` and nowhere below 0.

    `drive` and `normal` (y, x) are the data's and the operator's side of the normal equations, on cosines, scaled so
    that `normal` is at most 1. Returns the phase (y, x), the steps taken, and whether it stopped by itself.
    """
    inside = support.astype(np.float32)
    phase = np.zeros_like(drive) if start is None else start
    ahead, earlier, momentum = phase, phase, 1.0
    for step in range(1, iterations.most + 1):
        ascent = fft.idctn(drive - normal * fft.dctn(ahead, norm="ortho"), norm="ortho", overwrite_x=True)
        new = np.maximum(ahead + ascent, 0)
        new *= inside
        move = new - phase
        if np.vdot(ahead - new, move) > 0:  # momentum points uphill: start it anew
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + np.float32((momentum - 1) / following) * move
        phase, momentum = new, following
        if step % 10 == 0:
            changed, size = float(np.linalg.norm(phase - earlier)), float(np.linalg.norm(phase))
            if step >= iterations.least and changed <= iterations.change * size:
                return phase, step, True
            earlier = phase
    return phase, iterations.most, False


def _noise_power(spectra: NDArray[np.float32]) -> float:
    """Return a plane's noise power at each frequency, from the highest, where a lens passes next to nothing."""
    n, rows, cols = spectra.shape
    corner = np.hypot(np.arange(rows)[:, None] / rows, np.arange(cols)[None, :] / cols) > 1
    # median of a chi-square of one degree; taking the planes' mean out took 1/P of the noise with it
    return float(np.median(spectra[:, corner] ** 2) / 0.455 * n / (n - 1))


def _why_not(zones: NDArray[np.int32], planes: NDArray[np.generic]) -> dict[int, str]:
    """Return the cells that cannot be measured."""
    edge = np.concatenate([zones[0], zones[-1], zones[:, 0], zones[:, -1]])
    reasons = dict.fromkeys(np.unique(edge[edge > 0]).tolist(), "touches the field's border")
    # One pixel at the most that its type can hold is no chance; of the most that 12 bits can hold it would be.
    most = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(planes.dtype, np.inf)
    for full in (saturated(planes, most), saturated(planes)):
        if full is None:
            continue
        for label in np.unique(zones[full & (zones > 0)]).tolist():
            reasons.setdefault(label, "the camera is saturated there")
    return reasons
