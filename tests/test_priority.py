"""On a busy computer the run's threads come before other programs, and those who look on behind them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from livestain._priority import LAST, run_first

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux only")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_threads_of_a_run_come_first_and_the_caller_is_as_before() -> None:
    seen: list[int] = []
    before = niceness()
    with run_first():
        worker = threading.Thread(target=lambda: seen.append(niceness()))
        worker.start()
        worker.join()
    assert niceness() == before
    if os.geteuid() == 0:
        assert seen[0] < before
    else:
        assert seen[0] <= before  # not everybody may


def test_who_looks_on_comes_last() -> None:
    code = (
        "from livestain._priority import process_last as p; import os; p(); print(os.getpriority(os.PRIO_PROCESS, 0))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(said.stdout) == LAST
