"""What napari is given of a run folder: layers as its reader contract has them (napari.org: Readers, LayerData)."""

from __future__ import annotations

import importlib
import math
import shutil
import subprocess
import sys
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

import livestain
from livestain._errors import LivestainError
from livestain._frame import Place
from livestain._napari import get_reader
from livestain.live.run_folder import RunFolder
from livestain.measure.labels import LabelImages
from livestain.measure.table import CELL_SCHEMA, CellTable
from tests import model_builders
from tests.conftest import PIXEL_SIZE_UM

if TYPE_CHECKING:
    from pathlib import Path

HEIGHT, WIDTH = 96, 128
INTERVAL_S = 1800.0


def acquire(here: Path, **changes: Any) -> Path:
    package = model_builders.package(here / "model", pixel_size_um=PIXEL_SIZE_UM)
    sequence = {"channels": [{"config": "BF", "exposure": 1}, {"config": "Nuclei", "exposure": 1}],
                "time_plan": {"interval": 0, "loops": 3}}  # fmt: skip
    experiment = livestain.Experiment.model_validate(
        {
            "rig": livestain.load_rig("simulated").model_copy(
                update={"properties": [("Camera", "Width", WIDTH), ("Camera", "Height", HEIGHT)]}
            ),
            "sequence": sequence | changes,
            "stains": [{"model": str(package.folder), "channel": "BF", "provider": "cpu"}],
        }
    )
    return livestain.run_experiment(experiment, here / "run").folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three time points that was measured: cell 1 divides into 2 and 3; 4 comes from nowhere."""
    folder = acquire(tmp_path_factory.mktemp("single"))
    rows = [(0, 1, 0), (0, 4, 0), (1, 1, 0), (1, 4, 0), (2, 3, 1), (2, 2, 1), (2, 5, 99)]  # t, cell, parent
    with CellTable(folder) as table:
        for t in range(3):
            cells = [(cell, parent) for at, cell, parent in rows if at == t]
            table.append(_rows(t, cells, image=0))
            table.append(_rows(t, [(1, 0)], image=1))
    labels = np.zeros((HEIGHT, WIDTH), np.uint32)
    labels[10:20, 30:50] = 4
    LabelImages(folder, RunFolder(folder).layout).write(0, 1, labels, labels // 4)
    return folder


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return acquire(
        tmp_path_factory.mktemp("stacks"),
        z_plan={"range": 4, "step": 2},
        stage_positions=[{"x": 0, "y": 0, "name": "left"}, {"x": 300, "y": 0, "name": "right"}],
    )


def _rows(t: int, cells: list[tuple[int, int]], image: int) -> dict[str, Any]:
    n = len(cells)
    columns: dict[str, Any] = {name: [math.nan] * n for name in CELL_SCHEMA.names}
    columns |= {
        "position": [""] * n,
        "image": [image] * n,
        "t": [t] * n,
        "time_s": [INTERVAL_S * t] * n,
        "parent": [p for _, p in cells],
    }
    columns |= {
        "cell": [c for c, _ in cells],
        "mass_method": [""] * n,
        "state": [""] * n,
        "reason": [""] * n,
        "dead_belief": [math.nan] * n,
    }
    columns |= {"y_um": [10.0 * c for c, _ in cells], "x_um": [float(t)] * n}
    return columns | {"at_border": np.zeros(n, bool), "gap": np.zeros(n, bool)}


def read(path: Path) -> list[tuple[Any, dict[str, Any], str]]:
    reader = get_reader(str(path))
    assert reader is not None
    return reader(str(path))


def by_name(layers: list[tuple[Any, dict[str, Any], str]]) -> dict[str, tuple[Any, dict[str, Any], str]]:
    return {arguments["name"]: layer for layer in layers for arguments in [layer[1]]}


def test_channels_are_images_with_names_colours_contrast_and_scale(single: Path) -> None:
    layers = by_name(read(single))
    assert list(layers) == ["BF", "Nuclei", "Nuclei (predicted)", "cells", "nuclei", "tracks"]
    run = RunFolder(single)
    for c, name in enumerate(["BF", "Nuclei", "Nuclei (predicted)"]):
        data, arguments, kind = layers[name]
        assert kind == "image"
        assert (data.shape, data.ndim, data.dtype, data.size) == ((3, HEIGHT, WIDTH), 3, np.uint16, 3 * HEIGHT * WIDTH)
        assert (data[2] == run.plane(Place(0, 2, c, 0))).all()
        assert arguments["contrast_limits"] == run.windows(0)[c]
        assert arguments["units"][1:] == ("micrometer", "micrometer")
        assert arguments["scale"][1:] == (PIXEL_SIZE_UM, PIXEL_SIZE_UM)
        assert arguments["axis_labels"] == ("t", "y", "x")
        assert arguments["blending"] == "additive"
    assert layers["BF"][1]["colormap"] == "gray"
    assert layers["Nuclei (predicted)"][1]["colormap"] == "#" + run.layout.channels[2].color.lower()
    assert [layers[name][1]["visible"] for name in ("BF", "Nuclei", "Nuclei (predicted)")] == [True, False, True]


def test_time_is_in_seconds(single: Path) -> None:
    _, arguments, _ = read(single)[0]
    time_s = RunFolder(single).time_s(0)
    assert arguments["units"][0] == "second"
    assert arguments["scale"][0] == pytest.approx(np.median(np.diff(time_s)))


def test_labels_are_label_layers_and_empty_where_nothing_was_measured(single: Path) -> None:
    layers = by_name(read(single))
    cells, arguments, kind = layers["cells"]
    assert kind == "labels"
    assert (cells.shape, cells.dtype) == ((3, HEIGHT, WIDTH), np.uint32)
    assert np.unique(cells[1]).tolist() == [0, 4]
    assert not cells[0].any()
    assert arguments["scale"] == layers["BF"][1]["scale"]
    assert layers["nuclei"][0][1].max() == 1


def test_tracks_are_sorted_in_pixels_and_their_graph_holds_the_mothers(single: Path) -> None:
    data, arguments, kind = by_name(read(single))["tracks"]
    assert kind == "tracks"
    assert (data.dtype, data.shape) == (np.float64, (7, 4))
    assert data[:, :2].astype(int).tolist() == [[1, 0], [1, 1], [2, 2], [3, 2], [4, 0], [4, 1], [5, 2]]
    assert data[:, 2] == pytest.approx(10 * data[:, 0] / PIXEL_SIZE_UM)
    assert data[:, 3] == pytest.approx(data[:, 1] / PIXEL_SIZE_UM)
    assert arguments["graph"] == {2: [1], 3: [1]}  # not 5: napari refuses a mother without a track
    assert all(type(i) is int for daughter, mothers in arguments["graph"].items() for i in (daughter, *mothers))


def test_stacks_of_several_positions_open_one_at_a_time(stacks: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"this is position left\. run has 1 more position: open .*images\.ome\.zarr.1, for"
    ):
        layers = read(stacks)
    assert [arguments["name"] for _, arguments, _ in layers] == ["left: BF", "left: Nuclei", "left: Nuclei (predicted)"]
    data, arguments, _ = layers[0]
    assert data.shape == (3, 3, HEIGHT, WIDTH)
    assert arguments["scale"][1:] == (2.0, PIXEL_SIZE_UM, PIXEL_SIZE_UM)
    assert arguments["axis_labels"] == ("t", "z", "y", "x")
    with pytest.warns(UserWarning, match="this is position right"):
        right = read(stacks / "images.ome.zarr" / "1")
    assert right[0][1]["name"] == "right: BF"
    assert (right[0][0][1, 2] == RunFolder(stacks).plane(Place(1, 1, 0, 2))).all()


@pytest.mark.filterwarnings("ignore:livestain. this is position")
def test_labels_and_tracks_of_a_stack_have_its_axes(stacks: Path, tmp_path: Path) -> None:
    shutil.copytree(stacks, tmp_path / "run")
    folder = tmp_path / "run"
    with CellTable(folder) as table:
        table.append(_rows(0, [(1, 0)], image=1))
    labels = np.full((HEIGHT, WIDTH), 3, np.uint32)
    LabelImages(folder, RunFolder(folder).layout).write(1, 0, labels, labels)
    layers = by_name(read(folder / "images.ome.zarr" / "1"))
    assert layers["right: tracks"][0].tolist() == [[1, 0, 1, pytest.approx(10 / PIXEL_SIZE_UM), 0]]
    cells = layers["right: cells"][0]
    assert cells.shape == (3, 3, HEIGHT, WIDTH)
    assert (cells[0, 2] == 3).all()  # the same in every focal plane
    assert {len(arguments["scale"]) for _, arguments, _ in layers.values()} == {4}


def test_other_folders_and_files_are_left_to_others(single: Path, stacks: Path, tmp_path: Path) -> None:
    (tmp_path / "frames.tif").write_bytes(b"")
    for path in (
        tmp_path,
        tmp_path / "frames.tif",
        tmp_path / "gone",
        single / "images.ome.zarr" / "gone",
        single / "experiment.yaml",
        single / "images.ome.zarr" / "labels" / "cells",
        stacks / "images.ome.zarr" / "OME",
    ):
        assert get_reader(str(path)) is None
    assert get_reader([str(single), str(stacks)]) is None
    for path in (single, single / "frames.jsonl", single / "images.ome.zarr"):
        assert get_reader([str(path)]) is not None


def test_a_run_without_pictures_says_so(single: Path, tmp_path: Path) -> None:
    (tmp_path / "frames.jsonl").write_text((single / "frames.jsonl").read_text().splitlines(keepends=True)[0])
    reader = get_reader(str(tmp_path))
    assert reader is not None
    with pytest.raises(LivestainError, match="has no pictures so far"):
        reader(str(tmp_path))


def test_a_damaged_run_opens_with_what_is_missing_as_warnings(single: Path, tmp_path: Path) -> None:
    shutil.copytree(single, tmp_path / "run")
    (tmp_path / "run" / "experiment.yaml").unlink()
    with pytest.warns(UserWarning, match=r"livestain: there is no experiment\.yaml"):
        assert len(read(tmp_path / "run")) == 6


def test_nothing_is_read_before_it_is_looked_at(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Place] = []
    real = RunFolder.plane

    def spy(self: RunFolder, place: Place) -> Any:
        asked.append(place)
        return real(self, place)

    monkeypatch.setattr(RunFolder, "plane", spy)
    layers = read(single)
    assert asked == []
    layers[2][0][1]
    assert asked == [Place(0, 1, 2, 0)]


def test_the_manifest_names_a_function_that_is_there() -> None:
    manifest = yaml.safe_load((files("livestain") / "napari.yaml").read_text())
    assert manifest["name"] == "livestain"  # napari wants the name of the package
    (command,), (reader,) = manifest["contributions"]["commands"], manifest["contributions"]["readers"]
    assert reader["command"] == command["id"]
    assert command["id"].startswith("livestain.")
    module, _, function = command["python_name"].partition(":")
    assert getattr(importlib.import_module(module), function) is get_reader
    assert reader["accepts_directories"] is True
    assert "*" not in reader["filename_patterns"]  # or napari would ask about every file that anybody drops


def test_the_reader_needs_nothing_of_napari() -> None:
    code = "import sys, livestain._napari; print([m for m in sys.modules if m.split('.')[0] in ('napari', 'npe2', 'qtpy', 'dask')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
