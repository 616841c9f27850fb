"""Recorded microscopy through the replay camera, the engine and a model: the whole way with real images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import yaozarrs

from livestain._reading import load_experiment
from livestain._session import run_experiment
from tests import model_builders
from tests.conftest import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def replay(source: Path, **camera: Any) -> dict[str, Any]:
    properties = [["Camera", "Source", str(source)], *(["Camera", name, value] for name, value in camera.items())]
    return {"config": "replay.cfg", "properties": properties, "pixel_size_um": 0.5}


def run_it(path: Path) -> Run:
    experiment = load_experiment(path)
    result = run_experiment(experiment, experiment.run_folder("x"))
    assert result.complete, result
    found = Run(result.folder)
    yaozarrs.validate_zarr_store(str(found.images))
    return found


def test_the_phase_contrast_stack_of_neurons(
    shared_data: Path, write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    recorded = tifffile.imread(shared_data / "isl" / "phase_contrast_zyx.tif")
    model = model_builders.package(tmp_path / "blur", model_builders.blur_graph(), pixel_size_um=0.5, halo_px=1)
    path = write_experiment(
        rig=replay(shared_data / "isl" / "phase_contrast_zyx.tif", Axis="z"),
        sequence={
            "channels": [{"config": "BF", "exposure": 1}],
            "z_plan": {"absolute": list(range(13))},
            "time_plan": {"interval": 0, "loops": 2},
        },
        stains=[{"model": str(model.folder), "channel": "BF", "max_tile_px": 256}],
    )
    array = run_it(path).array()
    assert array.shape == (2, 2, 13, 1024, 640)
    for t in range(2):
        np.testing.assert_array_equal(array[t, 0], recorded)
    from scipy.ndimage import convolve

    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    blurred = convolve(recorded[6].astype(float), kernel, mode="constant")
    assert np.abs(array[0, 1, 6, 1:-1, 1:-1] - blurred[1:-1, 1:-1]).max() <= 0.5 + 1e-3  # tiles leave no seam


def test_the_bright_field_of_e_coli(shared_data: Path, write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    folder = shared_data / "ecoli" / "ds1" / "brightfield"
    recorded = np.stack([tifffile.imread(path) for path in sorted(folder.glob("*.tif"))])
    model = model_builders.package(tmp_path / "identity", pixel_size_um=0.5)
    path = write_experiment(
        rig=replay(folder),
        sequence={"channels": [{"config": "BF", "exposure": 1}], "time_plan": {"interval": 0, "loops": len(recorded)}},
        stains=[{"model": str(model.folder), "channel": "BF"}],
    )
    array = run_it(path).array()
    np.testing.assert_array_equal(array[:, 0, 0], recorded)
    np.testing.assert_array_equal(array[:, 1, 0], recorded)


@pytest.mark.parametrize("size", [(97, 131), (33, 1024)])
def test_frames_of_awkward_sizes(size: tuple[int, int], write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 65536, (4, *size), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "recording.tif", frames, photometric="minisblack")
    model = model_builders.grid_package(tmp_path / "grid")
    path = write_experiment(
        rig=replay(tmp_path / "recording.tif"),
        sequence={"channels": [{"config": "BF", "exposure": 1}], "time_plan": {"interval": 0, "loops": 4}},
        stains=[{"model": str(model.folder), "channel": "BF", "max_tile_px": 64}],
    )
    array = run_it(path).array()
    np.testing.assert_array_equal(array[:, 0, 0], frames)
    cell = frames[0, :4, :4].mean()
    assert abs(int(array[0, 1, 0, 0, 0]) - cell) <= 1


def test_an_8_bit_camera_is_stored_without_loss(write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 40, 50), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "recording.tif", frames, photometric="minisblack")
    model = model_builders.package(tmp_path / "identity", pixel_size_um=0.5)
    path = write_experiment(
        rig=replay(tmp_path / "recording.tif"),
        sequence={"channels": [{"config": "BF", "exposure": 1}], "time_plan": {"interval": 0, "loops": 5}},
        stains=[{"model": str(model.folder), "channel": "BF"}],
    )
    array = run_it(path).array()
    assert array.dtype == np.uint16
    np.testing.assert_array_equal(array[:, 0, 0], frames)
    np.testing.assert_array_equal(array[:, 1, 0], frames)
