"""What a reader sees of a run folder: while it grows, after it ended, half-written, damaged, foreign."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import livestain
from livestain._frame import Place
from livestain._lines import iso_time
from livestain.live.health import health
from livestain.live.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livestain_models.package import Package


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 time points at two positions, with a prediction."""
    from tests import model_builders
    from tests.conftest import PIXEL_SIZE_UM

    here = tmp_path_factory.mktemp("whole")
    package = model_builders.package(here / "model", pixel_size_um=PIXEL_SIZE_UM)
    experiment = livestain.Experiment.model_validate(
        {
            "rig": livestain.load_rig("simulated").model_copy(
                update={"properties": [("Camera", "Width", 128), ("Camera", "Height", 96)]}
            ),
            "sequence": {
                "channels": [{"config": "BF", "exposure": 1}],
                "time_plan": {"interval": 0, "loops": 6},
                "stage_positions": [{"x": 0, "y": 0, "name": "left"}, {"x": 300, "y": 0, "name": "right"}],
            },
            "stains": [{"model": str(package.folder), "channel": "BF", "provider": "cpu"}],
        }
    )
    return livestain.run_experiment(experiment, here / "run").folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_shows_planes_times_and_counts(whole: Path, read_run: Callable[[Path], Any]) -> None:
    run = RunFolder(whole)
    assert run.position_names == ("left", "right")
    assert run.notes == ()
    assert run.ended == "completed"
    assert [run.n_t(image) for image in (0, 1)] == [6, 6]
    assert run.there(1).shape == (6, 2, 1)
    assert run.there(1).all()
    array = read_run(whole).array("1")
    for t, c in ((0, 0), (5, 1)):
        assert (run.plane(Place(1, t, c, 0)) == array[t, c, 0]).all()
    assert run.plane(Place(1, 6, 0, 0)) is None
    assert run.labels("cells", 0, 0) is None
    assert run.time_s(0)[0] == 0
    assert (np.diff(run.time_s(0)) > 0).all()
    assert set(run.windows(0)) == {0, 1}
    assert run.n_bytes(Place(0, 0, 0, 0)) > 0
    assert not run.refresh()


def test_health_counts_what_the_journal_says(whole: Path) -> None:
    run = RunFolder(whole)
    well = health(run)
    assert (well.state, well.acquired, well.expected, well.stained, well.pending) == ("completed", 12, 12, 12, 0)
    live = run.stats().stained_live
    assert well.latency["camera_to_disk_ms"].n == live
    for name, found in run.stats().latency.items():  # a run of a few seconds is all within the last five minutes
        assert well.latency[name].p99 == pytest.approx(found.p99, rel=1e-4)
    assert well.next_event_s is None
    assert well.waiting_for_disk is None
    assert well.disk_free_bytes > 0


def test_grows_with_the_run(write_experiment: Callable[..., Path], identity_model: Package, tmp_path: Path) -> None:
    path = write_experiment(
        stains=[{"model": str(identity_model.folder), "channel": "BF", "provider": "cpu"}],
        sequence={"channels": [{"config": "BF", "exposure": 1}], "time_plan": {"interval": 0.4, "loops": 9}},
    )
    seen: list[tuple[str, int, bool]] = []
    waits: list[float | None] = []
    reader: list[RunFolder] = []

    def look(_: Any) -> None:
        folder = tmp_path / "runs" / "run"
        if not reader:
            reader.append(RunFolder(folder))
        run = reader[0]
        run.refresh()
        well = health(run)
        newest = run.n_t(0) - 1
        plane = run.plane(Place(0, newest, 0, 0)) if newest >= 0 else None
        seen.append((well.state, run.n_t(0), newest < 0 or (plane is not None and bool(plane.any()))))
        waits.append(well.next_event_s)

    livestain.run_experiment(livestain.load_experiment(path), tmp_path / "runs" / "run", on_progress=look)
    assert {state for state, _, _ in seen} == {"running"}
    assert len({n for _, n, _ in seen}) >= 5  # it was seen to grow
    assert all(there for _, _, there in seen)
    assert any(wait is not None and 0 < wait <= 0.5 for wait in waits)
    reader[0].refresh()
    assert health(reader[0]).state == "completed"
    assert not (tmp_path / "runs" / "run" / "status.json").exists()


