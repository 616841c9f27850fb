"""Micro-Manager's own demo configuration through the whole way: what users' continuous integration will do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from livestain._reading import load_experiment
from livestain._session import run_experiment
from tests import model_builders
from tests.conftest import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def demo_config() -> str:
    from mm_test_adapters import device_adapter_path

    return str(next(path for path in [*_beside(device_adapter_path())]))


def _beside(folder: str) -> list[Any]:
    from pathlib import Path

    return sorted(Path(folder).glob("MMConfig_demo.cfg"))


@pytest.mark.parametrize("rig", ["demo.cfg", "MMConfig_demo.cfg"])
@pytest.mark.parametrize("interval", [0, 0.05], ids=["hardware-sequenced", "software-timed"])
def test_the_demo_configuration_runs_end_to_end(
    rig: str, interval: float, write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    config = demo_config() if rig == "MMConfig_demo.cfg" else rig
    model = model_builders.package(tmp_path / "model", pixel_size_um=1.0, pixel_size_tolerance=0.99)
    path = write_experiment(
        rig={"config": config, "properties": [["Camera", "PixelType", "16bit"]]},
        sequence={
            "channels": [{"config": "DAPI", "exposure": 2}],
            "time_plan": {"interval": interval, "loops": 30 if interval == 0 else 5},
        },
        stains=[{"model": str(model.folder), "channel": "DAPI"}],
    )
    experiment = load_experiment(path)
    result = run_experiment(experiment, experiment.run_folder("x"))
    assert result.complete
    run = Run(result.folder)
    sequenced = [line for line in run.of_kind("raw") if "core_buffer" in line]
    assert bool(sequenced) == (interval == 0), "hardware sequencing must happen just where it can"
    array = run.array()
    assert array.shape == (30 if interval == 0 else 5, 2, 1, 512, 512)
    np.testing.assert_array_equal(array[:, 1], array[:, 0])
    assert array[0].any()


def test_several_positions_channels_and_planes(write_experiment: Callable[..., Path]) -> None:
    path = write_experiment(
        rig={"config": "demo.cfg"},
        sequence={
            "channels": [{"config": "DAPI", "exposure": 1}, {"config": "FITC", "exposure": 1}],
            "stage_positions": [{"x": 0, "y": 0, "z": 0}, {"x": 10, "y": 0, "z": 0}],
            "z_plan": {"range": 2, "step": 1},
            "time_plan": {"interval": 0, "loops": 2},
        },
    )
    experiment = load_experiment(path)
    result = run_experiment(experiment, experiment.run_folder("x"))
    assert result.complete
    assert result.stats.frames_acquired == 2 * 2 * 3 * 2
    for image in ("0", "1"):
        assert Run(result.folder).array(image).shape[:3] == (2, 2, 3)
