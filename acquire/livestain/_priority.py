"""Whose turn it is when a computer is busy: the run's first, that of those who measure and look on last."""

from __future__ import annotations

import contextlib
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LAST", "keep_off_pinned_cores", "other_process_last", "process_last", "run_first", "thread_last"]

_FIRST, LAST = -10, 10  # niceness: of the scheduler's -20 to 19, 0 being everybody else
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
    before, session_before = os.getpriority(os.PRIO_PROCESS, 0), _session_niceness()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(before, _FIRST))
    if session_before is not None:
        _set_session_niceness(min(session_before, _FIRST))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, before)
        if session_before is not None:
            _set_session_niceness(session_before)


def process_last() -> None:
    """Put this process, all its threads to come included, behind other programs."""
    if sys.platform == "win32":
        _set_class(_BELOW_NORMAL)
    else:
        with contextlib.suppress(OSError):  # behind already
            os.setpriority(os.PRIO_PROCESS, 0, max(LAST, os.getpriority(os.PRIO_PROCESS, 0)))
        if os.getsid(0) == os.getpid():  # a session of its own: else it is somebody's terminal
            _set_session_niceness(LAST)


def other_process_last(process_id: int) -> None:
    """Put a process that was just started in a session of its own behind others, before it does so itself."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process_id, LAST)
        _set_session_niceness(LAST, process_id)


def thread_last() -> None:
    """Put this thread behind the others of the process; Linux only, elsewhere threads have no niceness of their own."""
    if sys.platform == "linux":
        import threading

        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LAST)


def keep_off_pinned_cores() -> None:
    """Leave the cores to which the process's other threads are pinned to them; Linux only.

    onnxruntime pins its helpers, one to each physical core but the first, and splits each operator between them and the
    thread that calls. When other programs come and go, the scheduler moves the caller about, onto a helper's core too,
    and then every operator takes twice its time.
    """
    if sys.platform != "linux":
        return
    mine = os.sched_getaffinity(0)
    pinned: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            allowed = os.sched_getaffinity(int(thread.name))
            pinned |= allowed if allowed < mine else set()
    if pinned and mine - pinned:
        with contextlib.suppress(OSError):  # not allowed here: it is a matter of speed only
            os.sched_setaffinity(0, mine - pinned)


def _session_niceness() -> int | None:
    """Give the niceness of this process's session; None where the system has none.

    Linux shares its processors between sessions first (terminals, the desktop, a browser; `man 7 sched`, "The
    autogroup feature"): the niceness of threads counts only within their session, and nothing against another one.
    """
    try:
        return int(_autogroup("self").read_text().rpartition(" ")[2])
    except (OSError, ValueError):
        return None


def _set_session_niceness(niceness: int, process_id: int | None = None) -> None:
    with contextlib.suppress(OSError):  # no sessions here, or not allowed
        _autogroup(process_id or "self").write_text(str(niceness))


def _autogroup(process: int | str) -> Path:
    return Path("/proc") / str(process) / "autogroup"


def _set_class(priority: int) -> None:
    if sys.platform == "win32":
        import ctypes
        from ctypes import wintypes

        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentProcess.restype = wintypes.HANDLE
        kernel.SetPriorityClass.argtypes = [wintypes.HANDLE, wintypes.DWORD]
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), priority)
