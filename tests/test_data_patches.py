"""Patches: what the deployed graph would see, the same for the same step, from whatever process."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile
import torch
from torch.utils.data import DataLoader

from livestain_models._errors import DataError
from livestain_models.data import Field, Scale, read_fields, to_units
from livestain_models.data import patches as patches_module
from livestain_models.data.patches import Patches
from livestain_models.normalise import FieldContrast, LocalContrast
from livestain_models.recipe import Augment, Data, PlanesWanted

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = Augment(
    flips=False, rotate_deg=0, scale=(1, 1), shear=0, gamma=(1, 1), gain=(1, 1), offset=0, noise=(0, 0), blur_px=(0, 0)
)
SCALES = {"unnamed": (Scale(100.0, 1000.0),)}


def field(name="a", size=(320, 272), depth=1, seed=0, **more):
    rng = np.random.default_rng(seed)
    stain = np.arange(size[0] * size[1]).reshape(1, 1, *size).astype(np.float32)  # each pixel tells where it is
    return Field.of_arrays(
        name, rng.integers(900, 1100, (depth, *size), dtype=np.uint16), stain, pixel_size_um=1, **more
    )


def patches(fields, **changes):
    settings = {
        "planes": PlanesWanted(),
        "scales": SCALES,
        "normalise": LocalContrast(),
        "augment": PLAIN,
        "patch_px": 64,
        "batch": 4,
        "foreground": 0.5,
        "seed": 1,
        "steps": 20,
    }
    return Patches(fields, **(settings | changes))


def same(first, second):
    return torch.equal(first.x, second.x) and torch.equal(first.y, second.y)


@pytest.mark.parametrize("size", [(320, 272), (300, 333)])  # on the normalisation's grid, and off it
@pytest.mark.parametrize("kept", [0, 1 << 29])
@pytest.mark.parametrize("normalise", [LocalContrast(), FieldContrast()])
def test_a_patch_is_bit_exactly_a_crop_of_the_normalised_field(size, kept, normalise, monkeypatch):
    monkeypatch.setattr(patches_module, "_KEPT_BYTES", kept)
    one = field(size=size, depth=3)
    every = slice(None)
    raw = one.input((0, 1, 2), every, every).astype(np.float32)
    if not normalise.needs_field:  # as the microscope does
        raw = np.pad(raw, [(0, 0), *((0, -side % 16) for side in size)], mode="reflect")
    whole = normalise(torch.from_numpy(raw)[None])[0]
    for batch in DataLoader(patches([one], normalise=normalise, planes=PlanesWanted(count=3)), batch_size=None):
        for x, y in zip(batch.x, batch.y, strict=True):
            at = round(float(y[0, 0, 0]) * 1000 + 100)
            top, left = at // size[1], at % size[1]
            assert torch.equal(x, whole[:, top : top + 64, left : left + 64])
            expected = to_units(one.target((1,), slice(top, top + 64), slice(left, left + 64)), SCALES["unnamed"])
            np.testing.assert_array_equal(y, expected)


def test_a_batch_depends_on_seed_and_step_alone():
    fields = [field(str(seed), seed=seed) for seed in range(3)]
    first, second = (patches(fields, augment=Augment()) for _ in range(2))
    later = second[7]
    for step in range(8):
        batch = first[step]
    assert same(batch, later)
    assert same(pickle.loads(pickle.dumps(first))[7], later)
    assert not same(first[6], later)
    assert not same(patches(fields, augment=Augment(), seed=2)[7], later)
    with pytest.raises(IndexError):
        first[20]


def test_processes_share_a_batch():
    whole = patches([field()], augment=Augment())[3]
    shares = [patches([field()], augment=Augment(), rank=rank, world=2)[3] for rank in range(2)]
    assert torch.equal(torch.stack([share.x for share in shares], 1).flatten(0, 1), whole.x)
    with pytest.raises(DataError, match=r"train.batch 4 cannot be shared by 3"):
        patches([field()], world=3)


def test_workers_give_the_same(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("bf", "dna"):
        tifffile.imwrite(tmp_path / f"{kind}.tif", rng.integers(0, 999, (128, 128), dtype=np.uint16))
    data = Data(pairs=str(tmp_path), input="bf.tif", targets="dna.tif", pixel_size_um=1, check_registration=False)
    source = patches(read_fields(data).fields, augment=Augment(), steps=4)
    for mine, theirs in zip(source, DataLoader(source, batch_size=None, num_workers=2), strict=False):
        assert same(mine, theirs)


def test_foreground_is_drawn_more_often():
    stain = np.full((1, 1, 512, 512), 100, np.float32)
    stain[..., 400:416, 96:112] = 1100
    one = Field.of_arrays("a", np.full((1, 512, 512), 1000, np.uint16), stain, pixel_size_um=1)
    hits = {
        share: sum(
            (batch.y.flatten(1).max(1).values > 0).sum().item()
            for batch in map(patches([one], foreground=share, steps=40).__getitem__, range(40))
        )
        / 160
        for share in (0.0, 1.0)
    }
    assert hits[1.0] > 0.95
    assert 0.005 < hits[0.0] < 0.1  # (64 + 16)**2 / 448**2


def test_rare_classes_are_drawn_as_often_as_common_ones():
    labels = np.zeros((512, 512), np.uint8)
    labels[:, :160:4] = 1
    labels[400:408, 400:408] = 3
    one = field(size=labels.shape, labels=labels)
    drawn = {
        share: np.mean(
            [(batch.labels == 3).flatten(1).any(1).float().mean().item() for batch in patches([one], foreground=share)]
        )
        for share in (0.0, 1.0)
    }
    assert drawn[0.0] < 0.15
    assert 0.35 < drawn[1.0] < 0.65


@pytest.mark.parametrize("augment", [PLAIN, Augment()])
@pytest.mark.parametrize("size", [(40, 200), (20, 17), (64, 64)])
def test_fields_smaller_than_the_patch_are_mirrored(augment, size):
    batch = patches([field(size=size)], augment=augment)[0]
    assert batch.x.shape == (4, 1, 64, 64)
    assert torch.isfinite(batch.x).all()


def test_volumes_labels_and_time():
    rng = np.random.default_rng(0)
    stack = rng.integers(900, 1100, (5, 96, 96), dtype=np.uint16)
    labels = (stack[0] > 1000).astype(np.uint8) * 2
    one = Field.of_arrays("a", stack, stack[None].astype(np.float32), pixel_size_um=1, labels=labels)
    wanted = PlanesWanted(count=3, windows="all")
    batch = patches([one], planes=wanted, volume=True, augment=Augment())[0]
    assert batch.y.shape == (4, 1, 3, 64, 64)
    assert batch.labels.shape == (4, 64, 64)
    assert batch.labels.dtype == torch.int64
    assert set(batch.labels.unique().tolist()) == {0, 2}
    assert patches([one], planes=wanted)[0].y.shape == (4, 1, 64, 64)
    assert len(patches([one])) == 20
