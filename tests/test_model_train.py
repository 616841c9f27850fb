"""The training loop: it learns, resumes to the bit, exports what it learned, and refuses what cannot work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file

import livestain_models
from livestain_models import checkpoint as checkpoints
from livestain_models._errors import DataError, LivestainError, ModelError, RecipeError
from livestain_models._training_folder import BEST, LAST
from livestain_models.export import export_checkpoint
from livestain_models.recipe import Recipe, load_recipe
from livestain_models.train import train
from livestain_models.verify import verify_package
from tests.training_pairs import recipe, write_pairs, write_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs", planes=3)


def made(folder: Path, **changes: Any) -> Recipe:
    return load_recipe(write_recipe(folder, **changes))


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


CLASSES = [
    {"name": "Nuclei", "channel": "nuclei/{field}.tif"},
    {"name": "Membrane", "channel": "membrane/{field}.tif"},
]

MODES: dict[str, dict[str, Any]] = {
    "one plane": {},
    "planes": {"data__planes": {"count": 3}, "augment": {"drop_planes": 0.2, "invert": 0.2}},
    "every window": {"data__planes": {"count": 1, "windows": "all"}},
    "mean square error": {"loss": {"l1": 0, "mse": 1, "ms_ssim": 0}},
    "several stains": {"data__targets": CLASSES},
    "distance map": {"data__targets": [CLASSES[0] | {"distance_map": True}]},
    "error bars": {"mode": "error bars"},
    "gan": {"mode": "gan", "train__patch_px": 64},
    "lupi": {"mode": "lupi"},
    "viability": {"mode": "viability", "data__classes": {"labels": "classes/{field}.tif"}},
    "classes beside stains": {
        "data__targets": [
            CLASSES[0] | {"distance_map": True},
            CLASSES[1] | {"distance_map": {"name": "Cells", "seeds": "Nuclei"}},
            {"name": "Dead", "channel": "membrane/{field}.tif", "shown": False},
        ],
        "data__classes": {"all_cells": "Nuclei", "dead_cells": "Dead"},
    },
    "field statistics": {"network__normalise": "field"},
    "volume": {"data__planes": {"count": 3}, "network": {"kind": "unet3d", "base": 4, "levels": 2}},
    "bf16": {"train__precision": "bf16"},
    "dropout": {"network__dropout": 0.3},
}


QUICK = ("one plane", "several stains", "viability", "volume", "bf16")


@pytest.mark.parametrize("mode", [pytest.param(m, marks=() if m in QUICK else pytest.mark.slow) for m in MODES])
def test_the_loss_falls(mode: str, pairs: Path, tmp_path: Path) -> None:
    trained = train(made(pairs, train__steps=60, **MODES[mode]), tmp_path / "out")
    losses = [
        sum(v for k, v in line.items() if k not in ("step", "rate", "judge", "adversarial"))
        for line in log_of(tmp_path / "out")
        if "rate" in line
    ]
    assert trained.finished
    assert losses[-1] < 0.9 * losses[0], losses
    assert (tmp_path / "out" / "preview.png").stat().st_size > 1000


def test_a_stack_of_stains_is_learned_plane_by_plane(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", planes=3, stack=True)
    volume = {"data__planes": {"count": 3}, "network": {"kind": "unet3d", "base": 4, "levels": 2}}
    assert train(made(folder, **volume), tmp_path / "out").finished


INTERRUPTED = {
    "before the first look": (3, {}),
    "between looks": (14, {}),
    "at a look": (10, {}),
    "gan": (14, {"mode": "gan", "train__patch_px": 64}),
    "dropout": (7, {"network__dropout": 0.5}),
    "lupi": (13, {"mode": "lupi"}),
}


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow if c == "gan" else ()) for c in INTERRUPTED])
def test_an_interrupted_training_ends_with_the_same_weights(case: str, pairs: Path, tmp_path: Path) -> None:
    at, changes = INTERRUPTED[case]
    chosen = made(pairs, **changes)
    train(chosen, tmp_path / "whole")
    steps = iter(range(1, 100))
    stopped = train(chosen, tmp_path / "parts", stop=lambda: next(steps) == at)
    assert (stopped.finished, stopped.step) == (False, at)
    again = train(chosen, tmp_path / "parts")
    assert again.finished
    for name in (BEST, LAST):
        whole, parts = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_killed_training_goes_on_from_its_last_look(pairs: Path, tmp_path: Path) -> None:
    chosen = made(pairs)
    train(chosen, tmp_path / "whole")
    steps = iter(range(1, 100))

    def killed() -> bool:
        if next(steps) == 17:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train(chosen, tmp_path / "killed", stop=killed)
    train(chosen, tmp_path / "killed")
    whole, parts = (load_file(tmp_path / run / LAST) for run in ("whole", "killed"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert [line["step"] for line in log_of(tmp_path / "whole")] == [
        line["step"] for line in log_of(tmp_path / "killed")
    ]


@pytest.mark.parametrize("at", [17, 33])
def test_what_a_killed_training_logged_beyond_its_checkpoint_is_not_there_twice(
    at: int, pairs: Path, tmp_path: Path
) -> None:
    chosen = made(pairs, train__steps=40, train__validate_every=20)
    train(chosen, tmp_path / "whole")
    steps = iter(range(1, 100))

    def killed() -> bool:
        if next(steps) == at:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train(chosen, tmp_path / "killed", stop=killed)
    with (tmp_path / "killed" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 2')  # and its last line is half written
    train(chosen, tmp_path / "killed")
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")


def test_a_finished_training_is_left_as_it_is(pairs: Path, tmp_path: Path) -> None:
    chosen = made(pairs)
    first = train(chosen, tmp_path / "out")
    before = (tmp_path / "out" / LAST).read_bytes()
    assert train(chosen, tmp_path / "out") == first
    assert (tmp_path / "out" / LAST).read_bytes() == before


def test_patience_ends_a_training_that_no_longer_gains(pairs: Path, tmp_path: Path) -> None:
    # A rate of almost nothing: after the first look no score can be better by much; the third ends it.
    chosen = made(pairs, train__steps=200, train__validate_every=2, train__patience=2, train__learning_rate=1e-12)
    trained = train(chosen, tmp_path / "out")
    assert trained.finished
    assert trained.step < 200
    assert train(chosen, tmp_path / "out").step == trained.step


def test_another_seed_gives_other_weights(pairs: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        train(made(pairs, train__seed=seed), tmp_path / str(seed))
    one, other = (load_file(tmp_path / str(seed) / BEST)["deployed.head.weight"] for seed in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.slow
def test_two_processes_train_what_one_would(pairs: Path, tmp_path: Path) -> None:
    file = write_recipe(pairs, train__steps=6, train__validate_every=3, network__dropout=0.0)
    script = tmp_path / "together.py"
    script.write_text(
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from livestain_models.recipe import load_recipe; from livestain_models.train import train\n"
        "train(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), device='cpu')\n"
        # torch's own threads now and then abort an interpreter that ends (status 134), when all is done.
        "import os; os._exit(0)\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, script, file, tmp_path / "two"], check=True, timeout=150, env=environment)
    train(load_recipe(file), tmp_path / "one", device="cpu")
    assert [line["step"] for line in log_of(tmp_path / "two")] == [line["step"] for line in log_of(tmp_path / "one")]
    one, two = (load_file(tmp_path / run / LAST) for run in ("one", "two"))
    # Each process has BatchNorm statistics of its own half of the batch, so the weights agree in kind only.
    moved = [(one[key] - two[key]).abs().max() for key in one if key.startswith("net.") and "weight" in key]
    assert 0 < max(moved) < 0.2


# ------------------------------------------------------------------------------------------ to a package


def test_from_recipe_to_package(pairs: Path, tmp_path: Path) -> None:
    chosen = made(
        pairs, train__steps=150, train__validate_every=50, data__targets=[CLASSES[0] | {"distance_map": True}]
    )
    train(chosen, tmp_path / "out")
    package = export_checkpoint(tmp_path / "out", tmp_path / "package")
    contract = package.contract
    assert [output.name for output in contract.outputs] == ["Nuclei", "Nuclei distance"]
    assert contract.pixel_size_um == 0.325
    assert contract.scores["parity_max_grey"] <= 4
    assert contract.scores["validation_Nuclei"] > 0.7
    assert "4 fields" in contract.training_data
    assert verify_package(package).max_difference <= 2
    # The exporter notes at every node where in the source it came from; paths of a machine are nobody's business.
    assert str(Path(livestain_models.__file__).parent).encode() not in package.weights.read_bytes()
    # The package needs neither the data nor the recipe any more.
    shutil.rmtree(pairs)
    assert export_checkpoint(tmp_path / "out" / BEST, tmp_path / "again").contract.scores == contract.scores


def test_a_checkpoint_to_go_on_from_is_not_exported(pairs: Path, tmp_path: Path) -> None:
    train(made(pairs, train__steps=10), tmp_path / "out")
    with pytest.raises(ModelError, match="to go on from"):
        export_checkpoint(tmp_path / "out" / LAST, tmp_path / "package")
    with pytest.raises(ModelError, match="is not there"):
        export_checkpoint(tmp_path, tmp_path / "package")
    (tmp_path / "junk.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match="no checkpoint of livestain"):
        export_checkpoint(tmp_path / "junk.safetensors", tmp_path / "package")


def test_an_export_that_differs_is_not_written(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(made(pairs, train__steps=10), tmp_path / "out")
    monkeypatch.setattr("livestain_models.export.parity", lambda *_: {"parity_max_grey": 9.0, "parity_mean_grey": 1.0})
    with pytest.raises(ModelError, match="differs from the network by 9 grey levels"):
        export_checkpoint(tmp_path / "out", tmp_path / "package")
    assert not (tmp_path / "package").exists()


# ------------------------------------------------------------------------------------------ what cannot work


def test_another_recipe_does_not_go_on_with_a_training(pairs: Path, tmp_path: Path) -> None:
    train(made(pairs), tmp_path / "out")
    with pytest.raises(RecipeError, match=r"train\.learning_rate changed"):
        train(made(pairs, train__learning_rate=0.1), tmp_path / "out")
    for kind in ("bf", "nuclei", "membrane", "classes"):
        shutil.copy(pairs / kind / "f0.tif", pairs / kind / "new.tif")
    with pytest.raises(RecipeError, match="was trained on other fields"):
        train(made(pairs), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    with pytest.raises(RecipeError, match="holds other files"):
        train(made(pairs), tmp_path / "full")


def test_a_disk_without_room_is_refused_before_the_first_step(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match=r"has 1 MB free, but checkpoints need \d+ MB"):
        train(made(pairs), tmp_path / "out")


def test_a_disk_that_fills_keeps_the_checkpoint_before(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = checkpoints.save_file, []

    def full(tensors: Any, file: Path, metadata: Any) -> None:
        calls.append(file)
        if len(calls) > 2:
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, file, metadata)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(ModelError, match=r"No space left on device; the one before it is whole"):
        train(made(pairs), tmp_path / "out")
    monkeypatch.setattr(checkpoints, "save_file", real)
    assert not list((tmp_path / "out").glob("*.partial"))
    assert train(made(pairs), tmp_path / "out").finished


def test_a_loss_that_is_not_finite_ends_the_training(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"At step \d+ the loss is not a number"):
        train(made(pairs, train__steps=100, train__learning_rate=1e30, train__warm_up=0), tmp_path / "out")


def spoil(pairs: Path, kind: str, image: np.ndarray) -> None:
    for file in (pairs / kind).iterdir():
        tifffile.imwrite(file, image, photometric="minisblack")


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "shapes": (lambda p: spoil(p, "nuclei", np.ones((80, 96), np.uint16)), {}, r"80.*96|96.*80"),
    "not a number": (lambda p: spoil(p, "nuclei", np.full((96, 96), np.nan, np.float32)), {}, "NaN|not finite|nan"),
    "constant": (lambda p: spoil(p, "nuclei", np.full((96, 96), 7, np.uint16)), {}, "constant|same value"),
    "constant input": (lambda p: spoil(p, "bf", np.full((3, 96, 96), 7, np.uint16)), {}, "constant|same value"),
    "type": (lambda p: spoil(p, "bf", np.ones((3, 96, 96), np.float32)), {}, "float32"),
    "too few planes": (lambda p: None, {"data__planes": {"count": 5}}, "3 focal planes"),
    "no spacing": (lambda p: None, {"data__planes": {"count": 3}, "data__plane_spacing_um": None}, "plane_spacing_um"),
    "no such folder": (shutil.rmtree, {}, "matches nothing"),
    "nothing left": (lambda p: None, {"data__split": {"validation": 0.4, "test": 0.4, "by": "instrument"}}, "instrument"),
    "labels": (lambda p: spoil(p, "classes", np.full((96, 96), 9, np.uint8)), {"mode": "viability", "data__classes": {"labels": "classes/{field}.tif"}}, "must be 0 to 3"),
    "batch": (lambda p: None, {"train__batch": 3}, "cannot be shared"),
    "device": (lambda p: None, {}, "cannot be used"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused_before_hours_are_spent(
    case: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, changes, message = BAD[case]
    file = write_recipe(pairs, **changes)
    damage(pairs)
    if case == "batch":
        monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LivestainError, match=message) as caught:
        train(load_recipe(file), tmp_path / "out", device="cuda:7" if case == "device" else "cpu")
    assert not isinstance(caught.value, AssertionError)
    assert not (tmp_path / "out" / LAST).exists()


RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"train__stpes": 5}, r"train\.stpes: there is no such key"),
    "wrong type": ({"train__steps": "many"}, r"train\.steps: .*\(got 'many'\)"),
    "viability without classes": ({"mode": "viability"}, "needs data.classes"),
    "classes by a gan": ({"mode": "gan", "data__classes": {"labels": "a"}}, 'goes with mode "regression" or "viability"'),
    "nothing shown": ({"data__targets": [{"name": "Nuclei", "shown": False}]}, "no target is shown"),
    "no seeds of that name": ({"data__targets": [{"name": "Nuclei", "distance_map": {"name": "Cells", "seeds": "DNA"}}]}, "names the seeds 'DNA'"),
    "two maps of one name": ({"data__targets": [{"name": "Nuclei", "distance_map": True}, {"name": "a", "distance_map": {"name": "Nuclei"}}]}, "distance map needs a name of its own"),
    "volume of one plane": ({"network__kind": "unet3d"}, "count of at least 2"),
    "gan in 3D": ({"mode": "gan", "network__kind": "unet3d", "data__planes": {"count": 3}}, "gan"),
    "two stains for lupi": ({"mode": "lupi", "data__targets": CLASSES}, "one target"),
    "falling range": ({"augment": {"scale": [1.3, 0.7]}}, "rising range"),
    "all kept": ({"data__split": {"validation": 0.5, "test": 0.5}}, "leave at least 10 %"),
    "same name twice": ({"data__targets": [CLASSES[0], CLASSES[0]]}, "name of its own"),
    "columns by name": ({"data__split": {"by": "columns", "test": ["f0"]}}, "by shares, not by names"),
    "classes two ways": ({"mode": "viability", "data__classes": {"labels": "a", "all_cells": "Nuclei", "dead_cells": "x"}}, "either labels, or both"),
    "no dye of that name": ({"mode": "viability", "data__classes": {"all_cells": "Nuclei", "dead_cells": "PI"}}, "none of the targets"),
}  # fmt: skip


@pytest.mark.parametrize("case", RECIPES)
def test_a_recipe_with_a_fault_names_it(case: str, tmp_path: Path) -> None:
    changes, message = RECIPES[case]
    with pytest.raises(RecipeError, match=message):
        load_recipe(write_recipe(tmp_path / "pairs", **changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [("[", "not valid YAML"), ("just words", "no mapping"), ("!!python/name:os.system", "not valid YAML")],
)
def test_a_file_that_is_no_recipe(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "recipe.yaml")


def test_recipes_survive_being_written(tmp_path: Path) -> None:
    chosen = Recipe.model_validate(recipe(tmp_path))
    assert Recipe.model_validate(chosen.model_dump(mode="json")) == chosen
