"""Tracks as files: GEFF and Cell Tracking Challenge, read back by readers that are not the writers'."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr
from benchmarks.moving_cells import Faults, field_um, watch
from hypothesis import given, settings
from hypothesis import strategies as st

from livestain._errors import StoreError
from livestain.measure import geff as geff_module
from livestain.measure.ctc import CtcWriter, read_ctc
from livestain.measure.geff import GeffWriter
from livestain.measure.track import Finished, Tracker, Tracking

if TYPE_CHECKING:
    from pathlib import Path

Node = tuple[int, int]  # time point, cell


@pytest.fixture(scope="module")
def finished() -> list[Finished]:
    """A movie with divisions, gaps and pieces."""
    tracker = Tracker(Tracking(), field_um(50), field_um(50))
    movie = watch(3, 40, 15, 50, Faults(missed=0.04, pieces=0.02), cycle_h=8.0)
    done = [f for _, found in movie for f in tracker.add(found)] + tracker.finish()
    assert any(f.parent.any() for f in done)
    assert any(len(f.gap_cell) for f in done)
    return done


def expected_graph(finished: list[Finished]) -> tuple[set[Node], set[tuple[Node, Node]]]:
    """The nodes, and the edges that the docstring of the format promises."""
    nodes = {(f.t, int(r["cell"])): int(r["parent"]) for f in finished for r in f.cells()}
    edges = set()
    for (t, cell), parent in nodes.items():
        if (t - 1, cell) in nodes:
            edges.add(((t - 1, cell), (t, cell)))
        elif (t - 1, parent) in nodes:
            edges.add(((t - 1, parent), (t, cell)))
    return set(nodes), edges


def write_geff(path: Path, finished: list[Finished]) -> None:
    writer = GeffWriter(path)
    for f in finished:
        writer.add(f.t, f.cells())
    writer.close()


@pytest.mark.parametrize("chunk", [65_536, 100])
def test_geff_holds_every_cell_and_link(
    tmp_path: Path, finished: list[Finished], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geff_module, "CHUNK", chunk)
    write_geff(tmp_path / "tracks.geff", finished)
    group = zarr.open_group(tmp_path / "tracks.geff", mode="r")
    ids = np.asarray(group["nodes/ids"])
    props = {name: np.asarray(group[f"nodes/props/{name}/values"]) for name in ("t", "y", "x", "track_id", "gap")}
    nodes = list(zip(props["t"].tolist(), props["track_id"].tolist(), strict=True))
    wanted_nodes, wanted_edges = expected_graph(finished)
    assert len(nodes) == len(set(ids.tolist()))
    assert set(nodes) == wanted_nodes
    of = dict(zip(ids.tolist(), nodes, strict=True))
    assert {(of[a], of[b]) for a, b in np.asarray(group["edges/ids"]).tolist()} == wanted_edges
    places = {(f.t, int(r["cell"])): (r["y_um"], r["x_um"], bool(r["gap"])) for f in finished for r in f.cells()}
    for node, y, x, gap in zip(nodes, props["y"], props["x"], props["gap"], strict=True):
        assert places[node] == (y, x, gap)


def test_geff_is_read_by_its_own_library(tmp_path: Path, finished: list[Finished]) -> None:
    geff = pytest.importorskip("geff", reason="the geff library is not installed (extra `test`)")
    write_geff(tmp_path / "tracks.geff", finished)
    geff.validate_structure(tmp_path / "tracks.geff")
    graph, metadata = geff.read(tmp_path / "tracks.geff", structure_validation=True)
    nodes, edges = expected_graph(finished)
    of = {node: (int(data["t"]), int(data["track_id"])) for node, data in graph.nodes(data=True)}
    assert set(of.values()) == nodes
    assert {(of[a], of[b]) for a, b in graph.edges} == edges
    assert [axis.unit for axis in metadata.axes] == ["frame", "micrometer", "micrometer"]
    assert metadata.axes[1].min == min(data["y"] for _, data in graph.nodes(data=True))


def test_geff_steps_over_missing_time_points(tmp_path: Path) -> None:
    writer = GeffWriter(tmp_path / "tracks.geff")
    names = ("cell", "parent", "y_um", "x_um", "gap")
    for t, (cell, parent) in {0: (1, 0), 3: (1, 0), 4: (2, 1), 9: (2, 1)}.items():
        writer.add(
            t, {name: np.array([value]) for name, value in zip(names, (cell, parent, 1.0, 2.0, False), strict=True)}
        )
    writer.close()
    group = zarr.open_group(tmp_path / "tracks.geff", mode="r")
    assert np.asarray(group["edges/ids"]).tolist() == [[0, 1], [1, 2]]


def test_geff_of_no_cells_and_of_a_folder_that_exists(tmp_path: Path) -> None:
    write_geff(tmp_path / "empty.geff", [])
    assert zarr.open_group(tmp_path / "empty.geff", mode="r")["nodes/ids"].shape == (0,)
    with pytest.raises(StoreError, match=r"empty\.geff exists already"):
        GeffWriter(tmp_path / "empty.geff")


# ---------------------------------------------------------------------- Cell Tracking Challenge


def plane(cells: dict[int, int]) -> np.ndarray:
    """A label plane: each cell a 3x3 square in its own column."""
    labels = np.zeros((8, 60), np.uint32)
    for cell, column in cells.items():
        labels[2:5, 5 * column : 5 * column + 3] = cell
    return labels


def test_ctc_of_a_division_and_a_gap(tmp_path: Path) -> None:
    writer = CtcWriter(tmp_path)
    mother, two = {7: 0, 900_001: 3}, {8: 0, 9: 1, 900_001: 3}
    parents = {8: 7, 9: 7, 900_001: 0}
    for t, cells in enumerate([mother, mother, two, {8: 0, 9: 1}, two]):
        writer.add(t, plane(cells), parents)
    writer.add(6, plane(two), parents)  # time point 5 is missing altogether
    writer.close()
    tracks = read_ctc(tmp_path)
    masks = [tifffile.imread(tmp_path / f"mask{t:03d}.tif") for t in range(7)]
    assert all(mask.dtype == np.uint16 for mask in masks)
    assert not masks[5].any()

    def at(t: int, column: int) -> int:
        return int(masks[t][3, 5 * column + 1])

    assert tracks[at(0, 0)] == (0, 1, 0)
    assert tracks[at(2, 0)] == tracks[at(2, 1)] == (2, 4, at(1, 0))
    assert tracks[at(0, 3)] == (0, 2, 0)
    assert tracks[at(4, 3)] == (4, 4, at(2, 3))  # after the gap: another track, the first one its parent
    assert tracks[at(6, 0)] == (6, 6, at(4, 0))
    assert len(tracks) == 8


@settings(max_examples=30)
@given(st.lists(st.sets(st.integers(1, 9), max_size=6), min_size=1, max_size=8))
def test_ctc_lines_say_what_the_masks_show(tmp_path_factory: pytest.TempPathFactory, frames: list[set[int]]) -> None:
    folder = tmp_path_factory.mktemp("ctc")
    writer = CtcWriter(folder)
    for t, cells in enumerate(frames):
        writer.add(t, plane({cell: cell for cell in cells}), {})
    writer.close()
    seen: dict[int, list[int]] = {}
    for t, cells in enumerate(frames):
        mask = tifffile.imread(folder / f"mask{t:03d}.tif")
        np.testing.assert_array_equal(mask > 0, plane({cell: cell for cell in cells}) > 0)
        for label in np.unique(mask[mask > 0]).tolist():
            seen.setdefault(label, []).append(t)
    tracks = read_ctc(folder)
    assert {label: (first, last) for label, (first, last, _) in tracks.items()} == {
        label: (times[0], times[-1]) for label, times in seen.items()
    }
    assert all(times == list(range(times[0], times[-1] + 1)) for times in seen.values())


def test_ctc_is_read_by_traccuracy(tmp_path: Path) -> None:
    loaders = pytest.importorskip("traccuracy.loaders", reason="traccuracy is not installed (extra `test`)")
    writer = CtcWriter(tmp_path)
    for t, cells in enumerate([{7: 0}, {7: 0}, {8: 0, 9: 1}, {8: 0, 9: 1}]):
        writer.add(t, plane(cells), {8: 7, 9: 7})
    writer.close()
    graph = loaders.load_ctc_data(str(tmp_path), str(tmp_path / "res_track.txt"), run_checks=True)
    assert len(graph.get_divisions()) == 1
    assert graph.graph.number_of_nodes() == 6
    assert graph.graph.number_of_edges() == 5


def test_the_samples_of_others_are_read(shared_data: Path) -> None:
    truth = read_ctc(shared_data / "ctc_sample" / "GT" / "TRA", "man_track.txt")
    assert truth == {13: (0, 5, 0), 20: (0, 5, 0), 24: (0, 5, 0)}


WRONG_LINES = [
    ("1 0 5", "line 1"),
    ("1 0 5 0\n2 0 x 0", "line 2"),
    ("1 5 0 0", "ends before it begins"),
    ("1 0 5 0\n1 6 7 0", "repeats a label"),
    ("1 0 5 0\n2 3 7 1", "parent 1 does not end before"),
    ("1 0 5 4", "parent 4"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_LINES, ids=[message for _, message in WRONG_LINES])
def test_wrong_lines_are_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "res_track.txt").write_text(text)
    with pytest.raises(StoreError, match=message):
        read_ctc(tmp_path)


def test_ctc_says_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = CtcWriter(tmp_path)
    writer.add(0, plane({1: 0}), {})
    with pytest.raises(StoreError, match="Time point 0 came after 0"):
        writer.add(0, plane({1: 0}), {})
    with pytest.raises(StoreError, match="exists already"):
        CtcWriter(tmp_path)
    monkeypatch.setattr("livestain.measure.ctc.MOST_LABELS", 2)
    with pytest.raises(StoreError, match="more than 2 tracks"):
        writer.add(1, plane({1: 0, 2: 1, 3: 2}), {})
