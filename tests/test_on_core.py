"""A script or a program that owns a core has a sequence run on it: nothing of the core is changed or closed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import useq
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import UniMMCore

import livestain
from livestain._shipped import shipped_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livestain_models.package import Package


@pytest.fixture
def core() -> Iterator[UniMMCore]:
    mine = UniMMCore()
    mine.loadSystemConfiguration(shipped_config("simulated.cfg", bare=True))
    for name, value in (("Width", 128), ("Height", 96)):
        mine.setProperty("Camera", name, value)
    yield mine
    mine.unloadAllDevices()


def sequence(loops: int = 4, **plan: Any) -> useq.MDASequence:
    return useq.MDASequence(
        channels=[useq.Channel(config="BF", exposure=1)], time_plan={"interval": 0, "loops": loops} | plan
    )


def test_a_script_runs_a_sequence_on_its_core(
    core: UniMMCore, identity_model: Package, tmp_path: Path, read_run: Any
) -> None:
    engine = core.mda.engine
    seen: list[int] = []
    core.mda.events.frameReady.connect(lambda *_: seen.append(1))
    result = livestain.run(
        core,
        sequence(),
        stains=[{"model": str(identity_model.folder), "channel": "BF", "provider": "cpu"}],
        rig={"channels": {"BF": {"contrast": "bright field"}}},
        output={"folder": tmp_path / "runs", "name": "mine"},
    )
    assert result.complete
    assert result.folder == tmp_path / "runs" / "mine"
    array = read_run(result.folder).array()
    assert array.shape == (4, 2, 1, 96, 128)
    assert (array[:, 0] == array[:, 1]).all()
    assert len(seen) == 4  # the program's own listeners are served
    assert core.mda.engine is engine
    assert core.getCameraDevice() == "Camera"  # still loaded
    core.snapImage()
    again = livestain.load_experiment(result.folder / "experiment.yaml")
    assert again.sequence.channels[0].config == "BF"
    assert len(again.stains) == 1


def test_a_program_goes_on_while_it_runs(core: UniMMCore, tmp_path: Path) -> None:
    before = time.monotonic()
    running = livestain.start(core, sequence(1000, interval=0.05), output={"folder": tmp_path, "name": "long"})
    assert time.monotonic() - before < 2
    assert not running.done
    while running.status is None or running.status.acquired < 3:
        assert not running.done
        time.sleep(0.05)
    assert running.status.expected == 1000
    with pytest.raises(TimeoutError, match="goes on"):
        running.result(timeout_s=0.01)
    running.stop()
    result = running.result(timeout_s=30)
    assert result.reason == "canceled"
    assert 3 <= result.stats.frames_acquired < 1000


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"stains": [{"model": "nowhere", "channel": "BF"}]}, livestain.LivestainError, "nowhere"),
        ({"stains": [{"modell": "x", "channel": "BF"}]}, livestain.ExperimentError, "modell"),
        ({"rig": {"properties": [("Camera", "Width", 64)]}}, livestain.ExperimentError, "set it on your own core"),
        ({"rig": {"config": "nowhere.cfg"}}, livestain.RigError, "saveSystemConfiguration"),
        ({"sequence": useq.MDASequence(channels=["Nothing"])}, livestain.ExperimentError, "no preset 'Nothing'"),
    ],
)
def test_what_cannot_run_is_said_before_the_first_frame(
    core: UniMMCore, tmp_path: Path, given: dict[str, Any], error: type[Exception], says: str
) -> None:
    asked = given.pop("sequence", sequence())
    with pytest.raises(error, match=says):
        livestain.run(core, asked, output={"folder": tmp_path, "name": "never"}, **given)
    assert not (tmp_path / "never").exists()
    assert core.getCameraDevice() == "Camera"


def test_a_core_without_a_configuration_is_told_how_to_save_one(tmp_path: Path) -> None:
    with pytest.raises(livestain.RigError, match="saveSystemConfiguration"):
        livestain.run(CMMCorePlus(), sequence(), output={"folder": tmp_path})
