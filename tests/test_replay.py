"""Recorded images played as a live camera: TIFF stacks, folders of TIFFs, OME-Zarr, and real data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import useq
import zarr
from hypothesis import given
from hypothesis import strategies as st
from pymmcore import CMMCore
from pymmcore_plus.experimental.unicore import UniMMCore

from livestain._errors import RigError
from livestain.simulate._recording import open_recording

CONFIG = Path(__file__).parents[1] / "hardware_configs" / "replay.cfg"
DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real recordings are not part of a checkout")

Play = Callable[..., UniMMCore]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    cores: list[UniMMCore] = []

    def one(source: Path, **properties: object) -> UniMMCore:
        text = CONFIG.read_text().replace(
            "##py Property,Camera,Source,recording.tif", f"#py Property,Camera,Source,{source}"
        )
        config = tmp_path / "replay.cfg"
        config.write_text(text)
        core = UniMMCore()
        cores.append(core)
        core.loadSystemConfiguration(config)
        for name, value in properties.items():
            core.setProperty("Camera", name, value)
        core.setExposure(1.0)
        return core

    yield one
    for core in cores:
        core.unloadAllDevices()
        CMMCore.registerCallback(core, None)


def stack(planes: int = 4, dtype: str = "uint16", shape: tuple[int, int] = (32, 48)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (planes, *shape)).astype(dtype)


def write(path: Path, data: np.ndarray) -> Path:
    tifffile.imwrite(path, data, photometric="minisblack")
    return path


def snap(core: UniMMCore) -> np.ndarray:
    core.snapImage()
    return core.getImage()


def ome_zarr(path: Path, data: np.ndarray) -> Path:
    group = zarr.create_group(path)
    group.create_array("s0", data=data)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [{"path": "s0"}]}]}
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2"])
def test_tiff_stack(play: Play, tmp_path: Path, dtype: str) -> None:
    data = stack(dtype=dtype)
    write(tmp_path / "stack.tif", data)
    core = play(tmp_path / "stack.tif")
    assert (core.getImageWidth(), core.getImageHeight()) == (48, 32)
    assert core.getBytesPerPixel() == data.itemsize
    for plane in data:
        np.testing.assert_array_equal(snap(core), plane)


def test_folder_of_tiffs_plays_in_the_order_of_its_numbers(play: Play, tmp_path: Path) -> None:
    data = stack(12)
    (tmp_path / "frames").mkdir()
    for number, plane in enumerate(data):
        write(tmp_path / "frames" / f"frame_{number}.tif", plane)
    core = play(tmp_path / "frames")
    for plane in data:
        np.testing.assert_array_equal(snap(core), plane)


def test_ome_zarr_image_and_collection(play: Play, tmp_path: Path) -> None:
    data = stack(6).reshape(3, 2, 32, 48)
    core = play(ome_zarr(tmp_path / "image.zarr", data))
    played = [snap(core) for _ in range(6)]
    np.testing.assert_array_equal(np.reshape(played, data.shape), data)
    zarr.create_group(tmp_path / "run.zarr", attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    ome_zarr(tmp_path / "run.zarr" / "0", data)
    np.testing.assert_array_equal(snap(play(tmp_path / "run.zarr")), data[0, 0])


def test_the_end_is_an_error_unless_it_loops(play: Play, tmp_path: Path) -> None:
    data = stack(2)
    write(tmp_path / "two.tif", data)
    core = play(tmp_path / "two.tif")
    snap(core), snap(core)
    with pytest.raises(RigError, match="has 2 frames and all were played"):
        core.snapImage()
    core.setProperty("Camera", "Loop", 1)
    np.testing.assert_array_equal(snap(core), data[0])
    core.setProperty("Camera", "NextFrame", 1)
    np.testing.assert_array_equal(snap(core), data[1])


def test_z_stage_chooses_the_plane(play: Play, tmp_path: Path) -> None:
    data = stack(5)
    write(tmp_path / "z.tif", data)
    core = play(tmp_path / "z.tif", Axis="z", StepSize_um=0.5, FirstPlane_um=-1.0)
    for z_um, plane in ((0.0, 2), (1.0, 4), (-1.0, 0), (0.2, 2)):
        core.setPosition(z_um)
        np.testing.assert_array_equal(snap(core), data[plane])
    core.setPosition(1.5)
    with pytest.raises(RigError, match=r"at 1\.5 um, but the planes .* from -1 to 1 um"):
        core.snapImage()


def test_region_of_interest(play: Play, tmp_path: Path) -> None:
    data = stack(1)
    write(tmp_path / "one.tif", data)
    core = play(tmp_path / "one.tif")
    core.setROI(8, 4, 16, 10)
    np.testing.assert_array_equal(snap(core), data[0, 4:14, 8:24])


def test_a_burst_through_the_engine(play: Play, tmp_path: Path) -> None:
    data = stack(30)
    write(tmp_path / "many.tif", data)
    core = play(tmp_path / "many.tif")
    frames: list[np.ndarray] = []
    core.mda.events.frameReady.connect(lambda image: frames.append(image))
    core.mda.run(useq.MDASequence(time_plan={"interval": 0, "loops": 30}, channels=["BF"]))
    np.testing.assert_array_equal(frames, data)


def _float_stack(path: Path) -> Path:
    return write(path / "float.tif", stack().astype("float32"))


def _colour(path: Path) -> Path:
    tifffile.imwrite(path / "rgb.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    return path / "rgb.tif"


def _no_tiff(path: Path) -> Path:
    (path / "text.tif").write_text("not an image")
    return path / "text.tif"


def _empty_folder(path: Path) -> Path:
    (path / "empty").mkdir()
    return path / "empty"


def _unequal(path: Path) -> Path:
    (path / "unequal").mkdir()
    tifffile.imwrite(path / "unequal" / "1.tif", np.zeros((8, 8), np.uint16))
    tifffile.imwrite(path / "unequal" / "2.tif", np.zeros((8, 9), np.uint16))
    return path / "unequal"


def _no_image(path: Path) -> Path:
    zarr.create_group(path / "nothing.zarr")
    return path / "nothing.zarr"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "absent.tif", "does not exist"),
        (_float_stack, "holds float32 pixels"),
        (_colour, "colour"),
        (_no_tiff, "cannot be read as a TIFF"),
        (_empty_folder, "without .tif"),
        (_unequal, "one size and type"),
        (_no_image, "without an image"),
    ],
)
def test_recordings_that_cannot_be_played(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(RigError, match=message):
        open_recording(make(tmp_path))


def test_configuration_names_the_line_of_a_missing_recording(play: Play, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"at line 12.*\n.*\n?.*absent\.tif.* does not exist"):
        play(tmp_path / "absent.tif")


@given(
    planes=st.integers(1, 5),
    dtype=st.sampled_from(["uint8", "uint16"]),
    separate=st.booleans(),
    order=st.sampled_from("<>"),
    stored=st.sampled_from([{}, {"compression": "zlib"}, {"rowsperstrip": 2}, {"tile": (16, 16)}, {"bigtiff": True}]),
)
def test_every_plane_of_a_tiff_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    planes: int,
    dtype: str,
    separate: bool,
    order: str,
    stored: dict[str, object],
) -> None:
    data = stack(planes, dtype, (5, 7))
    path = tmp_path_factory.mktemp("planes") / "some.tif"
    # Some programs store a stack as one page of separate planes.
    planar = "separate" if separate and planes > 1 else None
    tifffile.imwrite(path, data, photometric="minisblack", planarconfig=planar, byteorder=order, **stored)
    recording = open_recording(path)
    assert recording.count == planes
    read = [recording.read(i) for i in range(planes)]
    np.testing.assert_array_equal(read, data)
    assert {plane.dtype for plane in read} == {np.dtype(dtype)}


def test_a_recording_that_was_cut_short_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "stack.tif", stack(3, "uint16", (8, 8)))
    recording = open_recording(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    recording.read(0)
    with pytest.raises(RigError, match="cut short"):
        recording.read(2)


@needs_data
def test_real_phase_contrast_stack_by_focus(play: Play) -> None:
    source = DATA / "isl" / "phase_contrast_zyx.tif"
    core = play(source, Axis="z", StepSize_um=2.0)
    frames: list[np.ndarray] = []
    core.mda.events.frameReady.connect(lambda image: frames.append(image))
    core.mda.run(useq.MDASequence(z_plan={"bottom": 0, "top": 24, "step": 2}, channels=["BF"]))
    np.testing.assert_array_equal(frames, tifffile.imread(source))


@needs_data
def test_real_bright_field_folder(play: Play) -> None:
    folder = DATA / "ecoli" / "ds1" / "brightfield"
    core = play(folder)
    files = sorted(folder.glob("*.tif"))
    for path in files:
        np.testing.assert_array_equal(snap(core), tifffile.imread(path))


@needs_data
def test_real_stack_within_one_page() -> None:
    path = DATA / "ecoli" / "ds3" / "flu.tif"
    recording = open_recording(path)
    assert recording.count == len(tifffile.imread(path))
    np.testing.assert_array_equal(recording.read(recording.count - 1), tifffile.imread(path)[-1])
