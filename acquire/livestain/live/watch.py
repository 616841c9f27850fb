"""Tells connected pages what is new in a run. The run folder is looked at only while a page asks."""

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.live.health import health
from livestain.live.rests import rests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from livestain.live.answers import Answers
    from livestain.live.rests import Rests

__all__ = ["Watch"]

LOOK_EVERY_S = 0.25  # a plane is seen within a second of its commit, with time left to fetch it
_HEALTH_EVERY_S = 1.0
_HEALTH_AT_LEAST_S = 4.0
_SIGN_OF_LIFE_S = 10.0  # a silent connection is told that it stands; one that is gone is found out


class Watch:
    """Reads the run on for all pages together, and gives each what it has not been told.

    Parameters
    ----------
    answers
        What reads the run.
    in_thread
        Runs a function in a thread, so that reading does not hold up other answers.
    """

    def __init__(self, answers: Answers, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._answers, self._in_thread = answers, in_thread
        self._lock = asyncio.Lock()
        self._looked_s = self._health_due_s = -math.inf
        self._images: dict[int, dict[str, Any]] = {}
        self._changed: dict[int, int] = {}  # by image, the version in which it changed last
        self._rest: dict[str, Any] = {}
        self.version = 0

    async def messages(self, ended: Callable[[], bool]) -> AsyncIterator[str]:
        """Give server-sent events until `ended`: all there is at first, then what changed; each while the run rests."""
        told, told_s = -1, time.monotonic()
        while not ended():
            await self._look()
            if self.version != told:
                await self.rest()
                yield f"data: {json.dumps(self._message(told), separators=(',', ':'), allow_nan=False)}\n\n"
                told, told_s = self.version, time.monotonic()
            elif time.monotonic() - told_s > _SIGN_OF_LIFE_S:
                yield ": still here\n\n"
                told_s = time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)

    async def rest(self) -> None:
        """Wait until the run rests."""
        if found := self._rests():
            await asyncio.sleep(found.wait_s)

    async def _look(self) -> None:
        async with self._lock:  # one look serves every page
            if time.monotonic() - self._looked_s >= LOOK_EVERY_S * 0.8:
                await self._in_thread(self.look)
                self._looked_s = time.monotonic()

    def look(self) -> None:
        """Look at the run once; `version` goes up if there is something to tell."""
        new = self._answers.refresh() or not self.version
        start_s = time.monotonic()
        if not new and start_s < self._health_due_s:
            return
        version = self.version + 1
        if new:
            self._look_at_images(version)
        rest = self._rest
        if start_s >= self._health_due_s:
            try:
                rest = self._look_at_rest()
            except OSError as error:  # a shared folder that is away for a moment
                if not rest:
                    raise
                said = f"the run folder cannot be read: {error.strerror or error}. What is shown is what it held last."
                rest = rest | {"notes": [*self._answers.notes, said]}
            cost_s = time.monotonic() - start_s
            self._health_due_s = start_s + min(
                _HEALTH_AT_LEAST_S, max(_HEALTH_EVERY_S, 20 * cost_s)
            )  # a long run's counts take their time
        if rest != self._rest or version in self._changed.values():
            self._rest, self.version = rest, version

    def _look_at_images(self, version: int) -> None:
        run, measured = self._answers.run, self._answers.measured_t()
        for image in range(len(run.layout.images)):
            there = run.there(image)  # (t, c, z)
            planes = [np.flatnonzero(there[:, c].any(axis=1)) for c in range(there.shape[1])]
            last = [int(t[-1]) if t.size else -1 for t in planes]
            found = {"n_t": len(there), "last": last, "measured_t": measured.get(image, -1)}
            if self._images.get(image) != found:
                self._images[image], self._changed[image] = found, version

    def _look_at_rest(self) -> dict[str, Any]:
        found = asdict(health(self._answers.run))
        next_s = found.pop("next_event_s")
        # As a moment: it does not change every second, and the page counts down by itself.
        found["next_event_at_ms"] = None if next_s is None else round((time.time() + next_s) * 10) * 100
        found["disk_free_bytes"] = round(found["disk_free_bytes"], -7)
        return {
            "health": _no_nan(found),
            "notes": self._answers.notes,
            "rows": self._answers.n_rows(),
        }

    def _message(self, told: int) -> dict[str, Any]:
        images = {i: self._images[i] for i, version in self._changed.items() if version > told}
        found = self._rests()
        return {"images": images, **self._rest, "rows": self._answers.n_rows(), "rests": found and asdict(found)}

    def _rests(self) -> Rests | None:
        return rests(time.time(), self._answers.run.recent.rhythm())


def _no_nan(value: Any) -> Any:
    """Give a copy that JSON can hold: None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: _no_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_no_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
