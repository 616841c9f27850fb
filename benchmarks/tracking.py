"""How well and how fast cells are tracked: simulated ones, scored by traccuracy, and instance masks of real ones.

    python -m benchmarks.tracking                      # all conditions, three seeds
    python -m benchmarks.tracking --masks FOLDER       # *.tif stacks (T, Y, X) of instance masks, too

traccuracy is needed (`pip install traccuracy`). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import tifffile

from benchmarks.moving_cells import Faults, TrueFrame, field_um, watch
from livestain.measure.track import Detections, Finished, Tracker, Tracking

if TYPE_CHECKING:
    from collections.abc import Iterable

MATCH_UM = 5.0
CONDITIONS: dict[str, tuple[float, Faults]] = {
    "10 min, mass": (10, Faults()),
    "10 min, no mass": (10, Faults(with_mass=False)),
    "10 min, mass, stage 2 um + jump 80 um": (10, Faults(stage_um=2, jump_um=80)),
    "10 min, mass, faults x 3": (10, Faults(missed=0.045, pieces=0.015, merged=0.015, debris=0.01)),
    "20 min, mass": (20, Faults()),
    "20 min, no mass": (20, Faults(with_mass=False)),
    "30 min, mass": (30, Faults()),
    "30 min, no mass": (30, Faults(with_mass=False)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--only", default="", help="conditions that contain this")
    parser.add_argument("--masks", type=Path)
    chosen = parser.parse_args()
    rows = []
    for name, (interval_min, faults) in CONDITIONS.items():
        for seed in range(1, chosen.seeds + 1) if chosen.only in name else ():
            row = {
                "condition": name,
                "seed": seed,
                **simulated(seed, chosen.frames, interval_min, chosen.cells, faults),
            }
            rows.append(row)
            print(row, file=sys.stderr)
    masks = [on_masks(path) for path in sorted(chosen.masks.glob("*.tif"))] if chosen.masks else []
    print(json.dumps({"benchmark": "tracking", "rows": rows, "masks": masks}))


def simulated(seed: int, frames: int, interval_min: float, cells: int, faults: Faults) -> dict[str, Any]:
    """Track one simulated field and score it."""
    seen = list(watch(seed, frames, interval_min, cells, faults))
    edge_um = field_um(cells)
    finished, frame_ms = tracked((found for _, found in seen), edge_um, edge_um)
    p50_ms, p99_ms = np.quantile(frame_ms, [0.5, 0.99])
    return {
        **scores(true_graph([true for true, _ in seen]), found_graph(finished)),
        "cells": round(float(np.mean([len(found) for _, found in seen]))),
        "p50_ms": round(float(p50_ms), 2),
        "p99_ms": round(float(p99_ms), 2),
    }


def tracked(frames: Iterable[Detections], height_um: float, width_um: float) -> tuple[list[Finished], list[float]]:
    """Return the finished time points, and the processor time of each frame."""
    tracker = Tracker(Tracking(), height_um, width_um)
    finished, frame_ms = [], []
    for found in frames:
        start = time.process_time()  # of this process alone: the machine may be shared
        finished += tracker.add(found)
        frame_ms.append(1e3 * (time.process_time() - start))
    return finished + tracker.finish(), frame_ms


def scores(true: nx.DiGraph, found: nx.DiGraph) -> dict[str, Any]:
    """Return edge and division F1 (exact frame, and one frame off) by traccuracy."""
    from traccuracy import TrackingGraph
    from traccuracy.matchers import PointMatcher
    from traccuracy.metrics import BasicMetrics, DivisionMetrics

    def graph(tracks: nx.DiGraph) -> TrackingGraph:
        return TrackingGraph(tracks, frame_key="t", location_keys=("y", "x"))

    matched = PointMatcher(MATCH_UM).compute_mapping(graph(true), graph(found))
    edges = BasicMetrics().compute(matched).results
    divisions = DivisionMetrics(max_frame_buffer=1).compute(matched).results
    return {
        "edge_f1": round(edges["Edge F1"], 4),
        "division_f1": round(divisions["Frame Buffer 0"]["Division F1"], 4),
        "division_f1_within_1": round(divisions["Frame Buffer 1"]["Division F1"], 4),
        "divisions": int(divisions["Frame Buffer 0"]["Total GT Divisions"]),
    }


def true_graph(true: list[TrueFrame]) -> nx.DiGraph:
    """Return the truth: a node a cell and frame, and edges to the next frame and from mothers to daughters."""
    rows = ((f.t, *row) for f in true for row in zip(f.cell.tolist(), f.parent.tolist(), f.at_um.tolist(), strict=True))
    return graph_of((t, cell, parent, *at) for t, cell, parent, at in rows)


def found_graph(finished: list[Finished]) -> nx.DiGraph:
    """Return what was tracked, interpolated places included."""
    return graph_of((f.t, *row.item()[:4]) for f in finished for row in f.cells())


def graph_of(rows: Iterable[tuple[int, int, int, float, float]]) -> nx.DiGraph:
    """Return a node a row (time point, cell, mother, y, x), rows in order of time, and the edges between them."""
    graph, last = nx.DiGraph(), {}
    for node, (t, cell, parent, y, x) in enumerate(rows):
        graph.add_node(node, t=t, y=y, x=x)
        before = last.get(cell) or last.get(parent)
        if before and before[1] == t - 1:
            graph.add_edge(before[0], node)
        last[cell] = (node, t)
    return graph


def on_masks(path: Path) -> dict[str, Any]:
    """Track a stack (T, Y, X) of instance masks that has no ground truth, in pixels.

    What can be said without one: segments that overlap each other by more than half and nobody else are the same cell
    (`overlap_links`); a tracker should agree with nearly all of those it can see. And a cell rarely comes from nowhere.
    """
    masks = tifffile.imread(path)
    if masks.ndim == 4:  # z stacks: the largest label along z, for this tracker works in a plane
        masks = masks.max(axis=1)
    seen = [detections_of(t, mask) for t, mask in enumerate(masks)]
    finished, frame_ms = tracked((found for found, _ in seen), *masks.shape[1:])
    cells = {f.t: dict(zip(seen[f.t][1].tolist(), f.cell.tolist(), strict=True)) for f in finished}
    parents = {cell: parent for f in finished for cell, parent in zip(f.cell.tolist(), f.parent.tolist(), strict=True)}
    same = total = 0
    for t in range(1, len(masks)):
        for one, other in overlapping(masks[t - 1], masks[t]):
            total += 1
            before, now = cells[t - 1][one], cells[t][other]
            same += bool(now) and (now == before or parents[now] == before)
    first = {cell for cell in cells[0].values() if cell}
    inside = _born_inside(finished, first, parents)
    return {
        "file": path.name, "shape": list(masks.shape), "segments": sum(len(f) for f, _ in seen),
        "cells": len([cell for cell in parents if cell]), "divisions": len({p for p in parents.values() if p}),
        "overlap_links": total, "overlap_links_kept": round(same / max(total, 1), 4), "born_from_nowhere": inside,
        "gap_rows": sum(len(f.gap_cell) for f in finished), "p50_ms": round(float(np.median(frame_ms)), 2),
        "p99_ms": round(float(np.quantile(frame_ms, 0.99)), 2),
    }  # fmt: skip


def _born_inside(finished: list[Finished], known: set[int], parents: dict[int, int]) -> int:
    """Count the cells that came up after the first frame, off the border and without a mother."""
    count, known = 0, set(known)
    for f in finished:
        for cell, border in zip(f.cell.tolist(), f.detections.at_border.tolist(), strict=True):
            count += bool(cell) and cell not in known and not border and not parents[cell]
            known.add(cell)
    return count


def detections_of(t: int, mask: np.ndarray) -> tuple[Detections, np.ndarray]:
    """Return the segments of a label image, in pixels, and their labels."""
    labels, index, area = np.unique(mask, return_inverse=True, return_counts=True)
    y, x = np.indices(mask.shape)
    index = index.ravel()
    edge = np.ones(mask.shape, bool)
    edge[1:-1, 1:-1] = False
    border = np.isin(labels, mask[edge])
    at = [np.bincount(index, axis.ravel()) / area for axis in (y, x)]
    keep = labels > 0
    found = Detections(t, at[0][keep], at[1][keep], area[keep].astype(float), at_border=border[keep])
    return found, labels[keep]


def overlapping(before: np.ndarray, now: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of labels that share more than half of the larger one."""
    pairs, shared = np.unique(np.stack([before.ravel(), now.ravel()]), axis=1, return_counts=True)
    size_before, size_now = np.bincount(before.ravel()), np.bincount(now.ravel())
    largest = np.maximum(size_before[pairs[0]], size_now[pairs[1]])
    keep = (pairs > 0).all(axis=0) & (shared > 0.5 * largest)
    return [(int(a), int(b)) for a, b in pairs[:, keep].T]


if __name__ == "__main__":
    main()
