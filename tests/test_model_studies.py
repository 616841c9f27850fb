"""Many trainings of one recipe: the learning curve and the instruments, with a few steps each."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from livestain_models._errors import DataError, LivestainError
from livestain_models.recipe import Recipe, load_recipe
from livestain_models.studies import study_instruments, study_learning_curve
from tests.training_pairs import write_pairs, write_recipe

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {"train__steps": 4, "train__validate_every": 4, "network": {"base": 4, "levels": 2}}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return load_recipe(write_recipe(write_pairs(tmp_path_factory.mktemp("study") / "pairs", 8), **FEW))


def quiet(_: str) -> None: ...


def test_a_learning_curve_is_drawn_and_not_trained_twice(recipe: Recipe, tmp_path: Path) -> None:
    said: list[str] = []
    text = study_learning_curve(recipe, tmp_path, (1, 2, 4), range(2), say=said.append, device="cpu")
    assert "Trained on 4 fields the model reaches Pearson r" in text
    assert "Twice as many (8) would bring" in text
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [(point["n_fields"], point["seed"]) for point in curve["points"]] == [
        (n, s) for n in (1, 2, 4) for s in (0, 1)
    ]
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width > 300
    for number in (1, 2, 4):
        for seed in (0, 1):
            folder = tmp_path / f"{number}-fields-{seed}"
            assert len(json.loads((folder / "fields.json").read_text())["fields"]["train"]) == number
    assert len({(tmp_path / f"1-fields-{seed}" / "best.safetensors").read_bytes() for seed in (0, 1)}) == 2

    # One of them is lost: only that one is trained again, and the curve comes out the same.
    shutil.rmtree(tmp_path / "2-fields-1")
    (tmp_path / "curve.png").unlink()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/last.safetensors")}
    assert study_learning_curve(recipe, tmp_path, (1, 2, 4), range(2), say=quiet, device="cpu") == text
    assert all(file.stat().st_mtime_ns == before[file] for file in before)
    assert json.loads((tmp_path / "curve.json").read_text()) == curve
    assert (tmp_path / "curve.png").exists()


def test_a_study_that_is_stopped_goes_on(recipe: Recipe, tmp_path: Path) -> None:
    steps = iter(range(1, 100))
    with pytest.raises(LivestainError, match=r"Stopped during .*1-fields-1; the same command goes on"):
        study_learning_curve(recipe, tmp_path, (1, 2), range(2), say=quiet, stop=lambda: next(steps) == 6, device="cpu")
    assert not (tmp_path / "curve.json").exists()
    said: list[str] = []
    study_learning_curve(recipe, tmp_path, (1, 2), range(2), say=said.append, device="cpu")
    assert "going on from step 4" in said
    assert "going on from step 2" in said


CURVES: dict[str, tuple[dict[str, Any], tuple[int, ...], str]] = {
    "too many": ({}, (2, 40), r"largest size is 40, but there are 4 fields to learn from.*--sizes"),
    "no test": ({"data__split": {"validation": ["*/f0"], "test": []}}, (1, 2), r"no field for the test"),
}


@pytest.mark.parametrize("case", CURVES)
def test_a_curve_that_cannot_be(case: str, tmp_path: Path) -> None:
    changes, sizes, message = CURVES[case]
    chosen = load_recipe(write_recipe(write_pairs(tmp_path / "pairs"), **FEW, **changes))
    with pytest.raises(DataError, match=message):
        study_learning_curve(chosen, tmp_path / "out", sizes, (0,), say=quiet)
    assert not (tmp_path / "out").exists()


def of_instruments(folder: Path, *names: str) -> Recipe:
    sources = [{"path": str(write_pairs(folder / name, 3)), "instrument": name} for name in names]
    return load_recipe(write_recipe(folder / names[0], **FEW, data__pairs=sources))


def test_each_instrument_is_left_out_once(tmp_path: Path) -> None:
    chosen = of_instruments(tmp_path, "red", "blue")
    table = study_instruments(chosen, tmp_path / "out", say=quiet, device="cpu")
    rows = [line for line in table.splitlines() if line.startswith(("| red", "| blue"))]
    assert [row.split("|")[2].strip() for row in rows] == ["3 (2)", "3 (2)"]
    assert (tmp_path / "out" / "instruments.md").read_text().strip() == table.strip()
    # Training 1 leaves blue out, training 2 also sees the blue field that is not tested.
    trained = [json.loads((tmp_path / "out" / f"training-{n}" / "fields.json").read_text())["fields"] for n in (1, 2)]
    seen = [{name.split("/")[0] for part in ("train", "validation") for name in fields[part]} for fields in trained]
    assert seen == [{"red"}, {"red", "blue"}]
    assert all(name.startswith("blue") for fields in trained for name in fields["test"])

    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*/last.safetensors")}
    assert len(before) == 4
    assert study_instruments(chosen, tmp_path / "out", say=quiet, device="cpu") == table
    assert all(file.stat().st_mtime_ns == before[file] for file in before)


def test_one_instrument_cannot_be_left_out(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"takes two, got \['unnamed'\]. Name them \(data\.pairs: instrument\)"):
        study_instruments(recipe, tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()
