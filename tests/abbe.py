"""An independent bright-field microscope: Abbe's sum over the condenser, on the whole transmittance.

Nothing here is weak or linear: every point of the condenser lights exp(i phase - absorption) with its own oblique
wave, the objective's pupil passes what it can, and the intensities add (Abbe 1873; Born and Wolf, 10.6.3). It shares no
code with `livestain.phase`, which inverts a linear approximation of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINE = 2  # samples across a camera pixel: intensities hold twice the frequencies of the wave
GOLDEN_RAD = np.pi * (3 - np.sqrt(5))


@dataclass(frozen=True)
class Stand:
    """The optics of a plain stand; a cell above focus (z_um > 0) gathers the light that passed it."""

    wavelength_um: float = 0.55
    objective_na: float = 0.75
    condenser_na: float = 0.3
    pixel_size_um: float = 0.325
    source_points: int = 90

    def image(self, phase: NDArray[np.floating], z_um: float, absorption: float = 0.0) -> NDArray[np.float32]:
        """Return the intensity (Y, X) of a (2Y, 2X) phase map in rad, `absorption` nepers a rad; background 1."""
        n_y, n_x = phase.shape
        step_um = self.pixel_size_um / FINE
        fy, fx = fft.fftfreq(n_y, step_um)[:, None], fft.fftfreq(n_x, step_um)[None, :]
        q2 = fy**2 + fx**2
        pupil = np.exp(2j * np.pi * z_um * np.sqrt(np.maximum(self.wavelength_um**-2 - q2, 0)))
        pupil = (pupil * (q2 <= (self.objective_na / self.wavelength_um) ** 2)).astype(np.complex64)
        spectrum = fft.fft2(np.exp((1j - absorption) * phase).astype(np.complex64))
        total = np.zeros(phase.shape, np.float32)
        for row, col in self._source(n_y * step_um, n_x * step_um):
            # light at (row, col) moves the object's spectrum; moving the pupil back instead only turns the wave's phase
            wave = fft.ifft2(spectrum * np.roll(pupil, (-row, -col), (0, 1)), workers=2)
            total += wave.real**2 + wave.imag**2
        binned = total.reshape(n_y // FINE, FINE, n_x // FINE, FINE).mean(axis=(1, 3))
        return np.asarray(binned / self.source_points, np.float32)

    def _source(self, height_um: float, width_um: float) -> list[tuple[int, int]]:
        """Return points that cover the condenser's disc evenly (a sunflower's), on the grid of frequencies."""
        k = np.arange(self.source_points)
        radius = self.condenser_na / self.wavelength_um * np.sqrt((k + 0.5) / k.size)
        rows, cols = radius * np.sin(k * GOLDEN_RAD) * height_um, radius * np.cos(k * GOLDEN_RAD) * width_um
        return list(zip(np.rint(rows).astype(int).tolist(), np.rint(cols).astype(int).tolist(), strict=True))


@dataclass(frozen=True)
class Slide:
    """Cells drawn at twice the camera's resolution; `labels` (Y, X) name them from 1, `phase` is (2Y, 2X) rad."""

    phase: NDArray[np.float32]
    labels: NDArray[np.int32]
    integral_rad: NDArray[np.float64]  # sum of the phase over camera pixels, of each cell
    diameter_um: NDArray[np.float64]


def slide(
    shape: tuple[int, int],
    cells: list[tuple[float, float, float, float, float]],
    pixel_size_um: float = 0.325,
    grain: float = 0.12,
    seed: int = 0,
) -> Slide:
    """Draw cells of (row_px, col_px, diameter_um, peak_rad, roundness); round 1 is a ball, 0 a spread-out fried egg."""
    rng = np.random.default_rng(seed)
    fine = (shape[0] * FINE, shape[1] * FINE)
    y, x = np.mgrid[: fine[0], : fine[1]]
    y, x = (y + 0.5) / FINE - 0.5, (x + 0.5) / FINE - 0.5
    texture = ndimage.gaussian_filter(rng.standard_normal(fine), 1.2 / pixel_size_um * FINE, mode="wrap")
    texture *= grain / texture.std()
    phase, labels, top = np.zeros(fine), np.zeros(shape, np.int32), np.zeros(shape)
    sums = []
    for number, (row, col, diameter_um, peak_rad, roundness) in enumerate(cells, start=1):
        stretch = 1 + 0.25 * (1 - roundness)
        turn = rng.uniform(0, np.pi)
        u = ((y - row) * np.cos(turn) + (x - col) * np.sin(turn)) * stretch
        v = ((x - col) * np.cos(turn) - (y - row) * np.sin(turn)) / stretch
        rho2 = (u**2 + v**2) * (2 * pixel_size_um / diameter_um) ** 2
        inner = np.clip(1 - rho2, 0, None)
        egg = 0.3 * (1 - (1 - inner) ** 3) * (inner > 0) + 0.7 * np.clip(1 - 3.2 * rho2, 0, None) ** 0.8
        one = peak_rad * (roundness * np.sqrt(inner) + (1 - roundness) * egg) * (1 + texture)
        phase += one
        coarse = one.reshape(shape[0], FINE, shape[1], FINE).mean(axis=(1, 3))
        sums.append(float(coarse.sum()))
        wins = (coarse > 0) & (coarse >= top)
        labels[wins] = number
        top[wins] = coarse[wins]
    diameters = np.array([cell[2] for cell in cells], float)
    return Slide(phase.astype(np.float32), labels, np.array(sums), diameters)


def camera(
    light: NDArray[np.float32], electrons: float = 10_000.0, seed: int = 0, lamp: NDArray[np.float32] | float = 1.0
) -> NDArray[np.float32]:
    """Return what a camera counts of `light` under a `lamp` of that many electrons a pixel: photon and read noise."""
    rng = np.random.default_rng(seed)
    expected = light * lamp * electrons
    return np.asarray(expected + rng.standard_normal(light.shape) * np.sqrt(expected + 4), np.float32)


def scatter(
    shape: tuple[int, int],
    count: int,
    gap_um: float,
    seed: int,
    pixel_size_um: float = 0.325,
    diameters_um: tuple[float, float] = (8.0, 20.0),
    peaks_rad: tuple[float, float] = (1.0, 3.0),
) -> list[tuple[float, float, float, float, float]]:
    """Place up to `count` cells at least `gap_um` apart (below 0 they overlap), none on the border, for `slide`."""
    rng = np.random.default_rng(seed)
    cells: list[tuple[float, float, float, float, float]] = []
    for _ in range(3000):
        diameter = rng.uniform(*diameters_um)
        margin = 0.8 * diameter / pixel_size_um + 6
        row, col = rng.uniform(margin, shape[0] - margin), rng.uniform(margin, shape[1] - margin)
        near = (np.hypot(row - r, col - c) * pixel_size_um < 0.56 * (diameter + d) + gap_um for r, c, d, _, _ in cells)
        if not any(near):
            cells.append((row, col, diameter, rng.uniform(*peaks_rad), float(rng.choice([0.0, 0.5, 1.0]))))
        if len(cells) == count:
            break
    return cells
