"""How far the network is from what the machine can do: its arithmetic and bytes against measured peaks.

    python -m benchmarks.roofline --models nuclei-demo nuclei-fast --sizes 512 2048

The peaks are measured here, in turns with the network: multiplications by a large matrix product in float32, bytes by
copying an array that no cache holds. Convolutions count two operations for each multiplication with its addition; what
else the graph does (casts, sums, interpolation) counts nothing, so the share of the peak is a lower bound. The bytes
are those that no fusion can save: frame, prediction and weights, once each. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from benchmarks.latency import machine
from benchmarks.packages import frames
from livestain._stain import OnnxModel
from livestain_models.package import load_package
from livestain_models.runtime import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable

    from livestain_models.package import Package

_MATRIX = 1536
_COPIED_BYTES = 256 << 20
_COUNTED_PX = 256  # operations are counted at this size, and grow with the area


def best_s(run: Callable[[], Any], times: int = 5) -> float:
    """Give the least of several durations."""
    found = math.inf
    for _ in range(times):
        started = time.perf_counter()
        run()
        found = min(found, time.perf_counter() - started)
    return found


def peaks() -> dict[str, float]:
    """Measure the machine: operations and bytes a second, all cores."""
    a = np.random.default_rng(0).random((_MATRIX, _MATRIX), dtype=np.float32)
    out = np.empty_like(a)
    source, target = np.ones(_COPIED_BYTES, np.uint8), np.ones(_COPIED_BYTES, np.uint8)
    return {
        "gflop_per_s": 2 * _MATRIX**3 / best_s(lambda: np.matmul(a, a, out=out)) / 1e9,
        "gb_per_s": 2 * _COPIED_BYTES / best_s(lambda: np.copyto(target, source)) / 1e9,
    }


def convolution_flop(package: Package, size_px: int) -> float:
    """Count the operations of all convolutions of a graph for one frame."""
    graph = onnx.load(package.weights)
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    for node in convolutions:
        graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
    session = import_onnxruntime().InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    given = frames(package.contract.planes.count, _COUNTED_PX, 1)[None]
    found = dict(
        zip(
            [o.name for o in session.get_outputs()],
            session.run(None, {session.get_inputs()[0].name: given}),
            strict=True,
        )
    )
    flop = 0.0
    for node in convolutions:
        _, *reached = weights[node.input[1]]  # inputs of one output value: channels of its group, and the kernel
        flop += 2.0 * found[node.output[0]].size * math.prod(reached)
    return flop * (size_px / _COUNTED_PX) ** 2


def compared(package: Package, provider: str, size_px: int, rounds: int) -> dict[str, Any]:
    """Measure the network and the machine in turns."""
    model, planes = OnnxModel(package, provider), frames(package.contract.planes.count, size_px, 77)
    model.warm_up(size_px, size_px)
    net_ms, measured = [], []
    for _ in range(rounds):
        measured.append(peaks())
        net_ms += [model.predict(planes).net_ms for _ in range(10)]
    model.close()
    peak = {name: max(one[name] for one in measured) for name in measured[0]}
    flop = convolution_flop(package, size_px)
    pixels = (package.contract.planes.count + len(package.contract.outputs)) * size_px**2
    moved = 2 * pixels + package.weights.stat().st_size
    floor_ms = {"arithmetic": flop / peak["gflop_per_s"] / 1e6, "bytes": moved / peak["gb_per_s"] / 1e6}
    least = max(floor_ms.values())
    return {
        "model": package.contract.id,
        "provider": model.provider,
        "size_px": size_px,
        "gflop": round(flop / 1e9, 3),
        "megabytes": round(moved / 1e6, 2),
        "peak": {name: round(value, 1) for name, value in peak.items()},
        "floor_ms": {name: round(value, 2) for name, value in floor_ms.items()},
        "net_ms": {"min": round(min(net_ms), 2), "median": round(float(np.median(net_ms)), 2)},
        "share_of_roofline": {
            "best": round(least / min(net_ms), 3),
            "median": round(least / float(np.median(net_ms)), 3),
        },
    }


def main() -> None:
    """Compare every model at every size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["nuclei-demo", "nuclei-fast"])
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    rows = []
    for name in chosen.models:
        for size in chosen.sizes:
            rows.append(compared(load_package(name), chosen.provider, size, chosen.rounds))
            print(rows[-1], file=sys.stderr)
    print(json.dumps({"benchmark": "roofline", "machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
