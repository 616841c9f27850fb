"""Throughput and latency against the offered frame rate, up to saturation and past it, beside the network alone.

    python -m benchmarks.saturation                                          # nuclei-demo at 512, 1024 and 2048 px
    python -m benchmarks.saturation --models nuclei-fast --sizes 2048 --seconds 30
    python -m benchmarks.saturation --models untrained-3 untrained-13        # stacks; needs the extra `train`

The network alone is run in a tight loop before and after, in this process; the offered rates are shares of what it
did, so that they mean the same on every machine. The knee is the highest rate at which every frame was stained as it
came; with stacks the camera may not keep up with what is asked of it. A model of several planes is offered stacks. The
last line is one JSON object.

Runs are deleted at the very end: ext4 without a journal looks, for each new folder, through those deleted in the last
minutes, which took more processor time than everything else that is done to write a plane.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import useq

from benchmarks.latency import machine, render, replay, stain_of
from livestain._experiment import Experiment, Output
from livestain._journal import JOURNAL_NAME, read_lines
from livestain._latency import BOUNDARIES
from livestain._priority import keep_off_pinned_cores
from livestain._session import run_experiment
from livestain._stain import OnnxModel
from livestain_models.package import load_package

if TYPE_CHECKING:
    from livestain._experiment import Stain
    from livestain_models.contract import Planes
    from livestain_models.package import Package

_SHARES = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 2.0)


def alone_fps(package: Package, provider: str, frames: np.ndarray, seconds: float) -> float:
    """Run the network in a tight loop, as the run's own thread does, and give stacks a second."""
    model, done, planes = OnnxModel(package, provider), [0], package.contract.planes.count
    stacks = [np.ascontiguousarray(np.take(frames, range(i, i + planes), 0, mode="wrap")) for i in range(len(frames))]

    def loop() -> None:
        keep_off_pinned_cores()
        model.warm_up(*frames.shape[1:])
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            model.predict(stacks[done[0] % len(stacks)])
            done[0] += 1

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    model.close()
    return done[0] / seconds


def offered(folder: Path, source: Path, stain: Stain, planes: Planes, fps: float, seconds: float) -> dict[str, Any]:
    """Run the whole way at a rate of `fps` stacks a second; what the model has no time for is left out."""
    sequence: dict[str, Any] = {
        "channels": [{"config": "BF", "exposure": 1}],
        "time_plan": {"interval": 1 / fps, "loops": max(4, round(fps * seconds))},
    }
    if planes.count > 1 and planes.spacing_um:
        sequence |= {"z_plan": {"range": (planes.count - 1) * planes.spacing_um, "step": planes.spacing_um}}
    experiment = Experiment(
        rig=replay(source),
        sequence=useq.MDASequence.model_validate(sequence),
        stains=(stain,),
        output=Output(folder=folder.parent, name=folder.name, stain_remaining=False),
    )
    stats = run_experiment(experiment, folder).stats
    raw = [line["time"] for line in read_lines(folder / JOURNAL_NAME) if line["kind"] == "raw"]
    first, last = (datetime.fromisoformat(time).timestamp() for time in (raw[0], raw[-1]))
    took_s = (last - first) * len(raw) / max(1, len(raw) - planes.count)  # until the next stack would have come
    found: dict[str, Any] = {
        "raw": {"p50": stats.raw_camera_to_disk_ms.p50, "p99": stats.raw_camera_to_disk_ms.p99},
        "offered_fps": round(fps, 2),
        "came_fps": round(len(raw) / planes.count / took_s, 2),
        "frames": stats.frames_acquired,
        "missing": stats.frames_missing,
        "live_fps": round(stats.stained_live / took_s, 2),
        "all_live": stats.stained_live * planes.count == stats.frames_acquired,
    }
    for boundary in BOUNDARIES:
        one = stats.latency[boundary]
        found[boundary] = {"p50": one.p50, "p99": one.p99, "max": one.max} if one.n else None
    return found


def sweep(scratch: Path, source: Path, stain: Stain, seconds: float) -> dict[str, Any]:
    """Offer every rate to one model at one size."""
    package, provider = load_package(stain.model, stain.precision), stain.provider
    frames = np.atleast_3d(tifffile.imread(source))
    before = alone_fps(package, provider, frames, seconds / 2)
    rows = []
    for share in _SHARES:
        folder = scratch / f"{source.stem}-{share}"
        row = offered(folder, source, stain, package.contract.planes, share * before, seconds)
        rows.append({"share": share} | row)
        disk = row["camera_to_disk_ms"] or {"p50": float("nan"), "p99": float("nan")}
        print(
            f"{package.contract.id} {source.stem} px: offered {row['offered_fps']:6.2f}/s, stained live "
            f"{row['live_fps']:6.2f}/s, camera to disk p50 {disk['p50']:.0f} ms, p99 {disk['p99']:.0f} ms",
            file=sys.stderr,
        )
    after = alone_fps(package, provider, frames, seconds / 2)
    alone = (before + after) / 2
    most = max(row["live_fps"] for row in rows)
    return {
        "model": package.contract.id,
        "planes": package.contract.planes.count,
        "provider": provider,
        "precision": stain.precision,
        "size_px": frames.shape[1],
        "alone_fps": {"before": round(before, 2), "after": round(after, 2)},
        "knee_fps": max((row["came_fps"] for row in rows if row["all_live"]), default=None),
        "most_live_fps": most,
        "most_live_of_alone": round(most / alone, 3),
        "rows": rows,
    }


def main() -> None:
    """Sweep every model at every size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--models", nargs="+", default=["nuclei-demo"], help="shipped models, packages, untrained-PLANES"
    )
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--precision", default="fp32", help="as in an experiment; made here if a package lacks it")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--seconds", type=float, default=15)
    chosen = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in chosen.sizes:
            for name in chosen.models:
                folder = Path(scratch) / Path(name).name / str(size)
                folder.mkdir(parents=True)
                source = folder / f"{size}.tif"
                render(source, size)
                stain = stain_of(argparse.Namespace(**vars(chosen), model=name), folder)
                found.append(sweep(folder, source, stain, chosen.seconds))
    print(json.dumps({"benchmark": "saturation", "machine": machine(), "sweeps": found}))


if __name__ == "__main__":
    main()
