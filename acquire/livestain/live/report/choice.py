"""Which channels, positions and time points of a run the report shows, and the time of its sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from livestain._experiment import PhaseFromSteps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from livestain.live.run_folder import RunFolder

__all__ = ["Channels", "channels_of", "chosen_times", "evenly", "sample_time_s"]

_TECHNICAL = {
    "distance": "distance map: where objects are, for the measurement",
    "class": "map of probabilities, for the measurement",
    "deviation": "error bar of another prediction, not an image of cells",
}


@dataclass(frozen=True, slots=True)
class Channels:
    """Channel numbers that are shown, and (name, why not) of the technical ones."""

    shown: tuple[int, ...]
    technical: tuple[tuple[str, str], ...]


def channels_of(run: RunFolder) -> Channels:
    """Tell images that people look at from those that only the measurement reads."""
    stains = run.header.get("stains", ())
    kinds: dict[tuple[int | None, int | None], str] = {
        (i, k): output["kind"] for i, stain in enumerate(stains) for k, output in enumerate(stain["outputs"])
    }
    measure = run.experiment.measure if run.experiment else None
    steps = measure.phase.channels if measure and isinstance(measure.phase, PhaseFromSteps) else ()
    shown, technical = [], []
    for number, channel in enumerate(run.layout.channels):
        why = _TECHNICAL.get(kinds.get((channel.stain, channel.output), "")) if channel.predicted else None
        if not channel.predicted and any(channel.name == s or channel.name.startswith(f"{s} (") for s in steps):
            why = "phase step: phase and dry mass are computed from it"
        if why:
            technical.append((channel.name, why))
        else:
            shown.append(number)
    return Channels(tuple(shown), tuple(technical))


def evenly(n: int, most: int) -> list[int]:
    """Choose at most `most` of `n` numbers, evenly from the first to the last."""
    return sorted(set(np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist())) if n else []


def chosen_times(there: NDArray[np.bool_], channels: Sequence[int], most: int) -> list[int]:
    """Choose at most `most` time points, from the first to the last at which the first channel is there.

    Parameters
    ----------
    there
        (t, c, z): which planes are on disk.
    channels
        That are shown. Where a time point nearby has more of them, it is taken.
    most
        How many.
    """
    n_there = there[:, channels].any(axis=2).sum(axis=1)
    candidates = np.flatnonzero(there[:, channels[0]].any(axis=1) if len(channels) else np.zeros(0))
    if not candidates.size:
        candidates = np.flatnonzero(n_there)
    chosen = set()
    reach = max(1, candidates.size // (4 * most))
    for i in evenly(candidates.size, most):
        near = candidates[max(0, i - reach) : i + reach + 1]
        fuller = near[n_there[near] == n_there[near].max()]
        fuller = fuller if n_there[candidates[i]] < n_there[near].max() else candidates[i : i + 1]
        chosen.add(int(fuller[np.argmin(np.abs(fuller - candidates[i]))]))
    return sorted(chosen)


def sample_time_s(run: RunFolder, image: int) -> NDArray[np.float64]:
    """Give the time of the sample at each time point, (t,) seconds: the measurement's where it was told the interval.

    A replayed recording or an accelerated simulation has another clock than the computer.
    """
    measure = run.experiment.measure if run.experiment else None
    if measure is not None and measure.interval_s is not None:
        return np.arange(run.n_t(image), dtype=np.float64) * float(measure.interval_s)
    return run.time_s(image)
