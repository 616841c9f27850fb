"""Do transmitted light and stain lie on each other: real pairs, and the same moved, zoomed, mirrored, exchanged."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from livestain_models.data import read_fields, register
from livestain_models.recipe import Data


def cells(seed=0, size=384, count=40, noise=True):
    """Rings in transmitted light where the stain has discs; the two share no grey values."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    light, stain = np.full((size, size), 4000.0), np.full((size, size), 200.0)
    for cy, cx, radius in rng.uniform((0, 0, 6), (size, size, 12), (count, 3)):
        r = np.hypot(y - cy, x - cx)
        light += 900 * np.exp(-(((r - radius) / 2) ** 2)) - 500 * (r < radius - 2)
        stain += rng.uniform(500, 3000) / (1 + np.exp(r - radius + 2))
    if noise:
        light, stain = rng.poisson(light), rng.poisson(stain)
    return light[None].astype(np.uint16), stain.astype(np.uint16)


def moved(planes, stain, down, right):
    """The stain `down` and `right` of the light, without wrapping around."""
    height, width = stain.shape
    light = planes[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    return light, stain[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]


def zoomed(planes, stain, factor):
    height, width = stain.shape
    large = ndimage.zoom(stain.astype(np.float32), factor, order=1)
    if factor > 1:
        top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
        return planes, large[top : top + height, left : left + width]
    top, left = (height - large.shape[0]) // 2, (width - large.shape[1]) // 2
    return planes[:, top : top + large.shape[0], left : left + large.shape[1]], large


def test_true_pairs_and_false_ones():
    planes, stain = cells()
    assert register(planes, stain, 0.3, 1.5).verdict == "matches"
    assert register(planes, cells(1)[1], 0.3, 1.5).verdict == "unrelated"
    assert register(planes, stain[::-1], 0.3, 1.5).verdict == "unrelated"


@settings(max_examples=6)
@given(down=st.integers(-60, 60), right=st.integers(-60, 60), seed=st.integers(0, 99))
def test_shifts_are_measured(down, right, seed):
    found = register(*moved(*cells(seed), down, right), 0.5, 1.5)
    assert found.shift_px == pytest.approx((down, right), abs=1.5)
    assert found.shift_um == pytest.approx((down * 0.5, right * 0.5), abs=0.75)
    near = max(abs(down), abs(right))
    assert found.verdict == ("matches" if near <= 2 else "shifted") or 2 < near < 5
    if found.verdict == "shifted":
        assert f"{round(found.shift_px[0]):+d} px down" in str(found)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_scales_are_measured(factor):
    found = register(*zoomed(*cells(size=512, count=90), factor), 0.5, 1.5)
    assert found.verdict == "scaled"
    assert found.scale == pytest.approx(factor, rel=0.05)
    assert "times as large" in str(found)


def test_too_little_structure():
    planes, stain = cells()
    rng = np.random.default_rng(0)
    noise = rng.poisson(200, stain.shape).astype(np.uint16)
    _, few = cells(seed=3, count=1)
    for light, dye in ((planes, noise), (noise[None], stain), (planes, few)):
        assert register(light, dye, 0.5, 1.5).verdict == "cannot tell"
    for size in ((8, 8), (17, 20), (40, 300), (96, 128)):
        part = planes[:, : size[0], : size[1]], noise[: size[0], : size[1]]
        assert register(*part, 0.5, 1.5).verdict == "cannot tell"
    flat = np.full((128, 128), 9, np.uint16)
    assert register(flat[None], flat, 0.5, 1.5).verdict == "cannot tell"


def test_misplaced_pairs_are_left_out_and_why(tmp_path):
    for name, light, stain in (
        ("good", *cells(0)),
        ("moved", *moved(*cells(1), 30, 0)),
        ("other", cells(2)[0], cells(3)[1]),
    ):
        for kind, image in (("bf", light[0]), ("dna", stain)):
            (tmp_path / kind).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / kind / f"{name}.tif", image)
    recipe = {
        "pairs": str(tmp_path),
        "input": "bf/{field}.tif",
        "targets": [{"name": "DNA", "channel": "dna/{field}.tif"}],
        "pixel_size_um": 0.5,
    }
    found = read_fields(Data(**recipe))
    assert [field.name.split("/")[1] for field in found.fields] == ["good"]
    reasons = {left.name.split("/")[1]: left.reason for left in found.left_out}
    assert reasons["moved"].startswith("DNA: the stain lies +30 px down")
    assert reasons["other"].startswith("DNA: the stain shows another place")
    assert len(read_fields(Data(**recipe, check_registration=False)).fields) == 3


def real_pairs(shared_data):
    isl, ecoli = shared_data / "isl", shared_data / "ecoli"
    planes = tifffile.imread(isl / "phase_contrast_zyx.tif")
    pairs = {name: (planes, tifffile.imread(isl / f"{name}_yx.tif"), 0.33) for name in ("dapi", "map2", "nfh")}
    for path in sorted(ecoli.glob("ds[12]/brightfield/*.tif")):
        stain = path.parents[1] / "fluorescence" / path.name
        pairs[f"{path.parents[1].name}/{path.stem}"] = (tifffile.imread(path)[None], tifffile.imread(stain), 0.08)
    return pairs


def test_real_pairs(shared_data):
    pairs = real_pairs(shared_data)
    assert len(pairs) == 15
    verdicts = {
        name: register(planes, stain, pixel_um, 5 * pixel_um).verdict
        for name, (planes, stain, pixel_um) in pairs.items()
    }
    assert set(verdicts.values()) == {"matches"}, verdicts


@pytest.mark.parametrize("name", ["dapi", "nfh", "ds1/00001"])
def test_real_pairs_spoilt(shared_data, name):
    planes, stain, pixel_um = real_pairs(shared_data)[name]
    for shift in ((-12, 12), (60, -45)):
        found = register(*moved(planes, stain, *shift), pixel_um, 4 * pixel_um)
        assert found.verdict == "shifted"
        assert found.shift_px == pytest.approx(shift, abs=6)
    for factor in (0.8, 1.25):
        found = register(*zoomed(planes, stain, factor), pixel_um, 4 * pixel_um)
        assert (found.verdict, found.scale) == ("scaled", pytest.approx(factor, rel=0.05))
    assert register(planes, stain[::-1], pixel_um, 4 * pixel_um).verdict == "unrelated"


def test_exchanged_fields(shared_data):
    pairs = [pair for name, pair in real_pairs(shared_data).items() if name.startswith("ds1")]
    for (planes, _, pixel_um), (_, stain, _) in zip(pairs[:4], pairs[3:], strict=False):
        assert register(planes, stain, pixel_um, 4 * pixel_um).verdict == "unrelated"
