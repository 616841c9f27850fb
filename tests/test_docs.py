"""The documentation runs as it is written: every command, every snippet of Python, every block of YAML.

The tests run in a folder in which everything exists that the documents name: `RUN`, `my_rig.cfg`, `my_model` ...
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from livestain._demo import demo_experiment, demo_picture
from livestain._experiment import Experiment, Rig
from livestain._reading import load_experiment
from livestain._session import run_experiment
from livestain.cli.main import app
from livestain_models.recipe import Data, Recipe, load_recipe
from tests import documents, training_pairs
from tests.documents import RESULTS, RIG_GUIDE, ROOT, Block, words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


CONFIGS = ROOT / "hardware_configs"
PACKAGE = ROOT / "acquire" / "livestain"

# What is not run here, by how it begins, and why.
NOT_RUN = {
    "pip install": "test_wheel.py and CI install into fresh environments",
    "pytest": "that is this",
    "mmcore": "of pymmcore-plus; what it says is this computer's",
    "napari": "napari lives in an environment of its own: napari_reads.py",
    "torchrun": "needs several graphics cards",
    "python -m livestain_models.demo_pairs": "minutes of pairs; test_recipes_live.py makes a few",
    "python -m livestain_models.train_zoo": "trains for an hour",
}
# Blocks that are no commands, Python or YAML, by how they begin.
LISTINGS = {
    "2026-11-22-demo/": "what a run leaves",
    "camera -> MDARunner": "the drawing of the data path",
    "camera     Camera": "what check prints",
    "position     stain": "what collect prints",
    "planes a day": "a formula",
    "ConfigPixelSize,": "lines of a .cfg",
    "ConfigGroup,": "lines of a .cfg",
}
# Commands that take long, by how they begin; all others run with the quick tests where they need none of these.
SLOW = ("demo", "run", "collect", "measure", "empty-field", "view", "report", "movie", "cells RUN --anndata", "models train",
        "models export", "models score", "models learning-curve", "models instruments")  # fmt: skip
SLOW_SNIPPETS = ("runs/calibration",)
# What is added to a command to have it done sooner; the last of two settings counts.
SHORTER = {
    "livestain demo": "--seconds 1 --size 256",
    "livestain models train": "--set train.steps=6 --set train.patch_px=64 --set train.batch=2 --device cpu",
    "livestain models learning-curve": "--sizes 2,3,4 --seeds 1 --set train.steps=4 --set train.patch_px=64 "
    "--set train.batch=2 --device cpu",
    "livestain models instruments": "--device cpu",
    "livestain view": "--no-browser",
}
# Words of the documents that stand for something else here.
STANDS_FOR = {"TRAINING": "nuclei-from-bright-field-training"}
SIDE_PX = 256  # of images where their size does not matter


# ------------------------------------------------------------------------------------------ the folder


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the documents name; what they make is not there yet."""
    folder = tmp_path_factory.mktemp("workshop")
    write_inputs(folder)
    made = demo_experiment(folder, seconds=2, fps=2, size_px=SIDE_PX, seed=1)
    run_experiment(made, folder / "RUN")
    demo_picture(folder / "RUN")
    shutil.copy(folder / "RUN" / "experiment.yaml", folder / "other.yaml")
    shutil.copy(folder / "RUN" / "rig.cfg", folder / "rig.cfg")
    return folder


