"""From light to counts: illumination fall-off, dust, photon and read noise, offset, sixteen bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OFFSET", "READ_NOISE", "Sensor"]

OFFSET = 100.0
READ_NOISE = 2.0  # electrons; the gain is one count an electron
FALL_OFF = 0.16  # how much darker the corners are


class Sensor:
    """A sensor of (height, width) pixels with gain 1 electron a count.

    Counts here are so many that Poisson noise is Gaussian; the normal deviates come from a bank made once and
    are read from a random place with a random sign, which costs a tenth of drawing them.
    """

    def __init__(self, height: int, width: int, seed: int) -> None:
        self._seed = seed
        rng = np.random.default_rng([seed, 3])
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        centre = rng.uniform(-0.15, 0.15, 4)
        self.lamp = 1 - FALL_OFF / 2 * ((y - np.float32(centre[0])) ** 2 + (x - np.float32(centre[1])) ** 2)
        self.lamp *= _dust(height, width, rng)
        self.excitation = 1 - FALL_OFF * ((y - np.float32(centre[2])) ** 2 + (x - np.float32(centre[3])) ** 2)
        self._bank = rng.standard_normal(max(2 * height * width, 1 << 19), np.float32)

    def deviates(self, exposure: int, count: int) -> NDArray[np.float32]:
        """Return `count` standard normal deviates that depend on the seed and the exposure's number alone."""
        rng = np.random.default_rng([self._seed, 4, exposure])
        start = int(rng.integers(0, self._bank.size - count + 1))
        window = self._bank[start : start + count]
        return -window if rng.random() < 0.5 else window

    def counts(self, electrons: NDArray[np.float32], noise: NDArray[np.float32], exposure: int) -> NDArray[np.uint16]:
        """Return the recorded image (height, width) uint16.

        Parameters
        ----------
        electrons, noise
            Expected electrons, and the standard deviation of their number with the read noise; (height, width).
        exposure
            Number of the exposure; picks the noise.
        """
        image = self.deviates(exposure, electrons.size).reshape(electrons.shape) * noise
        image += electrons
        image += np.float32(OFFSET + 0.5)
        np.clip(image, 0, 65535, out=image)
        return image.astype(np.uint16)


def _dust(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the transmission of a few specks far out of focus: dim discs with diffraction rings."""
    shade = np.ones((height, width), np.float32)
    for _ in range(max(3, round(7 * height * width / 512**2))):
        row, col = rng.uniform(0, height), rng.uniform(0, width)
        radius, depth = rng.uniform(5, 16), rng.uniform(0.015, 0.05)
        reach = 4 * radius
        top, left = max(int(row - reach), 0), max(int(col - reach), 0)
        part = shade[top : int(row + reach), left : int(col + reach)]
        rows = np.arange(top, top + part.shape[0], dtype=np.float32)[:, None]
        cols = np.arange(left, left + part.shape[1], dtype=np.float32)[None, :]
        r2 = ((rows - np.float32(row)) ** 2 + (cols - np.float32(col)) ** 2) / np.float32(radius**2)
        part -= np.float32(depth) * np.cos(np.float32(4.5) * r2) * np.exp(-r2 / np.float32(1.6))
    return shade
