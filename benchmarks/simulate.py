"""How many frames a second the simulated microscope makes: bright field, about 60 cells in the field.

    python -m benchmarks.simulate

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from benchmarks.latency import machine
from livestain._reading import load_rig
from livestain._rig import close_core, open_core
from livestain._shipped import shipped_folder


def frames_per_second(size_px: int, seconds_per_exposure: float, seconds: float) -> float:
    """Snap for a while through the core, with an exposure too short to matter, and count."""
    rig = load_rig(shipped_folder() / "simulated.yaml")
    properties = [
        ("Camera", "Width", size_px),
        ("Camera", "Height", size_px),
        ("Scope", "SecondsPerExposure", seconds_per_exposure),
    ]
    core = open_core(rig.model_copy(update={"properties": properties}))
    core.setConfig("Channel", "BF")
    core.setExposure(0.1)
    core.snapImage()  # the first one draws the sample and plans the transforms
    start, frames = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        core.snapImage()
        frames += 1
    elapsed_s = time.perf_counter() - start
    close_core(core)
    return frames / elapsed_s


def main() -> None:
    """Measure three sizes, with a new scene every second frame (the default) and every frame."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5)
    chosen = parser.parse_args()
    rows = []
    for size in (512, 1024, 2048):
        for seconds_per_exposure, what in ((30, "a new scene every second frame"), (60, "a new scene every frame")):
            rate = frames_per_second(size, seconds_per_exposure, chosen.seconds)
            rows.append({"size_px": size, "scene": what, "frames_per_s": round(rate, 1)})
            print(f"{size} px, {what}: {rate:.1f} frames/s", file=sys.stderr)
    print(json.dumps({"benchmark": "simulate", "machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
