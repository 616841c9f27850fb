"""What it costs to put planes on a drive so that they outlive a loss of power, by size and by way.

    python -m benchmarks.disk                       # in the folder for temporary files
    python -m benchmarks.disk --folder D:/runs      # on the drive that runs will be written to

Raw frame and prediction are committed together, as a run does that is behind: through the page cache by tensorstore,
and past it (planes of 2 MiB and more go that way on Linux). Both in turns; processor time is of this process. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorstore as ts
import tifffile

from benchmarks.latency import machine, render
from livestain._direct import DirectPlanes, can_write_directly
from livestain._time_array import TimeArray, sharded

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from livestain._images import Write

_N_T = 1000


def timed(begin: Callable[[int, int, NDArray[np.uint16]], Write], frames: NDArray[np.uint16], n: int) -> dict[str, Any]:
    """Commit `n` pairs of planes; give milliseconds of clock and of processor for each."""
    took_ms = []
    for t in range(n + 3):
        if t == 3:  # folders, threads and buffers are there now
            before = os.times()
        started_s = time.perf_counter()
        for write in [begin(t, c, frames[(t + c) % len(frames)]) for c in range(2)]:
            write.result()
        took_ms.append(1e3 * (time.perf_counter() - started_s))
    after = os.times()
    p50, p99 = (round(float(value), 2) for value in np.percentile(took_ms[3:], (50, 99)))
    user_ms, system_ms = (
        round(1e3 * (new - old) / n, 2) for new, old in ((after.user, before.user), (after.system, before.system))
    )
    return {"p50_ms": p50, "p99_ms": p99, "user_ms": user_ms, "system_ms": system_ms}


def measure(folder: Path, size: int, n: int, way: str) -> dict[str, Any]:
    """Commit pairs of planes of one size in one way."""
    render(folder / "frames.tif", size)
    frames = np.atleast_3d(tifffile.imread(folder / "frames.tif"))
    metadata = sharded("uint16", ("t", "c", "z", "y", "x"), (2, 1, size, size), n_t=None, compressor=("lz4", 5))
    array = TimeArray(folder.resolve() / "array", metadata, ts.Context({"file_io_sync": True}), create=True)
    array.resize_t(_N_T)
    if way == "tensorstore":
        return timed(lambda t, c, plane: array[t, c, 0].write(plane), frames, n)
    direct = DirectPlanes(array.metadata)
    chunks = folder.resolve() / "array" / "c"
    try:
        return timed(lambda t, c, plane: direct.write(chunks / f"{t}/{c}/0/0/0", plane), frames, n)
    finally:
        direct.close()


def main() -> None:
    """Measure every size, both ways in turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="on the drive to measure")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=chosen.folder) as scratch:
        ways = ["tensorstore", *(["direct"] if can_write_directly(Path(scratch)) else [])]
        for size in chosen.sizes:
            for number in range(chosen.rounds):
                for way in ways:
                    folder = Path(scratch) / f"{size}-{number}-{way}"
                    folder.mkdir()
                    row = {"size_px": size, "way": way} | measure(folder, size, chosen.pairs, way)
                    rows.append(row)
                    print(row)
    print(json.dumps({"benchmark": "disk", "machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
