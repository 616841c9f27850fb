"""When the time points of a run were, in the time of the sample; and how that is written for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livestain.live.run_folder import RunFolder

__all__ = ["interval_s", "time_stamp", "times_s"]

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def times_s(run: RunFolder, image: int) -> NDArray[np.float64]:
    """Give the time of every time point, (t,) in seconds since the run's first frame; NaN where it is not known.

    As in the tables of cells it is measured, except where the experiment says that the sample's time is not the
    computer's (`measure.interval_s`): a replayed recording, an accelerated simulation.
    """
    measure = run.experiment.measure if run.experiment is not None else None
    if measure is not None and measure.interval_s is not None:
        return np.arange(run.n_t(image), dtype=np.float64) * measure.interval_s
    return run.time_s(image)


def interval_s(run: RunFolder, image: int) -> float:
    """Give the usual time from one time point to the next; NaN where there are no two with a time."""
    time_s = times_s(run, image)
    known = np.flatnonzero(np.isfinite(time_s))
    if len(known) < 2:
        return math.nan
    return float(np.median(np.diff(time_s[known]) / np.diff(known)))


def time_stamp(time_s: float, longest_s: float) -> str:
    """Write a time in the units that suit the longest one it stands beside: "3 h 05 min", "2 d 03 h 05 min"."""
    if not math.isfinite(time_s):
        return "time not known"
    if longest_s < _MINUTE_S:
        return f"{time_s:.1f} s"
    seconds = round(time_s)
    minutes = seconds // 60
    if longest_s < _HOUR_S:
        return f"{minutes} min {seconds % 60:02d} s"
    if longest_s < _DAY_S:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes // 60 % 24:02d} h {minutes % 60:02d} min"
