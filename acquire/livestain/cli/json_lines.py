"""What a program reads of a run: one JSON object a line on standard output, from ready to end."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from livestain._pulse import plain_status

if TYPE_CHECKING:
    from livestain._prepare import Prepared
    from livestain._run import Status
    from livestain._session import Result

__all__ = ["JsonLines"]


class JsonLines:
    """Shows a run to a program, as `Progress` shows it to a person: a status a second, and what there is at the end.

    Every object has a `kind`: "ready", "status", "measured", "end".
    """

    def __init__(self) -> None:
        self._next_s = 0.0

    def ready(self, prepared: Prepared) -> None:
        """Say what will run."""
        layout, camera = prepared.layout, prepared.camera
        self._print(
            "ready",
            cameras=list(camera.names),
            height=camera.height,
            width=camera.width,
            pixel_size_um=camera.pixel_size_um or None,
            positions=list(layout.position_names),
            channels=[channel.name for channel in layout.channels],
            time_points=layout.n_t,
            frames=layout.n_frames,
            models=[package.fingerprint for package in prepared.packages],
            providers=[model.provider for model in prepared.models],
        )

    def update(self, status: Status) -> None:
        """Say how the run stands, once a second."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + 1
            self._print("status", **plain_status(status))

    def measured(self, done: int) -> None:
        """Say how far the measurement is, once a second."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + 1
            self._print("measured", time_points=done)

    def ended(self, result: Result) -> None:
        """Say what there is."""
        measured = result.measured
        self._print(
            "end",
            folder=str(result.folder),
            complete=result.complete,
            interrupted=result.interrupted,
            **result.stats.as_json(),
            time_points_measured=None if measured is None else measured.time_points,
            files=[] if measured is None else [str(file) for file in measured.files],
            troubles=[*result.troubles, *(() if measured is None else measured.notes)],
        )

    @staticmethod
    def _print(kind: str, **what: Any) -> None:
        with contextlib.suppress(OSError):  # a reader that is gone must not end a run
            sys.stdout.write(json.dumps({"kind": kind, **what}) + "\n")
            sys.stdout.flush()
