"""A package made elsewhere, and another precision of our own, through the live engine on the simulated microscope."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
import yaozarrs
from onnx import helper
from rich.console import Console

from livestain._check import check_experiment
from livestain._errors import ModelError
from livestain._reading import load_experiment
from livestain._recover import recover
from livestain._session import run_experiment
from livestain_models.package import load_package
from livestain_models.variants import add_variant
from tests.conftest import PIXEL_SIZE_UM, Run
from tests.model_builders import blur_package, doubling_graph, float_graph, foreign_axes, foreign_package

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def acquire(path: Path) -> tuple[Any, Run]:
    experiment = load_experiment(path)
    result = run_experiment(experiment, experiment.run_folder(path.stem))
    return result, Run(result.folder)


def checked(path: Path) -> str:
    out = io.StringIO()
    check_experiment(path, Console(file=out, width=1000))
    return out.getvalue()


def normalised(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return (x - x.mean()) / (x.std() + 1e-6)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """sigmoid(2 * normalised frame), for frames of 32 x 32 px with a halo of 4."""
    given = np.random.default_rng(0).integers(0, 4000, (1, 1, 32, 32)).astype(np.float32)
    return foreign_package(
        tmp_path / "theirs",
        doubling_graph([1, 1, 32, 32]),
        given,
        (1 / (1 + np.exp(-2 * normalised(given)))).astype(np.float32),
        inputs={
            "axes": foreign_axes("bcyx", 32),
            "preprocessing": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["x", "y"]}}],
        },
        outputs={"axes": foreign_axes("bcyx", output=True, halo=4), "postprocessing": [{"id": "sigmoid"}]},
    )


def test_tiles_of_a_frame_with_the_frames_statistics(write_experiment: Callable[..., Path], theirs: Path) -> None:
    path = write_experiment(stains=[{"model": str(theirs), "channel": "BF"}])
    result, run = acquire(path)
    assert result.complete, result
    assert not result.troubles
    yaozarrs.validate_zarr_store(str(run.images))
    array = run.array()
    for t in range(array.shape[0]):
        expected = 65535 / (1 + np.exp(-2 * normalised(array[t, 0, 0])))
        assert np.abs(array[t, 1, 0] - expected).max() < 1
    header = json.loads((run.folder / "frames.jsonl").read_text().splitlines()[0])
    (said,) = header["provenance"]["predicted"]
    assert said["channel"] == "mask (predicted)"
    assert "zero_mean_unit_variance" in said["normalisation"]
    assert "does not say its pixel size" in said["warnings"][0]


def test_check_warns_of_what_the_package_leaves_unsaid(write_experiment: Callable[..., Path], theirs: Path) -> None:
    said = checked(write_experiment(stains=[{"model": str(theirs), "channel": "BF"}]))
    assert "warning    Nuclei-of-somebody-2024-11-05: the package does not say its pixel size" in said


def test_the_real_package(write_experiment: Callable[..., Path], shared_data: Path) -> None:
    stain = {"model": str(shared_data / "bioimageio_nuclei_broad"), "channel": "BF", "threads": 1}
    sequence = {"channels": [{"config": "BF", "exposure": 1}], "time_plan": {"interval": 0, "loops": 2}}
    result, run = acquire(write_experiment(stains=[stain], sequence=sequence))
    assert result.complete, result
    assert run.array()[:, 1].std() > 0


def test_eight_bits_on_a_camera_of_sixteen(write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    given = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    model = float_graph([helper.make_node("Identity", ["x"], ["y"])], [1, 1, "h", "w"], dtypes=(2, 2))
    kind = {"data": {"type": "uint8"}}
    folder = foreign_package(tmp_path / "theirs", model, given, given, inputs=kind, outputs=kind)
    with pytest.raises(ModelError, match=r"takes images of 8 bits, but the camera gives 1\d"):
        checked(write_experiment(stains=[{"model": str(folder), "channel": "BF"}]))


def test_another_precision_is_run_and_said(write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    ours = blur_package(tmp_path / "ours")
    edit = yaml.safe_load((ours.folder / "rdf.yaml").read_text())
    edit["config"]["livestain"]["pixel_size_um"] = PIXEL_SIZE_UM
    (ours.folder / "rdf.yaml").write_text(yaml.safe_dump(edit))
    stains = [{"model": str(ours.folder), "channel": "BF", "precision": "fp16"}]
    with pytest.raises(ModelError, match="has no fp16; it has: fp32"):
        checked(write_experiment(stains=stains))
    add_variant(load_package(ours.folder), "fp16", ours.weights, {"parity_max_grey": 0, "parity_mean_grey": 0}, {})
    assert "test-model@1 fp16 sha256:" in checked(write_experiment(stains=stains))
    result, run = acquire(write_experiment(stains=stains))
    assert result.complete
    header = json.loads((run.folder / "frames.jsonl").read_text().splitlines()[0])
    assert header["provenance"]["predicted"][0]["precision"] == "fp16"
    assert header["stains"][0]["precision"] == "fp16"
    recover(run.folder)
