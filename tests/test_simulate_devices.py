"""The simulated microscope as pymmcore-plus sees it: a configuration file, a core, an acquisition."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import useq
from hypothesis import given
from hypothesis import strategies as st
from pymmcore import CMMCore
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import UniMMCore

from livestain._errors import RigError
from livestain.simulate import circular_buffer_mb, microscope
from livestain.simulate.devices import Camera, XYStage

CONFIG = Path(__file__).parents[1] / "hardware_configs" / "simulated.cfg"

Build = Callable[[], UniMMCore]


@pytest.fixture
def build() -> Iterator[Build]:
    cores: list[UniMMCore] = []

    def one() -> UniMMCore:
        core = UniMMCore()
        cores.append(core)
        core.loadSystemConfiguration(CONFIG)
        core.setProperty("Camera", "Width", 128)
        core.setProperty("Camera", "Height", 96)
        core.setProperty("Scope", "WorldSize_um", 150)
        return core

    yield one
    for core in cores:
        core.unloadAllDevices()
        CMMCore.registerCallback(core, None)


@pytest.fixture
def core(build: Build) -> UniMMCore:
    return build()


def snap(core: UniMMCore) -> np.ndarray:
    core.snapImage()
    return core.getImage()


def acquire(core: UniMMCore, sequence: useq.MDASequence) -> list[tuple[np.ndarray, useq.MDAEvent]]:
    frames: list[tuple[np.ndarray, useq.MDAEvent]] = []
    core.mda.events.frameReady.connect(lambda image, event: frames.append((image, event)))
    core.mda.run(sequence)
    assert core.mda.status.finish_reason == "completed"
    return frames


def test_configuration_as_shipped() -> None:
    core = UniMMCore()
    core.loadSystemConfiguration(CONFIG)
    assert (core.getImageWidth(), core.getImageHeight(), core.getImageBitDepth()) == (512, 512, 16)
    assert core.getPixelSizeUm() == 0.325
    assert float(core.getProperty("Scope", "PixelSize_um")) == 0.325
    assert (core.getCameraDevice(), core.getXYStageDevice(), core.getFocusDevice()) == ("Camera", "XY", "Z")
    assert (core.getShutterDevice(), core.getSLMDevice(), core.getAutoShutter()) == ("Shutter", "SLM", True)
    assert core.getChannelGroup() == "Channel"
    assert {"BF", "Nuclei", "Membrane", "Dead"} <= set(core.getAvailableConfigs("Channel"))
    assert core.getCurrentConfig("Channel") == "BF"
    core.unloadAllDevices()
    CMMCore.registerCallback(core, None)


def test_saved_configuration_loads_again(core: UniMMCore, tmp_path: Path) -> None:
    core.saveSystemConfiguration(tmp_path / "saved.cfg")
    again = UniMMCore()
    again.loadSystemConfiguration(tmp_path / "saved.cfg")
    assert again.getPixelSizeUm() == 0.325
    assert again.getImageWidth() == 128
    again.unloadAllDevices()
    CMMCore.registerCallback(again, None)


def test_snap(core: UniMMCore) -> None:
    image = snap(core)
    assert image.dtype == np.uint16
    assert image.shape == (96, 128) == microscope(core).truth().cell_labels.shape
    assert 8_000 < np.median(image) < 14_000


def test_same_seed_same_images(build: Build) -> None:
    first, second = build(), build()
    for channel in ("BF", "Nuclei", "Phase1"):
        for one in (first, second):
            one.setConfig("Channel", channel)
            one.setPosition(1.0)
        np.testing.assert_array_equal(snap(first), snap(second))


def test_two_cores_share_nothing(build: Build) -> None:
    first, second = build(), build()
    first.setXYPosition(100.0, 0.0)
    first.setConfig("Channel", "Dead")
    first.setProperty("Scope", "Seed", 9)
    assert second.getXYPosition() == (0.0, 0.0)
    assert second.getCurrentConfig("Channel") == "BF"
    assert microscope(first) is not microscope(second)
    assert microscope(second).settings.seed == 1


def test_a_core_without_the_simulated_microscope_says_so() -> None:
    core = CMMCorePlus()
    with pytest.raises(RigError, match="No simulated microscope"):
        microscope(core)
    CMMCore.registerCallback(core, None)


@pytest.mark.parametrize("device", [Camera, XYStage])
def test_a_device_without_a_scope_is_refused(device: Callable[[], object], core: UniMMCore) -> None:
    with pytest.raises(RigError, match="Scope"):
        device()  # the core's own bench has one already


def test_burst_of_fifty_frames_is_one_hardware_sequence(core: UniMMCore) -> None:
    started: list[object] = []
    core.events.sequenceAcquisitionStarted.connect(lambda *args: started.append(args))
    core.setExposure(1.0)
    frames = acquire(core, useq.MDASequence(time_plan={"interval": 0, "loops": 50}, channels=["BF"]))
    assert len(frames) == 50
    assert len(started) == 1
    assert len({image.tobytes() for image, _ in frames}) == 50


def test_all_axes(core: UniMMCore) -> None:
    sequence = useq.MDASequence(
        axis_order="tpcz",
        time_plan={"interval": 0, "loops": 2},
        stage_positions=[(0, 0, 0), (60, 40, 0)],
        channels=[{"config": "BF", "exposure": 1}, {"config": "Nuclei", "exposure": 2}],
        z_plan={"range": 2, "step": 1},
    )
    frames = acquire(core, sequence)
    assert len(frames) == 2 * 2 * 2 * 3
    medians = {name: np.median([i for i, e in frames if e.channel.config == name]) for name in ("BF", "Nuclei")}
    assert medians["Nuclei"] < 200 < 800 < medians["BF"]


def test_slm_images_shift_the_undiffracted_light(core: UniMMCore) -> None:
    plain = snap(core).astype(float)
    images = []
    for value in (0, 64, 128, 192):
        event = useq.MDAEvent(channel="BF", slm_image=useq.SLMImage(data=value), exposure=10)
        core.mda.run([event])
        images.append(core.getImage().astype(float))
    assert np.corrcoef(images[0].ravel(), plain.ravel())[0, 1] > 0.5
    assert all(image.std() > 3 * plain.std() for image in images[1:])


def test_region_of_interest(core: UniMMCore) -> None:
    core.setROI(16, 8, 64, 32)
    assert snap(core).shape == (32, 64)
    assert core.getROI() == [16, 8, 64, 32]
    core.clearROI()
    assert snap(core).shape == (96, 128)
    with pytest.raises(RigError, match="128x96"):
        core.setROI(100, 0, 64, 64)


def test_camera_size_can_change_at_any_time(core: UniMMCore) -> None:
    snap(core)
    core.setProperty("Camera", "Width", 200)
    assert snap(core).shape == (96, 200)


def test_exposure_takes_its_time(core: UniMMCore) -> None:
    core.setExposure(60.0)
    before_s = time.perf_counter()
    snap(core)
    assert time.perf_counter() - before_s >= 0.06  # a lower bound holds on any machine


def test_manual_shutter_closed_is_dark(core: UniMMCore) -> None:
    core.setProperty("Shutter", "Mode", "Manual")
    assert snap(core).mean() < 120
    core.setShutterOpen(True)
    assert snap(core).mean() > 8_000


def test_camera_fails_from_the_exposure_asked_for(core: UniMMCore) -> None:
    core.setProperty("Camera", "FailAtExposure", 3)
    snap(core)
    snap(core)
    for _ in range(2):
        with pytest.raises(RigError, match="FailAtExposure is 3"):
            core.snapImage()
    core.setProperty("Camera", "FailAtExposure", 0)
    snap(core)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_camera_that_fails_within_a_burst_ends_it(core: UniMMCore) -> None:
    core.setProperty("Camera", "FailAtExposure", 6)
    core.startSequenceAcquisition(20, 0, True)
    deadline_s = time.monotonic() + 20
    while core.isSequenceRunning() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert core.getRemainingImageCount() == 5


@pytest.mark.parametrize(
    ("device", "name", "value"),
    [("Camera", "Width", "wide"), ("Camera", "Binning", 2), ("Scope", "Seed", -1), ("SLM", "Value", 256)],
)
def test_bad_properties(core: UniMMCore, device: str, name: str, value: object) -> None:
    with pytest.raises(RigError, match=rf"{name} was set to {value!r}; give a"):
        core.setProperty(device, name, value)


def test_stage_origin(core: UniMMCore) -> None:
    core.setXYPosition(30.0, 20.0)
    core.setOriginXY()
    assert core.getXYPosition() == (0.0, 0.0)
    core.setXYPosition(1.0, 2.0)
    bench = microscope(core).bench
    assert (bench.x_um, bench.y_um) == (31.0, 22.0)


@given(
    height=st.integers(1, 4096), width=st.integers(1, 4096), depth=st.sampled_from([1, 2]), frames=st.integers(1, 500)
)
def test_circular_buffer_is_a_whole_number_of_frames(height: int, width: int, depth: int, frames: int) -> None:
    size = circular_buffer_mb(height, width, depth, frames) * 1024**2
    assert size % (height * width * depth) == 0
    assert size >= frames * height * width * depth
