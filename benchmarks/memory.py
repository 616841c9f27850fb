"""Memory of a run over time: resident megabytes of the whole process, sampled while frames are stained and written.

    python -m benchmarks.memory                        # 512 px, 20 frames/s, four minutes
    python -m benchmarks.memory --fps 80 --seconds 60  # faster than the model: what is owed waits on disk

`slope_mb_per_h` is Theil and Sen's of the second half, with its 95 % interval, so that what a run loads as it begins
does not count; `mb_per_1000_frames` is the same by frame. The last line is one JSON object. The memory of a week of
measured cells is in `benchmarks.week`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import useq
from scipy.stats import theilslopes

from benchmarks.latency import machine, render, replay
from livestain._experiment import Experiment, Output, Stain
from livestain._session import run_experiment

MIB = 1 << 20
EVERY_S = 0.5


class Sampler:
    """Notes the process' resident memory twice a second, in a thread of its own."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._process, self._ended = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.samples.append((time.monotonic(), self._process.memory_info().rss / MIB))


def main() -> None:
    """Run once and say what the memory did."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fps", type=float, default=20)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--model", default="nuclei-demo")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / f"{chosen.size}.tif"
        render(source, chosen.size)
        experiment = Experiment(
            rig=replay(source),
            sequence=useq.MDASequence.model_validate(
                {
                    "channels": [{"config": "BF", "exposure": 1}],
                    "time_plan": {"interval": 1 / chosen.fps, "loops": round(chosen.fps * chosen.seconds)},
                }
            ),
            stains=(Stain(model=chosen.model, channel="BF"),),
            output=Output(folder=Path(scratch), name="run", stain_remaining=False),
        )
        with Sampler() as sampler:
            stats = run_experiment(experiment, Path(scratch) / "run").stats
    seconds, rss_mb = np.array(sampler.samples).T
    seconds -= seconds[0]
    late = slice(len(seconds) // 2, None)
    slope, _, low, high = (float(value) for value in theilslopes(rss_mb[late], seconds[late]))
    found = {
        "benchmark": "memory",
        "machine": machine(),
        **vars(chosen),
        "frames": stats.frames_acquired,
        "stained_live": stats.stained_live,
        "rss_mb": [round(float(part.mean()), 1) for part in np.array_split(rss_mb, 10)],
        "slope_mb_per_h": [round(3600 * value, 1) for value in (slope, low, high)],
        "mb_per_1000_frames": round(1000 * slope * chosen.seconds / stats.frames_acquired, 3),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
