"""Four steps of a quarter wave are two pairs of opposites with one sum: whether they are, and how the lamp flickered.

    I_n = f_n (S + 2 |U0| |U1| cos(dphi + n pi/2)),  S = |U0|^2 + |U1|^2,  so that  I0/f0 + I2/f2 = I1/f1 + I3/f3

at every pixel, whatever the sample. Only steps of one scene fulfil it; and as the sample makes four different pictures
of them, it tells the light f_n of each frame too. That matters: a lamp that flickers by 3 % puts masses 2 to 8 % off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Real = NDArray[np.float64]
    Frames = Sequence[NDArray[np.number]] | NDArray[np.number]

__all__ = ["StepLight", "light_of_steps"]

_BLOCK_PX = 8
_FLICKER_SD = 0.03  # that is expected of a lamp from one exposure to the next
_MOST_FLICKER = 0.1
_MOST_UNEXPLAINED = 0.06  # right steps 0.02 at worst, wrong ones 0.16 or more; moved by a pixel 0.04, by two 0.08
_SURE = 4.0  # standard errors by which it must be exceeded
_LEAST_LIGHT_COUNTS = 2.0  # above the camera's offset
_DARK = 0.1  # of the brightest frame's light
_ALIKE = 0.1  # of what the steps change
_SIGNS = np.array([1.0, -1.0, 1.0, -1.0])
_OTHER_ORDERS = ((0, 2, 1, 3), (0, 1, 3, 2))  # with the other two ways to make pairs of four


@dataclass(frozen=True, slots=True, eq=False)
class StepLight:
    """The light of four frames.

    Attributes
    ----------
    factors
        (4,) the light of each frame against the first's.
    unexplained
        Root mean square, in and around cells, by which the sums of opposites differ, as a share of what the steps
        change; NaN where there are no cells.
    trouble
        A sentence on why these are no four steps, with the remedy; "" where they are.
    """

    factors: Real
    unexplained: float
    trouble: str = ""


def light_of_steps(
    frames: Frames, cells: NDArray[np.bool_], *, dark_counts: float, names: Sequence[str] = ("0", "1", "2", "3")
) -> StepLight:
    """Compare the sums of opposite steps; about 20 ms at 512 x 512.

    Parameters
    ----------
    frames
        Four (H, W) planes of counts, in the order of the steps.
    cells
        (H, W), True in cells.
    dark_counts
        What the camera gives without light.
    names
        Of the frames, for the sentence.
    """
    light_counts = float(np.mean([np.mean(frame) for frame in frames])) - dark_counts
    if not light_counts > _LEAST_LIGHT_COUNTS or not cells.any():  # what finds the lamp's level says so; NaN too
        return StepLight(np.ones(4), np.nan)
    halves = _halves(frames, dark_counts) / light_counts
    inside = _blocks(cells.astype(np.float32)) > 0
    factors, unexplained, sure = _fitted(halves, inside, (0, 1, 2, 3))
    if not sure:
        return StepLight(factors, unexplained)
    return StepLight(factors, unexplained, _why(halves, inside, unexplained, names))


def _halves(frames: Frames, dark_counts: float) -> Real:
    """Return (2, 4, blocks): each frame's mean over the one half of a block's pixels and over the other.

    The halves interleave like a chessboard. They show the same but have noise of their own, so that products of one
    with the other are free of it.
    """
    rows, cols = np.ogrid[: frames[0].shape[0], : frames[0].shape[1]]
    odd = ((rows + cols) % 2).astype(np.float32)
    light = [np.asarray(frame, np.float32) - np.float32(dark_counts) for frame in frames]
    return np.array([[_blocks(plane * half) for plane in light] for half in (odd, 1 - odd)], np.float64) * 2


def _blocks(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of each block; what does not fill one at the end is left out."""
    rows, cols = (n // _BLOCK_PX for n in image.shape)
    whole = image[: rows * _BLOCK_PX, : cols * _BLOCK_PX].reshape(rows, _BLOCK_PX, cols, _BLOCK_PX)
    return np.asarray(whole.mean(axis=(1, 3)).ravel())


def _fitted(halves: Real, inside: NDArray[np.bool_], order: tuple[int, ...]) -> tuple[Real, float, bool]:
    """Return the factors, what they leave unexplained in cells, and whether that is surely too much."""
    one, other = halves[:, order] * _SIGNS[:, None]
    count = one.shape[1]
    products = (one @ other.T + other @ one.T) / (2 * count)
    noise = float(np.mean((one.sum(axis=0) - other.sum(axis=0)) ** 2)) / 2  # of one half
    prior = noise / (count * _FLICKER_SD**2) + 1e-9
    # sum of (1 + d_n) * frame n is 0; the first frame's d is 0, the others' are small
    less = -np.linalg.lstsq(products[1:, 1:] + prior * np.eye(3), products[1:].sum(axis=1), rcond=None)[0]
    scale = np.append(1.0, 1 + np.clip(less, -_MOST_FLICKER, _MOST_FLICKER))
    one, other = one[:, inside] * scale[:, None], other[:, inside] * scale[:, None]
    left = one.sum(axis=0) * other.sum(axis=0)
    changed = float(np.mean((one[0] - one[2]) * (other[0] - other[2]) + (one[1] - one[3]) * (other[1] - other[3])))
    limit = _MOST_UNEXPLAINED**2 * max(changed, 0.0) + _SURE * noise / np.sqrt(left.size)
    return 1 / scale, float(np.sqrt(max(left.mean(), 0) / max(changed, 1e-12))), float(left.mean()) > limit


def _why(halves: Real, inside: NDArray[np.bool_], unexplained: float, names: Sequence[str]) -> str:
    """Return what may be wrong with frames that do not fit each other."""
    a, b, c, d = names
    said = (
        f"the phase steps do not fit each other: at every pixel {a} and {c} should sum to the same light as {b} and "
        f"{d}, but the sums differ by {unexplained:.0%} of what the steps change"
    )
    light = halves.mean(axis=(0, 2))
    dimmest, brightest = int(light.argmin()), int(light.argmax())
    if light[dimmest] < _DARK * light[brightest]:
        share = max(float(light[dimmest] / light[brightest]), 0.0)
        return (
            f"{said}; {names[dimmest]} has {share:.0%} of the light of {names[brightest]}: it is no phase step, or dark"
        )
    for i in range(4):
        for j in range(i):
            if _alike(halves[:, i], halves[:, j], halves):
                return f"{said}; {names[j]} and {names[i]} show the same picture: one of these presets changes nothing"
    for order in _OTHER_ORDERS:
        _, left, sure = _fitted(halves, inside, order)
        if not sure and left < _MOST_UNEXPLAINED:
            return f"{said}; they do as {names[0]}, {names[order[1]]}, {names[order[2]]}, {names[order[3]]}: " + (
                "the phase steps are out of order; order the presets by their delay, beginning with none"
            )
    return (
        f"{said}: one of them is no phase step or was taken with other light, or the cells moved between the exposures"
    )


def _alike(one: Real, other: Real, halves: Real) -> bool:
    """Return whether two frames are the same but for noise, against how all of them differ."""
    spread = halves - halves.mean(axis=1, keepdims=True)
    apart = one - other
    return float(np.mean(apart[0] * apart[1])) < _ALIKE**2 * float(np.mean(spread[0] * spread[1]))
