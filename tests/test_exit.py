"""Interpreters end cleanly after a run: pymmcore's late callbacks used to abort them."""

from __future__ import annotations

import pytest
from benchmarks.exits import exit_statuses


@pytest.mark.slow
@pytest.mark.timeout(900)  # each is a demo to its end: staining, measuring, the report
def test_twenty_demos_exit_cleanly() -> None:
    assert exit_statuses(20) == {0: 20}
