"""Every cell's mass, growth, viability and death against the truth of the simulated microscope, through the whole way.

    python -m benchmarks.cells --phase steps --time-points 60
    python -m benchmarks.cells --phase defocus --planes 2 --time-points 20

Runs an experiment as a person would (engine, camera, model, disk, measurement), lets the same sample live again for its
truth, and compares: masks, tracks and classes are those of the model, nothing is given. The tracks are scored where
traccuracy is installed (`pip install traccuracy`). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.latency import machine
from benchmarks.moving_cells import VISIBLE
from benchmarks.tracking import graph_of, scores
from livestain._demo import demo_experiment
from livestain._experiment import Measure
from livestain._session import run_experiment
from livestain.measure._rows import read_rows
from livestain.measure.growth import growth_rates, population_growth
from livestain.measure.table import read_cells
from livestain.simulate import Microscope, Settings, Truth
from livestain.simulate._settings import changed

if TYPE_CHECKING:
    from livestain._experiment import Experiment

PLANES_UM = {2: [-4, 0], 3: [-4, -2, 0]}  # of the stage; phase is in focus at -2


def described(args: argparse.Namespace, out: Path) -> Experiment:
    """Take the demo's experiment, with another sample or another way to phase."""
    made = demo_experiment(out, seconds=args.time_points, fps=1, size_px=args.size, seed=args.seed)
    interval_s = 60 * args.interval_min
    sample = {
        "CellsPerMm2": args.density,
        "DeathRate_per_h": args.death_rate,
        "SecondsPerExposure": interval_s / len(made.sequence.channels),
        "SceneStep_s": interval_s,
    }
    assert made.measure is not None
    measure, sequence = (
        made.measure.model_copy(update={"interval_s": interval_s}),
        made.sequence.replace(time_plan={"interval": 0, "loops": args.time_points}),
    )
    if args.phase == "defocus":
        planes_um = PLANES_UM[args.planes]
        sample["SecondsPerExposure"] = interval_s / len(planes_um)
        sequence = sequence.replace(channels=[{"config": "BF", "exposure": 10}], z_plan={"relative": planes_um})
        measure = Measure.model_validate({"interval_s": interval_s, "phase": {"method": "defocus", "channel": "BF"}})
    optics = made.rig.optics
    assert optics is not None
    rig = made.rig.model_copy(
        update={
            "properties": [p for p in made.rig.properties if p[1] not in sample]
            + [("Scope", name, value) for name, value in sample.items()],
            # Two planes cannot tell where focus is, three can.
            "optics": optics.model_copy(update={"focus_offset_um": -2.0 if args.planes == 2 else None}),
        }
    )
    return made.model_copy(update={"rig": rig, "sequence": sequence, "measure": measure})


def truths(experiment: Experiment) -> dict[int, Truth]:
    """Let the sample live again; give what was there at each time point."""
    settings = Settings()
    for device, name, value in experiment.rig.properties:
        if device == "Scope":
            settings = changed(settings, name, value)
    width, height = ({n: v for _, n, v in experiment.rig.properties}[side] for side in ("Width", "Height"))
    microscope = Microscope(settings)
    microscope.set_sensor(int(height), int(width))
    found: dict[int, Truth] = {}
    for event in experiment.sequence:
        microscope.let_pass()
        if event.index["t"] not in found:
            found[event.index["t"]] = microscope.truth()
    return found


def true_table(found: dict[int, Truth], interval_s: float) -> dict[str, Any]:
    """Write the truth as a cell table, for the same estimators."""
    rows: dict[str, list[Any]] = {name: [] for name in ("t", "cell", "parent", "dry_mass_pg", "state", "at_border")}
    for t, truth in found.items():
        edge = border_of(truth)
        for cell in truth.cells:
            rows["t"].append(t)
            rows["cell"].append(int(cell["id"]))
            rows["parent"].append(int(cell["parent"]))
            rows["dry_mass_pg"].append(float(cell["dry_mass_pg"]))
            rows["state"].append({"alive": "live"}.get(str(cell["state"]), str(cell["state"])))
            rows["at_border"].append(int(cell["id"]) in edge)
    n = len(rows["t"])
    table = {name: np.array(values) for name, values in rows.items()}
    more = {"position": np.array([""] * n), "time_s": interval_s * table["t"]}
    return table | more | {"dry_mass_sd_pg": 0.01 * table["dry_mass_pg"]}


def border_of(truth: Truth) -> set[int]:
    labels = truth.cell_labels
    return set(np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])).tolist())


def matched(cells: Any, found: dict[int, Truth], pixel_size_um: float) -> Any:
    """Give each measured cell the true one that its centre lies in, where no other has it; -1 without."""
    true_id = np.full(len(cells), -1)
    for t, truth in found.items():
        at = np.flatnonzero((cells["t"] == t) & ~cells["gap"])
        height, width = truth.cell_labels.shape
        y = np.clip(np.round(cells["y_um"].to_numpy()[at] / pixel_size_um).astype(int), 0, height - 1)
        x = np.clip(np.round(cells["x_um"].to_numpy()[at] / pixel_size_um).astype(int), 0, width - 1)
        ids = truth.cell_labels[y, x].astype(int)
        alone = np.isin(ids, [i for i, n in zip(*np.unique(ids, return_counts=True), strict=True) if i and n == 1])
        true_id[at[alone]] = ids[alone]
    return true_id


