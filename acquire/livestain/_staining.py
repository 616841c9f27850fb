"""Runs the stain models and survives them: retries, the next provider, then a job that waits on disk."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from livestain._errors import LivestainError, StoreError
from livestain._frame import Job, Note, Stained
from livestain._lines import stain_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from livestain._frame import Place
    from livestain._stain import StainModel

__all__ = ["Stainer"]

log = logging.getLogger("livestain")

_FAILURES_IN_A_ROW = 3


class Stainer:
    """Makes the predictions of a run, one job at a time, in one thread.

    When a model raises, the job is tried again on a fresh model from `reopen` (the same provider first, then the
    CPU). If that fails too the job is left pending; after three failures in a row the stain is switched off and
    all its jobs are left pending, so that a broken model costs the acquisition nothing.

    Parameters
    ----------
    models
        One for each stain, warmed up.
    read
        Reads a raw plane back from disk, (Y, X) uint16.
    reopen
        Gives a fresh, warm model for a stain on "its own provider" (False) or on the CPU (True).
    """

    def __init__(
        self,
        models: Sequence[StainModel],
        read: Callable[[Place], np.ndarray],
        reopen: Callable[[int, bool], StainModel],
    ) -> None:
        self._models = list(models)
        self._read = read
        self._reopen = reopen
        self._failures = [0] * len(models)
        self.troubles: list[str] = []

    @property
    def n_stains(self) -> int:
        """How many stains there are."""
        return len(self._models)

    def stain(self, job: Job) -> Stained | Note:
        """Do one job. A model's failure ends in a journal note that leaves the job pending, never in an exception."""
        if self._failures[job.stain] >= _FAILURES_IN_A_ROW:
            return Note(stain_line(job, "pending", "the model was switched off after failing"))
        try:
            planes, started_ns = self._planes(job)
        except StoreError as error:  # the disk's fault, not the model's
            self._say(f"{error} The prediction waits.")
            return Note(stain_line(job, "pending", _short(error)))
        try:
            return self._predict(job, planes, started_ns)
        except Exception as error:  # noqa: BLE001  (a model may raise anything; the run must not end for it)
            return self._second_try(job, planes, started_ns, error)

    def _planes(self, job: Job) -> tuple[NDArray[np.unsignedinteger], int]:
        """Give (P, Y, X) planes, and since when they have been in memory."""
        if job.frames:
            started_ns = time.perf_counter_ns()  # stacking several planes is a copy of ours, so it counts
            images = [frame.image for frame in job.frames]
            return images[0][None] if len(images) == 1 else np.stack(images), started_ns
        planes = np.stack([self._read(place) for place in job.sources])
        return planes, time.perf_counter_ns()

    def _predict(self, job: Job, planes: NDArray[np.unsignedinteger], started_ns: int) -> Stained:
        model = self._models[job.stain]
        prediction = model.predict(planes)
        shown_ns = time.perf_counter_ns()
        self._failures[job.stain] = 0
        host_to_host_ms = (shown_ns - started_ns) / 1e6
        return Stained(job, prediction.planes, model.provider, prediction.net_ms, host_to_host_ms, shown_ns)

    def _second_try(
        self, job: Job, planes: NDArray[np.unsignedinteger], started_ns: int, first: Exception
    ) -> Stained | Note:
        name = self._models[job.stain].fingerprint
        for on_cpu in (False, True):
            if on_cpu and self._models[job.stain].provider == "CPUExecutionProvider":
                break
            try:
                self._models[job.stain].close()
                self._models[job.stain] = self._reopen(job.stain, on_cpu)
                done = self._predict(job, planes, started_ns)
            except Exception as error:  # noqa: BLE001  (same as above: the next remedy, then pending)
                log.info("second try of %s on %s failed: %s", name, job.sources[-1], error)
                continue
            self._say(
                f"the model {name} failed once at {job.sources[-1]} ({_short(first)}) and was restarted on "
                f"{done.provider}."
            )
            return done
        self._failures[job.stain] += 1
        off = self._failures[job.stain] == _FAILURES_IN_A_ROW
        self._say(
            f"the model {name} failed at {job.sources[-1]}: {_short(first)}; the prediction waits."
            + (" It failed three times in a row and is switched off for this run." if off else ""),
            first,
        )
        return Note(stain_line(job, "pending", _short(first)))

    def _say(self, trouble: str, error: Exception | None = None) -> None:
        # Once with its cause; the journal holds the rest, frame by frame.
        if len(self.troubles) < 10:
            self.troubles.append(trouble)
            log.warning("%s", trouble, exc_info=error if not isinstance(error, LivestainError) else None)

    def close(self) -> None:
        """Close the models."""
        for model in self._models:
            model.close()


def _short(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:300]
