"""The shipped packages in the hands of the field's own tools: bioimageio.spec's validation, bioimageio.core's test.

In an environment of their own, since bioimageio.core pulls more than half a gigabyte and breaks with the pydantic of
today (bioimageio.core 0.11 with pydantic 2.13 and later).
"""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livestain_models.package import load_package, zoo
from livestain_models.processing import Around, operations_in, run_operations
from livestain_models.tensors import OURS as LAYOUT
from livestain_models.verify import verify_package
from tests.model_builders import doubling_graph, foreign_package

_SCRIPT = """
import json, sys
from pathlib import Path
from bioimageio.spec import load_description, InvalidDescr, ValidationContext
from bioimageio.core import test_model

found = {}
for folder in sys.argv[1:]:
    source = next(str(file) for file in Path(folder).glob("*.yaml"))
    described = load_description(source, format_version="discover")
    summary = test_model(source, weight_format="onnx", determinism="full")
    found[folder] = {
        "valid": not isinstance(described, InvalidDescr),
        "status": summary.status,
        "errors": [str(error.msg) for detail in summary.details for error in detail.errors],
        "onnx": [detail.name for detail in summary.details],
    }
print("RESULT" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bioimageio")
    venv.create(folder, with_pip=True)
    python = next(p for p in folder.glob("*/python*") if p.stem == "python")
    wanted = ["bioimageio.core==0.11.0", "pydantic<2.13", "onnxruntime"]
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True, timeout=900)
    return python


def said_of(tools: Path, folders: list[Path], cwd: Path) -> dict[str, Any]:
    """What the tools say of packages, by folder."""
    command = [tools, "-c", _SCRIPT, *map(str, folders)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return {Path(folder).name: found for folder, found in json.loads(line.removeprefix("RESULT")).items()}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ours_are_valid_and_reproduced(tools: Path, tmp_path: Path) -> None:
    for found in said_of(tools, [load_package(name).folder for name in zoo()], tmp_path).values():
        assert found["valid"]
        assert found["errors"] == []
        assert found["status"] == "passed"
        assert any("Reproduce test outputs" in text for text in found["onnx"])


STEPS: dict[str, list[dict[str, Any]]] = {
    "scale_linear": [{"id": "scale_linear", "kwargs": {"gain": 0.01, "offset": 3.0}}],
    "scale_linear_along": [{"id": "scale_linear", "kwargs": {"axis": "channel", "gain": [0.02], "offset": [1.0]}}],
    "zero_mean": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}}],
    "fixed": [{"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 90.0, "std": 0.002}}],
    "scale_range": [
        {"id": "scale_range", "kwargs": {"axes": ["channel", "y", "x"], "min_percentile": 3.7, "max_percentile": 96.1}}
    ],
    "clip": [{"id": "clip", "kwargs": {"min": 60.0, "max": 150.0}}],
    "clip_percentiles": [
        {"id": "clip", "kwargs": {"min_percentile": 13.3, "max_percentile": 87.1, "axes": ["channel", "y", "x"]}}
    ],
    "sigmoid": [{"id": "scale_linear", "kwargs": {"gain": 0.01}}, {"id": "sigmoid"}],
}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_what_we_make_of_declared_steps_is_what_the_tools_make_of_them(tools: Path, tmp_path: Path) -> None:
    given = np.random.default_rng(0).integers(0, 200, (1, 1, 16, 24)).astype(np.float32)
    strict = {"bioimageio": {"reproducibility_tolerance": [{"relative_tolerance": 1e-5, "absolute_tolerance": 1e-5}]}}
    folders = []
    for name, steps in STEPS.items():
        before = run_operations(operations_in(steps, "float32", begin=True), given[0], Around(LAYOUT))
        # The tools cannot measure statistics of an output (a KeyError in bioimageio.core 0.11).
        behind = [] if any({"axes", "min_percentile"} & set(step.get("kwargs", {})) for step in steps) else steps
        after = run_operations(operations_in(behind, "float32", begin=False), 2 * before, Around(LAYOUT))
        folders.append(
            foreign_package(
                tmp_path / name,
                doubling_graph([1, 1, "h", "w"]),
                given,
                after[None],
                inputs={"preprocessing": steps},
                outputs={"postprocessing": behind},
                config=strict,
                documentation="README.md",
                weights={"onnx": {"source": "weights.onnx", "opset_version": 17}},
            )
        )
        (tmp_path / name / "README.md").write_text("# Validation\nnone")
        verify_package(load_package(folders[-1]))
    found = said_of(tools, folders, tmp_path)
    assert {name: (one["status"], one["errors"]) for name, one in found.items()} == dict.fromkeys(STEPS, ("passed", []))
