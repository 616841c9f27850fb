"""Draws one cell: thickness, nucleus, nucleoli, vesicles and ruffles, each stain, and its outline."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from livestain.simulate._textures import MARGIN, Textures, textures

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NUCLEUS_SHARE", "Patch", "Shape", "draw_cell"]

NUCLEUS_SHARE = 0.2  # of the dry mass; the nucleus of an animal cell holds a fifth to a third of it

_INSIDE, _NUCLEUS = 1, 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What a cell looked like when it was last drawn; one row of `Population.cells["drawn"]`."""

    radius_um: float
    roundness: float
    axis_rad: float
    phase: float
    stained: float
    time_s: float


@dataclass(frozen=True, slots=True)
class Patch:
    """One cell on its own square of pixels, the cell's centre in the middle.

    `mass` (H, W) float32 sums to 1; the stains have brightness about 1 where a G1 nucleus or an average
    membrane is; `outline` (H, W) uint8 has bit 1 inside the cell and bit 2 inside the nucleus.
    """

    mass: NDArray[np.float32]
    nuclei: NDArray[np.float32]
    membrane: NDArray[np.float32]
    dead: NDArray[np.float32] | None
    outline: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Coordinates in the cell: u, v in cell radii along and across its axis, and powers of the angle."""

    u: NDArray[np.float32]
    v: NDArray[np.float32]
    radius: NDArray[np.float32]
    turn: NDArray[np.complex64]


def draw_cell(shape: Shape, seed: int, cell: int, pixel_size_um: float) -> Patch:
    """Draw the cell `cell`; a pure function, so that a cell looks the same whoever asks and when.

    Parameters
    ----------
    shape
        The snapshot to draw.
    seed, cell
        Together they fix what is the cell's own: outline, place of the nucleus, grain.
    pixel_size_um
        Edge of a pixel in the sample.
    """
    rng = np.random.default_rng([seed, 2, cell])
    half = min(int(np.ceil(1.7 * shape.radius_um / pixel_size_um)) + 2, MARGIN // 2 - 1)
    frame = _frame(half, shape, pixel_size_um, float(rng.uniform(0.08, 0.34)))
    rho = frame.radius / _edge(frame.turn, shape, rng)
    ruffle = _ruffle(rho, frame.turn, shape, rng)
    nucleolar = float(rng.uniform(0.2, 0.5))
    inside = _Anatomy(
        rho,
        _thickness(rho, shape.roundness),
        *_nucleus(frame, shape, rng),
        *_grain(textures(pixel_size_um), 2 * half + 1, shape, rng),
    )
    nuclei = _nuclear_stain(inside, shape, pixel_size_um)
    dead = None
    if shape.stained > 0:
        dead = np.asarray(np.float32(shape.stained) * (0.9 * nuclei + 0.12 * inside.thickness), np.float32)
    outline = (rho < 1).astype(np.uint8) * _INSIDE + (inside.in_nucleus > 0).astype(np.uint8) * _NUCLEUS
    return Patch(_dry_mass(inside, ruffle, nucleolar, shape), nuclei, _membrane_stain(inside, shape), dead, outline)


@dataclass(frozen=True, slots=True)
class _Anatomy:
    """What a cell is made of, each part on the cell's own square of pixels."""

    rho: NDArray[np.float32]  # 1 on the outline
    thickness: NDArray[np.float32]
    nucleus: NDArray[np.float32]
    nucleoli: NDArray[np.float32]
    in_nucleus: NDArray[np.float32]
    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]
    vesicles: NDArray[np.float32]


def _dry_mass(a: _Anatomy, ruffle: NDArray[np.float32], nucleolar: float, shape: Shape) -> NDArray[np.float32]:
    """Return where the dry mass is, in all 1: granular cytoplasm around a smoother nucleus."""
    cytoplasm = a.thickness * (1 + (0.16 * a.coarse + 0.10 * a.fine) * (1 - 0.75 * a.in_nucleus))
    near = np.clip(1.3 - a.rho, 0, 1) * (1 - 0.9 * a.in_nucleus)  # vesicles keep to the nucleus' neighbourhood
    cytoplasm += (0.9 + 0.9 * shape.stained) * a.thickness * a.vesicles * near + ruffle
    np.maximum(cytoplasm, 0, out=cytoplasm)
    body = a.nucleus * (1 + 0.05 * a.coarse) + nucleolar * a.nucleoli
    cytoplasm *= (1 - NUCLEUS_SHARE) / cytoplasm.sum()
    return np.asarray(cytoplasm + body * (NUCLEUS_SHARE / body.sum()))


def _nuclear_stain(a: _Anatomy, shape: Shape, pixel_size_um: float) -> NDArray[np.float32]:
    """Return the DNA stain; its integral follows the DNA content, which doubles in the middle of the cycle."""
    stain = a.nucleus * (1 + 0.22 * a.fine + 0.12 * a.coarse) * (1 - 0.6 * a.nucleoli)
    np.maximum(stain, 0, out=stain)
    content = (1 + float(np.clip((shape.phase - 0.4) / 0.35, 0, 1))) * (1 - 0.5 * shape.stained)
    return np.asarray(stain * (content * 50 / pixel_size_um**2 / stain.sum()))


def _membrane_stain(a: _Anatomy, shape: Shape) -> NDArray[np.float32]:
    """Return the membrane stain: a patchy rim, and the folded membranes inside the cell."""
    rim = np.clip(1 - np.abs(a.rho - 0.97) * (shape.radius_um / 0.8), 0, 1)
    stain = 0.6 * rim * np.clip(1 + 0.35 * a.coarse, 0.3, 2)
    stain += 0.42 * a.thickness * (1 - 0.55 * a.in_nucleus) * (1 + 0.25 * a.coarse + 0.6 * a.vesicles)
    return np.asarray(np.maximum(stain, 0, out=stain))