def write_inputs(folder: Path) -> None:
    """Write what a person has: configurations, experiments, a model."""
    (folder / "hardware_configs").mkdir()
    for file in CONFIGS.iterdir():
        shutil.copy(file, folder / "hardware_configs")
    for name in ("collect_simulated.yaml", "simulated_cells.yaml", "simulated_experiment.yaml"):
        for place in (folder, folder / "hardware_configs"):
            (place / name).write_text(shortened((CONFIGS / name).read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copy(CONFIGS / "simulated.cfg", folder / "my_rig.cfg")
    shutil.copy(folder / "collect_simulated.yaml", folder / "my_pairs.yaml")
    shutil.copytree(ROOT / "models" / "livestain_models" / "zoo" / "nuclei-demo", folder / "my_model")
    experiment = {
        "rig": {"config": "my_rig.cfg", "channels": {"BF": {"contrast": "bright field"}}},
        "sequence": {"channels": [{"config": "BF", "exposure": 10}], "time_plan": {"interval": 0.5, "loops": 2}},
        "stains": [{"model": "my_model", "channel": "BF"}],
        "output": {"folder": "runs"},
    }
    (folder / "my_experiment.yaml").write_text(yaml.safe_dump(experiment))
    for document in documents.documents():
        for block in documents.blocks(document):
            if block.file and not (folder / block.file).exists():
                (folder / block.file).write_text(block.text, encoding="utf-8")


def shortened(text: str) -> str:
    """Take few time points, and images that are small."""
    text = re.sub(r"loops: \d+", "loops: 2", text)
    small = f"    - [Camera, Width, {SIDE_PX}]\n    - [Camera, Height, {SIDE_PX}]\n"
    return re.sub(r"(?m)^  properties:\n", f"  properties:\n{small}", text)


@pytest.fixture
def inside(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workshop)
    return workshop


# ------------------------------------------------------------------------------------------ commands and snippets


def python_of(document: Path) -> list[Block]:
    return [block for block in documents.blocks(document) if block.kind == "python"]


def is_listed(command: str) -> bool:
    return command.startswith(tuple(NOT_RUN))


def is_slow(command: str) -> bool:
    return command.startswith(tuple(f"livestain {name}" for name in SLOW))


def quick_ones() -> Iterator[Any]:
    for document in documents.documents():
        if document.name == "training.md":
            continue  # every step of it needs the one before
        for block, command in documents.commands_of(document):
            if not is_listed(command) and not is_slow(command):
                yield pytest.param(command, id=f"{block}: {command}")


def run_command(command: str, folder: Path) -> str:
    """Run a command as it is written, in `folder`, which is where we are; it must succeed."""
    before(command, folder)
    for start, more in SHORTER.items():
        command += f" {more}" if command.startswith(start) else ""
    program, *arguments = (STANDS_FOR.get(word, word) for word in words(command))
    if program == "cp":
        shutil.copy(*arguments)
        return ""
    assert program == "livestain", f"{command}: neither run nor listed in NOT_RUN"
    if arguments[0] == "view":
        return looked_at(arguments, folder)
    if "--view" in arguments:
        return finished(arguments, folder)
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception!r}"
    return done.output


def before(command: str, folder: Path) -> None:
    """Bring about what a text presupposes and no command of it makes."""
    if command.startswith("livestain empty-field"):  # "move to a place without cells"
        rig = folder / "my_rig.cfg"
        rig.write_text(rig.read_text(encoding="utf-8").replace("CellsPerMm2,2170", "CellsPerMm2,0"), encoding="utf-8")
    if command.startswith("livestain models instruments"):  # pairs of two microscopes
        for name in ("red", "blue"):
            training_pairs.write_pairs(folder / "two" / name, 3)
        sources = [{"path": str(folder / "two" / name), "instrument": name} for name in ("red", "blue")]
        recipe = training_pairs.recipe(folder, data__pairs=sources)
        recipe["train"]["steps"] = 4
        (folder / "my_recipe.yaml").write_text(yaml.safe_dump(recipe))
    if command.startswith("livestain models learning-curve pairs") and not (folder / "pairs").exists():
        shutil.copytree(folder / "test_pairs", folder / "pairs")


def started(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-W", "error", "-m", "livestain", *arguments], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


def looked_at(arguments: list[str], folder: Path) -> str:
    """Start a page, get it, and end it as a person does."""
    with started(arguments, folder) as page:
        try:
            assert page.stdout is not None
            said = ""
            for line in page.stdout:
                said += line
                if found := re.search(r"http://\S+", line):
                    with urllib.request.urlopen(found[0], timeout=30) as answer:
                        assert "<html" in answer.read().decode().lower()
                    break
            else:
                pytest.fail(f"no address: {said}")
        finally:
            page.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
        assert page.wait(30) in (0, 130), said + page.stdout.read()
    return said


def finished(arguments: list[str], folder: Path) -> str:
    with started(arguments, folder) as process:
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "http://127.0.0.1" in said
    return said


def run_python(block: Block) -> None:
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("command", list(quick_ones()))
def test_a_quick_command_runs_as_it_is_written(command: str, inside: Path) -> None:
    run_command(command, inside)


@pytest.mark.parametrize(
    "block",
    [b for d in documents.documents() for b in python_of(d) if not any(name in b.text for name in SLOW_SNIPPETS)],
    ids=str,
)
def test_a_python_snippet_runs_as_it_is_written(block: Block, inside: Path) -> None:
    run_python(block)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("document", documents.documents(), ids=lambda document: document.name)
def test_a_document_runs_from_top_to_bottom(
    document: Path, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "workshop"
    shutil.copytree(workshop, folder)
    monkeypatch.chdir(folder)
    for block in documents.blocks(document):
        if block.kind == "python":
            run_python(block)
        for command in block.commands if block.kind == "commands" else ():
            if not is_listed(command):
                run_command(command, folder)


def test_the_calibration_of_the_rig_guide_finds_the_pixel_size(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("my_rig.cfg", "calibration.yaml"):
        shutil.copy(workshop / name, tmp_path)
    run_command("livestain run calibration.yaml", tmp_path)
    (block,) = (b for b in python_of(RIG_GUIDE) if "runs/calibration" in b.text)
    run_python(block)
    found = re.search(r"([\d.]+) um per pixel", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) == pytest.approx(0.325, rel=0.005)


# ------------------------------------------------------------------------------------------ nothing is passed over


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    every = [block for document in documents.documents() for block in documents.blocks(document)]
    assert len(every) > 60
    unknown = [str(b) for b in every if b.kind == "other" and not b.text.startswith(tuple(LISTINGS))]
    assert not unknown
    assert {block.language for block in every} <= {"", "python", "yaml", "r"}
    for name in (*NOT_RUN, *LISTINGS):  # what is listed is there
        assert any(command.startswith(name) for b in every for command in (b.text, *b.commands)), name


@pytest.mark.parametrize("document", documents.documents(), ids=lambda document: document.name)
def test_every_block_of_yaml_is_understood(document: Path, workshop: Path, tmp_path: Path) -> None:
    for block in documents.blocks(document):
        if block.kind == "yaml":
            understood(yaml.safe_load(block.text), workshop, tmp_path, str(block))


def understood(data: dict[str, Any], workshop: Path, tmp_path: Path, where: str) -> None:
    """Load a fragment as part of the file that its keys belong to."""
    keys = set(data)
    if keys <= set(Experiment.model_fields):
        base = yaml.safe_load((workshop / "my_experiment.yaml").read_text())
        if "measure" in data and "rig" not in data:
            base["rig"]["optics"] = {"wavelength_um": 0.55}
        path = workshop / "fragment.yaml"
        path.write_text(yaml.safe_dump(base | data))
        load_experiment(path)
    elif keys <= set(Rig.model_fields):
        Rig.model_validate({"config": "my_rig.cfg"} | data)
    else:
        data = {"data": data} if keys <= set(Data.model_fields) else data
        assert set(data) <= set(Recipe.model_fields), f"{where}: keys of no file of ours: {sorted(keys)}"
        base = yaml.safe_load((ROOT / "models/livestain_models/recipes/nuclei.yaml").read_text(encoding="utf-8"))
        merged = {k: {**base[k], **v} if isinstance(v, dict) and k in base else v for k, v in data.items()}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(base | merged))
        load_recipe(path)


# ------------------------------------------------------------------------------------------ what a run leaves


def test_the_table_of_files_is_what_a_run_leaves(workshop: Path) -> None:
    rows = documents.table_after(RESULTS, "What is in the folder")
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row[0])}
    left = {path.name for path in (workshop / "RUN").iterdir()}
    assert left <= named
    sources = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for name in named - left:
        stem = name.partition(".")[0] if not name.startswith(".") else name
        assert re.search(rf'"{re.escape(name)}"|"{stem}"', sources), f"nothing writes {name}"


def test_the_journal_of_a_run_has_no_other_field(workshop: Path) -> None:
    documented = documents.fields_of_journal()
    for text in (workshop / "RUN" / "frames.jsonl").read_text().splitlines():
        line = json.loads(text)
        assert set(line) <= documented[line["kind"]]
