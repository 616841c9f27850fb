"""The predictions that a run still owes, read from its journal: the journal is the queue, so memory is not."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from livestain._frame import Job, Place
from livestain._journal import JOURNAL_NAME, Tail

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Owed"]


class Owed:
    """Gives each job that was journalled as pending, once, in order, while the journal grows."""

    def __init__(self, folder: Path) -> None:
        self._tail = Tail(folder / JOURNAL_NAME)
        self._jobs: deque[Job] = deque()  # at most what one read of the tail holds

    def next(self) -> Job | None:
        """Give the next job, or None if nothing is owed now."""
        while not self._jobs:
            lines = self._tail.read()
            if not lines:
                return None
            self._jobs.extend(job for line in lines if (job := self._job(line)) is not None)
        return self._jobs.popleft()

    @staticmethod
    def _job(line: Mapping[str, Any]) -> Job | None:
        # A line with "live": false is a second try that failed: `livestain backfill` is the third.
        if line["kind"] != "stain" or line["status"] != "pending" or not line["live"]:
            return None
        return Job(
            stain=line["stain"],
            sources=tuple(Place(*place) for place in line["from"]),
            targets=tuple(Place(*place) for place in line["at"]),
        )
