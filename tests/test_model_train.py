"""Pairs from run folders, and the demo's training from them to a verified package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
import zarr

from livestain._reading import load_experiment
from livestain_models import demo_pairs, train_demo
from livestain_models._errors import ModelError
from livestain_models.data import pixel_size_um, read_pairs
from livestain_models.package import load_package, verify_package


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small tensors gain nothing from more, and on a busy machine OpenMP's threads wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def field(seed, size=96):
    """A nucleus is a dark disc in bright field and a bright one in fluorescence."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    nuclei = np.zeros((size, size))
    for cy, cx in rng.uniform(0, size, (6, 2)):
        nuclei = np.maximum(nuclei, (y - cy) ** 2 + (x - cx) ** 2 < 64)
    return rng.poisson(5000 * (1 - 0.2 * nuclei)), rng.poisson(100 + 3000 * nuclei)


def write_image(group, stacks, channels=("BF", "Nuclei"), pixel_um=0.325):
    """stacks: (t, c, z, y, x)."""
    array = np.asarray(stacks, np.uint16)
    scale = {"type": "scale", "scale": [60.0, 1.0, 1.5, pixel_um, pixel_um]}
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"datasets": [{"path": "0", "coordinateTransformations": [scale]}]}],
        "omero": {"channels": [{"label": label} for label in channels]},
    }
    group.create_array("0", data=array, chunks=(1, 1, 1, *array.shape[3:]))


def write_run(folder, seeds):
    """One image a seed, as several positions of one run."""
    root = zarr.open_group(folder / "images.ome.zarr", mode="w", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    root.create_group("OME").attrs["ome"] = {"version": "0.5", "series": [str(i) for i in range(len(seeds))]}
    for index, seed in enumerate(seeds):
        bright, stained = field(seed)
        write_image(root.create_group(str(index)), [[[bright], [stained]]])
    return folder


def test_a_single_image_at_the_root(tmp_path):
    bright, stained = field(0)
    root = zarr.open_group(tmp_path / "images.ome.zarr", mode="w", zarr_format=3)
    write_image(root, [[[bright], [stained]], [[bright + 1], [stained + 1]]])
    first, second = read_pairs(tmp_path, "BF", "Nuclei")
    assert first.planes.shape == (1, 96, 96)
    assert (first.planes[0] == bright).all()
    assert (second.target == stained + 1).all()
    assert pixel_size_um(tmp_path) == 0.325


def test_every_plane_is_paired_with_the_middle_of_the_stain(tmp_path):
    root = zarr.open_group(tmp_path / "images.ome.zarr", mode="w", zarr_format=3)
    bright, stained = field(0)
    empty = np.zeros_like(stained)
    stack = [[bright, bright + 1, bright + 2], [empty, stained, empty]]
    write_image(root, [stack, [[empty] * 3, [empty] * 3]])  # the second time point was never written
    pairs = list(read_pairs(tmp_path, "BF", "Nuclei"))
    assert [int(pair.planes[0, 0, 0] - bright[0, 0]) for pair in pairs] == [0, 1, 2]
    assert all((pair.target == stained).all() for pair in pairs)
    assert len({pair.name for pair in pairs}) == 3


def test_positions_and_wells(tmp_path):
    write_run(tmp_path / "positions", range(11))
    names = [pair.name for pair in read_pairs(tmp_path / "positions", "BF", "Nuclei")]
    assert [name.split("/")[1].split()[0] for name in names] == [str(i) for i in range(11)]
    root = zarr.open_group(tmp_path / "plate" / "images.ome.zarr", mode="w", zarr_format=3)
    for well in ("A/1/0", "B/2/0"):
        write_image(root.create_group(well), [[[plane] for plane in field(0)]])
    assert len(list(read_pairs(tmp_path / "plate", "BF", "Nuclei"))) == 2


def test_bad_runs_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no run folder"):
        list(read_pairs(tmp_path / "nothing", "BF", "Nuclei"))
    run = write_run(tmp_path / "run", [0])
    with pytest.raises(ModelError, match="no channel 'DAPI'; it has BF, Nuclei"):
        list(read_pairs(run, "BF", "DAPI"))
    zarr.open_group(tmp_path / "empty" / "images.ome.zarr", mode="w", zarr_format=3)
    with pytest.raises(ModelError, match="holds no image"):
        list(read_pairs(tmp_path / "empty", "BF", "Nuclei"))


def test_from_runs_to_a_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_demo, "PATCH_PX", 64)
    monkeypatch.setattr(train_demo, "WARM_UP", 5)
    runs = [str(write_run(tmp_path / "a", range(3))), str(write_run(tmp_path / "b", range(3, 6)))]
    held_out = str(write_run(tmp_path / "c", [100]))
    out = tmp_path / "model"
    train_demo.main(["--train", *runs, "--held-out", held_out, "--out", str(out), "--steps", "60"])
    package = load_package(out)
    verify_package(package)
    scores = package.contract.scores
    assert scores["pearson"] > 0.7 > scores["mean_pearson"]
    assert scores["parity_max_grey"] <= 2
    assert package.contract.pixel_size_um == 0.325
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"| pearson | {scores['pearson']} |" in card
    assert "Never saw a real cell" in card
    losses = [
        float(line.split("loss ")[1].split()[0]) for line in capsys.readouterr().out.splitlines() if "loss" in line
    ]
    assert losses[-1] < 0.8 * losses[0]


def test_training_is_seeded(tmp_path, monkeypatch):
    monkeypatch.setattr(train_demo, "PATCH_PX", 32)
    pairs = list(read_pairs(write_run(tmp_path, [0, 1]), "BF", "Nuclei"))
    first, again, other = (train_demo.train(pairs, 100, 3000, 3, seed) for seed in (0, 0, 1))
    weights = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["net.head.weight"], weights[2]["net.head.weight"])


def test_the_pairs_experiment_is_one_that_livestain_runs(tmp_path):
    seeds = [*demo_pairs.TRAIN_SEEDS, *demo_pairs.HELD_OUT_SEEDS]
    assert len(set(seeds)) == len(seeds)
    file = tmp_path / "pairs.yaml"
    file.write_text(yaml.safe_dump(demo_pairs.experiment(101, tmp_path, "train-101")), encoding="utf-8")
    experiment = load_experiment(file)
    events = list(experiment.sequence)
    assert len(events) == 9 * 4
    assert {event.channel.config for event in events} == {"BF", "Nuclei"}
    assert {event.index["z"] for event in events if event.channel.config == "Nuclei"} == {1}
