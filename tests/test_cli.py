"""The command line as a person meets it: what is printed, what is left, how it exits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from livestain_models.package import Package


def livestain(*arguments: object, folder: Path, status: int = 0) -> str:
    command = [sys.executable, "-W", "error", "-m", "livestain", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A short demo, run once: the folder it ran in and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, livestain("demo", "--seconds", 4, "--out", "here", folder=folder)


def only_run(folder: Path) -> Path:
    (run,) = (folder / "here").iterdir()
    return run


def test_the_demo_stains_every_frame_and_says_where_to_look(demo: tuple[Path, str]) -> None:
    folder, said = demo
    run = only_run(folder)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-demo", run.name)
    # 8 time points of bright field, four phase steps and true fluorescence
    assert "completed: 48 of 48 frames acquired, 0 missing; 8 predictions made" in said
    assert "0 pending" in said
    assert "frame in the core to prediction on disk" in said
    for hint in ("napari", "livestain stats", "demo.png"):
        assert hint in said


def test_the_demo_leaves_a_picture_of_four_panels(demo: tuple[Path, str]) -> None:
    with Image.open(only_run(demo[0]) / "demo.png") as picture:
        assert picture.width > 4 * 512
        assert picture.height > 512
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 1000


def test_the_demo_leaves_the_cells_and_two_pictures(demo: tuple[Path, str]) -> None:
    folder, said = demo
    run = only_run(folder)
    for name in ("cells.parquet", "summary.parquet", "tracks.geff", "masses.png", "survival.png"):
        assert (run / name).exists(), name
    assert "8 time points measured" in said
    assert "dry mass   median" in said
    assert livestain("cells", run, folder=folder).splitlines()[0] in said
    written = livestain("cells", run, "--csv", "c.csv", "--summary-csv", "s.csv", "--ctc", "ctc", folder=folder)
    assert [Path(line).name for line in written.split()] == ["c.csv", "s.csv", "ctc"]
    rows = (folder / "c.csv").read_text().splitlines()
    assert "dry_mass_pg" in rows[0]
    assert len(rows) > 8 * 20
    assert len((folder / "s.csv").read_text().splitlines()) == 1 + 8
    assert len(list((folder / "ctc").glob("mask*.tif"))) == 8


@pytest.mark.slow
def test_a_run_is_measured_again_from_the_command_line(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    before = livestain("cells", only_run(folder), folder=folder)
    assert "8 time points measured" in livestain("measure", only_run(folder), "--again", folder=folder)
    assert livestain("cells", only_run(folder), folder=folder) == before


def test_an_empty_field_is_taken_and_a_full_one_refused(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    experiment = only_run(folder) / "experiment.yaml"
    said = livestain("empty-field", experiment, "--out", "full.npz", folder=folder, status=1)
    assert "objects" in said
    empty = experiment.with_name("empty.yaml")
    text = experiment.read_text()
    assert "- - Scope\n    - CellsPerMm2\n    - 1500" in text
    empty.write_text(text.replace("- - Scope\n    - CellsPerMm2\n    - 1500", "- - Scope\n    - CellsPerMm2\n    - 0"))
    assert "empty_field: empty.npz" in livestain("empty-field", empty, "--out", "empty.npz", folder=folder)
    assert (folder / "empty.npz").exists()


@pytest.mark.slow
def test_a_second_demo_goes_beside_the_first(demo: tuple[Path, str], tmp_path: Path) -> None:
    for _ in range(2):
        livestain("demo", "--seconds", 1, "--fps", 2, "--size", 128, folder=tmp_path)
    names = sorted(path.name for path in (tmp_path / "livestain-runs").iterdir())
    assert names[1] == names[0] + "-2"


def test_stats_as_json(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    found = json.loads(livestain("stats", only_run(folder), "--json", folder=folder))
    assert (found["frames_acquired"], found["frames_stained"], found["frames_pending"]) == (48, 8, 0)
    for boundary in ("net_ms", "host_to_host_ms", "camera_to_screen_ms", "camera_to_disk_ms"):
        row = found[boundary]
        assert 0 < row["p50"] <= row["p95"] <= row["p99"] <= row["max"]


def test_check_recover_and_backfill_of_a_sound_run_change_nothing(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    run = only_run(folder)
    assert "0 planes damaged, 0 predictions owed" in livestain("check", run, folder=folder)
    assert "48 frames are on disk and whole, predictions owed: 0" in livestain("recover", run, folder=folder)
    assert "8 predictions made" in livestain("backfill", run, folder=folder)


@pytest.mark.slow
def test_check_finds_a_plane_that_was_damaged(tmp_path: Path) -> None:
    livestain("demo", "--seconds", 1, "--fps", 2, "--size", 128, folder=tmp_path)
    (run,) = (tmp_path / "livestain-runs").iterdir()
    shard = run / "images.ome.zarr" / "0" / "c" / "1" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data)
    said = livestain("check", run, folder=tmp_path, status=1)
    assert "damaged: image 0, t=1, c=0, z=0" in said


def test_check_of_an_experiment_says_what_will_be_written(
    write_experiment: Callable[..., Path], identity_model: Package, tmp_path: Path
) -> None:
    path = write_experiment(stains=[{"model": str(identity_model.folder), "channel": "BF"}])
    said = livestain("check", path, folder=tmp_path)
    assert "128 x 96 px, 16 bit, 0.325 um per pixel" in said
    assert "BF, Nuclei (predicted)" in said
    assert re.search(r"at most [\d.]+ kB", said)
    assert "CPUExecutionProvider" in said
    assert not (tmp_path / "runs").exists()


def test_check_says_all_else_of_an_experiment_whose_folder_is_there(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_experiment(output={"folder": str(tmp_path), "name": "taken"})
    (tmp_path / "taken").mkdir()
    said = livestain("check", path, folder=tmp_path, status=1)
    assert "128 x 96 px" in said
    assert re.search(r"error +\S*taken exists already.*Give output.name another value", said)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "none.yaml"], "none.yaml does not exist"),
        (["check", "none.yaml"], "none.yaml does not exist"),
        (["check", "none.cfg"], "none.cfg"),
        (["stats", "."], "not a run folder"),
        (["recover", "."], "not a run folder"),
        (["backfill", "."], "not a run folder"),
        (["check", "."], "not a run folder"),
    ],
)
def test_errors_are_one_message_and_status_1(arguments: list[str], says: str, tmp_path: Path) -> None:
    said = livestain(*arguments, folder=tmp_path, status=1)
    assert said.startswith("error: ")
    assert says in said


def test_a_run_that_owes_predictions_says_so_and_exits_with_1(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    # The model fails on frames whose first pixel is 666; the replayed recording has one.
    import numpy as np
    import tifffile

    from tests import model_builders

    frames = np.full((6, 64, 64), 500, np.uint16)
    frames[3, 0, 0] = 666
    tifffile.imwrite(tmp_path / "recording.tif", frames, photometric="minisblack")
    model = model_builders.package(tmp_path / "fragile", model_builders.fragile_graph(), pixel_size_um=0.325)
    path = write_experiment(
        rig={
            "config": "replay.cfg",
            "properties": [["Camera", "Source", str(tmp_path / "recording.tif")]],
            "pixel_size_um": 0.325,
        },
        stains=[{"model": str(model.folder), "channel": "BF"}],
    )
    said = livestain("run", path, folder=tmp_path, status=1)
    assert "1 prediction is still owed" in said
    assert f"livestain backfill {tmp_path / 'runs' / 'run'}" in said.replace("\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.parametrize("where", ["| head -1", "> /dev/full"])
def test_a_reader_that_is_gone_does_not_end_a_run(
    where: str, write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    command = f"{sys.executable} -m livestain run {write_experiment()} {where}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=100, check=False)
    assert "Traceback" not in done.stderr
    assert "completed" in (tmp_path / "runs" / "run" / "frames.jsonl").read_text()


def test_check_takes_a_rig_file_of_ours_too(tmp_path: Path) -> None:
    from livestain._shipped import shipped_folder

    assert "0 errors" in livestain("check", shipped_folder() / "simulated.yaml", folder=tmp_path)


def test_the_version(tmp_path: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", livestain("--version", folder=tmp_path))
