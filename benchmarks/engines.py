"""The two CPU engines beside each other, and what their options are worth: milliseconds inside the runtime.

    python -m benchmarks.engines                                  # about ten minutes on two cores
    python -m benchmarks.engines --models nuclei-demo --sizes 512 --threads 2

All that is compared is opened at once and run in turns, in another order each round, so that whatever else the
machine does falls on all alike: trust the ratios, of the times the least and the median, and on a
busy machine the processor time, which waiting for a core does not lengthen.
int8 is the shipped network quantised here (extra `train`); bf16 is measured where the processor computes in it. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.latency import machine
from benchmarks.packages import frames, with_precisions
from livestain._stain import OnnxModel
from livestain.runtimes.openvino import import_openvino
from livestain_models.package import load_package
from livestain_models.runtime import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable

    from livestain_models.package import Package

_PAUSE_S = 0.01  # between turns, as between frames: threads that spin meanwhile are counted as processor time


def in_turns(candidates: dict[str, Callable[[], float]], rounds: int) -> dict[str, dict[str, float]]:
    """Run each candidate, which gives its milliseconds, once a round; the first two rounds warm up."""
    names = list(candidates)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    generator = np.random.default_rng(0)
    for turn in range(rounds + 2):
        for name in generator.permutation(names).tolist():  # nobody always follows the one whose threads still spin
            used = time.process_time()
            ms = candidates[name]()
            time.sleep(_PAUSE_S)
            if turn >= 2:
                taken[name].append((ms, (time.process_time() - used) * 1e3))
    return {name: _told(np.array(taken[name]), np.array(taken[names[0]])) for name in names}


def _told(own: np.ndarray, first: np.ndarray) -> dict[str, float]:
    ms, cpu_ms = own.T
    found = {
        "min_ms": ms.min(),
        "median_ms": np.median(ms),
        "p99_ms": np.percentile(ms, 99),
        "cpu_ms": np.median(cpu_ms),
        "min_ratio": ms.min() / first[:, 0].min(),
        "median_ratio": np.median(ms / first[:, 0]),
    }
    return {name: round(float(value), 3) for name, value in found.items()}


def engines(package: Package, size_px: int, threads: int, rounds: int) -> dict[str, Any]:
    """Every precision in the engines that compute in it, as a run would use them; how far their answers are apart."""
    planes = frames(package.contract.planes.count, size_px, 77)
    opened = {
        f"{provider} {precision}": OnnxModel(load_package(package.folder, precision), provider, threads=threads)
        for precision in package.contract.precisions
        for provider in ("cpu", "openvino")
        if (provider, precision) != ("cpu", "bf16")
    }

    def net_ms(model: OnnxModel) -> float:
        return model.predict(planes).net_ms

    answers = {name: model.predict(planes).planes.astype(int) for name, model in opened.items()}
    apart = {name: np.abs(answer - answers["cpu fp32"]) for name, answer in answers.items()}
    found = in_turns({name: partial(net_ms, model) for name, model in opened.items()}, rounds)
    for name, difference in apart.items():
        found[name] |= {"max_grey": int(difference.max()), "mean_grey": round(float(difference.mean()), 4)}
    for model in opened.values():
        model.close()
    return {"model": package.contract.id, "size_px": size_px, "threads": threads, "rounds": rounds} | found


def milliseconds(run: Callable[[], Any]) -> float:
    """Run once, and give how long it took."""
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3


def onnxruntime_with(
    content: bytes, planes: np.ndarray, threads: int, level: str, spinning: str
) -> Callable[[], float]:
    """Open a session with these options; give what runs it once."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return partial(milliseconds, partial(session.run, None, {session.get_inputs()[0].name: planes}))


