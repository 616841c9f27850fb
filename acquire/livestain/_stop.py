"""Asking a run to end: Ctrl-C, a service manager's SIGTERM, or a button."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Stop"]

# SIGHUP is POSIX's, SIGBREAK Windows'.
_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, n)]


class Stop:
    """Counts how often a run was asked to end; any thread may ask.

    The first time ends the acquisition. Asked again, the run also leaves the predictions that it still owes to
    `livestain backfill`. Either way what was acquired is written and the folder is closed.
    """

    def __init__(self) -> None:
        self.times = 0

    def ask(self) -> None:
        """Ask the run to end."""
        self.times += 1

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Ask on the signals that end a program, instead of an exception that may come between any two lines.

        They are Ctrl-C, a service manager's stop, and a terminal or connection that is closed.

        Outside the main thread, where Python allows no handlers, this changes nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(_number: int, _frame: FrameType | None) -> None:
            self.ask()

        before = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
