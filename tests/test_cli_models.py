"""`livestain models ...` as a person meets it: from a recipe to a scored package, and what is said when it cannot be."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from livestain._errors import LivestainError, ModelError
from livestain.cli import models as cli_models
from livestain.cli import recipes
from livestain.cli.main import app
from livestain_models.package import load_package
from livestain_models.variants import add_variant
from tests import model_builders
from tests.training_pairs import write_pairs, write_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from livestain_models.package import Package

pytestmark = pytest.mark.usefixtures("one_thread")

TARGET = {"name": "Nuclei", "channel": "nuclei/{field}.tif", "distance_map": True}
SHIPPED = ("cells", "error_bars", "fast", "gan", "large", "lupi", "nuclei", "planes", "stains", "viability", "volume")


def models(*arguments: object, status: int = 0) -> str:
    """Run a command in this process; errors for a person are raised, as `main` would print them."""
    done = CliRunner().invoke(app, ["models", *map(str, arguments)], env={"COLUMNS": "250"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return done.output


def refused(*arguments: object) -> str:
    with pytest.raises(LivestainError) as caught:
        models(*arguments)
    return str(caught.value)


@dataclass(frozen=True)
class Made:
    """What `train` and `export` left, and what they said."""

    recipe: Path
    pairs: Path
    training: Path
    package: Path
    said_training: str
    said_export: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("models")
    pairs = write_pairs(folder / "pairs")
    recipe = write_recipe(pairs, data__targets=[TARGET])
    training, package = folder / "training", folder / "package"
    said = models("train", recipe, "--out", training, "--set", "train.steps=30", "--device", "cpu")
    exported = models("export", training, "--out", package, "--fp16", "--int8")
    return Made(recipe, pairs, training, package, said, exported)


# ------------------------------------------------------------------------------------------ the whole way


def test_training_says_how_it_goes_and_what_is_next(made: Made) -> None:
    said = made.said_training
    assert "finding the objects of 4 fields" in said
    assert re.search(r"step +10 of 30 +loss [\d.]+ +\(l1 [\d.]+", said)
    assert re.search(r"step 30: validation Nuclei -?\d\.\d{4}; best so far", said)
    assert f"next: livestain models export {made.training} --out tiny" in said
    assert (made.training / "preview.png").is_file()
    assert "train:\n  steps: 30" in (made.training / "recipe.yaml").read_text()
    again = models("train", made.recipe, "--out", made.training, "--set", "train.steps=30", "--device", "cpu")
    assert "going on from step 30" in again


def test_export_scores_on_the_test_part_and_shows_the_package(made: Made) -> None:
    contract = load_package(made.package).contract
    assert contract.precisions == ("fp32", "fp16", "int8")
    assert {"parity_max_grey", "validation_Nuclei", "pearson", "input_copied_pearson"} <= contract.scores.keys()
    assert "Scored on 1 field" in made.said_export
    for shown in ("Nuclei (fluorescence), Nuclei distance (distance map)", "fp32, fp16, int8", str(made.package)):
        assert shown in " ".join(made.said_export.split())


def test_without_scores_only_parity_is_known(made: Made, tmp_path: Path) -> None:
    models("export", made.training / "best.safetensors", "--out", tmp_path / "package", "--no-score")
    contract = load_package(tmp_path / "package").contract
    assert contract.precisions == ("fp32",)
    assert contract.scores.keys() == {"parity_max_grey", "parity_mean_grey", "validation_Nuclei"}


def test_score_as_json_holds_nothing_but_json(made: Made) -> None:
    found = json.loads(models("score", made.package, "--recipe", made.recipe, "--json"))
    row = next(row for row in found["rows"] if (row["output"], row["method"]) == ("Nuclei", "model"))
    assert row["scores"]["pearson"]["value"] == pytest.approx(
        load_package(made.package).contract.scores["pearson"], rel=1e-3
    )
    assert len(found["fields"]) == 1


def test_score_of_other_data_takes_all_of_it_and_writes_a_report(made: Made, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "others", 2)
    out = tmp_path / "report"
    said = models("score", made.package, "--recipe", made.recipe, "--data", other, "--out", out)
    assert "Scored on 2 fields" in said
    assert str(out / "scores.md") in said.replace("\n", "")
    assert "# Scores" in (out / "scores.md").read_text()
    assert len(json.loads((out / "scores.json").read_text())["fields"]) == 2
    assert list(out.glob("*.png"))


def test_score_takes_the_recipe_beside_the_data(made: Made) -> None:
    assert "Scored on 6 fields" in models("score", made.package, "--data", made.pairs)


def test_verify_names_every_precision(made: Made) -> None:
    said = models("verify", made.package)
    assert said.count("the test output is reproduced") == 3
    for precision in ("tiny@0.1.0 sha256", "tiny@0.1.0 fp16 sha256", "tiny@0.1.0 int8 sha256"):
        assert precision in said
    assert "warning" not in said


def in_bf16(folder: Path) -> Path:
    shutil.copytree(load_package("nuclei-demo").folder, folder)
    built = load_package(folder)
    return add_variant(built, "bf16", built.weights, {"parity_max_grey": 998.0, "parity_mean_grey": 20.0}, {}).folder


@pytest.mark.usefixtures("computes_in_bf16")
def test_verify_computes_bf16_in_bf16(tmp_path: Path) -> None:
    said = models("verify", in_bf16(tmp_path / "model"))
    assert "bf16 sha256" in said
    assert "grey levels (allowed: 1000)" in said
    assert said.count("the test output is reproduced") == 2


def test_verify_says_what_this_processor_cannot_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def older_processor(package: Package) -> None:
        raise ModelError(f"this processor does not compute in {package.precision}.")

    monkeypatch.setattr(cli_models, "_predictor", older_processor)
    said = models("verify", in_bf16(tmp_path / "model"))
    assert said.count("the test output is reproduced") == 1
    assert re.search(r"warning: .* bf16 sha256:\w+ was not verified: this processor does not compute in bf16.", said)


def test_export_asks_for_bf16_before_it_begins(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livestain.runtimes.openvino.processor_without_bf16", lambda: "An Older Processor")
    said = refused("export", made.training, "--out", tmp_path / "package", "--bf16")
    assert said.startswith("--bf16: this processor (An Older Processor) does not compute in bf16. Leave it out")
    assert not (tmp_path / "package").exists()


def test_verify_warns_of_what_a_package_leaves_unsaid(tmp_path: Path) -> None:
    package = model_builders.package(tmp_path / "model")
    assert "warning: the package does not say its scores" in models("verify", package.folder)


def test_show_says_what_one_should_know(made: Made) -> None:
    said = " ".join(models("show", made.package).split())
    for words in (
        "tiny",
        "0.325 um",
        "bright field",
        "not for diagnosis",
        "4 fields (of unnamed), 30 steps",
        "one plane",
    ):
        assert words in said


def test_list_names_the_shipped_and_the_given(made: Made, tmp_path: Path) -> None:
    said = models("list")
    assert "nuclei-demo" in said
    assert "tiny" not in said
    (made.package.parent / "broken").mkdir(exist_ok=True)
    (made.package.parent / "broken" / "rdf.yaml").write_text("type: model")
    said = " ".join(models("list", made.package.parent).split())
    assert "Nuclei (fluorescence), Nuclei distance (distance map) from one plane, 0.325 um, bright field" in said
    assert "cannot be used" in said


def test_recipes_are_listed_and_copied_but_never_over_another(tmp_path: Path) -> None:
    listed = models("recipes").splitlines()
    assert tuple(line.split()[0] for line in listed) == SHIPPED
    assert all(len(line.split()) > 5 for line in listed)
    models("recipes", "--copy-to", tmp_path / "mine")
    assert sorted(file.stem for file in (tmp_path / "mine").iterdir()) == list(SHIPPED)
    assert "exists; it was left as it is" in refused("recipes", "--copy-to", tmp_path / "mine")


def test_a_learning_curve(made: Made, tmp_path: Path) -> None:
    few = ("--set", "train.steps=2", "--set", "train.validate_every=2", "--device", "cpu")
    said = models("learning-curve", made.recipe, "--out", tmp_path, "--sizes", "1,2", "--seeds", 1, *few)
    assert "Trained on 2 fields the model reaches Pearson r" in said
    assert str(tmp_path / "curve.png") in said.replace("\n", "")
    assert (tmp_path / "curve.json").is_file()


def test_instruments(made: Made, tmp_path: Path) -> None:
    sources = [{"path": str(write_pairs(tmp_path / name, 3)), "instrument": name} for name in ("red", "blue")]
    recipe = write_recipe(tmp_path / "red", data__pairs=sources, train__steps=2, train__validate_every=2)
    said = models("instruments", recipe, "--out", tmp_path / "out", "--device", "cpu")
    assert "| instrument | fields (tested) |" in said
    assert "| blue | 3 (2) |" in said


# ------------------------------------------------------------------------------------------ what is refused

SETTINGS = {
    "no value": ("train.steps", "--set takes KEY=VALUE, e.g. train.steps=500, got 'train.steps'"),
    "no key": ("=5", "--set takes KEY=VALUE"),
    "no such key": ("train.stpes=5", "train.stpes: there is no such key"),
    "no such section": ("trian.steps=5", "trian: there is no such key"),
    "below a value": ("id.x=5", "id.x: there is no such key"),
    "into a list": ("data.targets.0.name=x", "data.targets"),
    "not YAML": ("train.steps=[5", "train.steps=[5"),
    "wrong type": ("train.steps=many", "train.steps: Input should be a valid integer"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_wrong_setting_is_named(case: str, made: Made, tmp_path: Path) -> None:
    setting, says = SETTINGS[case]
    assert says in refused("train", made.recipe, "--out", tmp_path / "out", "--set", setting)
    assert not (tmp_path / "out").exists()


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "a shipped recipe without data": (("train", "nuclei"), "shipped recipe nuclei needs pairs; give them with --data"),
    "no such recipe": (("train", "none.yaml"), "none.yaml cannot be read"),
    "data that is not there": (("train", "nuclei", "--data", "nowhere"), "matches nothing"),
    "export of nothing": (("export", "nowhere", "--out", "p"), "nowhere is not there"),
    "score without a recipe": (("score", "nuclei-demo"), "Which channels are input and stain? Give --recipe"),
    "no such package": (("verify", "nowhere"), "No model package at 'nowhere'"),
    "no package either": (("show", "nowhere"), "nuclei-demo"),
    "sizes": (("learning-curve", "RECIPE", "--out", "out", "--sizes", "4,many"), "--sizes takes whole numbers"),
    "no field": (("learning-curve", "RECIPE", "--out", "out", "--sizes", "0,2"), "at least one field"),
    "too many fields": (("learning-curve", "RECIPE", "--out", "out"), "largest size is 32"),
    "one instrument": (("instruments", "RECIPE", "--out", "out"), "To leave one instrument out takes two"),
    "no such device": (("train", "RECIPE", "--out", "out", "--device", "cuda:9"), "'cuda:9' cannot be used"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_one_message(case: str, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, says = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    assert says in refused(*(str(made.recipe) if word == "RECIPE" else word for word in arguments))
    assert not list(tmp_path.iterdir())


NEEDS_TORCH = {
    "train": ("train", "RECIPE"),
    "export": ("export", "TRAINING", "--out", "p"),
    "score": ("score", "PACKAGE", "--recipe", "RECIPE"),
    "learning-curve": ("learning-curve", "RECIPE", "--out", "out"),
    "instruments": ("instruments", "RECIPE", "--out", "out"),
}


@pytest.mark.parametrize("command", NEEDS_TORCH)
def test_without_torch_the_extra_is_named(
    command: str, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_torch(monkeypatch)
    monkeypatch.chdir(tmp_path)
    real = {"RECIPE": made.recipe, "TRAINING": made.training, "PACKAGE": made.package}
    said = refused(*(real.get(word, word) for word in NEEDS_TORCH[command]))
    assert 'needs torch, which is not installed. Run: pip install "livestain[cpu,train]"' in said


@pytest.mark.parametrize("command", [("verify", "nuclei-demo"), ("show", "nuclei-demo"), ("list",), ("recipes",)])
def test_what_the_rig_needs_works_without_torch(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    forget_torch(monkeypatch)
    assert models(*command)


def forget_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name.startswith("livestain_models."):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)


def test_a_fault_of_ours_is_not_taken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'livestain_models.trian'", name="livestain_models.trian")

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ModuleNotFoundError):
        recipes.training_side("train")


def test_every_command_explains_itself_with_an_example() -> None:
    commands = [command.name or command.callback.__name__ for command in cli_models.app.registered_commands]  # type: ignore[union-attr]
    assert len(commands) >= 9
    for command in commands:
        assert f"Example: livestain models {command}" in models(command, "--help")


# ------------------------------------------------------------------------------------------ Ctrl-C


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a signal")
@pytest.mark.slow
def test_ctrl_c_ends_after_a_step_and_the_same_command_goes_on(tmp_path: Path) -> None:
    recipe = write_recipe(write_pairs(tmp_path / "pairs"), train__steps=100_000, train__validate_every=50_000)
    steps = [interrupted(recipe, tmp_path, logged) for logged in (1, 3)]
    assert 10 <= steps[0] < steps[1]
    logged = [json.loads(line)["step"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert logged == list(range(10, steps[1] + 1, 10))


def interrupted(recipe: Path, folder: Path, lines: int) -> int:
    """Train until so many lines are logged, send Ctrl-C, and give the step it stopped at."""
    command = [sys.executable, "-W", "error", "-m", "livestain", "models", "train", str(recipe), "--out", "out"]
    process = subprocess.Popen(
        [*command, "--device", "cpu"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    log, until = folder / "out" / "log.jsonl", time.monotonic() + 90
    before = log.read_text().count("\n") if log.exists() else 0
    while time.monotonic() < until and process.poll() is None:
        if log.exists() and log.read_text().count("\n") >= before + lines:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "stopping after this step" in said
    assert ("going on from step" in said) == (before > 0)
    found = re.search(r"stopped at step (\d+); the same command goes on from there", said)
    assert found, said
    return int(found[1])
