"""On a busy computer the run's threads come before other programs, and those who look on behind them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from livestain._priority import LAST, keep_off_pinned_cores, other_process_last, run_first

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux only")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def session_niceness(process: int | str = "self") -> int | None:
    """Give the niceness of a process's session; None where Linux has none, or this process belongs to none."""
    file = Path(f"/proc/{process}/autogroup")
    said = file.read_text().split() if file.is_file() else []  # empty, for one, in some containers
    return int(said[-1]) if said else None


def may_come_first() -> bool:
    """Say whether this user may lower a niceness: root in a container may not always."""
    try_it = "import os; os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 1)"
    return subprocess.run([sys.executable, "-c", try_it], capture_output=True, check=False).returncode == 0


def in_a_session_of_its_own(code: str) -> str:
    """Run Python, and give what it prints: priorities of this session must not change under other tests."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True).stdout.strip()


def test_threads_of_a_run_come_first_and_the_caller_is_as_before() -> None:
    seen: list[int] = []
    before = niceness()
    with run_first():
        worker = threading.Thread(target=lambda: seen.append(niceness()))
        worker.start()
        worker.join()
    assert niceness() == before
    assert seen[0] < before if may_come_first() else seen[0] == before


def test_who_looks_on_comes_last() -> None:
    code = (
        "from livestain._priority import process_last as p; import os; p(); print(os.getpriority(os.PRIO_PROCESS, 0))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(said.stdout) == LAST


@pytest.mark.skipif(session_niceness() is None, reason="this Linux has no niceness of sessions")
def test_the_session_of_a_run_comes_first_and_is_as_before() -> None:
    said = in_a_session_of_its_own(
        "from livestain._priority import run_first\n"
        "said = lambda: print(open('/proc/self/autogroup').read().split()[-1])\n"
        "said()\nwith run_first(): said()\nsaid()"
    )
    before, during, after = map(int, said.split())
    assert after == before
    assert during < before if may_come_first() else during == before


@pytest.mark.skipif(session_niceness() is None, reason="this Linux has no niceness of sessions")
def test_a_page_in_a_session_of_its_own_stands_behind_with_all_of_it() -> None:
    page = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        other_process_last(page.pid)
        assert session_niceness(page.pid) == LAST
        assert session_niceness() != LAST
    finally:
        page.communicate(b"\n", timeout=30)


def test_a_thread_leaves_pinned_cores_to_those_who_are_pinned() -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core: there is nothing to share out")
    pinned, go_on, seen = threading.Event(), threading.Event(), []

    def helper() -> None:
        os.sched_setaffinity(0, cores[1:])
        pinned.set()
        go_on.wait(30)

    def caller() -> None:
        keep_off_pinned_cores()
        seen.append(os.sched_getaffinity(0))

    workers = [threading.Thread(target=helper), threading.Thread(target=caller)]
    workers[0].start()
    assert pinned.wait(30)
    workers[1].start()
    workers[1].join()
    go_on.set()
    workers[0].join()
    assert seen == [{cores[0]}]
    assert sorted(os.sched_getaffinity(0)) == cores


def test_a_thread_stays_where_it_may_be_if_nobody_is_pinned() -> None:
    said = in_a_session_of_its_own(
        "import os\nfrom livestain._priority import keep_off_pinned_cores\n"
        "before = os.sched_getaffinity(0); keep_off_pinned_cores(); print(os.sched_getaffinity(0) == before)"
    )
    assert said == "True"