def test_a_killed_run_is_silent_after_half_a_minute(copy: Path) -> None:
    journal = copy / "frames.jsonl"
    journal.write_text("".join(line for line in journal.read_text().splitlines(keepends=True) if '"end"' not in line))
    now_s = time.time()
    (copy / "status.json").write_text(json.dumps({"time_s": now_s, "phase": "acquiring", "waiting_for_disk": 3}))
    run = RunFolder(copy)
    assert (health(run, now_s + 5).state, health(run, now_s + 5).waiting_for_disk) == ("running", 3)
    assert (health(run, now_s + 60).state, health(run, now_s + 60).waiting_for_disk) == ("silent", None)


def test_frames_that_never_came_and_the_logs_warnings_are_told_in_order(copy: Path) -> None:
    with (copy / "frames.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "missing", "at": [0, 6, 0, 0], "why": "the shutter is stuck"}) + "\n")
    with (copy / "run.log").open("a") as file:
        file.write("2020-01-01 10:00:00,000 WARNING livestain [stain] the model was restarted\n  a cause\n")
        file.write("2020-01-01 11:00:00,000 INFO livestain [stain] nothing\n")
    first, last = health(RunFolder(copy)).warnings
    assert first.text == "the model was restarted"
    assert first.time.startswith(("2019-12-31T", "2020-01-01T"))  # the log has local time
    assert "image 0, t=6" in last.text
    assert "the shutter is stuck" in last.text
    assert last.time > iso_time(0)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: shutil.rmtree(run / "images.ome.zarr"), "livestain recover"),
        (lambda run: (run / "experiment.yaml").unlink(), "there is no experiment.yaml"),
        (lambda run: (run / "experiment.yaml").write_text("rig: ["), "what was run cannot be read"),
        (lambda run: (run / "images.ome.zarr/0/zarr.json").write_text("{"), "metadata cannot be read"),
        (lambda run: (run / "images.ome.zarr/0/0/c/0/0/0/0/0").write_bytes(b"torn"), "livestain check"),
        (lambda run: (run / "images.ome.zarr/0/0/zarr.json").unlink(), "livestain check"),
        (lambda run: append(run / "frames.jsonl", '{"kind":"raw"}\n'), "cannot be understood"),
        (lambda run: append(run / "frames.jsonl", "nonsense\n"), "not a journal line"),
    ],
)
def test_what_is_damaged_is_told_and_the_rest_shown(copy: Path, damage: Callable[[Path], Any], says: str) -> None:
    damage(copy)
    run = RunFolder(copy)
    for t in range(run.n_t(0)):
        run.plane(Place(0, t, 0, 0))
    run.windows(0)
    run.refresh()
    assert [note for note in run.notes if says in note]
    assert len(run.notes) <= 4  # one kind of fault is told once
    assert run.n_t(1) == 6
    assert health(run).acquired == 12


def test_a_run_before_its_first_frame(copy: Path) -> None:
    journal = copy / "frames.jsonl"
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    run = RunFolder(copy)
    assert run.n_t(0) == 0
    assert run.there(0).shape == (0, 2, 1)
    assert run.started is None
    assert run.time_s(0).size == 0
    assert health(run).state == "silent"


@pytest.mark.parametrize("content", [None, "", "{}\n", '{"kind":"raw"}\n', "PK"])
def test_a_foreign_folder_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "frames.jsonl").write_text(content)
    with pytest.raises(livestain.StoreError, match=r"frames\.jsonl"):
        RunFolder(tmp_path)
