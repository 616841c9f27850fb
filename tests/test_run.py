"""The whole way on the simulated microscope: camera, engine, model, OME-Zarr, journal, and readers of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
import yaozarrs

from livestain._reading import load_experiment
from livestain._recover import recover
from livestain._session import run_experiment
from tests import model_builders
from tests.conftest import PIXEL_SIZE_UM, Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livestain._session import Result
    from livestain_models.package import Package


def acquire(path: Path, **more: Any) -> tuple[Result, Run]:
    experiment = load_experiment(path)
    result = run_experiment(experiment, experiment.run_folder(path.stem), **more)
    return result, Run(result.folder)


PLATE = {
    "plate": "96-well",
    "a1_center_xy": [0, 0],
    "selected_wells": [[0, 1], [0, 2]],
    "well_points_plan": {"rows": 1, "columns": 2},
}
BF = [{"config": "BF", "exposure": 1}]

SEQUENCES: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = {
    # name: (sequence, shape (t, c, z) of each image; c counts the predicted channel)
    "burst": ({"channels": BF, "time_plan": {"interval": 0, "loops": 70}}, {"": (70, 2, 1)}),
    "timed": ({"channels": BF, "time_plan": {"interval": 0.05, "loops": 5}}, {"": (5, 2, 1)}),
    "one frame": ({"channels": BF}, {"": (1, 2, 1)}),
    "no channels": ({"time_plan": {"interval": 0, "loops": 3}}, {"": (3, 2, 1)}),
    "two channels": (
        {
            "channels": [*BF, {"config": "Nuclei", "exposure": 1, "acquire_every": 2}],
            "time_plan": {"interval": 0, "loops": 4},
        },
        {"": (4, 3, 1)},
    ),
    "z": (
        {"channels": BF, "z_plan": {"range": 4, "step": 2}, "time_plan": {"interval": 0, "loops": 2}},
        {"": (2, 2, 3)},
    ),
    "positions": (
        {
            "channels": BF,
            "stage_positions": [{"x": 0, "y": 0, "z": 0}, {"x": 90, "y": 0, "z": 0, "name": "drug"}],
            "time_plan": {"interval": 0, "loops": 2},
        },
        {"0": (2, 2, 1), "1": (2, 2, 1)},
    ),
    "grid": (
        {
            "channels": BF,
            "stage_positions": [
                {"x": 0, "y": 0, "z": 0},
                {"x": 200, "y": 0, "z": 0, "sequence": {"grid_plan": {"rows": 1, "columns": 2}}},
            ],
        },
        {"0": (1, 2, 1), "1": (1, 2, 1), "2": (1, 2, 1)},
    ),
    "plate": (
        {"channels": BF, "stage_positions": PLATE},
        {"A/1/0": (1, 2, 1), "A/1/1": (1, 2, 1), "B/3/0": (1, 2, 1), "B/3/1": (1, 2, 1)},
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_frame_is_stored_stained_and_in_its_place(
    name: str, write_experiment: Callable[..., Path], identity_model: Package
) -> None:
    sequence, shapes = SEQUENCES[name]
    channel = sequence.get("channels", [{"config": "Camera"}])[0]["config"]
    stains = [{"model": str(identity_model.folder), "channel": channel}]
    result, run = acquire(write_experiment(sequence=sequence, stains=stains))

    assert result.complete, result
    assert not result.troubles
    yaozarrs.validate_zarr_store(str(run.images))
    for image, shape in shapes.items():
        array = run.array(image)
        assert array.shape == (*shape, 96, 128)
        # The model is the identity: a prediction that differs from its frame is in the wrong place.
        np.testing.assert_array_equal(array[:, -1], array[:, 0])
        assert all(array[t, 0, z].any() for t in range(shape[0]) for z in range(shape[2]))
    n_bright_field = sum(t * z for t, _, z in shapes.values())
    assert result.stats.frames_stained == n_bright_field
    assert len(run.of_kind("stain")) >= n_bright_field
    assert {line["at"][2] for line in run.of_kind("raw")} == set(range(array.shape[1] - 1))


def test_frames_differ_and_the_disk_holds_what_the_tap_saw(
    write_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from livestain import _run

    seen: dict[tuple[int, ...], np.ndarray] = {}
    real = _run.DataPath._frame

    def spy(self: _run.DataPath, frame: Any) -> None:
        seen[(frame.place.t, frame.place.c, frame.place.z)] = frame.image.copy()
        real(self, frame)

    monkeypatch.setattr(_run.DataPath, "_frame", spy)
    _, run = acquire(write_experiment(sequence={"channels": BF, "time_plan": {"interval": 0, "loops": 12}}))
    array = run.array()
    assert len(seen) == 12
    for place, image in seen.items():
        np.testing.assert_array_equal(array[place], image)
    assert len({image.tobytes() for image in seen.values()}) == 12


def test_names_colours_scales_and_where_a_prediction_comes_from(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    package = model_builders.package(
        tmp_path / "two",
        model_builders.two_stains_graph(),
        pixel_size_um=PIXEL_SIZE_UM,
        outputs=model_builders.two_stains_package(tmp_path / "x").contract.outputs,
    )
    path = write_experiment(
        rig="simulated",
        sequence={"channels": BF, "time_plan": {"interval": 0.5, "loops": 2}, "z_plan": {"range": 2, "step": 1}},
        stains=[{"model": str(package.folder), "channel": "BF"}],
    )
    _, run = acquire(path)
    image = yaozarrs.open_group(run.images).ome_metadata()
    labels = [channel.label for channel in image.omero.channels]
    assert labels == ["BF", "Nuclei (predicted)", "Membrane (predicted)"]
    assert image.omero.channels[2].color == "FF00FF"
    for channel in image.omero.channels:
        assert channel.window.start < channel.window.end
    assert image.multiscales[0].datasets[0].coordinateTransformations[0].scale == [
        0.5,
        1,
        1,
        PIXEL_SIZE_UM,
        PIXEL_SIZE_UM,
    ]
    said = yaml.safe_load((run.images / "zarr.json").read_text())["attributes"]["livestain"]
    assert said["predicted"][0] == {
        "channel": "Nuclei (predicted)",
        "model": "test-model",
        "version": "1",
        "precision": "fp32",
        "weights_sha256": package.contract.weights_sha256,
        "warnings": ["the package does not say its scores"],
        "meaning": "mean",
        "normalisation": "none",
        "provider": "CPUExecutionProvider",
        "from_channel": "BF",
    }
    assert {"livestain", "pymmcore-plus", "onnxruntime"} <= set(said["software"])
    array = run.array()
    np.testing.assert_array_equal(array[:, 2], 65535 - array[:, 1])


def test_a_model_of_three_planes_stains_the_middle_of_each_window(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    package = model_builders.package(
        tmp_path / "stack",
        model_builders.two_stains_graph(planes=3),
        pixel_size_um=PIXEL_SIZE_UM,
        outputs=model_builders.z_stack_package(tmp_path / "x").contract.outputs,
        planes=model_builders.Planes(count=3, spacing_um=1.0),
    )
    path = write_experiment(
        sequence={"channels": BF, "time_plan": {"interval": 0.2, "loops": 2}, "z_plan": {"range": 4, "step": 1}},
        stains=[{"model": str(package.folder), "channel": "BF"}],
    )
    result, run = acquire(path)
    assert result.complete
    array = run.array()[:]
    assert array.shape[:3] == (2, 3, 5)
    assert result.stats.frames_stained == 2 * 3
    for t in range(2):
        for z in (1, 2, 3):
            mean = array[t, 0, z - 1 : z + 2].mean(axis=0)
            assert np.abs(array[t, 1, z] - mean).max() <= 1
    assert not array[:, 1, [0, 4]].any()


def test_latencies_of_every_live_frame_are_in_order(
    write_experiment: Callable[..., Path], identity_model: Package
) -> None:
    stains = [{"model": str(identity_model.folder), "channel": "BF"}]
    sequence = {"channels": BF, "time_plan": {"interval": 0.05, "loops": 8}}
    result, run = acquire(write_experiment(sequence=sequence, stains=stains))
    live = [line for line in run.of_kind("stain") if line["status"] == "stained" and line["live"]]
    assert live
    for line in live:
        assert 0 < line["net_ms"] <= line["host_to_host_ms"]
        assert line["host_to_host_ms"] <= line["camera_to_screen_ms"] <= line["camera_to_disk_ms"]
    assert result.stats.latency["camera_to_disk_ms"].n == len(live)


def test_a_slow_model_leaves_frames_pending_and_stains_them_all_in_the_end(
    write_experiment: Callable[..., Path], identity_model: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from livestain import _stain

    real = _stain.OnnxModel.predict

    def slow(self: Any, planes: np.ndarray) -> Any:
        time.sleep(0.02)
        return real(self, planes)

    monkeypatch.setattr(_stain.OnnxModel, "predict", slow)
    stains = [{"model": str(identity_model.folder), "channel": "BF"}]
    sequence = {"channels": BF, "time_plan": {"interval": 0, "loops": 40}}
    result, run = acquire(write_experiment(sequence=sequence, stains=stains))
    assert result.complete
    assert result.stats.stained_live < result.stats.frames_stained == 40
    array = run.array()
    np.testing.assert_array_equal(array[:, 1], array[:, 0])


def test_the_saved_experiment_runs_again(write_experiment: Callable[..., Path], identity_model: Package) -> None:
    stains = [{"model": str(identity_model.folder), "channel": "BF"}]
    result, _ = acquire(write_experiment(stains=stains))
    again = load_experiment(result.folder / "experiment.yaml")
    second = run_experiment(again, result.folder.with_name("again"))
    first_array, second_array = Run(result.folder).array()[:], Run(second.folder).array()[:]
    np.testing.assert_array_equal(first_array, second_array)  # same seed, same exposures: same images


def test_a_viewer_sees_predictions_with_their_frames(
    write_experiment: Callable[..., Path], identity_model: Package
) -> None:
    seen: list[Any] = []
    stains = [{"model": str(identity_model.folder), "channel": "BF"}]
    acquire(write_experiment(stains=stains), on_stained=seen.append)
    assert seen
    for stained in seen:
        np.testing.assert_array_equal(stained.planes[0], stained.job.frames[0].image)


def test_without_stains_it_is_a_recorder(write_experiment: Callable[..., Path]) -> None:
    result, run = acquire(write_experiment())
    assert result.complete
    assert run.array().shape == (6, 1, 1, 96, 128)
    assert result.stats.frames_stained == 0


def test_time_points_that_come_late_are_said_and_scaled_as_they_came(write_experiment: Callable[..., Path]) -> None:
    path = write_experiment(
        sequence={"channels": [{"config": "BF", "exposure": 60}], "time_plan": {"interval": 0.02, "loops": 20}}
    )
    result, run = acquire(path)
    assert "time points came every 0.0" in result.troubles[0]
    scale = yaozarrs.open_group(run.images).ome_metadata().multiscales[0].datasets[0].coordinateTransformations[0].scale
    assert scale[0] >= 0.06
    recover(result.folder)
    again = yaozarrs.open_group(run.images).ome_metadata().multiscales[0].datasets[0].coordinateTransformations[0].scale
    assert again == scale


def test_from_python_with_strings(write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    import livestain

    experiment = livestain.load_experiment(str(write_experiment()))
    assert livestain.run_experiment(experiment, tmp_path / "mine").complete
    assert livestain.load_rig("simulated").channels["BF"].contrast == "bright field"
    assert livestain.__version__
