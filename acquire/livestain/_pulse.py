"""A sign of life: a run writes how it stands into its folder, for readers in other processes and on other machines."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from livestain._run import Status

__all__ = ["PULSE_NAME", "Pulse", "plain_status"]

log = logging.getLogger("livestain")

PULSE_NAME = "status.json"
_EVERY_S = 1.0


class Pulse:
    """Writes RUN/status.json once a second while the run goes on; what says more is in the journal.

    It is not synced, and a folder that refuses it costs a line in the log, not the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PULSE_NAME
        self._next_s = 0.0
        self._failed = False

    def beat(self, status: Status) -> None:
        """Write the status, if a second has passed since the last one."""
        now_s = time.monotonic()
        if self._failed or now_s < self._next_s:
            return
        self._next_s = now_s + _EVERY_S
        fresh = self._path.with_suffix(".json.new")
        try:
            fresh.write_text(json.dumps({"time_s": time.time(), **plain_status(status)}), encoding="utf-8")
            fresh.replace(self._path)
        except PermissionError:
            pass  # Windows: a reader has it open for a moment; the next second is soon enough
        except OSError as error:
            self._failed = True
            log.warning("cannot write %s (%s): a page that is open shows no buffers", self._path, error.strerror)

    def end(self) -> None:
        """Remove the sign of life: how the run ended is in its journal."""
        for path in (self._path, self._path.with_suffix(".json.new")):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("cannot remove %s: %s", path, error.strerror)


def plain_status(status: Status) -> dict[str, Any]:
    """Give a status as JSON has it: None for what is not known."""
    plain = dataclasses.asdict(status)
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in plain.items()}
