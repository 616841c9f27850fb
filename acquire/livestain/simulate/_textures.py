"""The grain of living matter: periodic tiles of band-passed noise and of small bright vesicles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Textures", "textures"]

TILE = 512  # pixels of the periodic part
MARGIN = 256  # the tile is continued by this much, so that a window never wraps


@dataclass(frozen=True, slots=True)
class Textures:
    """Tiles of (768, 768) float32, zero mean and unit variance, except `vesicles` (0 and up, peaks near 1)."""

    coarse: tuple[NDArray[np.float32], NDArray[np.float32]]
    fine: tuple[NDArray[np.float32], NDArray[np.float32]]
    vesicles: NDArray[np.float32]

    @staticmethod
    def window(tile: NDArray[np.float32], corner: tuple[int, int], size: int) -> NDArray[np.float32]:
        """Return a (size, size) view of `tile` whose first pixel is `corner`, wrapped into the tile."""
        row, col = corner[0] % TILE, corner[1] % TILE
        return tile[row : row + size, col : col + size]


@lru_cache(maxsize=4)
def textures(pixel_size_um: float) -> Textures:
    """Return the tiles for one pixel size; always the same ones."""
    rng = np.random.default_rng(20)
    coarse = (_band(rng, pixel_size_um, 1.1, 3.5), _band(rng, pixel_size_um, 1.1, 3.5))
    fine = (_band(rng, pixel_size_um, 0.45, 1.2), _band(rng, pixel_size_um, 0.45, 1.2))
    return Textures(coarse, fine, _vesicles(rng, pixel_size_um))


def _band(rng: np.random.Generator, pixel_size_um: float, small_um: float, large_um: float) -> NDArray[np.float32]:
    """Return noise whose structures lie between two sizes (difference of two Gaussian low passes)."""
    tile = _low_pass(rng.standard_normal((TILE, TILE)), pixel_size_um, small_um / 2)
    tile -= _low_pass(tile, pixel_size_um, large_um / 2)
    return _continued((tile - tile.mean()) / tile.std())


def _vesicles(rng: np.random.Generator, pixel_size_um: float) -> NDArray[np.float32]:
    """Return scattered small spots of unequal strength, about one in 6 um2."""
    tile = np.zeros((TILE, TILE))
    count = int((TILE * pixel_size_um) ** 2 / 6)
    tile[rng.integers(0, TILE, count), rng.integers(0, TILE, count)] = rng.gamma(1.2, 1.0, count)
    sigma_um = 0.28
    spots = _low_pass(tile, pixel_size_um, sigma_um)
    return _continued(np.maximum(spots, 0) * 2 * np.pi * max(sigma_um / pixel_size_um, 0.5) ** 2 / 3)


def _low_pass(tile: NDArray[np.float64], pixel_size_um: float, sigma_um: float) -> NDArray[np.float64]:
    q = fft.fftfreq(TILE, pixel_size_um)
    gauss = np.exp(-2 * (np.pi * q * sigma_um) ** 2)
    return np.asarray(fft.ifft2(fft.fft2(tile) * gauss[:, None] * gauss[None, :]).real)


def _continued(tile: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.pad(tile, ((0, MARGIN), (0, MARGIN)), mode="wrap").astype(np.float32)
