"""Phase from four interference steps (spatial light interference microscopy, SLIM), fast enough for every frame.

The light that the sample did not diffract (U0) is delayed in steps of a quarter wave against the rest (U1):

    I_n = |U0|^2 + |U1|^2 + 2 |U0| |U1| cos(dphi + n pi/2)
    dphi = atan2(I3 - I1, I0 - I2),  beta = |U1| / |U0|,  phi = atan2(beta sin dphi, 1 + beta cos dphi)

(Wang et al., Optics Express 19:1016, 2011). With |U0|^2 of an empty field, beta cos dphi = (I0 - I2) / (4 |U0|^2) and
beta sin dphi = (I3 - I1) / (4 |U0|^2), so one arctangent does. Solving beta from the intensities' sum instead cannot
tell U0 from U1 and ends at pi/3.

What comes out is the phase *against U0*, which is itself a blurred copy of the sample's field: a cell loses 30 to 85 %
of its mass to this halo. `livestain.phase.halo` gives it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from livestain._errors import RigError
from livestain.phase._arctan2 import arctan2_f32
from livestain.phase._saturated import saturated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from livestain.phase.empty_field import EmptyField

    Frames = Sequence[NDArray[np.number]] | NDArray[np.number]

__all__ = ["Slim", "SlimPhase", "check_steps"]

_LIGHT_CHANGED = 2.0  # against the calibration; beyond it the lamp, exposure or filter is another


@dataclass(frozen=True, slots=True, eq=False)
class SlimPhase:
    """The phase of one field.

    Attributes
    ----------
    phase_rad
        (H, W) float32, -pi to pi, against the undiffracted light; NaN where it cannot be measured.
    reason
        Why there is NaN; "" without.
    """

    phase_rad: NDArray[np.float32]
    reason: str = ""


class Slim:
    """Turns four frames into a phase image.

    Parameters
    ----------
    empty
        The calibration: light without a sample.
    sign
        1 where the steps follow the formula above (the undiffracted light is advanced), -1 where they delay it.
        With the wrong one cells are thinner than nothing; `check_steps` finds out.
    full_counts
        What the camera gives when it is saturated. Without it, a full 8, 10, 12, 14 or 16 bits.

    Raises
    ------
    RigError
        `sign` is neither 1 nor -1.
    """

    def __init__(self, empty: EmptyField, *, sign: int = 1, full_counts: float | None = None) -> None:
        if sign not in (1, -1):
            raise RigError(f"The sign of the phase steps is {sign!r}; it is 1 or -1.")
        self.empty, self.sign, self._full = empty, sign, full_counts
        # |U0|^2 times 4, times the optics' own phase turned back: what the frames are held against
        self._four = 4 * empty.light_counts
        self._crooked = bool(np.any(empty.phase_rad))
        self._turn = np.exp(-1j * empty.phase_rad).astype(np.complex64) if self._crooked else None

    def phase(self, frames: Frames) -> SlimPhase:
        """Return the phase of four frames; about 4 ms at 512 x 512.

        Parameters
        ----------
        frames
            Four (H, W) planes of uint8, uint16 or float counts, in the order of the steps.

        Raises
        ------
        RigError
            There are not four frames of the calibration's shape, or they hold NaN.
        """
        steps = self._steps(frames)
        across = np.subtract(steps[3], steps[1], dtype=np.float32)
        if self.sign < 0:
            np.negative(across, out=across)
        along = np.subtract(steps[0], steps[2], dtype=np.float32)
        along += self._four
        if self._turn is not None:
            turned = (along + 1j * across) * self._turn
            along, across = np.ascontiguousarray(turned.real), np.ascontiguousarray(turned.imag)
        phase = arctan2_f32(across, along)
        full = saturated(steps, self._full)
        if full is None:
            return SlimPhase(phase)
        phase[full] = np.nan
        reason = f"the camera is saturated in {full.mean():.2%} of the pixels; shorten the exposure"
        return SlimPhase(phase, reason)

    def signal(
        self, frames: Frames, free: NDArray[np.bool_] | None = None, light: Iterable[float] = (1.0, 1.0, 1.0, 1.0)
    ) -> NDArray[np.complex64]:
        """Return conj(U0) U1 in units of the empty field's |U0|^2, (H, W) complex64: what halo removal starts from.

        Parameters
        ----------
        frames
            As for `phase`. Saturated pixels become NaN.
        free
            (H, W), True where there is no cell: there the step without a delay is as bright as the empty field, so a
            lamp that has drifted since the calibration is found and allowed for.
        light
            Of each frame against the first's, where the lamp flickers from one to the next: `light_of_steps`.

        Raises
        ------
        RigError
            As for `phase`; or the light is less than half or more than twice the calibration's.
        """
        steps = self._steps(frames)
        full = saturated(steps, self._full)
        dark = np.float32(self.empty.dark_counts)
        even = [(step - dark) / np.float32(factor) for step, factor in zip(steps, light, strict=True)]
        along, across = even[0] - even[2], even[3] - even[1]
        wave = (along + 1j * self.sign * across) / self._four
        wave = wave / np.float32(self.light_ratio(frames, free)) if free is not None and free.any() else wave
        if self._turn is not None:
            wave = (1 + wave) * self._turn - 1
        if full is not None:
            wave[full] = np.nan
        return np.asarray(wave, np.complex64)

    def light_ratio(self, frames: Frames, free: NDArray[np.bool_]) -> float:
        """Return the light now against the calibration's, from the cell-free pixels of the first frame.

        Raises
        ------
        RigError
            It is below a half or above two.
        """
        light = np.asarray(frames[0], np.float32)[free] - np.float32(self.empty.dark_counts)
        ratio = float(np.median(light / self.empty.light_counts[free]))
        if not 1 / _LIGHT_CHANGED < ratio < _LIGHT_CHANGED:
            raise RigError(
                f"The light is {ratio:.2g} times that of the empty field; take the calibration again with the exposure "
                "and lamp of the run."
            )
        return ratio

    def _steps(self, frames: Frames) -> list[NDArray[np.number]]:
        if len(frames) != 4:
            raise RigError(f"Phase needs four frames, one a step of a quarter wave; got {len(frames)}.")
        steps = [np.asarray(frame) for frame in frames]
        wanted = self.empty.light_counts.shape
        for number, step in enumerate(steps):
            if step.shape != wanted:
                raise RigError(
                    f"Step {number} of the phase has shape {step.shape}, the empty field {wanted}; take the "
                    "calibration with the camera settings of the run."
                )
            if step.dtype.kind == "f" and not np.isfinite(step).all():
                raise RigError(f"Step {number} of the phase holds values that are not numbers (NaN or infinite).")
        return steps


def check_steps(frames: Frames, empty: EmptyField, cells: NDArray[np.bool_], *, sign: int = 1) -> str:
    """Tell what is wrong with the order of the steps, from a field with cells; "" where nothing is.

    Three facts give it away. Opposite steps sum to the same, I0 + I2 = I1 + I3. The step without a delay shows a
    transparent object, so of all it differs least from the empty field. And cells are optically thicker than
    medium: their phase is above that of their surroundings.

    Parameters
    ----------
    frames
        Four (H, W) planes.
    empty
        The calibration.
    cells
        (H, W), True in cells.
    sign
        The one in use.

    Returns
    -------
    trouble
        A sentence with the remedy; also where the frames are all alike, or too few pixels are cells to tell.

    Raises
    ------
    RigError
        As `Slim.phase`.
    """
    phase = Slim(empty, sign=sign).phase(frames).phase_rad
    if not 0.002 < cells.mean() < 0.98:
        return f"{cells.mean():.1%} of the field is cells, too few or too many to check the phase steps."
    light = np.stack([np.asarray(frame, np.float32) - empty.dark_counts for frame in frames]) / empty.light_counts
    contrast = np.sqrt([float(np.mean((plane[cells] - 1) ** 2)) for plane in light])
    noise = float(np.median(np.abs(light[0] - light[0].mean())))
    if max(contrast) < 0.1 or np.ptp(contrast) < noise:
        return "The four phase steps look alike; check that the phase modulator is on and its presets differ."
    order = _likely_order(light, contrast)
    if order != (0, 1, 2, 3):
        named = ", ".join(str(step) for step in order)
        return (
            f"The phase steps seem to be out of order: the frames fit steps 0, 1, 2, 3 best when taken as {named}; "
            "order the presets by their delay, beginning with none."
        )
    inside, outside = float(np.nanmedian(phase[cells])), float(np.nanmedian(phase[~cells]))
    if inside < outside:
        return (
            f"Cells have less phase ({inside:.2f} rad) than what surrounds them ({outside:.2f} rad): the steps run "
            f"the other way; set the sign of the phase steps to {-sign}."
        )
    return ""


def _likely_order(light: NDArray[np.floating], contrast: NDArray[np.float64]) -> tuple[int, ...]:
    """Return the order in which the frames fit the steps; of two that differ in direction, the given one's."""
    first = int(np.argmin(contrast))

    def unbalance(order: tuple[int, ...]) -> float:
        a, b, c, d = (light[i] for i in order)
        return float(np.mean((a + c - b - d) ** 2))

    fitting = [order for order in permutations(range(4)) if order[0] == first and order[1] < order[3]]
    best = min(fitting, key=unbalance)
    given = (0, 1, 2, 3)
    if first == 0 and unbalance(given) < 1.02 * unbalance(best):
        return given
    return best
