"""The run folder at its seams: commits that fail half-way, journals that tear, folders that are reopened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import useq
import zarr
from hypothesis import given
from hypothesis import strategies as st

from livestain._errors import StoreError
from livestain._frame import Frame, Job, Note, Place, Stained
from livestain._journal import Journal, Tail, read_lines
from livestain._layout import Channel, Layout
from livestain._ledger import Ledger
from livestain._lines import stain_line
from livestain._recover import damaged_planes, read_stats, recover
from livestain._store import Store

if TYPE_CHECKING:
    from pathlib import Path

STAINS = [{"channel": "BF", "planes": 1}]


def make(folder: Path, n_t: int = 100, stains: list[dict[str, Any]] = STAINS, **sequence: Any) -> Store:
    plan = {"channels": ["BF"], "time_plan": {"interval": 0, "loops": n_t}} | sequence
    layout = Layout.of(
        useq.MDASequence.model_validate(plan),
        height=8,
        width=8,
        pixel_size_um=0.5,
        predicted=[Channel("Nuclei (predicted)", stain=i, output=0) for i in range(len(stains))],
    )
    return Store.create(folder, layout, {"stains": stains, "provenance": {}}, sync=False)


def frame(t: int, z: int = 0) -> Frame:
    return Frame(Place(0, t, 0, z), np.full((8, 8), t * 10 + z + 1, np.uint16), 0, 0.0)


def stained(t: int, z: int = 0) -> Stained:
    job = Job(0, (Place(0, t, 0, z),), (Place(0, t, 1, z),), (frame(t, z),))
    return Stained(job, np.full((1, 8, 8), t * 10 + z + 1, np.uint16), "CPUExecutionProvider", 1, 1, 1)


def kinds(folder: Path) -> list[str]:
    return [line["kind"] for line in read_lines(folder / "frames.jsonl")]


@given(order=st.permutations(range(12)), batch=st.integers(1, 12))
def test_frames_in_any_order_land_in_their_place(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], batch: int
) -> None:
    folder = tmp_path_factory.mktemp("store") / "run"
    store = make(folder)
    for start in range(0, len(order), batch):
        store.commit([frame(t * 7) for t in order[start : start + batch]])  # beyond one block of time points
    store.close("completed")
    array = zarr.open_array(folder / "images.ome.zarr" / "0", mode="r")
    assert array.shape[0] == 78
    for t in order:
        assert (array[t * 7, 0, 0] == t * 70 + 1).all()
    assert damaged_planes(folder) == []


def test_the_siblings_of_a_plane_that_failed_are_kept_and_journalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path / "run")
    real = store.images.write

    def write(place: Place, image: Any) -> Any:
        if place.t == 3:
            raise ValueError("RESOURCE_EXHAUSTED: No space left on device [source locations='...']")
        return real(place, image)

    monkeypatch.setattr(store.images, "write", write)
    with pytest.raises(StoreError, match=r"t=3.*No space left on device\. Every frame journalled"):
        store.commit([frame(t) for t in range(6)])
    store.abandon()
    done = recover(tmp_path / "run")
    assert (done.frames, done.damaged) == (5, ())
    array = zarr.open_array(tmp_path / "run" / "images.ome.zarr" / "0", mode="r")
    assert [int(array[t, 0, 0, 0, 0]) for t in range(6)] == [1, 11, 21, 0, 41, 51]


def test_a_line_that_tears_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "frames.jsonl")
    journal.append([{"kind": "run"}])

    class Full:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, data: bytes) -> int:
            self._file.write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")

    whole = journal._file
    monkeypatch.setattr(journal, "_file", Full(whole))
    with pytest.raises(StoreError, match="No space left"):
        journal.append([{"kind": "raw"}])
    monkeypatch.setattr(journal, "_file", whole)
    journal.append([{"kind": "end"}])
    journal.close()
    assert [line["kind"] for line in read_lines(tmp_path / "frames.jsonl")] == ["run", "end"]


def test_a_prediction_journalled_before_its_frame_survives_recovery(tmp_path: Path) -> None:
    store = make(tmp_path / "run")
    store.commit([frame(0), stained(0)])
    store.commit([stained(1)])  # the disk buffer was full, and then the power went
    store.abandon()
    for _ in range(2):
        assert recover(tmp_path / "run").damaged == ()
    assert damaged_planes(tmp_path / "run") == []


def test_planes_that_were_synced_but_not_journalled_are_adopted(tmp_path: Path) -> None:
    store = make(tmp_path / "run")
    store.commit([frame(0)])
    store.images.write(Place(0, 1, 0, 0), frame(1).image).result()
    store.abandon()
    done = recover(tmp_path / "run")
    assert (done.adopted, done.frames, done.owed) == (1, 2, 2)
    again = recover(tmp_path / "run")
    assert (again.adopted, again.frames) == (0, 2)
    assert read_stats(tmp_path / "run").frames_pending == 2


def test_a_prediction_that_nobody_acknowledged_is_erased(tmp_path: Path) -> None:
    store = make(tmp_path / "run")
    store.commit([frame(0), frame(2)])
    for t in (0, 1):
        store.images.write(Place(0, t, 1, 0), frame(1).image).result()
    store.abandon()
    assert recover(tmp_path / "run").owed == 2
    array = zarr.open_array(tmp_path / "run" / "images.ome.zarr" / "0", mode="r")
    assert not array[:, 1].any()
    store, _ = Store.reopen(tmp_path / "run", sync=False)
    assert sorted((place.t, place.c) for place in store.images.places()) == [(0, 0), (2, 0)]
    store.abandon()


def test_what_is_owed_is_what_could_be_made_and_is_not_there(tmp_path: Path) -> None:
    stains = [{"channel": "BF", "planes": 3}]
    store = make(tmp_path / "run", stains=stains, z_plan={"range": 4, "step": 1})
    store.commit([frame(0, z) for z in range(5)] + [frame(1, z) for z in (0, 1, 3, 4)] + [stained(0, 2)])
    store.abandon()
    lines = list(read_lines(tmp_path / "run" / "frames.jsonl"))
    ledger = Ledger(lines[0], lines)
    assert [(job.targets[0].t, job.targets[0].z) for job in ledger.owed()] == [(0, 1), (0, 3)]
    assert [s.z for s in ledger.owed()[0].sources] == [0, 1, 2]
    assert ledger.stats().frames_pending == 2


def test_a_frame_that_was_missing_and_came_after_all_is_not_missing(tmp_path: Path) -> None:
    store = make(tmp_path / "run")
    store.note([{"kind": "missing", "at": [0, t, 0, 0], "why": "-"} for t in (0, 1)])
    store.commit([frame(0)])
    store.abandon()
    stats = read_stats(tmp_path / "run")
    assert (stats.frames_acquired, stats.frames_missing) == (1, 1)


def test_display_ranges_survive_and_those_never_chosen_are_chosen_later(tmp_path: Path) -> None:
    import json

    def windows() -> list[tuple[float, float]]:
        document = json.loads((tmp_path / "run" / "images.ome.zarr" / "zarr.json").read_text())
        channels = document["attributes"]["ome"]["omero"]["channels"]
        return [(channel["window"]["start"], channel["window"]["end"]) for channel in channels]

    store = make(tmp_path / "run")
    store.commit([frame(5)])
    store.close("completed")
    chosen = windows()
    assert chosen[0] != (0, 65535)
    store, _ = Store.reopen(tmp_path / "run", sync=False)
    store.commit([stained(5)])
    store.close("backfilled")
    assert windows()[0] == chosen[0]
    assert windows()[1] != (0, 65535)


def test_closing_releases_the_folder_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path / "run")
    monkeypatch.setattr(store, "_write_groups", lambda: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(StoreError, match=r"could not finish.*Input/output error.*livestain recover"):
        store.close("completed")
    assert not recover(tmp_path / "run").damaged


def test_a_header_longer_than_a_read_does_not_stop_the_tail(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "frames.jsonl")
    journal.append([{"kind": "run", "long": "x" * 5000}, {"kind": "raw"}])
    tail = Tail(tmp_path / "frames.jsonl")
    seen = [line["kind"] for _ in range(3) for line in tail.read(most_bytes=100)]
    journal.close()
    assert seen == ["run", "raw"]


def test_notes_count_as_owed_only_while_live(tmp_path: Path) -> None:
    store = make(tmp_path / "run")
    job = stained(0).job
    store.commit([frame(0), Note(stain_line(job, "pending", "the model was busy"))])
    assert store.counts == {"raw": 1, "stained": 0, "owed": 1}
    from_disk = Stained(Job(job.stain, job.sources, job.targets), stained(0).planes, "CPU", 1, 1, 1)
    store.commit([from_disk])
    assert store.counts == {"raw": 1, "stained": 1, "owed": 0}
    store.close("completed")
    assert kinds(tmp_path / "run") == ["run", "raw", "stain", "stain", "end"]


def test_metadata_that_is_gone_is_written_again(tmp_path: Path) -> None:
    import yaozarrs

    positions = [{"x": 0, "y": 0, "z": 0}, {"x": 9, "y": 0, "z": 0}]
    store = make(tmp_path / "run", stage_positions=positions)
    store.commit([frame(t) for t in range(3)])
    store.close("completed")
    images = tmp_path / "run" / "images.ome.zarr"
    for name in ("zarr.json", "OME/zarr.json", "0/zarr.json", "0/0/zarr.json", "1/0/zarr.json"):
        (images / name).unlink()
    assert recover(tmp_path / "run").damaged == ()
    yaozarrs.validate_zarr_store(str(images))
    assert zarr.open_array(images / "0" / "0", mode="r")[:, 0, 0, 0, 0].tolist() == [1, 11, 21]


def test_a_lost_plane_is_owed_or_missing_from_then_on(tmp_path: Path) -> None:
    store = make(tmp_path / "run")
    store.commit([frame(0), stained(0), frame(1), stained(1)])
    store.close("completed")
    planes = tmp_path / "run" / "images.ome.zarr" / "0" / "c"
    (planes / "0" / "1" / "0" / "0" / "0").unlink()  # a prediction: can be made again
    (planes / "1" / "0" / "0" / "0" / "0").unlink()  # a raw frame: cannot
    assert set(recover(tmp_path / "run").damaged) == {Place(0, 0, 1, 0), Place(0, 1, 0, 0)}
    assert recover(tmp_path / "run").damaged == ()
    stats = read_stats(tmp_path / "run")
    assert (stats.frames_acquired, stats.frames_missing, stats.frames_pending) == (1, 1, 1)


def test_stats_say_how_it_ended_and_what_was_asked_for(tmp_path: Path) -> None:
    store = make(tmp_path / "run", n_t=9)
    store.commit([frame(0)])
    assert (read_stats(tmp_path / "run").ended, read_stats(tmp_path / "run").frames_expected) == (None, 9)
    store.close("canceled")
    store, _ = Store.reopen(tmp_path / "run", sync=False)
    store.close("backfilled")
    assert read_stats(tmp_path / "run").ended == "canceled"


def test_paths_may_go_up_and_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pathlib

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = make(pathlib.Path("../runs/one"))
    store.commit([frame(0)])
    store.close("completed")
    assert damaged_planes(pathlib.Path("../runs/one")) == []
    assert (tmp_path / "runs" / "one" / "frames.jsonl").is_file()


def test_a_folder_that_could_not_be_prepared_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "_write_groups", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match=r"cannot prepare the run folder .*No space left"):
        make(tmp_path / "run")
    assert not (tmp_path / "run").exists()
