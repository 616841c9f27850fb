"""Planes that are written past the page cache: the same files, whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorstore as ts
import useq
from hypothesis import given, settings
from hypothesis import strategies as st

from livestain import _direct, _images
from livestain._direct import DirectPlanes, can_write_directly
from livestain._frame import Frame, Place
from livestain._images import Images
from livestain._layout import Layout
from livestain._recover import damaged_planes, recover
from livestain._store import Store, StoreError
from livestain._time_array import TimeArray, sharded

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LARGE = (1024, 1030)  # of uint16 it is just over the size from which planes go past the page cache


@pytest.fixture(autouse=True)
def _on_a_file_system_that_can(tmp_path: Path) -> None:
    if not can_write_directly(tmp_path):
        pytest.skip("this system does not write past the page cache")


def array_of(folder: Path, height: int, width: int, compressor: tuple[str, int] = ("lz4", 5)) -> TimeArray:
    metadata = sharded("uint16", ("t", "y", "x"), (height, width), n_t=4, compressor=compressor)
    return TimeArray(folder.resolve() / "array", metadata, ts.Context(), create=True)


def noise(height: int, width: int, seed: int = 0, greatest: int = 4000) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(1, greatest, (height, width), dtype=np.uint16)


@given(
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    greatest=st.sampled_from([2, 300, 65535]),
    compressor=st.sampled_from([("lz4", 5), ("zstd", 1)]),
)
@settings(max_examples=20)
def test_a_file_is_what_tensorstore_would_write(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, greatest: int, compressor: tuple[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("direct")
    array, plane = array_of(folder, height, width, compressor), noise(height, width, greatest=greatest)
    array[(0,)].write(plane).result()
    chunks, direct = folder / "array" / "c", DirectPlanes(array.metadata)
    try:
        direct.write(chunks / "1" / "0" / "0", plane).result()
    finally:
        direct.close()
    assert (chunks / "1" / "0" / "0").read_bytes() == (chunks / "0" / "0" / "0").read_bytes()
    assert np.array_equal(array[(1,)].read().result(), plane)
    assert [path.name for path in (chunks / "1" / "0").iterdir()] == ["0"]


def test_a_plane_of_fill_value_is_no_file_and_a_plane_is_replaced_whole(tmp_path: Path) -> None:
    array, file = array_of(tmp_path, 64, 64), tmp_path / "array" / "c" / "2" / "0" / "0"
    direct = DirectPlanes(array.metadata)
    first, second = noise(64, 64, 1, greatest=65535), noise(64, 64, 2, greatest=3)  # the second one is much shorter
    for plane in (first, second):
        direct.write(file, plane).result()
        assert np.array_equal(array[(2,)].read().result(), plane)
    for _ in range(2):
        direct.write(file, np.zeros((64, 64), np.uint16)).result()
        assert not file.exists()
    direct.close()


def test_writes_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    array = array_of(tmp_path, 300, 300)
    direct, planes = DirectPlanes(array.metadata), [noise(300, 300, seed, 65535 >> seed) for seed in range(12)]
    folder = tmp_path / "array" / "c"
    writes = [direct.write(folder / str(t) / "0" / "0", plane) for t, plane in enumerate(planes)]
    direct.close()  # waits for what was begun
    assert all(write.done() for write in writes)
    array.resize_t(12)
    for t, plane in enumerate(planes):
        assert np.array_equal(array[(t,)].read().result(), plane)


@pytest.mark.parametrize(
    ("name", "at_call"),
    [("write", 1), ("write", 2), ("ftruncate", 1), ("fsync", 1)],
    ids=["first bytes", "after a short write", "length", "sync"],
)
def test_a_failure_leaves_the_plane_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at_call: int
) -> None:
    array, file = array_of(tmp_path, 256, 256), tmp_path / "array" / "c" / "0" / "0" / "0"
    direct, before = DirectPlanes(array.metadata), noise(256, 256, 1)
    direct.write(file, before).result()
    real, calls = getattr(os, name), 0

    def fails(descriptor: int, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at_call:
            raise OSError(28, "No space left on device")
        return real(descriptor, args[0][:8192]) if name == "write" else real(descriptor, *args)

    with monkeypatch.context() as patch:
        patch.setattr(_direct.os, name, fails)
        with pytest.raises(OSError, match="No space left"):
            direct.write(file, noise(256, 256, 2)).result()
    assert calls == at_call
    assert [path.name for path in file.parent.iterdir()] == ["0"]
    assert np.array_equal(array[(0,)].read().result(), before)
    direct.write(file, after := noise(256, 256, 3)).result()  # somebody made room
    direct.close()
    assert np.array_equal(array[(0,)].read().result(), after)


# ---------------------------------------------------------------------------------------- in a run folder


def store_of(folder: Path, height: int, width: int, *, sync: bool = True) -> Store:
    sequence = useq.MDASequence(channels=["BF"], time_plan={"interval": 0, "loops": 3})
    layout = Layout.of(sequence, height=height, width=width, pixel_size_um=0.5, predicted=[])
    return Store.create(folder, layout, {"stains": [], "provenance": {}}, sync=sync)


@pytest.fixture
def written_directly(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that a test writes past the page cache."""
    files: list[Path] = []
    real = DirectPlanes.write

    def write(self: DirectPlanes, file: Path, plane: NDArray[Any]) -> Any:
        files.append(file)
        return real(self, file, plane)

    monkeypatch.setattr(DirectPlanes, "write", write)
    return files


