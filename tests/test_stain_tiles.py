"""Any frame size: padding, tiles on the grid, and no seam."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestain._errors import ModelError
from livestain._stain import OnnxModel, plan_tiles
from livestain_models.package import load_package
from livestain_models.tensors import Sizes
from tests.model_builders import blur_package, contract, grid_package, package


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Identity, blur and grid models, each whole and in small tiles."""
    folder = tmp_path_factory.mktemp("models")
    built = [package(folder / "identity"), blur_package(folder / "blur"), grid_package(folder / "grid")]
    return [(OnnxModel(one), OnnxModel(one, max_tile_px=16)) for one in built]


def frame(height, width, seed=0, planes=1):
    return np.random.default_rng(seed).integers(0, 65536, (planes, height, width), dtype=np.uint16)


@given(
    length=st.integers(1, 3000),
    multiple=st.sampled_from([1, 2, 8, 16, 32]),
    halo=st.integers(0, 100),
    extra=st.integers(0, 500),
)
def test_tiles_cover_the_frame_once_on_the_grid(length, multiple, halo, extra):
    grid_halo = -(-halo // multiple) * multiple
    max_tile = 2 * grid_halo + multiple + extra
    tiles = list(plan_tiles(length, max_tile, Sizes.on_grid(multiple, halo)))
    padded = -(-length // multiple) * multiple
    covered = np.concatenate([np.arange(tile.keep_start, tile.keep_stop) for tile in tiles])
    assert (covered == np.arange(length)).all()
    assert len({tile.size for tile in tiles}) == 1
    assert tiles[0].size <= max_tile
    for tile in tiles:
        assert tile.start % multiple == 0 == tile.size % multiple
        assert tile.start >= 0
        assert tile.start + tile.size <= padded
        assert tile.start == 0 or tile.keep_start - tile.start >= halo
        assert tile.start + tile.size == padded or tile.start + tile.size - tile.keep_stop >= halo


def test_a_model_without_halo_is_never_tiled():
    (tile,) = plan_tiles(5000, 2048, Sizes.on_grid(16, None))
    assert (tile.size, tile.keep_stop) == (5008, 5000)


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
def test_whole_and_tiled_are_the_same(models, height, width, seed):
    planes = frame(height, width, seed)
    for whole, tiled in models:
        expected = whole.predict(planes).planes
        assert expected.shape == (1, height, width)
        assert (tiled.predict(planes).planes == expected).all()
    assert (models[0][0].predict(planes).planes == planes).all()


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 30), width=st.integers(1, 30))
def test_padding_mirrors_the_frame(models, height, width):
    planes = frame(height, width)
    pad = [(0, 0), (0, -height % 4), (0, -width % 4)]
    padded = planes
    for axis, (_, missing) in enumerate(pad):
        for _ in range(missing):  # one row at a time, so that frames of one pixel mirror too
            size, original = padded.shape[axis], planes.shape[axis]
            period = max(2 * (original - 1), 1)
            source = size % period if size % period < original else period - size % period
            padded = np.concatenate([padded, padded.take([source], axis)], axis)
    cells = padded.reshape(1, padded.shape[1] // 4, 4, padded.shape[2] // 4, 4).mean((2, 4))
    expected = np.kron(cells[0], np.ones((4, 4)))[:height, :width]
    got = models[2][0].predict(planes).planes[0]
    assert np.abs(got - expected).max() <= 0.51  # rounding to grey levels


def test_padding_is_numpys_reflection_where_numpy_has_one(models):
    planes = frame(13, 10)
    padded = np.pad(planes, [(0, 0), (0, 3), (0, 2)], mode="reflect")
    whole = models[2][0]
    assert (whole.predict(planes).planes == whole.predict(padded).planes[:, :13, :10]).all()


@pytest.mark.parametrize(
    ("height", "width"),
    [
        pytest.param(700, 530, marks=pytest.mark.slow),
        pytest.param(530, 700, marks=pytest.mark.slow),
        (369, 368),
        (400, 1100),
        (17, 801),
    ],
)
def test_the_trained_network_has_no_seam(height, width):
    shipped = load_package("nuclei-demo")
    planes = frame(height, width) // 8 + 1000
    planes[:, height // 3 :, width // 3 :] += 20000  # a step across tiles
    whole = OnnxModel(shipped, threads=1).predict(planes).planes
    tiled = OnnxModel(shipped, threads=1, max_tile_px=368).predict(planes).planes
    assert whole.std() > 100
    assert np.abs(whole.astype(int) - tiled).max() < 1


def test_a_tile_that_is_all_halo_is_refused(tmp_path):
    model = package(tmp_path, multiple_px=16, halo_px=170)
    with pytest.raises(ModelError, match=r"max_tile_px 256 is too small.*at least 368 px"):
        OnnxModel(model, max_tile_px=256)
    assert OnnxModel(model, max_tile_px=368).contract == model.contract
    assert contract(halo_px=None).halo_px is None
