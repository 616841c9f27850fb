"""The way over a graphics card, with ordinary memory in the card's place, and what is done when a card fails."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import platformdirs
import pytest
from typer.testing import CliRunner

from livestain._errors import LivestainError, ModelError, OutOfMemory
from livestain._experiment import Stain
from livestain._prepare import open_model
from livestain._stain import OnnxModel
from livestain._warm import warm_up
from livestain.cli.main import app
from livestain.runtimes.onnxruntime import OnnxruntimeGraph, _OnCard
from livestain_models import runtime
from livestain_models.package import load_package
from livestain_models.runtime import engine_folder, open_session
from tests.model_builders import package, two_stains_package

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
DEMO = load_package("nuclei-demo")


def grey(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3000, 5000, (1, 1, height, width), dtype=np.uint16)


def session(_: Any = None, *, captured: bool = False) -> Any:
    return open_session(DEMO.weights.read_bytes(), "demo", "cpu")


def wrong_session(_: Any = None, *, captured: bool = False) -> Any:
    """What a recording would be that replays something else."""
    return open_session(load_package("nuclei-fast").weights.read_bytes(), "fast", "cpu") if captured else session()


def no_session(_: Any = None, *, captured: bool = False) -> Any:
    if captured:
        raise RuntimeError("a node cannot be recorded")
    return session()


@pytest.mark.parametrize(
    ("reopened", "captured", "said"),
    [
        (session, False, ""),
        (session, True, ""),
        (wrong_session, True, "are not used: "),
        (no_session, True, "a node cannot be recorded"),
    ],
    ids=["not recorded", "recorded", "another answer", "not to be recorded"],
)
def test_the_way_over_the_card_gives_the_same_answer(
    reopened: Callable[..., Any], captured: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    direct = session()
    name = direct.get_inputs()[0].name
    card = _OnCard("demo", session(), reopened, captured=captured, device="cpu")
    with caplog.at_level(logging.WARNING):
        for seed, (height, width) in enumerate([(64, 96), (64, 96), (64, 96), (96, 64), (64, 96)]):
            given = grey(height, width, seed)
            predicted = np.zeros((1, len(DEMO.contract.outputs), height, width), np.uint16)
            card.run(given, predicted)
            assert (predicted == direct.run(None, {name: given})[0]).all()
    assert (said in caplog.text) if said else not caplog.text


# ---------------------------------------------------------------------- too little memory


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let graphs fail as onnxruntime does on tiles of more pixels."""
    original = OnnxruntimeGraph.run

    def hold(most_px: int) -> None:
        def run(self: OnnxruntimeGraph, given: np.ndarray, predicted: np.ndarray) -> None:
            if given.shape[-1] * given.shape[-2] > most_px:
                self._runner = SimpleNamespace(run=_fails)  # type: ignore[assignment]
            else:
                self._runner = self.__dict__.setdefault("_kept", self._runner)
            original(self, given, predicted)

        monkeypatch.setattr(OnnxruntimeGraph, "run", run)

    return hold


def _fails(*_: Any) -> None:
    raise RuntimeError("Failed to allocate memory for requested buffer of size 268435456")


