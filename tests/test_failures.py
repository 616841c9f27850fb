"""What goes wrong on a rig: each fault ends in a clear message, and nothing that was acquired is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaozarrs

from livestain._errors import ExperimentError, ModelError, RigError, StoreError
from livestain._reading import load_experiment
from livestain._recover import backfill, damaged_planes, recover
from livestain._session import run_experiment
from tests import model_builders
from tests.conftest import PIXEL_SIZE_UM, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from livestain_models.package import Package

BF = [{"config": "BF", "exposure": 1}]


def burst(loops: int) -> dict[str, Any]:
    return {"channels": BF, "time_plan": {"interval": 0, "loops": loops}}


def timed(loops: int, interval: float = 0.02) -> dict[str, Any]:
    return {"channels": BF, "time_plan": {"interval": interval, "loops": loops}}


def acquire(path: Path, **more: Any) -> Any:
    experiment = load_experiment(path)
    return run_experiment(experiment, experiment.run_folder(path.stem), **more)


def assert_all_journalled_is_whole(folder: Path) -> Run:
    run = Run(folder)
    yaozarrs.validate_zarr_store(str(run.images))
    assert damaged_planes(folder) == []
    return run


# ------------------------------------------------------------------------------------------ the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few frames."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(mount)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("a small file system can be mounted only as root on Linux")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("sequence", [burst(200), timed(200)], ids=["burst", "timed"])
def test_a_full_disk_ends_the_run_and_keeps_every_frame_before(
    sequence: dict[str, Any], small_disk: Path, write_experiment: Callable[..., Path]
) -> None:
    path = write_experiment(sequence=sequence, output={"folder": str(small_disk), "name": "run"})
    with pytest.raises(StoreError, match=r"(?s)No space left.*is on disk.*livestain recover"):
        acquire(path)
    folder = small_disk / "run"
    frames = [line["at"][1] for line in Run(folder).of_kind("raw")]
    assert 3 <= len(frames) < 200
    assert frames == list(range(len(frames)))
    assert_all_journalled_is_whole(folder)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)  # someone made room
    done = recover(folder)
    assert done.frames >= len(frames)
    assert not done.damaged


def test_an_output_that_exists_is_never_touched(write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    there = tmp_path / "runs" / "run"
    there.mkdir(parents=True)
    (there / "precious").write_text("data")
    with pytest.raises(StoreError, match=r"exists already.*output\.name"):
        acquire(write_experiment())
    assert [p.name for p in there.iterdir()] == ["precious"]


def test_an_output_folder_that_cannot_be_made_is_named(write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file stands in the way")
    path = write_experiment(output={"folder": str(tmp_path / "file"), "name": "run"})
    with pytest.raises(StoreError, match=r"cannot make the run folder .*file.run: .*output\.folder"):
        acquire(path)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_output_folder_is_named(write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    path = write_experiment(output={"folder": str(locked), "name": "run"})
    with pytest.raises(StoreError, match="Permission denied"):
        acquire(path)


def test_two_processes_cannot_write_one_run(write_experiment: Callable[..., Path]) -> None:
    from livestain._store import Store

    result = acquire(write_experiment())
    store, _ = Store.reopen(result.folder)
    with pytest.raises(StoreError, match="being written by another process"):
        recover(result.folder)
    store.abandon()
    assert not recover(result.folder).damaged


# ------------------------------------------------------------------------------------------ the model


def fragile(tmp_path: Path) -> Package:
    return model_builders.package(tmp_path / "fragile", model_builders.fragile_graph(), pixel_size_um=PIXEL_SIZE_UM)


@pytest.mark.parametrize("live", [True, False], ids=["timed", "burst"])
def test_a_model_that_raises_on_frame_7_costs_that_prediction_and_nothing_else(
    live: bool, write_experiment: Callable[..., Path], identity_model: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    from livestain import _stain

    real = _stain.OnnxModel.predict
    frames: list[bytes] = []

    def predict(self: Any, planes: np.ndarray) -> Any:
        if not (planes == 1).all():  # not the warm-up
            if planes.tobytes() not in frames:
                frames.append(planes.tobytes())
            if frames.index(planes.tobytes()) == 6:
                raise RuntimeError("the driver was reset")
        return real(self, planes)

    monkeypatch.setattr(_stain.OnnxModel, "predict", predict)
    stains = [{"model": str(identity_model.folder), "channel": "BF"}]
    result = acquire(write_experiment(sequence=timed(15) if live else burst(15), stains=stains))
    assert result.reason == "completed"
    assert not result.complete
    assert (result.stats.frames_acquired, result.stats.frames_stained, result.stats.frames_pending) == (15, 14, 1)
    assert "the driver was reset" in result.troubles[0]
    run = assert_all_journalled_is_whole(result.folder)
    assert "the driver was reset" in (result.folder / "run.log").read_text()

    monkeypatch.undo()
    assert backfill(result.folder).frames_pending == 0
    np.testing.assert_array_equal(run.array()[:, 1], run.array()[:, 0])


def test_a_model_that_is_broken_for_good_is_switched_off_and_the_acquisition_goes_on(
    write_experiment: Callable[..., Path], identity_model: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    from livestain import _stain

    calls = 0
    real = _stain.OnnxModel.predict

    def predict(self: Any, planes: np.ndarray) -> Any:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise RuntimeError("out of memory")
        return real(self, planes)

    monkeypatch.setattr(_stain.OnnxModel, "predict", predict)
    stains = [{"model": str(identity_model.folder), "channel": "BF"}]
    result = acquire(write_experiment(sequence=timed(30), stains=stains))
    assert result.stats.frames_acquired == 30
    assert 0 < result.stats.frames_stained < 10
    assert result.stats.frames_stained + result.stats.frames_pending == 30
    assert any("switched off" in trouble for trouble in result.troubles)
    assert len(result.troubles) < 10
    assert calls < 30, "a model that is off is not asked again for every frame"
    monkeypatch.undo()
    assert backfill(result.folder).frames_stained == 30


def test_a_model_that_recovers_on_its_second_try_loses_nothing(
    write_experiment: Callable[..., Path], identity_model: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    from livestain import _stain

    real = _stain.OnnxModel.predict
    calls = 0

    def predict(self: Any, planes: np.ndarray) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise RuntimeError("a hiccup")
        return real(self, planes)

    monkeypatch.setattr(_stain.OnnxModel, "predict", predict)
    stains = [{"model": str(identity_model.folder), "channel": "BF"}]
    result = acquire(write_experiment(sequence=timed(12), stains=stains))
    assert result.complete
    assert "was restarted" in result.troubles[0]


def stained_by(model: Path | str, **more: Any) -> list[dict[str, Any]]:
    return [{"model": str(model), "channel": "BF", **more}]


def test_a_wrong_pixel_size_is_refused_before_the_first_frame(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    model = model_builders.package(tmp_path / "m", pixel_size_um=0.65)
    with pytest.raises(ModelError, match=r"trained at 0\.65 um.*rig has 0\.325 um.*wrong without looking wrong"):
        acquire(write_experiment(stains=stained_by(model.folder)))
    assert not (tmp_path / "runs").exists()


def test_another_contrast_is_refused(write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    model = model_builders.package(tmp_path / "m", pixel_size_um=PIXEL_SIZE_UM, contrast="phase contrast")
    path = write_experiment(
        rig={"config": "simulated.cfg", "channels": {"BF": {"contrast": "bright field"}}},
        stains=stained_by(model.folder),
    )
    with pytest.raises(ModelError, match="stains phase contrast images, but the rig says that channel 'BF' is bright"):
        acquire(path)


def test_too_few_planes_are_refused(write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    model = model_builders.package(
        tmp_path / "m",
        model_builders.identity_graph(planes=3),
        pixel_size_um=PIXEL_SIZE_UM,
        planes=model_builders.Planes(count=3, spacing_um=1.0),
        outputs=tuple(model_builders.Output(name=n, meaning="-") for n in "ABC"),
    )
    with pytest.raises(ModelError, match="takes 3 focal planes, but channel 'BF' has 1"):
        acquire(write_experiment(stains=stained_by(model.folder)))
    wrong_step = {"channels": BF, "z_plan": {"range": 4, "step": 2}}
    with pytest.raises(ModelError, match=r"3 rising planes 1 um apart, but a z_plan goes to -2, 0, 2 um"):
        acquire(write_experiment(sequence=wrong_step, stains=stained_by(model.folder)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"%PDF-1.7 not a network",
    ],
    ids=["truncated", "empty", "foreign"],
)
def test_a_broken_weights_file_is_refused_before_the_first_frame(
    spoil: Callable[[bytes], bytes], write_experiment: Callable[..., Path], identity_model: Package, tmp_path: Path
) -> None:
    weights = identity_model.weights
    weights.write_bytes(spoil(weights.read_bytes()))
    with pytest.raises(ModelError, match="sha256"):
        acquire(write_experiment(stains=stained_by(identity_model.folder)))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(
    provider: str, write_experiment: Callable[..., Path], identity_model: Package
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is a GPU runtime here")
    with pytest.raises(ModelError, match=rf"(?i){provider}.*gpu"):
        acquire(write_experiment(stains=stained_by(identity_model.folder, provider=provider)))


def test_a_model_that_does_not_exist_is_named_with_what_there_is(write_experiment: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="nucleii"):
        acquire(write_experiment(stains=stained_by("nucleii")))


def test_a_channel_that_is_not_acquired_cannot_be_stained(
    write_experiment: Callable[..., Path], identity_model: Package
) -> None:
    stains = [{"model": str(identity_model.folder), "channel": "Phase"}]
    with pytest.raises(ExperimentError, match="stain channel 'Phase', but the sequence acquires BF"):
        acquire(write_experiment(stains=stains))


# ------------------------------------------------------------------------------------------ the microscope


def rig(**camera: Any) -> dict[str, Any]:
    properties = [["Camera", "Width", 128], ["Camera", "Height", 96]]
    return {"config": "simulated.cfg", "properties": [*properties, *(["Camera", k, v] for k, v in camera.items())]}


def test_a_camera_that_fails_mid_run_ends_it_with_its_reason(
    write_experiment: Callable[..., Path], identity_model: Package, tmp_path: Path
) -> None:
    path = write_experiment(rig=rig(FailAtExposure=8), sequence=timed(20), stains=stained_by(identity_model.folder))
    with pytest.raises(RigError, match=r"3 events in a row failed; the last at .*t=9.*Failed to snap image.*on disk"):
        acquire(path)
    run = assert_all_journalled_is_whole(tmp_path / "runs" / "run")
    assert [line["at"][1] for line in run.of_kind("raw")] == list(range(7))
    assert [line["at"][1] for line in run.of_kind("missing")] == [7, 8, 9]
    np.testing.assert_array_equal(run.array()[:, 1], run.array()[:, 0])
    assert run.array().shape[0] == 7


# The simulated camera's error surfaces in the core's own thread, whose business it is.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_camera_that_fails_in_a_burst_leaves_a_gap_with_its_reason(
    write_experiment: Callable[..., Path], identity_model: Package
) -> None:
    path = write_experiment(rig=rig(FailAtExposure=8), sequence=burst(20), stains=stained_by(identity_model.folder))
    result = acquire(path)
    assert not result.complete
    assert "the camera ended its burst after 7 of 20 frames" in result.troubles[0]
    assert (result.stats.frames_acquired, result.stats.frames_missing, result.stats.frames_pending) == (7, 13, 0)
    run = assert_all_journalled_is_whole(result.folder)
    assert [line["at"][1] for line in run.of_kind("missing")] == list(range(7, 20))


def test_one_failed_exposure_is_journalled_and_the_run_goes_on(
    write_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from livestain.simulate.devices import Camera

    real = Camera.expose
    exposures = 0

    def expose(self: Any) -> Any:
        nonlocal exposures
        exposures += 1
        if exposures == 3:
            raise RuntimeError("the camera did not answer")
        return real(self)

    monkeypatch.setattr(Camera, "expose", expose)
    result = acquire(write_experiment(sequence=timed(6)))
    assert not result.complete
    assert (result.stats.frames_acquired, result.stats.frames_missing) == (5, 1)
    run = Run(result.folder)
    assert run.of_kind("missing") == [
        {"kind": "missing", "at": [0, 2, 0, 0], "why": "Failed to snap image. the camera did not answer"}
    ]
    assert [bool(plane.any()) for plane in run.array()[:, 0, 0]] == [True, True, False, True, True, True]


def test_a_stage_that_does_not_move_is_not_recorded_as_if_it_had(
    write_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from livestain.simulate import devices

    def stuck(self: Any, x: float, y: float) -> None:
        if x > 50:
            raise RuntimeError("limit switch")
        self._at = (x, y)

    monkeypatch.setattr(devices.XYStage, "set_position_um", stuck)
    sequence = {
        "channels": BF,
        "stage_positions": [{"x": 0, "y": 0, "z": 0}, {"x": 100, "y": 0, "z": 0}],
        "time_plan": {"interval": 0.02, "loops": 2},
    }
    result = acquire(write_experiment(sequence=sequence))
    assert (result.stats.frames_acquired, result.stats.frames_missing) == (2, 2)
    assert "limit switch" in Run(result.folder).of_kind("missing")[0]["why"]


def test_a_camera_faster_than_disk_and_buffers_overflows_loudly(
    write_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import time

    from livestain import _store

    real = _store.Store.commit

    def slow(self: Any, items: Any) -> None:
        time.sleep(0.3)
        real(self, items)

    monkeypatch.setattr(_store.Store, "commit", slow)
    big = {"config": "simulated.cfg", "properties": [["Camera", "FrameInterval_ms", 2]], "circular_buffer_mb": 4}
    path = write_experiment(
        rig=big, sequence=burst(120), output={"folder": str(tmp_path / "runs"), "name": "run", "write_buffer_mb": 1}
    )
    with pytest.raises(RigError, match=r"buffer overflowed.*circular_buffer_mb"):
        acquire(path)
    run = assert_all_journalled_is_whole(tmp_path / "runs" / "run")
    frames = [line["at"][1] for line in run.of_kind("raw")]
    assert frames
    assert frames == list(range(len(frames)))


def test_a_viewer_that_raises_is_switched_off_and_costs_nothing(
    write_experiment: Callable[..., Path], identity_model: Package
) -> None:
    calls = 0

    def look(_: Any) -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError("a plot without points")

    result = acquire(write_experiment(sequence=timed(10), stains=stained_by(identity_model.folder)), on_stained=look)
    assert result.complete
    assert calls == 1
    assert "viewer failed" in result.troubles[0]
    assert "a plot without points" in (result.folder / "run.log").read_text()


def test_a_progress_display_that_raises_is_switched_off(write_experiment: Callable[..., Path]) -> None:
    def show(_: Any) -> None:
        raise UnicodeEncodeError("cp1252", "█", 0, 1, "a Windows console")

    result = acquire(write_experiment(sequence=timed(20)), on_progress=show)
    assert result.complete
    assert "progress display failed" in result.troubles[0]


def test_the_sign_of_life_goes_on_without_the_display(
    write_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from livestain import _session

    beats: list[int] = []
    monkeypatch.setattr(_session.Pulse, "beat", lambda _, status: beats.append(status.acquired))

    def show(_: Any) -> None:
        raise ZeroDivisionError("a bar without a length")

    assert acquire(write_experiment(sequence=timed(20)), on_progress=show).complete
    assert beats[-1] == 20


def test_a_drive_that_does_not_say_its_room_for_a_moment_ends_no_run(
    write_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from livestain import _run

    asked: list[Any] = []
    real = _run.shutil.disk_usage

    def flaky(folder: Any) -> Any:
        asked.append(folder)
        if len(asked) < 3:
            raise OSError("the network path was not found")
        return real(folder)

    monkeypatch.setattr(_run.shutil, "disk_usage", flaky)
    result = acquire(write_experiment(sequence=timed(20)))
    assert result.complete
    assert [trouble for trouble in result.troubles if "network path" in trouble]
    assert len(asked) >= 3


def test_whatever_a_callback_raises_no_thread_is_left_behind(write_experiment: Callable[..., Path]) -> None:
    import threading

    def show(_: Any) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        acquire(write_experiment(sequence=timed(10_000)), on_progress=show)
    assert not [t for t in threading.enumerate() if t.name.startswith("livestain-")]


@pytest.mark.parametrize(
    ("rig", "error", "says"),
    [
        (
            {"config": "simulated.cfg", "properties": [["Camera", "Widht", 3]]},
            RigError,
            "Camera.Widht cannot be set to 3",
        ),
    ],
)
def test_rig_faults(rig: dict[str, Any], error: type[Exception], says: str, write_experiment: Any) -> None:
    with pytest.raises(error, match=says):
        acquire(write_experiment(rig=rig))
