"""Four-step fields of the simulated microscope, with what is true about their cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from livestain.phase.empty_field import EmptyField
from livestain.phase.slim import Slim
from livestain.simulate import Microscope, Settings

PIXEL_UM, WAVELENGTH_UM, DARK = 0.325, 0.55, 100.0
SIGN = -1  # the simulated modulator delays the undiffracted light
FOCUS_UM = -2.0  # stage position at which transmitted light is in focus
COHERENCE_UM = 18.0  # of the simulated lamp, as a rig's calibration would say


@dataclass(frozen=True)
class Scene:
    frames: np.ndarray  # (4, H, W) uint16
    empty: EmptyField
    labels: np.ndarray  # (H, W), 3 px wider than the truth
    nuclei: np.ndarray
    whole_pg: dict[int, float]  # cells with no pixel at the border: what they weigh
    cut_pg: dict[int, float]  # cells at the border: what their pixels in the field weigh

    @property
    def cells(self) -> np.ndarray:
        return self.labels > 0

    @property
    def signal(self) -> np.ndarray:
        return Slim(self.empty, sign=SIGN).signal(self.frames, ~self.cells)


def four_frames(scope: Microscope, exposure_ms: float = 10.0) -> np.ndarray:
    scope.bench.channel, scope.bench.z_um = "Phase", FOCUS_UM
    frames = []
    for scope.bench.slm_level in (0, 64, 128, 192):
        frames.append(scope.expose(exposure_ms))
    return np.stack(frames)


def widened(labels: np.ndarray, px: float) -> np.ndarray:
    far, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    return np.where(far <= px, labels[tuple(nearest)], 0).astype(np.int64)


def scene(seed: int = 1, cells_per_mm2: float = 2170.0, size: int = 512) -> Scene:
    settings = {"seed": seed, "width": size, "height": size, "seconds_per_exposure": 0.0}
    scope = Microscope(Settings(cells_per_mm2=cells_per_mm2, **settings))
    frames = four_frames(scope)
    empty = four_frames(Microscope(Settings(cells_per_mm2=0.0, **settings)))
    truth, sample = scope.truth(), scope._built()
    phase = scope._cut(scope._map(sample, "phase", scope._field(sample, sample.padded)[0]))
    labels = widened(truth.cell_labels, 3)
    seen = np.bincount(labels.ravel(), phase.ravel()) * WAVELENGTH_UM / (2 * np.pi * 0.18) * PIXEL_UM**2
    border = set(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]).tolist())
    real = {int(cell["id"]): float(cell["dry_mass_pg"]) for cell in truth.cells}
    return Scene(
        frames,
        EmptyField.from_frames(empty, dark_counts=DARK, sign=SIGN),
        labels,
        truth.nucleus_labels,
        {cell: mass for cell, mass in real.items() if cell not in border},
        {cell: float(seen[cell]) for cell in real if cell in border},
    )
