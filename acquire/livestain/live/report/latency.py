"""How late the predictions came: over time, and as percentiles at the four boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._latency import BOUNDARIES
from livestain.live.report.sheet import new_sheet, written
from livestain.live.report.words import counted, number
from livestain.measure.pictures import _COLOURS

if TYPE_CHECKING:
    from pathlib import Path

    from livestain._latency import Percentiles, RunStats
    from livestain.live.report.sheet import Drawn
    from livestain.live.report.told import Told

__all__ = ["Latency", "latency_of"]

_MOST_DOTS = 3000
_RAW = "frame in the core to raw frame on disk"
_SHOWN = {"camera_to_disk_ms": "frame to prediction on disk", "net_ms": "inside the network"}


@dataclass(frozen=True, slots=True)
class Latency:
    """The table's rows (what, how many, then p50, p95, p99 and max in ms), the figure, and what to say."""

    rows: tuple[tuple[str, ...], ...]
    figure: Drawn | None
    sentences: tuple[str, ...]


def latency_of(folder: Path, stats: RunStats, told: Told) -> Latency:
    """Tabulate and draw the latencies of a run."""
    rows = [(BOUNDARIES[name], *_numbers(stats.latency[name])) for name in BOUNDARIES if stats.stained_live]
    if stats.raw_camera_to_disk_ms.n:
        rows.append((_RAW, *_numbers(stats.raw_camera_to_disk_ms)))
    said = []
    if not stats.stained_live:
        said.append(
            "No prediction came live from the camera, so there is no latency of predictions: one that is made later "
            "from disk has no camera to be late for."
            if stats.frames_stained
            else "No prediction was made, so there is no latency of predictions."
        )
    else:
        said.append(
            f"Of {counted(stats.stained_live, 'live prediction')}. p50 is the median; p99 is exceeded by one frame in "
            "a hundred."
        )
    return Latency(tuple(rows), _drawn(folder, told) if told.latency_s.size else None, tuple(said))


def _numbers(row: Percentiles) -> tuple[str, ...]:
    values = (f"{value:.1f}" if row.n else "\u2013" for value in (row.p50, row.p95, row.p99, row.max))
    return (f"{row.n:,}", *values)


def _drawn(folder: Path, told: Told) -> Drawn:
    figure, axes = new_sheet("Latency of live predictions", wide=True)
    seconds = told.latency_s
    scale, unit = (3600, "h") if seconds[-1] >= 7200 else (60, "min") if seconds[-1] >= 300 else (1, "s")
    step = -(-seconds.size // _MOST_DOTS)
    for number_, (name, label) in enumerate(_SHOWN.items()):
        values = told.latency[name]
        look = {"color": _COLOURS[number_], "label": label, "marker": "os"[number_], "linestyle": ""}
        axes.plot(seconds[::step] / scale, values[::step], markersize=2.6, alpha=0.7, rasterized=step > 1, **look)
    axes.set_yscale("log")
    _ticks(axes, np.concatenate([told.latency[name] for name in _SHOWN]))
    axes.set_xlabel(f"time since the first frame ({unit})")
    axes.set_ylabel("latency (ms), logarithmic")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, borderaxespad=0)
    every = f"; one prediction in {step} is drawn" if step > 1 else ""
    caption = (
        "Each dot is a live prediction: how long it took from the frame's arrival until it was safely on disk, and how "
        f"much of that was the network{every}. Times are those of the microscope's computer."
    )
    return written(folder, "latency", figure, caption, wide=True)


def _ticks(axes: Any, values_ms: Any) -> None:
    """Label 1, 2 and 5 of each decade: a run's latencies often lie within one."""
    positive = values_ms[values_ms > 0]
    if not positive.size:
        return
    low, high = float(positive.min()) / 1.15, float(positive.max()) * 1.15
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [n * 10.0**k for k in decades for n in (1, 2, 5) if low <= n * 10.0**k <= high]
    axes.set_ylim(low, high)
    axes.set_yticks(ticks, [number(tick) for tick in ticks])
    axes.set_yticks([], minor=True)
