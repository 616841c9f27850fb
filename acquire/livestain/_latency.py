"""Latency at four boundaries, from what the journal says of each frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["BOUNDARIES", "Percentiles", "RunStats", "percentiles"]

BOUNDARIES = {
    "net_ms": "inside the network",
    "host_to_host_ms": "planes in memory to prediction in memory",
    "camera_to_screen_ms": "frame in the core to prediction for viewers",
    "camera_to_disk_ms": "frame in the core to prediction on disk",
}


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of one boundary in milliseconds, over `n` frames. NaN where there is no frame."""

    n: int
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class RunStats:
    """What a run did, counted from its journal (see `Ledger`).

    `ended` says how: "completed", "canceled", "errored", "recovered" (it was killed), or None while it goes on or
    where it was killed. `frames_stained` counts predictions (one for each frame and stain) that are on disk,
    `frames_pending` those still owed. `stained_live` of them came straight from the camera; the latencies are
    theirs, because a prediction made later from disk has no camera to be late for. `raw_camera_to_disk_ms` is the
    raw plane's.
    """

    ended: str | None
    frames_expected: int | None
    frames_acquired: int
    frames_missing: int
    frames_stained: int
    stained_live: int
    frames_pending: int
    latency: Mapping[str, Percentiles]
    raw_camera_to_disk_ms: Percentiles

    def as_json(self) -> dict[str, Any]:
        """Give the counts and, one key for each boundary, its percentiles, as JSON has them (no NaN)."""
        counts = {
            name: getattr(self, name)
            for name in (
                "ended",
                "frames_expected",
                "frames_acquired",
                "frames_missing",
                "frames_stained",
                "stained_live",
                "frames_pending",
            )
        }
        tables = {**self.latency, "raw_camera_to_disk_ms": self.raw_camera_to_disk_ms}
        return counts | {name: _plain(table) for name, table in tables.items()}


def _plain(table: Percentiles) -> dict[str, float | int | None]:
    return {key: None if value != value else value for key, value in asdict(table).items()}


def percentiles(values_ms: Iterable[float]) -> Percentiles:
    """Percentiles of a series of milliseconds (linear interpolation between samples)."""
    values = np.fromiter(values_ms, dtype=np.float64)
    if values.size == 0:
        return Percentiles(0, *(float("nan"),) * 4)
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return Percentiles(values.size, *(round(float(v), 3) for v in (p50, p95, p99, values.max())))
