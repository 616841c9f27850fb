"""The wheel holds what a rig needs and nothing else, and works in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_holds_both_packages_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"livestain", "livestain_models"}
    for wanted in (
        "livestain/py.typed",
        "livestain_models/py.typed",
        "livestain/hardware_configs/simulated.cfg",
        "livestain/hardware_configs/simulated.yaml",
        "livestain/hardware_configs/demo.cfg",
        "livestain/hardware_configs/template_real_rig.cfg",
        "livestain/live/page/index.html",
        "livestain/live/page/main.js",
        "livestain/live/report/report.html.j2",
        "livestain/napari.yaml",
        "livestain_models/zoo/nuclei-demo/rdf.yaml",
        "livestain_models/zoo/nuclei-demo/weights.onnx",
        "livestain_models/recipes/nuclei.yaml",
    ):
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    ours = [Path(name) for name in names if not name.split("/")[0].endswith(".dist-info")]
    seen = {path.suffix for path in ours if path.parts[1] == "live"}
    assert seen <= {".py", ".html", ".css", ".js", ".svg", ".j2"}
    assert {path.suffix for path in ours if path.parts[1] != "live"} <= {
        ".py", ".typed", ".cfg", ".yaml", ".md", ".onnx", ".npy",
    }  # fmt: skip
    assert wheel.stat().st_size < 12_000_000  # ten models; nothing may come along unseen


@pytest.mark.slow
def test_the_wheel_runs_the_demo_in_a_clean_environment_without_torch(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = next(p for p in (tmp_path / "env").glob("*/python*") if p.stem == "python")
    subprocess.run([python, "-m", "pip", "install", "-q", f"{wheel}[demo]"], check=True, timeout=900)
    listed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout.lower()
    assert "torch" not in listed
    assert "pyqt" not in listed
    assert "pyside" not in listed
    command = [python, "-m", "livestain", "demo", "--seconds", "2", "--size", "128"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("livestain-runs/*/demo.png"))


@pytest.mark.slow
def test_without_a_runtime_the_error_names_the_line_to_run(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = next(p for p in (tmp_path / "env").glob("*/python*") if p.stem == "python")
    subprocess.run([python, "-m", "pip", "install", "-q", str(wheel)], check=True, timeout=900)
    command = [python, "-m", "livestain", "demo", "--seconds", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert 'pip install "livestain[cpu]"' in done.stderr
    assert "Traceback" not in done.stderr
