"""The fit of the undiffracted light: its slope is exact, and it comes to its end in hard fields too."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from livestain.phase import _halo_fit
from livestain.phase._smooth_light import SmoothLight
from livestain.phase.halo import coherence_limits_um, recover
from tests.slim_fields import COHERENCE_UM, PIXEL_UM, scene

field = lru_cache(scene)


def test_the_slope_is_that_of_the_cost() -> None:
    rng = np.random.default_rng(0)

    def waves(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    cells = np.zeros((60, 50), bool)
    cells[10:30, 12:33] = True
    known = _halo_fit.Known(0.3 * waves(60, 50) * np.where(cells, 1, 0.1), cells, 0.02, PIXEL_UM)
    modes = SmoothLight.of(cells.shape, 12.0)
    fixed = _halo_fit._fixed(known, modes)
    start = 0.1 * waves(*modes.shape)
    slope = -_halo_fit._downhill(known, modes, fixed, _halo_fit._point(known, modes, fixed, start))
    for _ in range(5):
        way = waves(*modes.shape)
        up, down = (_halo_fit._point(known, modes, fixed, start + step * way).cost for step in (1e-6, -1e-6))
        assert (up - down) / 4e-6 == pytest.approx(slope @ _halo_fit._pairs(way), rel=1e-6)


@pytest.mark.parametrize("seed", [4, 13, 16])
def test_a_field_with_two_cells_missing_from_the_masks_converges(seed: int) -> None:
    """Their light is left unexplained, and then Gauss-Newton alone never came to an end: every mass was lost."""
    s = field(seed, 2200.0, 256)
    missed = np.random.default_rng(seed).choice(np.unique(s.labels)[1:], 2, replace=False)
    cells = s.cells & ~np.isin(s.labels, missed)
    found = recover(s.signal, cells, pixel_size_um=PIXEL_UM, coherence_um=COHERENCE_UM, errors=0)
    assert found.reason == ""
    mass = (
        np.bincount(s.labels.ravel(), found.phase_rad.ravel().astype(float)) * 0.55 / (2 * np.pi * 0.18) * PIXEL_UM**2
    )
    off = np.array([mass[cell] / true - 1 for cell, true in s.whole_pg.items() if cell not in missed])
    assert np.median(np.abs(off)) < 0.02
    assert np.abs(off).max() < 0.05


def test_a_radius_far_from_the_truth_takes_no_longer_than_its_tiles_allow() -> None:
    """Where tile after tile fails the rest is not tried; of 16 here it would take minutes."""
    s = field(1, 600.0)
    tried = []

    def counted(*args, **kwargs):
        tried.append(args)
        return failing(*args, **kwargs)

    def failing(known, modes):
        found = _halo_fit.fit(known, modes, steps=1)
        assert not found.converged
        return known, found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("livestain.phase.halo.fit_with_strangers", counted)
        found = recover(s.signal, s.cells, pixel_size_um=PIXEL_UM, coherence_um=5.0, errors=0)
    assert len(tried) == 3
    assert np.isnan(found.phase_rad[s.cells]).all()
    assert "did not converge" in found.reason


@pytest.mark.parametrize(
    ("shape", "pixel_um", "low_um", "high_um"),
    [
        ((512, 512), 0.325, 5.0, 166.4),  # no halo is finer than a cell
        ((256, 512), 1.5, 6.0, 384.0),  # four pixels; the shorter side
        ((4096, 4096), 0.65, 10.08, 2662.4),  # 24 tiles an axis, and no more
    ],
)
def test_the_coherence_radius_has_limits(
    shape: tuple[int, int], pixel_um: float, low_um: float, high_um: float
) -> None:
    assert coherence_limits_um(shape, pixel_um) == pytest.approx((low_um, high_um), rel=1e-3)
