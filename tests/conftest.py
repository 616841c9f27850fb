"""Shared fixtures: tiny models, experiments on the simulated microscope, and readers of what they leave."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymmcore_plus
import pytest
import yaml
from hypothesis import settings

from tests import model_builders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from livestain_models.package import Package

# Shared machines stall for longer than hypothesis's deadline; what takes too long is seen in --durations.
settings.register_profile("livestain", deadline=None)
settings.load_profile("livestain")
# The shared log file of pymmcore-plus is none of the tests' business.
pymmcore_plus.configure_logging(file=None, log_to_stderr=False)

SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"
PIXEL_SIZE_UM = 0.325  # of the simulated microscope


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For torch: small tensors gain nothing from more, and on a busy machine OpenMP's threads wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def computes_in_bf16() -> None:
    """Skip where OpenVINO is not installed, or the processor does not compute in bfloat16."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is an extra")
    from livestain.runtimes.openvino import import_openvino

    if "BF16" not in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bfloat16")


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real images are not here: they are not part of the project")
    return SHARED_DATA


@pytest.fixture
def identity_model(tmp_path: Path) -> Package:
    """A model whose prediction is its input, for the simulated microscope's pixel size."""
    return model_builders.package(tmp_path / "identity-model", pixel_size_um=PIXEL_SIZE_UM)


@dataclass(frozen=True)
class Run:
    """A run folder, read with nothing of livestain's."""

    folder: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "frames.jsonl").read_text().splitlines()]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == kind]

    @property
    def images(self) -> Path:
        return self.folder / "images.ome.zarr"

    def array(self, image: str = "") -> Any:
        import zarr

        return zarr.open_array(self.images / image / "0", mode="r")


@pytest.fixture
def read_run() -> Callable[[Path], Run]:
    return Run


@pytest.fixture
def write_experiment(tmp_path: Path) -> Callable[..., Path]:
    """Write an experiment file on the simulated microscope; parts can be changed."""

    def write(name: str = "run", **changes: Any) -> Path:
        data: dict[str, Any] = {
            "rig": {"config": "simulated.cfg", "properties": [["Camera", "Width", 128], ["Camera", "Height", 96]]},
            "sequence": {"channels": [{"config": "BF", "exposure": 1}], "time_plan": {"interval": 0, "loops": 6}},
            "output": {"folder": str(tmp_path / "runs"), "name": name},
        } | changes
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    return write
