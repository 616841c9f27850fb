"""A camera far faster than the model: one hardware burst, all frames on disk, memory flat, the rest by backfill.

    python -m benchmarks.burst --frames 500 --interval-ms 2.5

Runs the burst on the simulated microscope and leaves the predictions that the model had no time for; then
`backfill` makes them, and a second model object predicts every frame again: live and later predictions must be the
same to the bit. The last line is one JSON object; memory is the resident set of the whole process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import useq
import zarr

from benchmarks.latency import machine
from livestain._experiment import Experiment, Output, Stain
from livestain._reading import load_rig
from livestain._recover import backfill
from livestain._session import run_experiment
from livestain._shipped import shipped_folder
from livestain._stain import OnnxModel
from livestain_models.package import load_package


class Memory:
    """Samples the resident memory of this process while it is open."""

    def __enter__(self) -> Memory:
        self.samples_mb: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.02):
            self.samples_mb.append(process.memory_info().rss / 2**20)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def summary(self) -> dict[str, float]:
        """Give the start, the peak and the end in MB."""
        return {
            "start_mb": round(self.samples_mb[0], 1),
            "peak_mb": round(max(self.samples_mb), 1),
            "end_mb": round(self.samples_mb[-1], 1),
        }


def burst(frames: int, interval_ms: float, size_px: int, folder: Path, write_buffer_mb: int) -> Experiment:
    """Describe the burst. The sample stands still: rendering living cells would be slower than the camera."""
    rig = load_rig(shipped_folder() / "simulated.yaml")
    properties = [
        ("Scope", "SecondsPerExposure", 0),
        ("Camera", "Width", size_px),
        ("Camera", "Height", size_px),
        ("Camera", "FrameInterval_ms", interval_ms),
    ]
    return Experiment(
        rig=rig.model_copy(update={"properties": properties}),
        sequence=useq.MDASequence.model_validate(
            {"channels": [{"config": "BF", "exposure": 2}], "time_plan": {"interval": 0, "loops": frames}}
        ),
        stains=(Stain(model="nuclei-demo", channel="BF"),),
        output=Output(folder=folder, name="burst", stain_remaining=False, write_buffer_mb=write_buffer_mb),
    )


def measure(frames: int, interval_ms: float, size_px: int, write_buffer_mb: int) -> dict[str, Any]:
    """Run, backfill and compare."""
    with tempfile.TemporaryDirectory() as scratch:
        experiment = burst(frames, interval_ms, size_px, Path(scratch), write_buffer_mb)
        memory = Memory()

        def begin(_: object) -> None:
            memory.__enter__()

        result = run_experiment(experiment, Path(scratch) / "burst", on_ready=begin)
        memory.__exit__()
        live = result.stats
        start = time.perf_counter()
        filled = backfill(result.folder)
        backfill_s = time.perf_counter() - start
        array = zarr.open_array(result.folder / "images.ome.zarr" / "0", mode="r")
        model = OnnxModel(load_package("nuclei-demo"), "cpu")
        again = (model.predict(array[t, :1, 0]).planes[0] for t in range(frames))
        differ = sum(not np.array_equal(array[t, 1, 0], plane) for t, plane in enumerate(again))
        model.close()
    return {
        "frames": frames,
        "interval_ms": interval_ms,
        "size_px": size_px,
        "raw_on_disk": live.frames_acquired,
        "stained_live": live.stained_live,
        "stained_after_backfill": filled.frames_stained,
        "backfill_s": round(backfill_s, 1),
        "predictions_that_differ": differ,
        "memory": memory.summary(),
        "write_buffer_mb": write_buffer_mb,
    }


def main() -> None:
    """Measure one burst, or the same burst at several lengths to see that memory does not grow."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--interval-ms", type=float, default=2.5)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--write-buffer-mb", type=int, default=256)
    chosen = parser.parse_args()
    row = measure(chosen.frames, chosen.interval_ms, chosen.size, chosen.write_buffer_mb)
    print(json.dumps({"benchmark": "burst", "machine": machine(), **row}))


if __name__ == "__main__":
    main()
