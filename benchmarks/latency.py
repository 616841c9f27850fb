"""Latency at the four boundaries against frame rate and frame size, with the shipped model.

    python -m benchmarks.latency                      # 2, 5, 10, 20 frames/s at 512, 1024, 2048 px
    python -m benchmarks.latency --fps 5 --sizes 512 --seconds 60

Frames are rendered once by the simulated microscope and then played by the replay camera, so that the camera costs
next to nothing. A frame that finds the model busy is stained later from disk: `live` counts those stained as they
came, and the latencies are theirs. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import useq

from livestain._experiment import Experiment, Output, Rig, Stain
from livestain._latency import BOUNDARIES
from livestain._provenance import software_versions
from livestain._reading import load_rig
from livestain._rig import open_core
from livestain._session import run_experiment
from livestain._shipped import shipped_folder

_FRAMES = 6  # different frames, played in a loop


def render(path: Path, size_px: int) -> None:
    """Write a few simulated bright-field frames as a TIFF stack."""
    rig = load_rig(shipped_folder() / "simulated.yaml")
    properties = [("Camera", "Width", size_px), ("Camera", "Height", size_px)]
    core = open_core(rig.model_copy(update={"properties": properties}))
    core.setConfig("Channel", "BF")
    frames = []
    for _ in range(_FRAMES):
        core.snapImage()
        frames.append(core.getImage())
    core.unloadAllDevices()
    tifffile.imwrite(path, np.stack(frames), photometric="minisblack")


def replay(source: Path, *properties: tuple[str, str, float]) -> Rig:
    """Describe the rig that plays a recording over and over; `properties` of its devices come on top."""
    played = [("Camera", "Source", str(source)), ("Camera", "Loop", 1), *properties]
    return Rig(config=shipped_folder() / "replay.cfg", properties=played, pixel_size_um=0.325)


def measure(scratch: Path, source: Path, fps: float, seconds: float, *, sync: bool, stain: Stain) -> dict[str, Any]:
    """Run one experiment and give its row of the table."""
    name = f"{source.stem}-{fps:g}"
    experiment = Experiment(
        rig=replay(source),
        sequence=useq.MDASequence.model_validate(
            {
                "channels": [{"config": "BF", "exposure": 1}],
                "time_plan": {"interval": 1 / fps, "loops": max(2, round(fps * seconds))},
            }
        ),
        stains=(stain,),
        output=Output(folder=scratch, name=name, sync=sync),
    )
    stats = run_experiment(experiment, scratch / name).stats
    row: dict[str, Any] = {
        "size_px": int(source.stem),
        "offered_fps": fps,
        "frames": stats.frames_acquired,
        "missing": stats.frames_missing,
        "stained": stats.frames_stained,
        "live": stats.stained_live,
    }
    for boundary in BOUNDARIES:
        found = stats.latency[boundary]
        row[boundary] = {"p50": found.p50, "p99": found.p99, "max": found.max} if found.n else None
    return row


def stain_of(chosen: argparse.Namespace, scratch: Path) -> Stain:
    """Say which model is run, where and in which precision; what is not there is made first.

    "untrained-13" is the default network for 13 planes, with random weights.
    """
    model, untrained = str(chosen.model), re.fullmatch(r"untrained-(\d+)", chosen.model)
    if untrained or chosen.precision != "fp32":
        from benchmarks import packages  # needs the extra `train`

        if untrained:
            model = str(packages.untrained(scratch / "untrained", int(untrained[1])).folder)
        if chosen.precision != "fp32":
            model = str(packages.with_precisions(model, scratch / "package", chosen.precision).folder)
    return Stain(model=model, channel="BF", provider=chosen.provider, precision=chosen.precision)


def machine() -> dict[str, Any]:
    """Say what was measured on."""
    return {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "software": software_versions(),
    }


def main() -> None:
    """Measure every size at every rate."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fps", type=float, nargs="+", default=[2, 5, 10, 20])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--model", default="nuclei-demo")
    parser.add_argument("--provider", default="auto", help="as in an experiment")
    parser.add_argument("--precision", default="fp32", help="as in an experiment; made here if the package lacks it")
    parser.add_argument("--no-sync", action="store_true", help="do not wait for the drive (output.sync: false)")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if not given")
    chosen = parser.parse_args()
    rows = []
    how = {"model": chosen.model, "provider": chosen.provider, "precision": chosen.precision}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as scratch:
        stain = stain_of(chosen, Path(scratch))
        for size in chosen.sizes:
            source = Path(scratch) / f"{size}.tif"
            render(source, size)
            for fps in chosen.fps:
                row = measure(Path(scratch), source, fps, chosen.seconds, sync=not chosen.no_sync, stain=stain)
                rows.append(row)
                disk = row["camera_to_disk_ms"] or {"p50": float("nan"), "p99": float("nan")}
                print(
                    f"{size:5d} px {fps:5.1f}/s: {row['live']}/{row['frames']} live, camera to disk "
                    f"p50 {disk['p50']:.0f} ms, p99 {disk['p99']:.0f} ms",
                    file=sys.stderr,
                )
    print(json.dumps({"benchmark": "latency", "sync": not chosen.no_sync, **how, "machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
