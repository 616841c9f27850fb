"""The undiffracted light in few numbers: it is so smooth that polynomials of low degree hold it.

U0 - 1 = Y c X^T with orthonormal polynomials in the columns of Y and X. A Gaussian blur over radius r passes nothing
that varies faster than about 0.7 / r, so a field of length L needs about 1.2 L / r of them an axis, and some for the
borders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.polynomial import legendre

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Complex = NDArray[np.complex128]
    Real = NDArray[np.float64]

__all__ = ["Axis", "SmoothLight"]

_DEGREES_A_RADIUS = 1.2
_DEGREES_AT_BORDERS = 6
_BLOCKS_A_RADIUS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """One axis of the field, `pixels` long, and its `modes` polynomials.

    Attributes
    ----------
    modes
        (pixels, modes): orthonormal columns.
    middles
        (blocks, modes): the same at the blocks' middles.
    blurred
        (modes, pixels): what the blur makes of a pixel's light, in modes.
    cuts
        First pixel of each block.
    around, within
        (modes, modes): covariance of blurred white noise of unit density that fills the whole plane, or this axis of
        the field only.
    """

    modes: Real
    middles: Real
    blurred: Real
    cuts: NDArray[np.intp]
    around: Real
    within: Real

    @classmethod
    def of(cls, pixels: int, radius_px: float) -> Axis:
        """Build the axis; `radius_px` is the Gaussian's standard deviation."""
        count = min(pixels, int(_DEGREES_A_RADIUS * pixels / radius_px) + _DEGREES_AT_BORDERS)
        at = (np.arange(pixels) + 0.5) * 2 / pixels - 1
        modes, upper = np.linalg.qr(legendre.legvander(at, count - 1))
        block = max(1, int(radius_px / _BLOCKS_A_RADIUS))
        cuts = np.arange(0, pixels, block)
        ends = np.append(cuts[1:], pixels)
        middles = legendre.legvander((cuts + ends) / pixels - 1, count - 1) @ np.linalg.inv(upper)
        apart = np.arange(pixels)[:, None] - np.arange(pixels)[None, :]
        blurred = modes.T @ _gauss(apart, radius_px)
        around = modes.T @ _gauss(apart, radius_px * np.sqrt(2)) @ modes
        return cls(modes, middles, blurred, cuts, around, blurred @ blurred.T)


@dataclass(frozen=True, slots=True, eq=False)
class SmoothLight:
    """Both axes of a field."""

    y: Axis
    x: Axis

    @classmethod
    def of(cls, shape: tuple[int, int], radius_px: float) -> SmoothLight:
        """Build both axes for fields (H, W) and a coherence radius."""
        return cls(Axis.of(shape[0], radius_px), Axis.of(shape[1], radius_px))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of coefficients along y and x."""
        return self.y.modes.shape[1], self.x.modes.shape[1]

    def light(self, coefficients: Complex) -> Complex:
        """Return U0 (H, W) from its coefficients."""
        return np.asarray(1 + self.y.modes @ coefficients @ self.x.modes.T)

    def blurred(self, source: Complex) -> Complex:
        """Return the coefficients of G * source, for a source (H, W) that is 0 outside the field."""
        return np.asarray(self.y.blurred @ source @ self.x.blurred.T)

    def blurred_surroundings(self) -> Complex:
        """Return the coefficients of what a source of 1 all around the field throws into it."""
        y, x = self.y, self.x
        everywhere = np.outer(y.modes.sum(axis=0), x.modes.sum(axis=0))
        return np.asarray(everywhere - np.outer(y.blurred.sum(axis=1), x.blurred.sum(axis=1)), np.complex128)

    def covariance(self, around: float, anywhere: float) -> Real:
        """Return the coefficients' covariance for white sources of density `around` px^2 outside the field.

        `anywhere` is the variance of an error of U0 that is as smooth as U0 and is everywhere.
        """
        y, x = self.y, self.x
        plane = np.kron(y.around, x.around)
        at_a_pixel = float((y.modes @ y.around * y.modes).sum(axis=1).mean())
        at_a_pixel *= float((x.modes @ x.around * x.modes).sum(axis=1).mean())
        return np.asarray(around * (plane - np.kron(y.within, x.within)) + anywhere / at_a_pixel * plane)

    def sums(self, pixels: NDArray[np.generic]) -> Complex:
        """Return the sum over each block."""
        rows = np.add.reduceat(pixels.astype(np.complex128), self.y.cuts, axis=0)
        return np.asarray(np.add.reduceat(rows, self.x.cuts, axis=1))

    def of_light(self, pixels: Complex) -> Complex:
        """Return the adjoint of `light` less 1: (H, W) to coefficients."""
        return np.asarray(self.y.modes.T @ pixels @ self.x.modes)

    def of_blurred(self, coefficients: Complex) -> Complex:
        """Return the adjoint of `blurred`: coefficients to (H, W)."""
        return np.asarray(self.y.blurred.T @ coefficients @ self.x.blurred)

    def of_sums(self, blocks: NDArray[np.generic]) -> NDArray[Any]:
        """Return the adjoint of `sums`: every pixel gets the value of its block, (blocks,) to (H, W)."""
        y, x = self.y, self.x
        tall, wide = (np.diff(axis.cuts, append=len(axis.modes)) for axis in (y, x))
        square = blocks.reshape(len(y.cuts), len(x.cuts))
        return np.asarray(np.repeat(np.repeat(square, tall, axis=0), wide, axis=1))

    def at_middles(self) -> Real:
        """Return (blocks, coefficients): the modes at every block's middle."""
        return np.asarray(np.kron(self.y.middles, self.x.middles), np.float64)

    def blurred_blocks(self) -> Real:
        """Return (coefficients, blocks): the coefficients of the blur of 1 all over a block."""
        y = np.add.reduceat(self.y.blurred, self.y.cuts, axis=1)
        x = np.add.reduceat(self.x.blurred, self.x.cuts, axis=1)
        return np.asarray(np.kron(y, x), np.float64)


def _gauss(apart_px: NDArray[np.intp], radius_px: float) -> Real:
    return np.asarray(np.exp(-(apart_px**2) / (2 * radius_px**2)) / (np.sqrt(2 * np.pi) * radius_px))