def openvino_with(content: bytes, planes: np.ndarray, threads: int, **more: Any) -> Callable[[], float]:
    """Compile the graph with these settings; give what runs it once."""
    ov = import_openvino()
    core = ov.Core()
    model = core.read_model(content)
    model.reshape(list(planes.shape))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(model, "CPU", settings | more).create_infer_request()
    request.set_input_tensor(ov.Tensor(planes, shared_memory=True))
    return partial(milliseconds, partial(request.infer, share_outputs=True))


def options(package: Package, size_px: int, precision: Any, rounds: int) -> dict[str, Any]:
    """Onnxruntime's options one at a time from what livestain sets, and whether OpenVINO's threads are pinned."""
    content = load_package(package.folder, precision).weights.read_bytes()
    planes = frames(package.contract.planes.count, size_px, 77)[None]
    cores = os.cpu_count() or 1
    candidates: dict[str, Callable[[], float]] = {
        "onnxruntime": onnxruntime_with(content, planes, 0, "ORT_ENABLE_ALL", "0"),
        "onnxruntime spinning": onnxruntime_with(content, planes, 0, "ORT_ENABLE_ALL", "1"),
        "onnxruntime extended": onnxruntime_with(content, planes, 0, "ORT_ENABLE_EXTENDED", "0"),
        "onnxruntime basic": onnxruntime_with(content, planes, 0, "ORT_ENABLE_BASIC", "0"),
        "onnxruntime unoptimised": onnxruntime_with(content, planes, 0, "ORT_DISABLE_ALL", "0"),
        "onnxruntime 1 thread": onnxruntime_with(content, planes, 1, "ORT_ENABLE_ALL", "0"),
        f"onnxruntime {2 * cores} threads": onnxruntime_with(content, planes, 2 * cores, "ORT_ENABLE_ALL", "0"),
        "openvino": openvino_with(content, planes, cores, ENABLE_CPU_PINNING=False),
        "openvino pinned": openvino_with(content, planes, cores, ENABLE_CPU_PINNING=True),
        "openvino 1 thread": openvino_with(content, planes, 1, ENABLE_CPU_PINNING=False),
    }
    found = in_turns(candidates, rounds)
    return {"model": package.contract.id, "size_px": size_px, "precision": precision, "rounds": rounds} | found


def _show(row: dict[str, Any]) -> None:
    print({name: value for name, value in row.items() if not isinstance(value, dict)}, file=sys.stderr)
    for name, value in row.items():
        if isinstance(value, dict):
            print(
                f"  {name:24s} min {value['min_ms']:7.1f}  median {value['median_ms']:7.1f}  p99 {value['p99_ms']:7.1f}"
                f"  cpu {value['cpu_ms']:7.1f} ms   to the first: min {value['min_ratio']:.2f}, "
                f"median {value['median_ratio']:.2f}   {value.get('max_grey', '')}",
                file=sys.stderr,
            )


def main() -> None:
    """Measure every model at every size and number of threads, then the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["nuclei-demo", "cells-demo"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=24, help="at 512 px and below; fewer at larger sizes")
    chosen = parser.parse_args()
    load, rows, tried = os.getloadavg() if hasattr(os, "getloadavg") else None, [], []
    with tempfile.TemporaryDirectory() as scratch:
        capable = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precisions = ("bf16", "int8") if "BF16" in capable else ("int8",)
        packages = [with_precisions(name, Path(scratch, name), *precisions) for name in chosen.models]
        for precision in ("fp32", "int8"):
            tried.append(options(packages[0], min(chosen.sizes), precision, chosen.rounds))
            _show(tried[-1])
        for package in packages:
            for size in chosen.sizes:
                rounds = max(4, chosen.rounds * 512 // max(512, size) * 512 // max(512, size))
                for threads in chosen.threads:
                    rows.append(engines(package, size, threads, rounds))
                    _show(rows[-1])
    about = machine() | {"openvino": import_openvino().get_version(), "load_before": load}
    print(json.dumps({"benchmark": "engines", "machine": about, "rows": rows, "options": tried}))


if __name__ == "__main__":
    main()
