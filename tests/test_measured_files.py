"""What stands in a run folder beside a measurement: how far it is, what is left alone, what is only read."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from livestain._errors import LivestainError, StoreError
from livestain._layout import Image
from livestain._measure_run import measure_run
from livestain._standing import standing_of
from livestain.cli.main import app
from livestain.measure.ctc import read_ctc
from livestain.measure.products import write_ctc
from livestain.measure.saved import forget, is_finished
from livestain.measure.table import write_csv
from tests.run_folders import Written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def finished(folder: Path, **more: Any) -> Written:
    run = Written(folder, **more).grow(6)
    run.end()
    run.cells.compact()
    run.summary.compact()
    return run


def killed(run: Written) -> None:
    """Let go without an end in the journal."""
    run.store.abandon()
    run.cells.close()
    run.summary.close()


def files(folder: Path) -> dict[Path, tuple[bytes, int]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


# ---------------------------------------------------------------------- how far it is

HOW_FAR: dict[str, tuple[Callable[[Written], object], str]] = {
    "stopped": (
        lambda run: run.grow(5).grow(2, measured=False).end(),
        r"not finished: 5 of 7 time points are measured, .*To go on: livestain measure \S*run$",
    ),
    "killed, or going on": (
        lambda run: killed(run.grow(4)),
        r"if it was killed: livestain recover \S*run, then livestain measure \S*run$",
    ),
    "owing": (
        lambda run: run.grow(3).grow(1, stained=False, measured=False).end(),
        r"3 of 4 time points .*owes 1 prediction. To go on: livestain backfill \S*run, then livestain measure",
    ),
    "one step short": (lambda run: run.grow(4).end(), r"of all 4 time points that are measured no tracks were made"),
    "nothing measured": (lambda run: run.grow(1, measured=False).end(), r"0 of 1 time point are|0 of 1 time point"),
}


@pytest.mark.parametrize("case", HOW_FAR)
def test_how_far_it_is_and_how_to_go_on(case: str, tmp_path: Path) -> None:
    make, said = HOW_FAR[case]
    make(Written(tmp_path / "run"))
    standing = standing_of(tmp_path / "run")
    assert not standing.finished
    with pytest.raises(StoreError, match=said):
        raise StoreError(str(standing))


def test_of_a_run_that_nobody_writes_it_is_said_that_it_was_killed(tmp_path: Path) -> None:
    killed(Written(tmp_path / "run").grow(4))
    assert "The run was killed. To go on: livestain recover" in str(standing_of(tmp_path / "run", over=True))


def test_cells_of_an_unfinished_measurement_says_so_on_stderr(tmp_path: Path) -> None:
    run = Written(tmp_path / "run").grow(5).grow(1, measured=False)
    run.end()
    for more in ([], ["--csv", str(tmp_path / "c.csv")], ["--ctc", str(tmp_path / "ctc")]):
        said = CliRunner().invoke(app, ["cells", str(run.folder), *more])
        assert said.exit_code == 0
        assert "5 of 6 time points are measured" in said.stderr
        assert "of 6" not in said.stdout
    assert not CliRunner().invoke(app, ["cells", str(finished(tmp_path / "whole").folder)]).stderr


# ---------------------------------------------------------------------- what is left alone, what is taken away


def test_a_finished_measurement_is_left_as_it_is(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    before = files(run.folder)
    done = measure_run(run.folder)
    assert (done.already, done.finished, done.time_points) == (True, True, 6)
    assert [file.name for file in done.files] == ["cells.parquet", "summary.parquet", "labels"]
    said = CliRunner().invoke(app, ["measure", str(run.folder)])
    assert said.exit_code == 0
    for words in ("measured to its end already", "cells.parquet", "labels", "livestain measure", "--again"):
        assert words in said.stdout
    assert files(run.folder) == before


@pytest.mark.parametrize("name", ["cells", "summary"])
def test_a_finished_measurement_that_is_damaged_is_said(tmp_path: Path, name: str) -> None:
    run = finished(tmp_path / "run")
    table = run.folder / f"{name}.parquet"
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"livestain measure \S*run --again"):
        measure_run(run.folder)


def test_what_was_made_of_an_earlier_measurement_goes_with_its_tables(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", images=(Image("0", "left", 1), Image("1", "right", 1)))
    for name in ("masses.png", "survival.svg", "demo.png"):
        (run.folder / name).touch()
    for name in ("tracks", "phase.ome.zarr", "images.ome.zarr/0/labels/mine"):
        (run.folder / name).mkdir()
    assert is_finished(run.folder)
    forget(run.folder, run.layout)
    assert not is_finished(run.folder)
    left = {path.name for path in run.folder.iterdir()} - {".livestain.lock"}
    assert left == {"demo.png", "frames.jsonl", "images.ome.zarr"}  # what is not ours, or not measured
    assert {path.name for path in (run.folder / "images.ome.zarr/0/labels").iterdir()} == {"mine", "zarr.json"}


NO_RUN = [("a folder", "it is not a run folder"), ("a file", "it is not a run folder"), ("none", "not a run folder")]


@pytest.mark.parametrize("command", ["measure", "cells"])
@pytest.mark.parametrize(("what", "said"), NO_RUN)
def test_what_is_no_run_is_said_in_the_same_words(tmp_path: Path, command: str, what: str, said: str) -> None:
    path = tmp_path / "it"
    if what == "a folder":
        path.mkdir()
    elif what == "a file":
        path.write_text("# nothing")
    with pytest.raises(StoreError, match=said):
        CliRunner().invoke(app, [command, str(path)], catch_exceptions=False)


# ---------------------------------------------------------------------- written for others

WRONG_PLACES = [("none/c.csv", "there is no folder .*none. Make it"), (".", "it is a folder. Name a file")]


@pytest.mark.parametrize(("to", "said"), WRONG_PLACES)
def test_where_a_table_cannot_go_is_said(tmp_path: Path, to: str, said: str) -> None:
    run = finished(tmp_path / "run")
    with pytest.raises(LivestainError, match=said):
        write_csv(run.folder, tmp_path / to)


def test_ctc_only_reads_the_run(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    before = files(run.folder)
    write_ctc(run.folder, tmp_path / "ctc")
    assert files(run.folder) == before
    tracks = read_ctc(tmp_path / "ctc")
    born = [(first, tracks[parent]) for first, _, parent in tracks.values() if parent]
    assert len(born) == 2
    assert all(mother[1] == first - 1 for first, mother in born)  # a mother ends just before her daughters begin
    masks = [tifffile.imread(tmp_path / "ctc" / f"mask{t:03d}.tif") for t in range(6)]
    assert all((mask > 0).any() for mask in masks)


LABELS_GONE: dict[str, tuple[Callable[[Path], object], str]] = {
    "all": (lambda labels: shutil.rmtree(labels), "has no label images of its cells"),
    "one time point": (lambda labels: shutil.rmtree(labels / "cells/0/c/3"), r"at t=3 .*4 have no outline"),
    "all planes": (lambda labels: shutil.rmtree(labels / "cells/0/c"), r"at t=0 .*4 have no outline"),
}


@pytest.mark.parametrize("case", LABELS_GONE)
def test_ctc_without_the_outlines_is_refused(case: str, tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    remove, said = LABELS_GONE[case]
    remove(run.folder / "images.ome.zarr" / "labels")
    with pytest.raises(StoreError, match=f"{said}.*livestain measure .*--again"):
        write_ctc(run.folder, tmp_path / "ctc")
    assert not (tmp_path / "ctc" / "res_track.txt").exists()


def test_ctc_of_outlines_of_another_measurement_is_refused(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    other = np.where(run.ids() > 0, run.ids() + 200, 0)
    run.labels.write(0, 2, other, other)
    with pytest.raises(StoreError, match=r"at t=2 .*\d outlines are of no cell of it"):
        write_ctc(run.folder, tmp_path / "ctc")


def test_ctc_before_the_first_rows_is_refused(tmp_path: Path) -> None:
    run = Written(tmp_path / "run").grow(2, measured=False)
    run.labels.write(0, 0, run.ids(), run.ids())
    run.end()
    with pytest.raises(StoreError, match="no time point so far"):
        write_ctc(run.folder, tmp_path / "ctc")
