"""Kills a run with SIGKILL at random moments, many times, and checks what is left.

    python -m benchmarks.kill --times 50

After each kill: the store opens and validates (yaozarrs), every journalled raw frame is bit-exact against what the
camera shows without a kill, `livestain recover` and `livestain backfill` end with a complete run, and every
prediction equals its frame's. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
import yaozarrs

from livestain._errors import StoreError
from livestain._reading import load_experiment
from livestain._recover import backfill, damaged_planes, recover
from livestain._rig import open_core

if TYPE_CHECKING:
    from livestain._latency import RunStats

SHAPE = (96, 128)
_FRAMES = 400  # more than any run reaches before it is killed


def experiment_text(folder: Path, model: Path, loops: int) -> str:
    """Describe the run that is killed: a burst on the simulated microscope, faster than the model."""
    data = {
        "rig": {
            "config": "simulated.cfg",
            "properties": [["Camera", "Width", SHAPE[1]], ["Camera", "Height", SHAPE[0]]],
        },
        "sequence": {"channels": [{"config": "BF", "exposure": 2}], "time_plan": {"interval": 0, "loops": loops}},
        "stains": [{"model": str(model), "channel": "BF"}],
        "output": {"folder": str(folder.parent), "name": folder.name},
    }
    return yaml.safe_dump(data)


def start_run(folder: Path, model: Path, loops: int = _FRAMES) -> subprocess.Popen[str]:
    """Start `livestain run` in a process of its own and wait until the run folder has its journal."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(experiment_text(folder, model, loops))
    command = [sys.executable, "-m", "livestain", "run", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    journal = folder / "frames.jsonl"
    while not (journal.exists() and journal.stat().st_size):
        if process.poll() is not None:
            raise RuntimeError(f"the run did not start: {process.communicate()[0]}")
        time.sleep(0.005)
    return process


@cache
def reference_frames(n: int = _FRAMES) -> tuple[bytes, ...]:
    """Give what the simulated camera shows, exposure by exposure, when nobody kills anything."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "experiment.yaml"
        path.write_text(experiment_text(Path(scratch) / "x", Path(scratch), 1))
        core = open_core(load_experiment(path).rig)
    core.setConfig("Channel", "BF")
    core.setExposure(2)
    frames = []
    for _ in range(n):
        core.snapImage()
        frames.append(core.getImage().tobytes())
    core.unloadAllDevices()
    return tuple(frames)


def check_killed_run(folder: Path, reference: tuple[bytes, ...], *, was_killed: bool = True) -> RunStats:
    """Assert that nothing journalled is lost, recover, backfill, and assert that the run is complete."""
    journal = (folder / "frames.jsonl").read_bytes().splitlines(keepends=True)
    lines = [json.loads(line) for line in journal if line.endswith(b"\n")]
    acknowledged = {tuple(line["at"]) for line in lines if line["kind"] == "raw"}

    images = folder / "images.ome.zarr"
    yaozarrs.validate_zarr_store(str(images))  # before anything is mended
    assert not damaged_planes(folder)
    _compare(images, acknowledged, reference)

    if was_killed:
        done = recover(folder)
        assert not done.damaged
        assert done.frames >= len(acknowledged)
        assert recover(folder).torn_bytes == 0
    stats = backfill(folder)
    assert stats.frames_stained == stats.frames_acquired >= len(acknowledged)
    assert stats.frames_pending == 0
    yaozarrs.validate_zarr_store(str(images))
    assert not damaged_planes(folder)
    array = _open(images)
    np.testing.assert_array_equal(array[:, 1], array[:, 0])  # the model is the identity
    return stats


def _open(images: Path) -> np.ndarray:
    import zarr

    return np.asarray(zarr.open_array(images / "0", mode="r")[:])


def _compare(images: Path, acknowledged: set[tuple[int, ...]], reference: tuple[bytes, ...]) -> None:
    import zarr

    array = zarr.open_array(images / "0", mode="r")
    for _, t, c, z in acknowledged:
        if t < len(reference):
            assert np.asarray(array[t, c, z]).tobytes() == reference[t], f"frame {t} is not as it was exposed"


def main() -> None:
    """Kill many runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    from tests.model_builders import package

    frames: list[int] = []
    with tempfile.TemporaryDirectory() as scratch:
        model = package(Path(scratch) / "model", pixel_size_um=0.325)
        for number in range(arguments.times):
            folder = Path(scratch) / f"run-{number}"
            process = start_run(folder, model.folder)
            time.sleep(chance.uniform(0, 1.5))
            process.kill()
            process.communicate()
            try:
                stats = check_killed_run(folder, reference_frames())
            except StoreError as error:
                raise SystemExit(f"run {number}: {error}") from error
            frames.append(stats.frames_acquired)
            print(f"kill {number}: {stats.frames_acquired} frames, all whole", file=sys.stderr)
    print(
        json.dumps(
            {
                "benchmark": "kill",
                "kills": arguments.times,
                "seed": arguments.seed,
                "frames_on_disk": {"min": min(frames), "max": max(frames), "total": sum(frames)},
                "lost": 0,
            }
        )
    )


if __name__ == "__main__":
    main()