def masses(cells: Any, found: dict[int, Truth]) -> dict[str, float]:
    """Compare whole cells' masses; cells cut by the border are left out."""
    ratio, z = [], []
    for t, truth in found.items():
        edge, true_pg = border_of(truth), {int(c["id"]): float(c["dry_mass_pg"]) for c in truth.cells}
        here = cells[(cells["t"] == t) & (cells["true"] > 0) & ~cells["at_border"] & np.isfinite(cells["dry_mass_pg"])]
        for row in here.itertuples():
            if row.true not in edge:
                ratio.append(row.dry_mass_pg / true_pg[row.true])
                z.append((row.dry_mass_pg - true_pg[row.true]) / row.dry_mass_sd_pg)
    r, zs = np.array(ratio), np.array(z)
    return {
        "cells": len(r),
        "bias": float(np.median(r) - 1),
        "mean_bias": float(r.mean() - 1),
        "median_error": float(np.median(abs(r - 1))),
        "error_90_percent": float(np.quantile(abs(r - 1), 0.9)),
        "within_1_sd": float((abs(zs) < 1).mean()),
        "within_2_sd": float((abs(zs) < 2).mean()),
    }


def growth(table: Any, truth: dict[str, Any], cells: Any) -> dict[str, Any]:
    """Compare growth rates of cells, and the population's doubling times, by the same estimators on the truth."""
    true_rates = {rate.cell: rate.rate_per_h for rate in growth_rates(truth)}
    pairs = []
    for rate in growth_rates(table):
        ids = cells["true"][(cells["cell"] == rate.cell) & (cells["true"] > 0)]
        if len(ids) and np.isfinite(rate.rate_per_h):
            pairs.append((rate.rate_per_h, true_rates.get(int(ids.mode()[0]), np.nan)))
    both = np.array(pairs)[np.isfinite(np.array(pairs)).all(axis=1)]
    doubling = {
        f"doubling_h_by_{found.basis}": [found.doubling_h, true.doubling_h]
        for found, true in zip(population_growth(table), population_growth(truth), strict=True)
    }
    return {
        "cells": len(both),
        "median_rate_per_h": [float(np.median(both[:, 0])), float(np.median(both[:, 1]))],
        "median_relative_error": float(np.median(abs(both[:, 0] / both[:, 1] - 1))),
        **doubling,
    }


def viability(summary: Any, cells: Any, found: dict[int, Truth], interval_s: float) -> dict[str, Any]:
    """Compare the share of cells that are not dead, and when cells died."""
    true = np.array([np.mean(found[t].cells["state"] != "dead") for t in summary["t"]])
    error = np.abs(summary["viability"].to_numpy() - true)
    last = max(found)
    died = {birth.id: birth.died_s for birth in found[last].lineage if birth.died_s > 0}
    frames = []
    for _, rows in cells[cells["true"] > 0].groupby("true"):
        cell = int(rows["true"].iloc[0])
        seen = rows["t"].to_numpy()
        if cell in died and seen.min() * interval_s < died[cell] and seen.max() * interval_s > died[cell]:
            dead = seen[(rows["state"] == "dead").to_numpy()]
            frames.append(np.inf if not len(dead) else dead.min() - np.ceil(died[cell] / interval_s))
    late = np.array(frames)
    return {
        "largest_error": float(np.nanmax(error)),
        "mean_error": float(np.nanmean(error)),
        "time_points_within_3_points": float((error <= 0.03).mean()),
        "deaths": len(late),
        "deaths_within_2_frames": float((abs(late) <= 2).mean()) if len(late) else None,
        "deaths_missed": int(np.isinf(late).sum()),
    }


def tracks(cells: Any, found: dict[int, Truth], pixel_size_um: float) -> dict[str, Any] | None:
    """Score the tracks against the cells of which a third or more lies in the field; None without traccuracy."""
    if find_spec("traccuracy") is None:
        return None
    true_rows = []
    for t, truth in found.items():
        y, x = np.nonzero(truth.cell_labels)
        ids = truth.cell_labels[y, x]
        area_px = np.bincount(ids)
        for cell in truth.cells:
            i = int(cell["id"])
            if area_px[i] * pixel_size_um**2 >= VISIBLE * np.pi * cell["radius_um"] ** 2:
                here = ids == i
                at_um = (float(axis[here].mean()) * pixel_size_um for axis in (y, x))
                true_rows.append((t, i, int(cell["parent"]), *at_um))
    rows = zip(*(cells[name].tolist() for name in ("t", "cell", "parent", "y_um", "x_um")), strict=True)
    return scores(graph_of(true_rows), graph_of(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", choices=("steps", "defocus"), default="steps")
    parser.add_argument("--planes", type=int, choices=(2, 3), default=3)
    parser.add_argument("--time-points", type=int, default=40)
    parser.add_argument("--interval-min", type=float, default=20, help="of the cells' time")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--density", type=float, default=1500)
    parser.add_argument("--death-rate", type=float, default=0.02)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    folder = (args.out or Path(tempfile.mkdtemp())) / "run"
    experiment = described(args, folder.parent)
    result = run_experiment(experiment, folder, on_measured=lambda n: print(f"{n} time points measured", end="\r"))
    print("", *result.troubles, sep="\n")
    interval_s, found, table = 60 * args.interval_min, truths(experiment), read_cells(folder)
    cells = table.to_pandas()
    cells["true"] = matched(cells, found, 0.325)
    summary = read_rows(folder, "summary").to_pandas()
    there = [cell for truth in found.values() for cell in set(truth.cells["id"].tolist()) - border_of(truth)]
    seen = sum(
        len(set(cells["true"][cells["t"] == t]) & (set(truth.cells["id"].tolist()) - border_of(truth)))
        for t, truth in found.items()
    )
    shown = {
        "benchmark": "cells",
        "machine": machine(),
        **{key: value for key, value in vars(args).items() if key != "out"},
        "cells_found": seen / len(there),
        "mass": masses(cells, found),
        "growth": growth(table, true_table(found, interval_s), cells),
        "viability": viability(summary, cells, found, interval_s),
        "tracks": tracks(cells, found, 0.325),
    }
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
