"""A week of one position, a time point a minute, 200 cells: memory and time from first to last.

    python -m benchmarks.week --time-points 10080

Cells as segmentation would find them, faults included (no images, so that a week passes in minutes), go through the
tracker, the states and the tables of a real measurement, which saves its state as a run does. The last line is one JSON
object; `rss_mb` are the resident megabytes at tenths of the way.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from benchmarks.latency import machine
from benchmarks.moving_cells import field_um, watch
from livestain.measure.features import Features
from livestain.measure.position import Position
from livestain.measure.summary import SummaryTable, summarised
from livestain.measure.table import CellTable, read_cells
from livestain.measure.viability_model import ViabilitySettings

if TYPE_CHECKING:
    from livestain.measure.position import Followed
    from livestain.measure.track import Detections

INTERVAL_S = 60.0
MIB = 1 << 20


def measured(found: Detections) -> Features:
    """Make of detections what segmentation, phase and class head would have given."""
    n, nan = len(found), np.full(len(found), np.nan)
    alive = np.where(np.isfinite(found.alive), found.alive, 1.0)
    numbers = {
        "y_um": found.y_um, "x_um": found.x_um, "area_um2": found.area_um2, "nucleus_area_um2": 0.25 * found.area_um2,
        "dry_mass_pg": found.mass_pg, "dry_mass_sd_pg": 0.03 * found.mass_pg, "relative_dry_mass": nan,
        "relative_dry_mass_sd": nan, "nucleus_projected_dry_mass_pg": 0.2 * found.mass_pg,
        "cytoplasm_projected_dry_mass_pg": 0.8 * found.mass_pg, "live": alive, "injured": 0 * alive, "dead": 1 - alive,
    }  # fmt: skip
    return Features(found.t, INTERVAL_S * found.t, numbers, found.at_border, ("",) * n, "given")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-points", type=int, default=10_080)
    parser.add_argument("--cells", type=int, default=200)
    args = parser.parse_args()
    folder, process, edge_um = Path(tempfile.mkdtemp()), psutil.Process(), field_um(args.cells)
    position = Position(edge_um, edge_um, 0.325, None, None, ViabilitySettings(INTERVAL_S))
    rss_mb, state_kb, counts, spent_s = [], [], [], 0.0

    def write(done: Followed) -> None:
        for t, time_s, columns, reason in done.rows:
            n = len(columns["cell"])
            constants = {"position": ["control"] * n, "image": np.zeros(n, np.int32), "wavelength_um": np.full(n, 0.55)}
            rows = columns | constants | {"alpha_ml_per_g": np.full(n, 0.18)}
            cells.append(rows)
            summary.append(summarised(rows, position="control", image=0, t=t, time_s=time_s, reason=reason))

    with CellTable(folder) as cells, SummaryTable(folder) as summary:
        for true, found in watch(1, args.time_points, INTERVAL_S / 60, args.cells):
            start = time.process_time()
            write(position.follow(measured(found)))
            if true.t % 100 == 0:
                state_kb.append(len(json.dumps(position.state())) / 1024)
            spent_s += time.process_time() - start
            counts.append(len(found))
            if true.t % (args.time_points // 10) == 0:
                rss_mb.append(round(process.memory_info().rss / MIB, 1))
        write(position.finish())
        cells.compact()
    result = {
        "benchmark": "week",
        "machine": machine(),
        "time_points": args.time_points,
        "cells": [int(np.min(counts)), round(float(np.mean(counts))), int(np.max(counts))],
        "rows": len(read_cells(folder)),
        "ms_a_time_point": round(1000 * spent_s / args.time_points, 2),
        "state_kb": [round(state_kb[0]), round(max(state_kb)), round(state_kb[-1])],
        "rss_mb": rss_mb,
        "cells_parquet_mb": round((folder / "cells.parquet").stat().st_size / MIB, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
