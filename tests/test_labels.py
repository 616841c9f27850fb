"""Label images beside the images: others' readers, growth, crashes, a reader in another process."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import useq
import yaozarrs
import zarr

from livestain._errors import StoreError
from livestain._layout import Layout
from livestain._store import Store
from livestain.measure.labels import LABEL_NAMES, LabelImages
from livestain.measure.phase_images import PhaseImages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "one": ({}, ""),
    "positions": ({"stage_positions": [(0, 0, 0), (9, 0, 0)]}, "1"),
    "plate": (
        {"stage_positions": {"plate": "96-well", "a1_center_xy": [0, 0], "selected_wells": [[0, 1], [0, 2]]}},
        "B/3/0",
    ),
    "stack": ({"z_plan": {"range": 6, "step": 3}}, ""),
}
SHAPE = (24, 40)


def layout(place: str) -> Layout:
    plan = {"channels": ["BF", "Phase"], "time_plan": {"interval": 2, "loops": 100}} | PLACES[place][0]
    return Layout.of(useq.MDASequence.model_validate(plan), height=SHAPE[0], width=SHAPE[1], pixel_size_um=0.5)


@pytest.fixture(params=PLACES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path, Layout]]:
    found = layout(request.param)
    store = Store.create(tmp_path / "run", found, {"stains": [], "provenance": {}}, sync=False)
    yield request.param, tmp_path / "run", found
    store.close("completed")


def planes(t: int) -> tuple[np.ndarray, np.ndarray]:
    cells = np.zeros(SHAPE, np.int32)
    cells[2:12, 3:20] = 70_000 + t
    return cells, np.where(np.arange(SHAPE[1]) < 9, cells, 0)


def test_validates_and_reads_back_beside_the_image(run: tuple[str, Path, Layout]) -> None:
    place, folder, found = run
    labels = LabelImages(folder, found, provenance={"method": "test"}, sync=False)
    number = len(found.images) - 1
    for t in (0, 1, 70):
        labels.write(number, t, *planes(t))
        yaozarrs.validate_zarr_store(str(folder / "images.ome.zarr"))
    path = folder / "images.ome.zarr" / PLACES[place][1]
    for name, plane in zip(LABEL_NAMES, planes(70), strict=True):
        array = zarr.open_array(path / "labels" / name / "0", mode="r")
        assert array.dtype == np.uint32
        assert array.shape == (100, 1, *SHAPE)
        np.testing.assert_array_equal(array[70, 0], plane)
        assert not array[2].any()
    assert zarr.open_group(path / "labels" / "cells", mode="r").attrs["livestain"] == {"method": "test"}


def test_ome_zarr_opens_labels_with_the_images_scale(run: tuple[str, Path, Layout]) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    place, folder, found = run
    LabelImages(folder, found, sync=False).write(len(found.images) - 1, 3, *planes(3))
    location = parse_url(folder / "images.ome.zarr" / PLACES[place][1])
    assert location is not None
    nodes = {node.zarr.path.rstrip("/").rpartition("/")[2]: node for node in Reader(location)()}
    image = nodes.pop(PLACES[place][1].rpartition("/")[2] or "images.ome.zarr")
    assert set(nodes) >= set(LABEL_NAMES)
    for name, plane in zip(LABEL_NAMES, planes(3), strict=True):
        ((own,),) = nodes[name].metadata["coordinateTransformations"]
        ((whole,),) = image.metadata["coordinateTransformations"]
        assert own["scale"] == [whole["scale"][i] for i in (0, 2, 3, 4)]
        np.testing.assert_array_equal(np.asarray(nodes[name].data[0][3, 0]), plane)


def test_grows_without_a_known_end_and_is_cut_at_the_end(tmp_path: Path) -> None:
    found = replace(layout("one"), n_t=None)
    labels = LabelImages(tmp_path, found, sync=False)
    assert labels.n_t(0) == 64
    labels.write(0, 64, *planes(64))
    assert labels.n_t(0) == 128
    labels.close([64])
    assert labels.n_t(0) == 65
    np.testing.assert_array_equal(labels.read(0, 64)[0], planes(64)[0])


def test_opens_again_after_a_kill_and_while_another_process_reads(tmp_path: Path) -> None:
    code = (  # not this whole file, which would take seconds to import
        "from __future__ import annotations\n"
        "from pathlib import Path; import numpy as np; import useq\n"
        "from livestain._layout import Layout; from livestain.measure.labels import LabelImages\n"
        f"PLACES, SHAPE = {PLACES!r}, {SHAPE!r}\n"
        f"{inspect.getsource(layout)}\n{inspect.getsource(planes)}\n"
        f"labels = LabelImages(Path({str(tmp_path)!r}), layout('one'), sync=False)\n"
        "for t in range(100):\n"
        "    labels.write(0, t, *planes(t)); print(t, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        done = -1
        while done < 5:
            line = process.stdout.readline()
            assert line, "the writer ended early"
            done = int(line)
            array = zarr.open_array(tmp_path / "images.ome.zarr" / "labels" / "cells" / "0", mode="r")
            np.testing.assert_array_equal(array[done, 0], planes(done)[0])
    finally:
        process.kill()
        process.communicate()
    again = LabelImages(tmp_path, layout("one"), sync=False)
    for t in range(done + 1):
        np.testing.assert_array_equal(again.read(0, t), np.stack(planes(t)))
    again.write(0, 99, *planes(99))
    np.testing.assert_array_equal(again.read(0, 99), np.stack(planes(99)))


@pytest.mark.parametrize("missing", ["labels/zarr.json", "labels/nuclei/zarr.json", "labels/nuclei/0/zarr.json"])
def test_a_crash_between_two_documents_is_mended(run: tuple[str, Path, Layout], missing: str) -> None:
    place, folder, found = run
    LabelImages(folder, found, sync=False).write(0, 0, *planes(0))
    images = folder / "images.ome.zarr"
    (images / PLACES[place][1] / missing).unlink()
    again = LabelImages(folder, found, sync=False)
    yaozarrs.validate_zarr_store(str(images))
    np.testing.assert_array_equal(again.read(0, 0)[0], planes(0)[0])


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (np.zeros((3, 3), np.int32), "shape"),
        (np.zeros(SHAPE, np.float32), "integers"),
        (np.full(SHAPE, -1), "from 0"),
        (np.full(SHAPE, 2**32), "4294967296"),
    ],
)
def test_what_is_no_label_image_is_refused(tmp_path: Path, cells: np.ndarray, says: str) -> None:
    labels = LabelImages(tmp_path, layout("one"), sync=False)
    with pytest.raises(StoreError, match=says):
        labels.write(0, 0, cells, np.zeros(SHAPE, np.int32))


def test_labels_of_another_camera_are_not_overwritten(tmp_path: Path) -> None:
    LabelImages(tmp_path, layout("one"), sync=False)
    with pytest.raises(StoreError, match="deleted and measured again"):
        LabelImages(tmp_path, replace(layout("one"), width=64), sync=False)


# ------------------------------------------------------------------ phase images, which are kept alike


def test_phase_grows_is_read_by_others_and_is_cut_at_the_end(tmp_path: Path) -> None:
    found, provenance = replace(layout("one"), n_t=None), {"phase": "test"}
    PhaseImages(tmp_path, found, provenance=provenance).write(0, 1, np.ones(SHAPE, np.float32))
    again = PhaseImages(tmp_path, found, provenance=provenance)
    again.write(0, 64, np.full(SHAPE, 0.25, np.float32))
    assert zarr.open_array(tmp_path / "phase.ome.zarr" / "0", mode="r").shape == (128, 1, 1, *SHAPE)
    again.close([64])
    yaozarrs.validate_zarr_store(str(tmp_path / "phase.ome.zarr"))
    array = zarr.open_array(tmp_path / "phase.ome.zarr" / "0", mode="r")
    assert (array.shape, array.dtype) == ((65, 1, 1, *SHAPE), np.float32)
    assert (array[1] == 1).all()
    assert np.isnan(array[2]).all()  # never measured
    assert (array[64] == 0.25).all()


def test_phase_of_another_camera_is_not_overwritten(tmp_path: Path) -> None:
    PhaseImages(tmp_path, layout("one"), provenance={})
    with pytest.raises(StoreError, match=r"holds float32 .*, not float32"):
        PhaseImages(tmp_path, replace(layout("one"), width=64), provenance={})
