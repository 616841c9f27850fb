"""What a graphics card makes of the networks: same answers, latency, throughput, distance to what the card can do.

    python3 benchmarks/gpu/suite.py --out results.json          # on the machine with the card
    python3 benchmarks/gpu/suite.py --size 256 --times 5        # without one: what can be measured there

Needs numpy, torch and onnxruntime, nothing of livestain's installed: the graphs come with the working tree. Where
onnxruntime has no CUDA or TensorRT it says so, and torch with CUDA graphs tells what the card gives. Nothing falls back
silently: a provider that was asked for and not used is written down as missing, with its reason.

parity
    every shipped package, on its test frame: largest and mean difference to onnxruntime on the CPU, in grey levels
latency
    frame in host memory to prediction in host memory, one at a time: the default network, 13 planes, a wide one, fast,
    in single and half precision. On a card three ways: memory that onnxruntime finds for each frame, memory of the card
    that is held, and recorded kernels replayed on it, which is what a run takes
yardstick
    the same networks in torch, half precision, channels last, captured as a CUDA graph
ceilings
    matrix product, copies on the card, and a frame over the bus, pinned and not

The last line is one JSON object; --out writes it to a file too.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "models"))

import numpy as np  # noqa: E402
import torch  # noqa: E402  (before onnxruntime: it brings the CUDA libraries that the other looks for)
from torch import nn  # noqa: E402

from livestain_models.fast import FastUNet  # noqa: E402
from livestain_models.normalise import LocalContrast  # noqa: E402
from livestain_models.on_device import OnDevice  # noqa: E402
from livestain_models.runtime import open_session  # noqa: E402
from livestain_models.unet import UNet  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_PROVIDERS = ("cpu", "cuda", "tensorrt")
_WARM = 5


class Whole(nn.Module):  # type: ignore[misc]
    """A network as it is exported, with random weights: grey values in, grey values out."""

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.normalise, self.dtype = net.to(dtype), LocalContrast(), dtype

    def forward(self, planes: Tensor) -> Tensor:
        """Stain, (1, P, H, W) uint16 -> (1, 1, H, W) uint16."""
        raw = self.net(self.normalise(planes.to(torch.float32)).to(self.dtype))
        return torch.round(raw.to(torch.float32) * 32767.5).clamp(0, 65535).to(torch.uint16)


NETWORKS: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "default": (1, UNet),
    "13 planes": (13, lambda: UNet(planes=13)),
    "base 32, 5 levels": (1, lambda: UNet(base=32, levels=5)),
    "fast": (1, lambda: FastUNet(base=8)),
}


def percentiles(taken_ms: list[float]) -> dict[str, float]:
    """Give p50, p99 and the largest."""
    p50, p99 = (round(float(value), 3) for value in np.percentile(taken_ms, (50, 99)))
    return {"p50": p50, "p99": p99, "max": round(max(taken_ms), 3)}


def timed(run: Callable[[], Any], times: int) -> dict[str, float]:
    """Time a function that returns when its answer is in host memory."""
    for _ in range(_WARM):
        run()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        taken.append((time.perf_counter() - started) * 1e3)
    return percentiles(taken)


def attempted(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Give what was measured, or why it could not be."""
    try:
        return run()
    except Exception as error:  # noqa: BLE001  (a missing library, a driver, too little memory: it is written down)
        said = str(error).splitlines()[0].split(". ")[0]
        return {"not_measured": f"{type(error).__name__}: {said[:300]}"}


def parity(package: Path, provider: str) -> dict[str, Any]:
    """Compare a provider with the CPU on a package's own test frame."""
    given = np.load(package / "test_input.npy")
    answers = []
    for name in ("cpu", provider):
        session = open_session((package / "weights.onnx").read_bytes(), package.name, name)
        answers.append(session.run(None, {session.get_inputs()[0].name: given})[0].astype(np.int64))
    apart = np.abs(answers[1] - answers[0])
    return {"max_grey": int(apart.max()), "mean_grey": round(float(apart.mean()), 5)}


def exported(net: nn.Module, dtype: torch.dtype, planes: int, multiple_px: int, folder: Path) -> Path:
    """Write the graph of a network."""
    file = folder / "graph.onnx"
    height, width = (torch.export.Dim(name, min=1, max=4096) * multiple_px for name in ("h", "w"))
    example = torch.full((1, planes, 4 * multiple_px, 6 * multiple_px), 1000, dtype=torch.uint16)
    shapes = ({2: height, 3: width},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Whole(net, dtype).eval(), (example,), file, dynamo=True, opset_version=20, dynamic_shapes=shapes,
            external_data=False, verbose=False,
        )  # fmt: skip
    return file