@pytest.mark.parametrize(
    ("shape", "sync", "can", "directly"),
    [(LARGE, True, True, 2), (LARGE, False, True, 0), (LARGE, True, False, 0), ((1023, 1024), True, True, 0)],
    ids=["large", "without sync", "a file system that cannot", "small"],
)
def test_every_way_ends_in_the_same_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written_directly: list[Path],
    shape: tuple[int, int],
    sync: bool,
    can: bool,
    directly: int,
) -> None:
    if not can:
        monkeypatch.setattr(_images, "can_write_directly", lambda _: False)
    store = store_of(tmp_path / "run", *shape, sync=sync)
    planes = [noise(*shape, seed) for seed in range(2)]
    store.commit([Frame(Place(0, t, 0, 0), plane, 0, 0.0) for t, plane in enumerate(planes)])
    store.close("completed")
    assert len(written_directly) == directly
    images = Images(tmp_path / "run", store.layout)
    assert set(images.places()) == {Place(0, t, 0, 0) for t in range(2)}
    assert all(np.array_equal(images.read(Place(0, t, 0, 0)), plane) for t, plane in enumerate(planes))
    assert damaged_planes(tmp_path / "run") == []


def test_a_full_disk_is_one_sentence_and_the_run_can_be_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path / "run", *LARGE)
    store.commit([Frame(Place(0, 0, 0, 0), noise(*LARGE), 0, 0.0)])

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_direct.os, "write", full)
        with pytest.raises(StoreError, match=r"t=1.*No space left on device\. Every frame journalled is on disk"):
            store.commit([Frame(Place(0, 1, 0, 0), noise(*LARGE, 1), 0, 0.0)])
    store.abandon()
    done = recover(tmp_path / "run")
    assert (done.frames, done.damaged) == (1, ())


def test_what_a_killed_run_left_half_written_is_no_plane(tmp_path: Path) -> None:
    store = store_of(tmp_path / "run", *LARGE)
    store.commit([Frame(Place(0, 0, 0, 0), noise(*LARGE), 0, 0.0)])
    store.abandon()
    left = tmp_path / "run" / "images.ome.zarr" / "0" / "c" / "1" / "0" / "0" / "0" / "0.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a plane")
    done = recover(tmp_path / "run")
    assert (done.frames, done.damaged) == (1, ())
    again, _ = Store.reopen(tmp_path / "run")
    again.commit([Frame(Place(0, 1, 0, 0), noise(*LARGE, 1), 0, 0.0)])
    again.close("recovered")
    assert [path.name for path in left.parent.iterdir()] == ["0"]
