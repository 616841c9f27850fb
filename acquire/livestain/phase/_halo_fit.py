"""Fits the undiffracted light to a field: Gauss-Newton in a few hundred coefficients, with their covariance.

Residuals: in coefficients, U0 - 1 less the blur of the field's own U - 1 (what remains comes from around the field
and is as probable as its covariance says); in blocks, the mean of U - 1 over the cell-free pixels, which is 0, and of
(|U|^2 - 1) / 2 over the cells, which is small, cells being transparent: without it a crowded field has more than one
solution. U depends on the conjugate of U0 too, so the system is linear over the reals: complex numbers become pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, optimize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livestain.phase._smooth_light import Complex, Real, SmoothLight

__all__ = ["Fit", "Known", "fit"]

_STEPS = 25
_BOLD_STEPS = 3  # before outliers are told from what has not been fitted yet
_LAST_STEPS = 200  # cheap ones, where the others mislead
_SETTLED = 0.1  # squared standard deviations that a further step would go
_LEAST_LIGHT = 0.02  # |U0| below this is taken as this, lest a first step divide by 0
_MODEL_SD = 0.002  # of U0: what a Gaussian leaves unexplained
_FREE_SD = 0.003  # of a block's mean outside cells: debris, the empty field's own error
_AMPLITUDE_SD = 0.03  # of the mean of |U| over a block full of cell: absorption, focus
_OUTLIER = 4.0  # standard deviations beyond which a block's pull grows no more (Huber 1964): a cell not in the mask
_SURROUNDINGS_UM2 = 50.0  # density of white sources around the field: U - 1 about 0.7 in patches of 10 um


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is measured: `signal` (H, W) complex128, all finite; `cells` (H, W); noise of a pixel's real part."""

    signal: Complex
    cells: NDArray[np.bool_]
    noise: float
    pixel_size_um: float


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The undiffracted light (H, W), the field (H, W) it gives, and how well they fit.

    `half` is the lower Cholesky factor of the inverse of the coefficients' covariance; `free_cost` (blocks) the
    squared residuals of the cell-free pixels; `cost` the sum of all.
    """

    modes: SmoothLight
    coefficients: Complex
    light: Complex
    field: Complex
    half: Real
    free_cost: Real
    cost: float
    misfit: float
    converged: bool

    def draw(self, count: int, rng: np.random.Generator) -> Complex:
        """Return `count` errors of the coefficients, (count, modes y, modes x)."""
        pairs = linalg.solve_triangular(self.half, rng.standard_normal((len(self.half), count)), lower=True, trans="T")
        return _complex(max(self.misfit, 1.0) * pairs.T).reshape(count, *self.modes.shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Fixed:
    """What does not change from step to step."""

    inverse_sd: Real  # whitens the coefficients' residuals
    middles: Real
    blurred_blocks: Real
    surroundings: Complex
    in_block: Real
    free_in_block: Real
    weight: Real
    weight_amplitude: Real


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """Everything at one guess of the coefficients."""

    light: Complex
    field: Complex
    crossed: Complex
    smooth: Real
    free: Complex
    amplitude: Real

    @property
    def pull(self) -> Real:
        """Factors for rows and residuals that keep outliers from pulling ever harder."""
        return np.asarray(np.sqrt(np.minimum(1, _OUTLIER / np.maximum(np.abs(self.free), 1e-9))))

    @property
    def cost(self) -> float:
        size = np.abs(self.free)
        return float(
            (self.smooth**2).sum()
            + (self.amplitude**2).sum()
            + np.where(size < _OUTLIER, size**2, _OUTLIER * (2 * size - _OUTLIER)).sum()
        )


def fit(known: Known, modes: SmoothLight, *, start: Complex | None = None, steps: int = _STEPS) -> Fit:
    """Fit the undiffracted light to what is known, in at most `steps` steps."""
    fixed = _fixed(known, modes)
    coefficients = np.zeros(modes.shape, np.complex128) if start is None else start
    bold = _BOLD_STEPS if start is None else 0
    now = _point(known, modes, fixed, coefficients)
    converged = False
    for step in range(steps):
        pull = now.pull if step >= bold else np.ones(now.free.shape)
        rows, half = _linear(known, modes, fixed, now, pull)
        downhill = rows.T @ np.concatenate([now.smooth, np.tile(pull, 2) * _pairs(now.free), now.amplitude])
        pairs = linalg.cho_solve((half, True), downhill)
        if step >= bold and float(pairs @ downhill) < _SETTLED:
            converged = True
            break
        change = _complex(pairs).reshape(modes.shape)
        there, after = _walk(known, modes, fixed, coefficients, change, now)
        if step >= bold and after.cost > now.cost:  # where much is left unexplained the approximate slope may mislead
            coefficients = _settled(known, modes, fixed, coefficients, half)
            now = _point(known, modes, fixed, coefficients)
            _, half = _linear(known, modes, fixed, now, now.pull)
            slope = linalg.solve_triangular(half, _downhill(known, modes, fixed, now), lower=True)
            converged = float(slope @ slope) < _SETTLED
            break
        coefficients, now = there, after
    some = fixed.weight > 0
    free_cost = np.abs(now.free) ** 2
    misfit = float(np.sqrt(free_cost[some].mean() / 2)) if some.any() else float("nan")
    return Fit(modes, coefficients, now.light, now.field, half, free_cost, now.cost, misfit, converged)


def _fixed(known: Known, modes: SmoothLight) -> _Fixed:
    covariance = modes.covariance(_SURROUNDINGS_UM2 / known.pixel_size_um**2, _MODEL_SD**2)
    # each of the real and imaginary parts has this covariance; the smallest eigenvalues are rounding
    values, vectors = linalg.eigh(covariance)
    inverse_sd = (vectors / np.sqrt(np.maximum(values, 1e-12 * values[-1]))).T
    whole = modes.sums(np.ones(known.cells.shape)).real.ravel()
    free = modes.sums(~known.cells).real.ravel()
    sd = np.sqrt(known.noise**2 / np.maximum(free, 1) + _FREE_SD**2)
    weight = np.where(free > 0, 1 / sd, 0.0)
    steady = np.sqrt(1 - free / whole) / _AMPLITUDE_SD
    surroundings = modes.blurred_surroundings()
    return _Fixed(inverse_sd, modes.at_middles(), modes.blurred_blocks(), surroundings, whole, free, weight, steady)


def _point(known: Known, modes: SmoothLight, fixed: _Fixed, coefficients: Complex) -> _Point:
    light = modes.light(coefficients)
    light = np.where(np.abs(light) < _LEAST_LIGHT, _LEAST_LIGHT, light)
    inverse = 1 / np.conj(light)
    diffracted = known.signal * inverse
    field = light + diffracted
    source = np.where(known.cells, field - 1, 0)
    own = modes.blurred(source) + source.mean() * fixed.surroundings
    smooth = _both(fixed.inverse_sd, (own - coefficients).ravel())
    free = modes.sums(np.where(known.cells, 0, field - 1)).ravel() / np.maximum(fixed.free_in_block, 1)
    brightness = modes.sums(np.where(known.cells, np.abs(field) ** 2 - 1, 0)).real.ravel() / 2
    amplitude = -fixed.weight_amplitude * brightness / np.maximum(fixed.in_block - fixed.free_in_block, 1)
    return _Point(light, field, diffracted * inverse, smooth, -fixed.weight * free, amplitude)


def _linear(known: Known, modes: SmoothLight, fixed: _Fixed, at: _Point, pull: Real) -> tuple[Real, Real]:
    """Return the weighted rows of the residuals' derivative, and the Cholesky factor of their normal matrix.

    U0 is taken as constant over a block here: this steers the steps, the residuals themselves are exact, and where it
    steers uphill the slope is taken from `_downhill`.
    """
    in_cells = 1 - fixed.free_in_block / fixed.in_block
    crossed_cells = modes.sums(np.where(known.cells, at.crossed, 0)).ravel() / fixed.in_block
    some = fixed.weight > 0
    crossed_free = modes.sums(np.where(known.cells, 0, at.crossed)).ravel() / np.maximum(fixed.free_in_block, 1)
    direct = np.eye(len(fixed.inverse_sd)) - fixed.blurred_blocks @ (in_cells[:, None] * fixed.middles)
    turned = fixed.blurred_blocks @ (crossed_cells[:, None] * fixed.middles)
    smooth = _real(fixed.inverse_sd @ direct, fixed.inverse_sd @ turned)
    weight = (fixed.weight * pull)[:, None]
    free = _real(weight * some[:, None] * fixed.middles, -weight * crossed_free[:, None] * fixed.middles)
    toward = np.where(known.cells, np.conj(at.field) - at.field * np.conj(at.crossed), 0)
    toward_block = modes.sums(toward).ravel() / np.maximum(fixed.in_block - fixed.free_in_block, 1)
    brighter = (fixed.weight_amplitude * toward_block)[:, None] * fixed.middles
    rows = np.concatenate([smooth, free, np.concatenate([brighter.real, -brighter.imag], axis=1)])
    return rows, linalg.cholesky(rows.T @ rows, lower=True)


def _settled(known: Known, modes: SmoothLight, fixed: _Fixed, start: Complex, half: Real) -> Complex:
    """Return the coefficients of least cost near `start`, by its exact slope (L-BFGS: Liu and Nocedal 1989).

    In the coordinates in which `half` makes the cost about round, few steps do.
    """

    def there(x: Real) -> Complex:
        change = linalg.solve_triangular(half, x, lower=True, trans="T")
        return np.asarray(start + _complex(change).reshape(modes.shape))

    def cost(x: Real) -> tuple[float, Real]:
        at = _point(known, modes, fixed, there(x))
        slope = linalg.solve_triangular(half, -_downhill(known, modes, fixed, at), lower=True)
        return at.cost / 2, np.asarray(slope)

    least = float(np.sqrt(0.3 * _SETTLED / len(half)))
    found = optimize.minimize(
        cost,
        np.zeros(len(half)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _LAST_STEPS, "maxcor": 20, "gtol": least, "ftol": 1e-9},
    )
    return there(found.x)


def _downhill(known: Known, modes: SmoothLight, fixed: _Fixed, at: _Point) -> Real:
    """Return how half the cost falls with the coefficients, exactly: every step of `_point`, taken back."""
    smooth = (fixed.inverse_sd.T @ _complex(at.smooth)).reshape(modes.shape)
    of_source = modes.of_blurred(smooth) + np.vdot(fixed.surroundings, smooth) / known.cells.size
    brighter = fixed.weight_amplitude * at.amplitude / np.maximum(fixed.in_block - fixed.free_in_block, 1)
    of_cells = of_source - modes.of_sums(brighter) * at.field
    of_free = -modes.of_sums(fixed.weight * at.pull**2 * at.free / np.maximum(fixed.free_in_block, 1))
    of_field = np.where(known.cells, of_cells, of_free)
    of_light = of_field - np.conj(of_field) * at.crossed
    return _pairs(smooth - modes.of_light(of_light))


def _walk(
    known: Known, modes: SmoothLight, fixed: _Fixed, coefficients: Complex, change: Complex, now: _Point
) -> tuple[Complex, _Point]:
    """Go the step, or as much of it as makes things better."""
    share = 1.0
    while True:
        there = coefficients + share * change
        after = _point(known, modes, fixed, there)
        if after.cost <= now.cost or share < 0.05:
            return there, after
        share /= 2


def _real(direct: Real | Complex, turned: Real | Complex) -> Real:
    """Return the real matrix that acts on pairs as x -> direct x + turned conj(x)."""
    plus, minus = direct + turned, direct - turned
    return np.block([[plus.real, -minus.imag], [plus.imag, minus.real]])


def _both(matrix: Real, values: Complex) -> Real:
    return np.concatenate([matrix @ values.real, matrix @ values.imag])


def _pairs(values: Complex) -> Real:
    return np.concatenate([values.real.ravel(), values.imag.ravel()])


def _complex(pairs: Real) -> Complex:
    half = pairs.shape[-1] // 2
    return np.asarray(pairs[..., :half] + 1j * pairs[..., half:])
