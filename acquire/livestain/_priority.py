"""Whose turn it is when a computer is busy: the run's first, that of those who measure and look on last."""

from __future__ import annotations

import contextlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LAST", "process_last", "run_first", "thread_last"]

_FIRST, LAST = -5, 10  # niceness: of the scheduler's -20 to 19, 0 being everybody else
_ABOVE_NORMAL, _NORMAL, _BELOW_NORMAL = 0x8000, 0x20, 0x4000  # Windows' priority classes


@contextmanager
def run_first() -> Iterator[None]:
    """Put the threads that are started within before other programs, where the system allows it.

    Windows does; Linux and macOS do only for those who may (root, or a limit on niceness that was raised). A page in a
    browser on the same computer then waits for the run, and not the other way round.
    """
    if sys.platform == "win32":
        _set_class(_ABOVE_NORMAL)
        try:
            yield
        finally:
            _set_class(_NORMAL)
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(before, _FIRST))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


def process_last() -> None:
    """Put this process, all its threads to come included, behind other programs."""
    if sys.platform == "win32":
        _set_class(_BELOW_NORMAL)
    else:
        with contextlib.suppress(OSError):  # behind already
            os.setpriority(os.PRIO_PROCESS, 0, max(LAST, os.getpriority(os.PRIO_PROCESS, 0)))


def thread_last() -> None:
    """Put this thread behind the others of the process; Linux only, elsewhere threads have no niceness of their own."""
    if sys.platform == "linux":
        import threading

        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LAST)


def _set_class(priority: int) -> None:
    if sys.platform == "win32":
        import ctypes
        from ctypes import wintypes

        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentProcess.restype = wintypes.HANDLE
        kernel.SetPriorityClass.argtypes = [wintypes.HANDLE, wintypes.DWORD]
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), priority)