@lru_cache(maxsize=64)
def _grid(half: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    line = np.arange(-half, half + 1, dtype=np.float32)
    return line[None, :], line[:, None]


def _frame(half: int, shape: Shape, pixel_size_um: float, stretch: float) -> _Frame:
    x, y = _grid(half)
    stretch = 1 + stretch * (1 - shape.roundness)
    cos, sin = np.cos(shape.axis_rad), np.sin(shape.axis_rad)
    along = np.float32(pixel_size_um / (shape.radius_um * stretch))
    across = np.float32(pixel_size_um * stretch / shape.radius_um)
    u = x * np.float32(cos * along) + y * np.float32(sin * along)
    v = y * np.float32(cos * across) - x * np.float32(sin * across)
    radius = np.sqrt(u * u + v * v) + np.float32(1e-6)
    turn = np.empty(u.shape, np.complex64)
    turn.real, turn.imag = u / radius, v / radius
    return _Frame(u, v, radius, turn)


def _edge(turn: NDArray[np.complex64], shape: Shape, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the outline's radius at every angle: a few harmonics that drift within an hour."""
    size = np.array([0.11, 0.12, 0.07]) * rng.uniform(0.5, 1.3, 3) * (1 - 0.9 * shape.roundness)
    size[2] += 0.05 * shape.stained  # blebs
    angle = rng.uniform(0, 2 * np.pi, 3) + shape.time_s / 3600 * rng.normal(0, 1, 3)
    weights = (size * np.exp(1j * angle)).astype(np.complex64)
    second = turn * turn
    third = second * turn
    wave = second * weights[0] + third * weights[1] + second * third * weights[2]
    return np.asarray(1 + wave.real)


def _thickness(rho: NDArray[np.float32], roundness: float) -> NDArray[np.float32]:
    """Return a flat lamella that rises to a dome, blending into a ball as the cell rounds up; 0 outside."""
    inner = np.clip(1 - rho * rho, 0, None)
    root = np.sqrt(inner)
    outer = 1 - inner
    flat = 1 - outer * outer * outer
    flat *= inner > 0
    spread = np.float32(0.42) * flat + np.float32(0.58) * inner * root
    return np.asarray(np.float32(1 - roundness) * spread + np.float32(roundness) * root)


def _nucleus(
    frame: _Frame, shape: Shape, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the nucleus' height, its nucleoli, and a soft map of where it is (0 outside)."""
    dividing = float(np.clip((shape.phase - 0.965) / 0.025, 0, 1)) * (shape.stained == 0)
    size = 0.47 * (1 - 0.12 * shape.stained) * (1 - 0.12 * dividing) * (1 + 0.25 * shape.roundness)
    ratio = (1 + rng.uniform(0.05, 0.3)) * (1 + 0.6 * dividing)
    tilt = rng.uniform(0, np.pi) * (1 - dividing)
    off = rng.uniform(-0.16, 0.16, 2) * (1 - shape.roundness)
    du, dv = frame.u - np.float32(off[0]), frame.v - np.float32(off[1])
    cos, sin = np.cos(tilt), np.sin(tilt)
    across, along = size / np.sqrt(ratio), size * np.sqrt(ratio)
    first = (du * np.float32(cos) + dv * np.float32(sin)) / np.float32(across)
    second = (dv * np.float32(cos) - du * np.float32(sin)) / np.float32(along)
    inner: NDArray[np.float32] = np.clip(1 - first * first - second * second, 0, None)
    where: NDArray[np.float32] = np.clip(inner * 6, 0, 1)
    height: NDArray[np.float32] = np.sqrt(inner) * where
    nucleoli = np.zeros_like(height)
    for _ in range(int(rng.integers(1, 5))):
        place = rng.uniform(-0.5, 0.5, 2)
        width = rng.uniform(0.8, 1.6) / (shape.radius_um * size)
        spot = 1 - ((first - np.float32(place[0])) ** 2 + (second - np.float32(place[1])) ** 2) / np.float32(width**2)
        np.maximum(nucleoli, np.clip(spot, 0, None), out=nucleoli)
    return height, np.asarray(nucleoli * np.float32(1 - dividing)), where


def _grain(
    tiles: Textures, size: int, shape: Shape, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the cell's windows into the tiles; the two tiles of a kind mix in turn, so the grain seethes."""
    corners = [tuple(corner) for corner in rng.integers(0, 512, (3, 2)).tolist()]
    mix = shape.time_s / 1800 + rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(mix)), np.float32(np.sin(mix))
    coarse = tiles.window(tiles.coarse[0], corners[0], size) * cos
    coarse += tiles.window(tiles.coarse[1], corners[0], size) * sin
    fine = tiles.window(tiles.fine[0], corners[1], size) * cos
    fine += tiles.window(tiles.fine[1], corners[1], size) * sin
    return coarse, fine, tiles.window(tiles.vesicles, corners[2], size)


def _ruffle(
    rho: NDArray[np.float32], turn: NDArray[np.complex64], shape: Shape, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the thickened rim at the leading edge, where the membrane folds back on itself."""
    facing = np.clip(turn.real, 0, None) ** 2
    band = np.clip(1 - np.abs(rho - np.float32(0.93)) * np.float32(13), 0, 1)
    return np.asarray(band * facing * np.float32(rng.uniform(0.1, 0.35) * (1 - shape.roundness)))
