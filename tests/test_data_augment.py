"""Augmentation: one geometry for input, stain and labels; contrast of the input alone; the same draw, the same bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from livestain_models.data.augment import Geometry, Patch, augment, draw_geometry, pasted, place, vary_contrast
from livestain_models.recipe import Augment

NONE = {
    "flips": False,
    "rotate_deg": 0,
    "scale": (1, 1),
    "shear": 0,
    "gamma": (1, 1),
    "gain": (1, 1),
    "offset": 0,
    "noise": (0, 0),
    "blur_px": (0, 0),
}


def settings(**changes):
    return Augment(**(NONE | changes))


def smooth(channels=1, size=96, seed=0):
    rng = torch.Generator().manual_seed(seed)
    small = torch.rand(1, channels, size // 8, size // 8, generator=rng)
    return torch.nn.functional.interpolate(small, size=(size, size), mode="bicubic")[0]


@settings_of_hypothesis(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_same_draw_gives_the_same_bits(seed):
    x, y = smooth(3), smooth(2, seed=1)
    labels = (y[0] > 0.5).long()
    first, second = (augment(x, y, labels, Augment(), np.random.default_rng(seed), 32) for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.y, second.y)
    assert torch.equal(first.labels, second.labels)


@settings_of_hypothesis(max_examples=40)
@given(seed=st.integers(0, 999))
def test_input_and_stain_stay_on_each_other(seed):
    x = smooth()
    geometry = settings(flips=True, rotate_deg=180, scale=(0.7, 1.3), shear=0.1)
    patch = augment(x, torch.stack([x, 2 * x]), (x[0] > 0.5).long(), geometry, np.random.default_rng(seed), 48)
    assert patch.x.shape == (1, 48, 48)
    assert patch.y.shape == (2, 1, 48, 48)
    torch.testing.assert_close(patch.y[0], patch.x)
    torch.testing.assert_close(patch.y[1], 2 * patch.x)
    sure = (patch.x[0] - 0.5).abs() > 0.1
    assert torch.equal(patch.labels[sure], (patch.x[0] > 0.5).long()[sure])  # nearest: 0 or 1, at the same place


def test_nothing_asked_changes_nothing():
    x, y = smooth(2), smooth(1, seed=1)
    patch = augment(x, y, None, settings(), np.random.default_rng(0), 32)
    assert torch.equal(patch.x, x[:, 32:64, 32:64])
    assert torch.equal(patch.y, y[:, 32:64, 32:64])
    assert patch.labels is None


def test_flips_move_pixels_and_never_mix_them():
    x = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = set()
    for seed in range(60):
        patch = augment(x, x, None, settings(flips=True), np.random.default_rng(seed), 32)
        assert torch.equal(patch.x.flatten().sort().values, x.flatten().sort().values)
        seen.add(tuple(patch.x.flatten()[:3].tolist()))
    assert len(seen) == 8  # of the square


def test_zoom_keeps_brightness_and_enlarges():
    disc = torch.zeros(1, 128, 128)
    y, x = torch.meshgrid(torch.arange(128.0) - 63.5, torch.arange(128.0) - 63.5, indexing="ij")
    disc[0, y**2 + x**2 < 20**2] = 3.0
    for zoom in (0.5, 1.5):
        patch = augment(disc, disc, None, settings(scale=(zoom, zoom)), np.random.default_rng(0), 96)
        assert float(patch.y.max()) == pytest.approx(3.0, rel=1e-5)
        assert int((patch.y > 1.5).sum()) == pytest.approx(int((disc > 1.5).sum()) * zoom**2, rel=0.05)


@settings_of_hypothesis(max_examples=40)
@given(seed=st.integers(0, 999), patch_px=st.integers(32, 96), elastic_px=st.sampled_from([0.0, 4.0]))
def test_reach_holds_the_whole_patch(seed, patch_px, elastic_px):
    """What lies beyond the reach does not change the patch."""
    geometry = draw_geometry(Augment(elastic_px=elastic_px), np.random.default_rng(seed))
    images = torch.rand(1, 400, 400, generator=torch.Generator().manual_seed(seed))
    rows, columns = geometry.reach_px(patch_px)
    part = images[:, 200 - rows // 2 : 200 + rows // 2, 200 - columns // 2 : 200 + columns // 2]
    whole = geometry.apply(images, (200, 200), patch_px)
    torch.testing.assert_close(geometry.apply(part, (rows / 2, columns / 2), patch_px), whole, atol=2e-3, rtol=0)


def test_beyond_the_image_it_is_mirrored():
    images = torch.arange(25.0).reshape(1, 5, 5)
    patch = Geometry().apply(images, (2.5, 2.5), 9)
    expected = np.pad(images[0].numpy(), 2, mode="reflect")
    np.testing.assert_array_equal(patch[0], expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gain": (2, 2)}, lambda x: 2 * x),
        ({"invert": 0.999999}, lambda x: -x),
    ],
)
def test_contrast(changes, expected):
    x = smooth(2) - 0.5
    torch.testing.assert_close(vary_contrast(x, settings(**changes), np.random.default_rng(0)), expected(x))


@pytest.mark.parametrize("gamma", [0.8, 1.25])
def test_gamma_bends_around_the_background(gamma):
    x = torch.linspace(-2, 2, 401)[None, None]
    bent = vary_contrast(x, settings(gamma=(gamma, gamma)), np.random.default_rng(0))[0, 0]
    assert bent[200] == pytest.approx(0, abs=1e-6)
    assert (bent[201] - bent[199]) / 0.02 == pytest.approx(1, rel=1e-2)
    assert (bent.diff() > 0).all()
    assert torch.isfinite(bent).all()


def test_noise_and_blur():
    rng = np.random.default_rng(0)
    x = smooth(1, 256) * 4
    noise = vary_contrast(x, settings(noise=(0.1, 0.1)), rng) - x
    assert float(noise.std()) == pytest.approx(0.1 * float(x.std()), rel=0.02)
    from scipy import ndimage

    grain = torch.from_numpy(rng.standard_normal((2, 64, 64), np.float32))
    blurred = vary_contrast(grain, settings(blur_px=(0.8, 0.8)), rng)
    for plane, found in zip(grain.numpy(), blurred.numpy(), strict=True):
        np.testing.assert_allclose(found, ndimage.gaussian_filter(plane, 0.8, mode="mirror", radius=3), atol=1e-5)


def test_a_missing_plane_is_replaced_by_its_neighbour():
    x = torch.arange(5.0)[:, None, None].expand(5, 4, 4).contiguous()
    for seed in range(50):
        planes = vary_contrast(x, settings(drop_planes=0.4), np.random.default_rng(seed))[:, 0, 0].tolist()
        kept = [z for z, value in enumerate(planes) if value == z]
        assert kept
        assert all(abs(value - z) == min(abs(k - z) for k in kept) for z, value in enumerate(planes))
    one = torch.ones(1, 4, 4)
    assert torch.equal(vary_contrast(one, settings(drop_planes=0.9), np.random.default_rng(0)), one)


def test_a_bend_moves_input_and_stain_alike():
    geometry = draw_geometry(Augment(elastic_px=5.0), np.random.default_rng(3))
    x = torch.rand(1, 160, 160, generator=torch.Generator().manual_seed(0))
    patch = place(geometry, x, 2 * x, None, (80, 80), 64)
    torch.testing.assert_close(patch.y, 2 * patch.x)
    straight = place(replace(geometry, bend_px=None), x, 2 * x, None, (80, 80), 64)
    assert not torch.allclose(patch.x, straight.x, atol=0.05)


@settings_of_hypothesis(max_examples=30)
@given(seed=st.integers(0, 999))
def test_a_pasted_rectangle_is_the_other_patch_at_the_same_place(seed):
    zeros, ones = (
        Patch(torch.full((2, 32, 32), value), torch.full((1, 32, 32), value), torch.full((32, 32), int(value)))
        for value in (0.0, 1.0)
    )
    made = pasted(zeros, ones, np.random.default_rng(seed))
    share = made.x[0].mean().item()
    assert (8 / 32) ** 2 <= share <= (24 / 32) ** 2
    assert torch.equal(made.x[0], made.y[0])
    assert torch.equal(made.x[0].long(), made.labels)
    assert zeros.x.sum() == 0  # the patches themselves are left as they are