def test_a_frame_that_does_not_fit_is_stained_in_tiles(
    small_memory: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    planes = grey(1024, 1024)[0]
    whole = OnnxModel(DEMO, "cpu").predict(planes).planes
    model = OnnxModel(DEMO, "cpu")
    first = model._graph
    assert isinstance(first, OnnxruntimeGraph)
    first.__dict__["_kept"] = first._runner
    small_memory(600 * 600)
    with caplog.at_level(logging.WARNING, "livestain"):
        model.warm_up(1024, 1024)
    assert "does not fit into the memory of CPUExecutionProvider" in caplog.text
    assert "tiles of at most 512 px" in caplog.text
    assert (model.predict(planes).planes == whole).all()


def test_a_model_that_fits_in_no_tile(tmp_path: Path, small_memory: Callable[[int], None]) -> None:
    small_memory(0)
    model = OnnxModel(two_stains_package(tmp_path), "cpu")
    with pytest.raises(OutOfMemory, match=r"Failed to allocate.*Nor can smaller tiles.*Close what else uses"):
        model.warm_up(256, 256)


def test_auto_goes_to_the_processor_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a card that other programs have filled."""
    original = OnnxModel.warm_up

    def warm(self: OnnxModel, height: int, width: int) -> None:
        if not asked[-1].startswith("cpu"):
            self.provider = "CUDAExecutionProvider"
            raise OutOfMemory("identity does not fit.")
        original(self, height, width)

    asked: list[str] = []
    opened = OnnxModel.__init__

    def note(self: OnnxModel, given: Any, provider: str = "auto", **more: Any) -> None:
        asked.append(provider)
        opened(self, given, "cpu", **more)

    monkeypatch.setattr(OnnxModel, "__init__", note)
    monkeypatch.setattr(OnnxModel, "warm_up", warm)
    built = package(tmp_path)
    stain = Stain(model=str(built.folder), channel="BF")
    with caplog.at_level(logging.WARNING, "livestain"):
        model = open_model(stain, built, 64, 64)
    assert model.provider == "CPUExecutionProvider"
    assert "identity does not fit. The processor takes over." in caplog.text
    with pytest.raises(OutOfMemory):  # asked for by name: never replaced
        open_model(stain.model_copy(update={"provider": "cuda"}), built, 64, 64)


# ---------------------------------------------------------------------- what a provider is told, and what it took


def test_an_engine_is_kept_for_one_graph_one_card_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = ["NVIDIA RTX A4000\n", "NVIDIA H200\n"]
    monkeypatch.setattr(runtime, "_card", lambda: cards[0].strip())
    here = engine_folder(b"graph")
    assert "NVIDIA-RTX-A4000" in here.parent.name
    assert onnxruntime.__version__ in here.parent.name
    others = {engine_folder(b"another")}
    monkeypatch.setattr(runtime, "_card", lambda: cards[1].strip())
    others.add(engine_folder(b"graph"))
    assert here not in others
    assert len(others) == 2


@pytest.mark.parametrize(
    ("told", "card"),
    [
        (subprocess.CompletedProcess([], 0, "NVIDIA H200\nNVIDIA H200\n", ""), "NVIDIA H200"),
        (subprocess.CompletedProcess([], 0, "", ""), "unknown card"),
        (FileNotFoundError("nvidia-smi"), "unknown card"),
        (subprocess.CalledProcessError(9, "nvidia-smi"), "unknown card"),
    ],
    ids=["two cards", "none", "no driver", "driver fails"],
)
def test_the_cards_name(told: Any, card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> Any:
        if isinstance(told, Exception):
            raise told
        return told

    monkeypatch.setattr(subprocess, "run", run)
    assert runtime._card() == card


class Pretends(onnxruntime.InferenceSession):
    """A session on the processor that says it is on a card, and notes what it was told."""

    told: dict[str, dict[str, str]] = {}  # noqa: RUF012
    left: tuple[str, ...] = ("Shape",)

    def __init__(self, weights: bytes, options: Any, providers: list[tuple[str, dict[str, str]]]) -> None:
        super().__init__(weights, options, providers=["CPUExecutionProvider"])
        Pretends.told = dict(providers)

    def get_providers(self) -> list[str]:
        return list(self.told)

    def get_provider_graph_assignment_info(self) -> list[Any]:
        nodes = [SimpleNamespace(op_type=name) for name in self.left]
        return [SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: nodes)]


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Pretends]:
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "InferenceSession", Pretends)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    monkeypatch.setattr(runtime, "_card", lambda: "a card")
    monkeypatch.setattr(Pretends, "left", ("Shape", "Concat"))
    return Pretends


def test_tensorrt_keeps_its_engines(pretended: type[Pretends], tmp_path: Path) -> None:
    weights = DEMO.weights.read_bytes()
    open_session(weights, "demo", "tensorrt")
    told = pretended.told["TensorrtExecutionProvider"]
    folder = tmp_path / "cache" / "tensorrt"
    assert folder in engine_folder(weights).parents
    assert engine_folder(weights).is_dir()
    assert told["trt_engine_cache_path"] == str(engine_folder(weights))
    assert told["trt_timing_cache_path"] == str(engine_folder(weights).parent)
    assert told["trt_engine_cache_enable"] == told["trt_timing_cache_enable"] == "1"
    assert not any("fp16" in name or "int8" in name for name in told)  # the package says the precision
    assert list(pretended.told) == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]


@pytest.mark.parametrize("captured", [False, True])
def test_cuda_records_where_asked(pretended: type[Pretends], captured: bool) -> None:
    open_session(DEMO.weights.read_bytes(), "demo", "cuda", captured=captured)
    assert pretended.told == {"CUDAExecutionProvider": {"enable_cuda_graph": "1"} if captured else {}}


def test_a_network_left_to_the_processor_is_an_error(
    pretended: type[Pretends], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretended, "left", ("Shape", "Conv", "Conv", "MatMul"))
    with pytest.raises(ModelError, match=r"leaves 3 of its operators \(Conv, MatMul\) to the processor"):
        open_session(DEMO.weights.read_bytes(), "demo", "cuda")


# ---------------------------------------------------------------------- livestain warm


def test_warming_up() -> None:
    named: list[str] = []
    done = warm_up(Stain(model="nuclei-fast", channel="any"), 96, 128, named.append)
    assert named == [done.model]
    assert done.model.startswith("nuclei-fast@")
    assert done.provider == "CPUExecutionProvider"
    assert 0 < done.net_ms <= done.host_to_host_ms
    assert done.ready_s > 0
    assert done.engines is None


def test_warm_on_the_command_line() -> None:
    done = CliRunner().invoke(app, ["warm", "nuclei-fast", "--size", "128x96"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "for frames of 128 x 96 px" in done.output
    assert "frames/s live" in done.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nuclei-fast", "--size", "512"], r"--size is '512'; give .* WIDTHxHEIGHT"),
        (["nuclei-fast", "--size", "0x512"], "--size is '0x512'"),
        (["nuclei-fast", "--provider", "gpu"], "--provider is 'gpu'"),
        (["nuclei-fast", "--precision", "fp8"], "--precision is 'fp8'"),
        (["nope"], "No model package at 'nope'"),
    ],
)
def test_what_cannot_be_warmed_up(given: list[str], message: str) -> None:
    with pytest.raises(LivestainError, match=message):
        CliRunner().invoke(app, ["warm", *given], catch_exceptions=False)


def test_the_suite_for_a_bare_machine_imports_no_more_than_it_says() -> None:
    """A machine with a card may have numpy, torch and onnxruntime, and no way to get anything else."""
    wanted = ["pydantic", "yaml", "platformdirs", "scipy", "zarr", "PIL", "tensorstore", "pymmcore_plus", "monai"]
    code = (
        "import sys, runpy; runpy.run_path('benchmarks/gpu/suite.py');"
        f"sys.exit(', '.join(name for name in {wanted} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