def in_onnxruntime(graph: Path, provider: str, planes: int, size_px: int, times: int) -> dict[str, Any]:
    """Time host memory to host memory."""
    frame = np.random.default_rng(0).integers(3000, 5000, (1, planes, size_px, size_px), dtype=np.uint16)
    predicted = np.empty((1, 1, size_px, size_px), np.uint16)
    content = graph.read_bytes()
    session = open_session(content, graph.name, provider)
    name = session.get_inputs()[0].name
    found: dict[str, Any] = {"nodes": placement(session)}
    found["found for each frame"] = timed(lambda: session.run(None, {name: frame}), times)
    if provider != "cpu":
        found["held"] = attempted(lambda: over_card(session, frame, predicted, times))
    if provider == "cuda":
        plain = predicted.copy()
        recorded = attempted(
            lambda: over_card(open_session(content, graph.name, provider, captured=True), frame, predicted, times)
        )
        apart = np.abs(predicted.astype(np.int64) - plain)
        found["recorded"] = recorded | {"max_grey_to_plain": int(apart.max())}
    return found


def over_card(session: Any, frame: np.ndarray, predicted: np.ndarray, times: int) -> dict[str, Any]:
    """Time the way that a run takes."""
    held = OnDevice(session, frame, predicted)
    return timed(lambda: held.run(frame, predicted), times)


def latency(net: nn.Module, dtype: torch.dtype, planes: int, size_px: int, times: int) -> dict[str, Any]:
    """Export a network and time it on every provider; on the CPU, which is slow, less often."""
    with tempfile.TemporaryDirectory() as folder:
        graph = exported(net, dtype, planes, max(16, int(net.multiple_px)), Path(folder))
        often = {provider: times if provider != "cpu" else max(3, times // 50) for provider in _PROVIDERS}
        if dtype != torch.float32:
            del often["cpu"]  # which computes halves in single precision, slowly
        return {
            provider: attempted(lambda v=provider, n=n: in_onnxruntime(graph, v, planes, size_px, n))
            for provider, n in often.items()
        }


def placement(session: Any) -> dict[str, int]:
    """Count the nodes that each provider took: a graph that is half on the CPU says so here."""
    found: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        found[part.ep_name] = found.get(part.ep_name, 0) + len(part.get_nodes())
    return found


def in_torch(net: nn.Module, planes: int, size_px: int, times: int) -> dict[str, Any]:
    """Time the network alone on the card: half precision, channels last, one CUDA graph."""
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no card")
    net = net.eval().cuda().half().to(memory_format=torch.channels_last)
    x = torch.randn(1, planes, size_px, size_px, device="cuda", dtype=torch.half)
    x = x.to(memory_format=torch.channels_last)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.no_grad():
        with torch.cuda.stream(stream):
            for _ in range(_WARM):
                net(x)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            net(x)

    def run() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return timed(run, times)


def ceilings(size_px: int) -> dict[str, Any]:
    """Measure what the card and the bus can do."""
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no card")
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
    big = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(big)

    def synced(run: Callable[[], Any]) -> float:
        def whole() -> None:
            run()
            torch.cuda.synchronize()

        return timed(whole, 20)["p50"]

    found: dict[str, Any] = {
        "tflop_per_s_half": round(2 * 8192**3 / synced(lambda: a @ a) / 1e9, 1),
        "gb_per_s_on_card": round(2 * big.numel() / synced(lambda: other.copy_(big)) / 1e6, 1),
    }
    on_card = torch.empty(size_px, size_px, dtype=torch.int16, device="cuda")
    for pinned in (True, False):
        host = torch.empty(size_px, size_px, dtype=torch.int16, pin_memory=pinned)
        name = "pinned" if pinned else "pageable"
        found[f"to_card_ms_{name}"] = synced(lambda host=host: on_card.copy_(host, non_blocking=True))
        found[f"from_card_ms_{name}"] = synced(lambda host=host: host.copy_(on_card, non_blocking=True))
    return found


def versions() -> dict[str, Any]:
    """Say what was measured on."""
    found: dict[str, Any] = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    try:
        import onnxruntime as ort

        found |= {"onnxruntime": ort.__version__, "providers": ort.get_available_providers()}
    except ImportError as error:
        found["onnxruntime"] = str(error)
    return found


def main() -> None:
    """Measure everything that can be measured here."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found: dict[str, Any] = {"benchmark": "gpu suite", "machine": versions(), "size_px": chosen.size}
    packages = sorted(file.parent for file in (ROOT / "models/livestain_models/zoo").glob("*/weights.onnx"))
    found["parity"] = {
        provider: {package.name: attempted(lambda p=package, v=provider: parity(p, v)) for package in packages}
        for provider in ("cuda", "tensorrt")
    }
    found["latency_ms"], found["yardstick_ms"] = {}, {}
    for name, (planes, build) in NETWORKS.items():
        torch.manual_seed(0)
        net = build().eval()
        for precision, dtype in (("", torch.float32), (", fp16", torch.half)):
            found["latency_ms"][name + precision] = attempted(
                lambda n=net, d=dtype, p=planes: latency(copy.deepcopy(n), d, p, chosen.size, chosen.times)
            )
        found["yardstick_ms"][name] = attempted(lambda n=net, p=planes: in_torch(n, p, chosen.size, chosen.times))
        print(name, found["latency_ms"][name], found["yardstick_ms"][name], file=sys.stderr)
    found["ceilings"] = attempted(lambda: ceilings(chosen.size))
    text = json.dumps(found)
    if chosen.out:
        chosen.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
