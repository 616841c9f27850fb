"""What others' readers make of a run folder: zarr-python, ome-zarr, napari's reader, and the validators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaozarrs

from livestain._reading import load_experiment
from livestain._session import run_experiment
from tests import model_builders
from tests.conftest import PIXEL_SIZE_UM, Run

if TYPE_CHECKING:
    from pathlib import Path

ONE = {"channels": [{"config": "BF", "exposure": 1}], "time_plan": {"interval": 0.1, "loops": 3}}
PLACES: dict[str, dict[str, Any]] = {
    "one": {},
    "positions": {"stage_positions": [{"x": 0, "y": 0, "z": 0, "name": "control"}, {"x": 90, "y": 0, "z": 0}]},
    "plate": {"stage_positions": {"plate": "96-well", "a1_center_xy": [0, 0], "selected_wells": [[0, 1], [0, 2]]}},
}


@pytest.fixture(scope="module", params=PLACES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Run]:
    import yaml

    scratch: Path = tmp_path_factory.mktemp("readers")
    model = model_builders.package(scratch / "model", pixel_size_um=PIXEL_SIZE_UM)
    data = {
        "rig": {
            "config": "simulated.cfg",
            "properties": [["Camera", "Width", 128], ["Camera", "Height", 96]],
            "channels": {"BF": {"contrast": "bright field"}},
        },
        "sequence": ONE | PLACES[request.param],
        "stains": [{"model": str(model.folder), "channel": "BF"}],
        "output": {"folder": str(scratch), "name": request.param},
    }
    path = scratch / "experiment.yaml"
    path.write_text(yaml.safe_dump(data))
    result = run_experiment(load_experiment(path), scratch / request.param)
    assert result.complete
    return request.param, Run(result.folder)


FIRST = {"one": "", "positions": "0", "plate": "A/1/0"}


def test_yaozarrs_validates(run: tuple[str, Run]) -> None:
    yaozarrs.validate_zarr_store(str(run[1].images))


def test_ome_zarr_reads_names_and_scale(run: tuple[str, Run]) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    name, found = run
    location = parse_url(found.images / FIRST[name])
    assert location is not None
    node = next(iter(Reader(location)()))
    assert node.data[0].shape == (3, 2, 1, 96, 128)
    assert node.metadata["channel_names"] == ["BF", "Nuclei (predicted)"]
    (transform,) = node.metadata["coordinateTransformations"][0]
    assert transform["scale"] == [0.1, 1, 1, PIXEL_SIZE_UM, PIXEL_SIZE_UM]
    np.testing.assert_array_equal(np.asarray(node.data[0][:, 1]), np.asarray(node.data[0][:, 0]))


def test_a_run_opens_while_it_is_going_on(tmp_path: Path) -> None:
    import json

    import zarr
    from benchmarks.kill import start_run

    model = model_builders.package(tmp_path / "model", pixel_size_um=PIXEL_SIZE_UM)
    folder = tmp_path / "runs" / "going"
    process = start_run(folder, model.folder)
    try:
        journal = folder / "frames.jsonl"
        while journal.read_bytes().count(b'"kind":"raw"') < 5:
            assert process.poll() is None
        yaozarrs.validate_zarr_store(str(folder / "images.ome.zarr"))
        array = zarr.open_array(folder / "images.ome.zarr" / "0", mode="r")
        done = [json.loads(line)["at"] for line in journal.read_bytes().splitlines()[:5] if b'"raw"' in line]
        assert all(array[t, c, z].any() for _, t, c, z in done)
    finally:
        process.kill()
        process.communicate()
