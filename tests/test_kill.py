"""kill -9 at any moment: the store opens and validates, what is journalled is bit-exact, the rest can be made."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from benchmarks.kill import check_killed_run, reference_frames, start_run

if TYPE_CHECKING:
    from pathlib import Path

    from livestain_models.package import Package


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("moment", [0.4, *(pytest.param(moment, marks=pytest.mark.slow) for moment in (0.1, 0.8))])
def test_a_killed_run_keeps_every_journalled_frame(moment: float, tmp_path: Path, identity_model: Package) -> None:
    folder = tmp_path / "runs" / "killed"
    process = start_run(folder, identity_model.folder)
    seconds = moment * 1.5 + random.uniform(0, 0.1)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    check_killed_run(folder, reference_frames())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize(
    "name", ["SIGINT", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGHUP"))]
)
def test_a_polite_stop_writes_everything_and_says_what_to_do(
    name: str, tmp_path: Path, identity_model: Package
) -> None:
    folder = tmp_path / "runs" / "stopped"
    process = start_run(folder, identity_model.folder, loops=5000)
    journal, until = folder / "frames.jsonl", time.monotonic() + 60  # a busy machine takes a while to the first frame
    while not (journal.exists() and b'"raw"' in journal.read_bytes()) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, getattr(signal, name))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "canceled" in out
    found = check_killed_run(folder, reference_frames(), was_killed=False)
    assert 0 < found.frames_acquired < 5000
