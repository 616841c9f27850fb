"""A measurement that is asked to stop: at the end of a run, and by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestain import _measure_run
from livestain._measure_run import measure_run
from livestain._session import run_experiment
from livestain._stop import Stop
from livestain.measure.saved import is_finished
from tests.test_measure_run import experiment

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_stopped_at_the_end_of_a_run_it_says_so_and_that_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    monkeypatch.setattr(_measure_run.MeasuringThread, "_work", lambda _: None)  # all is left to the end
    result = run_experiment(experiment(5), tmp_path / "run", stop=stop, on_measured=lambda _: stop.ask())
    assert result.measured is not None
    assert result.measured.stopped
    assert (result.reason, result.complete, result.interrupted) == ("completed", True, True)
    (trouble,) = result.troubles
    assert "was stopped and is not finished: 1 of 5 time points are measured" in trouble
    assert trouble.endswith(f"To go on: livestain measure {tmp_path / 'run'}")
    assert "owe" not in trouble
    finished = measure_run(tmp_path / "run")
    assert (finished.finished, finished.stopped, finished.already) == (True, False, False)
    assert is_finished(tmp_path / "run")
    assert {"labels", "phase.ome.zarr", "tracks.geff"} <= {file.name for file in finished.files}
    # Asked to stop while the tracks were written, which is after the last time point: nothing is left to do.
    again = measure_run(tmp_path / "run", again=True, stop=iter([False] * 5).__next__)
    assert (again.finished, again.stopped) == (True, False)
