"""livestain beside what one would write without it, at the same offered load and with the same network, in one run.

    python -m benchmarks.side_by_side --fps 5 10 15 --seconds 20
    python -m benchmarks.side_by_side --burst-ms 20 2 --burst-frames 1500

Each arm is a process of its own that acquires the same sequence from the replay camera:

livestain
    the whole way: every plane synced, journalled, the prediction beside it.
callback, torch
    a `frameReady` callback that runs the network in eager torch and appends frame and prediction to Zarr arrays.
callback, onnxruntime
    the same with the exported graph in an onnxruntime session as it is made without options.
output and callback
    `mda.run(output=...)` writes the frames, a callback runs onnxruntime and appends the predictions.
afterwards
    `mda.run(output=...)` writes the frames; when all are there, the network runs over them, as tools for volumes do.

Latency is from when a frame was due, by the beat of the frame that was least late, to when its prediction was written:
a callback holds up the acquisition, and its frames come late. Only livestain waits for the drive. With --burst-ms the
camera runs on its own clock, and what counts is how many frames arrive. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import useq
import zarr

from benchmarks.latency import machine, render, replay, stain_of
from livestain._experiment import Experiment, Output, Stain
from livestain._journal import JOURNAL_NAME, read_lines
from livestain._rig import open_core
from livestain._session import run_experiment
from livestain_models.package import load_package
from livestain_models.runtime import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pymmcore_plus import CMMCorePlus

    from livestain._experiment import Rig

    Predict = Callable[[NDArray[np.uint16]], NDArray[np.uint16]]


class Times:
    """When frames arrived and when their predictions were written, in seconds."""

    def __init__(self, interval_s: float) -> None:
        self.arrived_s: list[float] = []
        self.written_s: list[float] = []
        self._interval_s = interval_s

    def told(self, asked: int) -> dict[str, Any]:
        """Give latency percentiles after the first tenth, and the counts."""
        beats_s = self._interval_s * np.arange(len(self.arrived_s))
        # The frame that was least late tells when the first was due: the first itself may have come late.
        due_s = np.min(np.array(self.arrived_s) - beats_s) + beats_s
        late_ms = 1e3 * (np.array(self.written_s) - due_s[: len(self.written_s)])[len(self.written_s) // 10 :]
        p50, p99 = (round(float(value), 1) for value in np.percentile(late_ms, (50, 99)))
        return {
            "asked": asked,
            "arrived": len(self.arrived_s),
            "stained": len(self.written_s),
            "due_to_written_ms": {"p50": p50, "p99": p99, "max": round(float(late_ms.max()), 1)},
        }


def rig_of(source: Path, burst_ms: float) -> Rig:
    """Describe the replay camera, with a clock of its own for bursts."""
    return replay(source, *([("Camera", "FrameInterval_ms", burst_ms)] if burst_ms else []))


def in_onnxruntime(model: str) -> Predict:
    """Open the graph as the first page of onnxruntime's documentation does."""
    session = import_onnxruntime().InferenceSession(load_package(model).weights, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda frame: session.run(None, {name: frame[None, None]})[0][0]


def in_torch(model: str) -> Predict:
    """Build a shipped model's network in torch; its time does not depend on its weights, which are random here."""
    import torch

    import livestain_models
    from livestain_models.deployed import Deployed, build_network
    from livestain_models.heads import heads_of
    from livestain_models.normalise import local_contrast
    from livestain_models.recipe import load_recipe
    from livestain_models.train_zoo import PACKAGES

    recipe = load_recipe(Path(livestain_models.__file__).parent / "recipes" / f"{PACKAGES[model][0]}.yaml")
    heads = heads_of(recipe)
    network = build_network(recipe.network, recipe.data.planes.count, heads.channels)
    deployed = Deployed(network, local_contrast(recipe.network, 10.0), heads).eval()

    def predict(frame: NDArray[np.uint16]) -> NDArray[np.uint16]:
        with torch.no_grad():
            return deployed(torch.from_numpy(frame)[None, None]).numpy()[0]

    return predict


def appended(folder: Path, name: str) -> Callable[[NDArray[Any]], None]:
    """Give a function that appends an image to a Zarr array, one chunk each."""
    array: list[zarr.Array[Any]] = []

    def append(image: NDArray[Any]) -> None:
        if not array:
            shape = image.shape
            array.append(
                zarr.create_array(folder / name, shape=(0, *shape), chunks=(1, *shape), dtype=image.dtype)  # type: ignore[arg-type]
            )
        array[0].append(image[None])

    return append


def by_callback(
    core: CMMCorePlus, sequence: useq.MDASequence, folder: Path, predict: Predict, times: Times, *, output: bool
) -> None:
    """Acquire; predict and write in a callback."""
    raw, stain = appended(folder, "raw.zarr"), appended(folder, "stain.zarr")
    predict(core.snap())  # planned and warm, as livestain is before its first frame

    def on_frame(image: NDArray[np.uint16], _: useq.MDAEvent) -> None:
        times.arrived_s.append(time.perf_counter())
        if not output:
            raw(image)
        stain(predict(image))
        times.written_s.append(time.perf_counter())

    core.mda.events.frameReady.connect(on_frame)
    core.mda.run(sequence, output=folder / "raw.ome.zarr") if output else core.mda.run(sequence)


def afterwards(core: CMMCorePlus, sequence: useq.MDASequence, folder: Path, predict: Predict, times: Times) -> None:
    """Acquire all; then predict all."""
    predict(core.snap())
    core.mda.events.frameReady.connect(lambda *_: times.arrived_s.append(time.perf_counter()))
    core.mda.run(sequence, output=folder / "raw.ome.zarr")
    stain = appended(folder, "stain.zarr")
    arrays = sorted((folder / "raw.ome.zarr").rglob("zarr.json"), key=lambda file: len(file.parts))
    first = next(file.parent for file in arrays if json.loads(file.read_text())["node_type"] == "array")
    images = zarr.open_array(first, mode="r")
    for t in range(images.shape[0]):
        stain(predict(np.asarray(images[t]).reshape(images.shape[-2:])))
        times.written_s.append(time.perf_counter())


def livestain(source: Path, folder: Path, sequence: useq.MDASequence, chosen: argparse.Namespace, times: Times) -> None:
    """Run the whole way."""
    experiment = Experiment(
        rig=rig_of(source, chosen.burst),
        sequence=sequence,
        stains=(Stain.model_validate_json(chosen.stain),),
        output=Output(folder=folder, name="run"),
    )
    run_experiment(experiment, folder / "run")
    arrived: dict[int, float] = {}
    written: dict[int, float] = {}
    for line in read_lines(folder / "run" / JOURNAL_NAME):
        if line["kind"] == "raw":
            arrived[line["at"][1]] = datetime.fromisoformat(line["time"]).timestamp()
        elif line["kind"] == "stain" and line["status"] == "stained":
            t = line["at"][0][1]
            written[t] = arrived[t] + line["camera_to_disk_ms"] / 1e3 if line["live"] else float("inf")
    times.arrived_s = [arrived[t] for t in sorted(arrived)]
    times.written_s = [written[t] for t in sorted(written)]
    if chosen.burst:  # most of a burst is stained later: when, is not the question there
        times.written_s = [s if np.isfinite(s) else times.arrived_s[-1] for s in times.written_s]


def one(arm: str, source: Path, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run one arm in this process."""
    interval_s = chosen.burst / 1e3 or 1 / chosen.offered
    loops = chosen.burst_frames if chosen.burst else round(chosen.offered * chosen.seconds)
    plan = {"interval": 0 if chosen.burst else interval_s, "loops": loops}
    sequence = useq.MDASequence.model_validate({"channels": [{"config": "BF", "exposure": 1}], "time_plan": plan})
    times = Times(interval_s)
    if arm == "livestain":
        livestain(source, folder, sequence, chosen, times)
        return times.told(loops)
    core = open_core(rig_of(source, chosen.burst))
    core.setConfig("Channel", "BF")
    predict = (in_torch if arm == "callback, torch" else in_onnxruntime)(chosen.model)
    if arm == "afterwards":
        afterwards(core, sequence, folder, predict, times)
    else:
        by_callback(core, sequence, folder, predict, times, output=arm == "output and callback")
    core.unloadAllDevices()
    return times.told(loops)


ARMS = ("livestain", "callback, torch", "callback, onnxruntime", "output and callback", "afterwards")


def main() -> None:
    """Run every arm at every load, in turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fps", type=float, nargs="*", default=[5, 10, 15])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--burst-ms", type=float, nargs="*", default=[], help="frame intervals of hardware bursts")
    parser.add_argument("--burst-frames", type=int, default=1500)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--model", default="nuclei-demo")
    parser.add_argument("--provider", default="auto", help="of livestain, as in an experiment")
    parser.add_argument("--precision", default="fp32", help="of livestain; made here if the package lacks it")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    for hidden in ("--arm", "--source", "--folder", "--stain"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    for hidden in ("--offered", "--burst"):
        parser.add_argument(hidden, type=float, default=0.0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.arm:
        print(json.dumps(one(chosen.arm, Path(chosen.source), Path(chosen.folder), chosen)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        stain = stain_of(chosen, Path(scratch)).model_dump_json()
        source = Path(scratch) / f"{chosen.size}.tif"
        render(source, chosen.size)
        loads = [("offered", fps) for fps in chosen.fps] + [("burst", ms) for ms in chosen.burst_ms]
        for number, (kind, load) in enumerate(loads):
            for arm in chosen.arms:
                folder = Path(scratch) / f"{number}-{arm.replace(', ', '-').replace(' ', '-')}"
                folder.mkdir()
                command = [sys.executable, "-m", "benchmarks.side_by_side", *sys.argv[1:], "--arm", arm]
                command += [f"--{kind}", str(load), "--source", str(source), "--folder", str(folder), "--stain", stain]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                lines = done.stdout.splitlines()
                said = {"died": done.stderr.splitlines()[-1:]} if done.returncode else json.loads(lines[-1])
                rows.append({"arm": arm, kind: load} | said)
                print(f"{kind} {load:g}, {arm}: {said}", file=sys.stderr)
    print(json.dumps({"benchmark": "side by side", "machine": machine(), **vars(chosen), "rows": rows}))


if __name__ == "__main__":
    main()
