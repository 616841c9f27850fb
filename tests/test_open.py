"""A run folder in a notebook: three lines, while the run goes on, after it, half of it missing."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from livestain import _open
from livestain._errors import LivestainError, StoreError
from livestain._layout import Image
from livestain.measure.phase_images import PhaseImages
from tests.run_folders import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

dask_array = pytest.importorskip("dask.array")
xarray = pytest.importorskip("xarray")
pandas = pytest.importorskip("pandas")

TWO = (Image("0", "left", 1), Image("1", "right", 1))
WELLS = (Image("A/1/0", "A1", 1, well=("A", "1", 0)), Image("B/12/0", "B12", 1, well=("B", "12", 0)))


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[..., Written]]:
    made = []

    def written(**kind: Any) -> Written:
        made.append(Written(tmp_path / "run", **kind))
        return made[-1]

    yield written
    for one in made:
        one.cells.close()
        one.summary.close()
        one.store.abandon()


def test_three_lines(write: Callable[..., Written]) -> None:
    folder = write().grow(6).end()
    run = _open.open(str(folder))
    images, cells = run.images, run.cells

    assert isinstance(images, xarray.DataArray)
    assert (images.dims, images.shape, images.dtype) == (tuple("tczyx"), (6, 2, 1, 64, 64), np.uint16)
    assert images.c.values.tolist() == ["BF", "Nuclei (predicted)"]
    np.testing.assert_allclose(images.t, 600.0 * np.arange(6))
    np.testing.assert_allclose(images.y, 0.5 * np.arange(64))
    assert [images[axis].attrs["units"] for axis in "tyx"] == ["s", "um", "um"]
    assert images.z.attrs["units"] == "plane"  # a single one: a step is not known
    assert images.attrs["units"] == "grey level"
    assert images.predicted.values.tolist() == [False, True]
    assert images.on_disk.values.all()
    plane = images.sel(c="BF", t=1800, method=None).isel(z=0)
    assert plane.sel(y=8, x=8, method="nearest") == 1003  # disc 1 at its centre, t = 3

    assert isinstance(cells, pandas.DataFrame)
    assert {"dry_mass_pg", "area_um2", "time_s"} <= set(cells.columns)
    assert cells[cells.cell == 1].dry_mass_pg.tolist() == [101.0 + t for t in range(6)]
    assert cells.attrs["livestain"]["version"] == 1
    assert run.summary.cells.tolist() == [4] * 4 + [5] * 2


def test_nothing_is_read_before_it_is_needed(write: Callable[..., Written]) -> None:
    folder = write().grow(3).end()
    images = _open.open(folder).images
    assert isinstance(images.data, dask_array.Array)
    assert images.data.chunksize == (1, 1, 1, 64, 64)
    shutil.rmtree(folder / "images.ome.zarr" / "0" / "c" / "1")
    assert images.isel(t=2).mean().compute() > 0
    assert images.isel(t=1).max().compute() == 0  # deleted after it was opened, before it was read


def test_labels_have_the_cells_numbers(write: Callable[..., Written]) -> None:
    folder = write().grow(6).end()
    run = _open.open(folder)
    labels = run.labels
    assert (labels.cells.dims, labels.cells.shape, labels.cells.dtype) == (tuple("tyx"), (6, 64, 64), np.uint32)
    np.testing.assert_array_equal(labels.t, run.images.t)
    mine = run.images.isel(t=2, z=0).sel(c="BF").where(labels.cells.isel(t=2) == 3)  # axes fit together
    assert float(mine.mean()) == 3002
    assert set(np.unique(labels.nuclei)) == {0, 1, 2, 3, 4, 101, 102}


def test_tracks_are_a_row_a_cell(write: Callable[..., Written]) -> None:
    tracks = _open.open(write().grow(6).end()).tracks.set_index("cell")
    assert tracks.loc[2, "end"] == "division"
    assert tracks.loc[2, "end_s"] == 2100.0  # between t = 3 and 4
    assert (tracks.loc[101, "parent"], tracks.loc[101, "root"], tracks.loc[101, "end"]) == (2, 2, "")


def test_phase_in_rad(write: Callable[..., Written]) -> None:
    written = write().grow(3)
    folder = written.end()
    with pytest.raises(StoreError, match=r"no phase\.ome\.zarr.*measure\.phase"):
        _ = _open.open(folder).phase
    phase = PhaseImages(folder, written.layout, provenance={})
    phase.write(0, 1, np.full((64, 64), 0.25, np.float32))
    found = _open.open(folder).phase
    assert (found.dims, found.shape, found.attrs["units"]) == (tuple("tyx"), (3, 64, 64), "rad")
    assert float(found.isel(t=1).max()) == 0.25
    assert bool(found.isel(t=0).isnull().all())


@pytest.mark.parametrize(("images", "plate"), [(TWO, None), (WELLS, ("96-well", 8, 12))])
def test_several_positions_are_told_by_their_names(
    write: Callable[..., Written], images: tuple[Image, ...], plate: Any
) -> None:
    run = _open.open(write(images=images, plate=plate).grow(2).end())
    names = [image.name for image in images]
    assert list(run.positions) == list(run.images) == list(run.labels) == names
    for name in names:
        assert run.images[name].attrs["position"] == name
        assert run.images[name].shape == (2, 2, 1, 64, 64)
        assert run.labels[name].cells.isel(t=1).max() == 4
    assert set(run.cells.position) == set(names)


def test_a_stack_has_its_planes_in_um(write: Callable[..., Written]) -> None:
    images = _open.open(write(images=(Image("", "", 3, 1.5),)).grow(1).end()).images
    np.testing.assert_allclose(images.z, [0, 1.5, 3])
    assert images.z.attrs["units"] == "um"
    assert int(images.isel(t=0, c=0, z=2).max()) == 4002


def test_without_a_pixel_size_it_counts_pixels(write: Callable[..., Written]) -> None:
    images = _open.open(write(pixel_size_um=0.0).grow(1, measured=False).end()).images
    np.testing.assert_array_equal(images.x, np.arange(64))
    assert images.x.attrs["units"] == "px"


def test_while_the_run_goes_on(write: Callable[..., Written]) -> None:
    written = write().grow(2).grow(1, stained=False, measured=False)
    run = _open.open(written.folder)
    assert "going on" in repr(run)
    assert run.images.shape[0] == 3  # the arrays are longer
    assert run.images.on_disk.isel(t=2, z=0).values.tolist() == [True, False]
    assert run.labels.cells.shape[0] == 2  # up to what is measured
    written.grow(2)
    assert (run.images.shape[0], run.labels.t.size, run.cells.t.max()) == (5, 5, 4)
    written.end()
    assert (
        repr(run) == "<livestain run run: 1 position, 5 time points, 2 channels, 64 x 64 px of 0.5 \u00b5m; completed>"
    )


def test_before_the_first_frame(write: Callable[..., Written]) -> None:
    run = _open.open(write().folder)
    assert run.images.shape == (0, 2, 1, 64, 64)
    assert (len(run.cells), len(run.summary), len(run.tracks)) == (0, 0, 0)
    assert run.labels.cells.shape == (0, 64, 64)


@pytest.mark.parametrize("what", ["cells", "summary", "tracks", "labels"])
def test_a_run_that_was_not_measured_says_how(write: Callable[..., Written], what: str) -> None:
    folder = write().grow(1).end()
    for name in ("cells", "summary"):
        (folder / f"{name}.arrow").unlink()
    with pytest.raises(StoreError, match=f"livestain measure {folder}"):
        getattr(_open.open(folder), what)


def test_what_is_no_run_or_has_lost_its_images_is_said(write: Callable[..., Written], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a run folder"):
        _open.open(tmp_path)
    folder = write().grow(1).end()
    shutil.rmtree(folder / "images.ome.zarr" / "0")
    with pytest.raises(StoreError, match="livestain recover"):
        _ = _open.open(folder).images
    assert len(_open.open(folder).cells) == 4


@pytest.mark.parametrize(("what", "package"), [("images", "xarray"), ("labels", "dask.array"), ("cells", "pandas")])
def test_the_extra_is_named_where_it_is_missing(
    write: Callable[..., Written], monkeypatch: pytest.MonkeyPatch, what: str, package: str
) -> None:
    run = _open.open(write().grow(1).end())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LivestainError, match=rf'{package}.*pip install "livestain\[analysis\]"'):
        getattr(run, what)
