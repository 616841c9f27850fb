"""Cells are measured while a run goes on, or later from disk, with one result; through stops, kills and faults."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import sys
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import useq
import yaozarrs
import zarr
from scipy import ndimage

from livestain._errors import ExperimentError, LivestainError, StoreError
from livestain._experiment import Experiment
from livestain._journal import JOURNAL_NAME
from livestain._layout import Channel as LayoutChannel
from livestain._layout import Layout
from livestain._measure_run import measure_run
from livestain._reading import load_experiment, load_rig
from livestain._session import run_experiment
from livestain._shipped import shipped_folder
from livestain.measure import measuring
from livestain.measure._rows import read_rows
from livestain.measure.labels import LabelImages
from livestain.measure.mass import MassScale
from livestain.measure.phases import FieldPhase, PhaseOfImage
from livestain.measure.planes import Planes
from livestain.measure.position import Position, Seen
from livestain.measure.products import conditions_of
from livestain.measure.saved import STATE_NAME
from livestain.measure.segment import Plane
from livestain.measure.sources import check_phase, find_sources
from livestain.measure.table import CellTable, read_cells
from livestain.phase.empty_field import EmptyField

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

STEPS = ["Phase0", "Phase1", "Phase2", "Phase3"]
OPTICS = {"wavelength_um": 0.55, "objective_na": 0.75, "condenser_na": 0.3, "dark_counts": 100}


def experiment(time_points: int = 6, **changes: Any) -> Experiment:
    """A few time points of 256 x 256 px, ten minutes apart for the cells, phase steps in focus."""
    rig = load_rig(shipped_folder() / "simulated.yaml").model_dump()
    rig |= {"optics": OPTICS, "config": shipped_folder() / "simulated.cfg"}
    rig["properties"] = [
        ("Scope", "SecondsPerExposure", 120),
        ("Scope", "SceneStep_s", 600),
        ("Scope", "CellsPerMm2", 1500),
        ("Camera", "Width", 256),
        ("Camera", "Height", 256),
    ]
    plain: dict[str, Any] = {
        "rig": rig,
        "sequence": {
            "axis_order": "tpcz",
            "stage_positions": [{"x": 0, "y": 0, "z": 0, "name": "control"}],
            "channels": [{"config": "BF", "exposure": 10}]
            + [{"config": name, "exposure": 10, "z_offset": -2} for name in STEPS],
            "z_plan": {"relative": [0]},
            "time_plan": {"interval": 0.0, "loops": time_points},
        },
        "stains": [{"model": "nuclei-membrane", "channel": "BF", "threads": 1}],
        "measure": {"interval_s": 600, "phase": {"method": "steps", "channels": STEPS, "coherence_um": 18, "sign": -1}},
    }
    return Experiment.model_validate(plain | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = run_experiment(experiment(), folder)
    assert result.troubles == ()
    assert result.measured is not None
    assert result.measured.finished
    return folder


def same(one: pa.Table, other: pa.Table) -> None:
    assert one.column_names == other.column_names
    assert one.num_rows == other.num_rows > 0
    for name in one.column_names:
        a, b = (np.array(table[name].to_pylist()) for table in (one, other))
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_run_leaves_tables_tracks_labels_and_a_picture(run: Path) -> None:
    cells, summary = read_cells(run), read_rows(run, "summary")
    assert set(cells["t"].to_pylist()) == set(range(6))
    assert summary["t"].to_pylist() == list(range(6))
    assert set(cells["position"].to_pylist()) == {"control"}
    assert summary["time_s"].to_pylist() == [600.0 * t for t in range(6)]
    mass = cells["dry_mass_pg"].to_numpy()
    assert np.isfinite(mass).mean() > 0.9
    assert 80 < np.nanmedian(mass) < 250
    assert set(np.array(cells["mass_method"].to_pylist())[np.isfinite(mass)]) == {"phase steps"}
    assert all(reason for reason, pg in zip(cells["reason"].to_pylist(), mass, strict=True) if math.isnan(pg))
    nucleus, cytoplasm = (cells[f"{part}_projected_dry_mass_pg"].to_numpy() for part in ("nucleus", "cytoplasm"))
    both = np.isfinite(nucleus)
    np.testing.assert_allclose((nucleus + cytoplasm)[both], mass[both])
    for name in ("cells.parquet", "summary.parquet", "tracks.geff", "masses.png"):
        assert (run / name).exists(), name
    assert not (run / STATE_NAME).exists()


def test_labels_hold_the_numbers_of_the_table(run: Path) -> None:
    cells = read_cells(run)
    labels = LabelImages(run, measuring.Follower(run, experiment().sequence).layout)
    for t in range(6):
        at_t = cells.filter(cells["t"].to_numpy() == t)
        named = {c for c, gap in zip(at_t["cell"].to_pylist(), at_t["gap"].to_pylist(), strict=True) if not gap}
        outlines, nuclei = labels.read(0, t)
        assert set(np.unique(outlines)) - {0} == named
        assert set(np.unique(nuclei)) <= named | {0}


def test_phase_lies_beside_the_images_in_rad(run: Path) -> None:
    phase = zarr.open_array(run / "phase.ome.zarr" / "0", mode="r")
    assert (phase.shape, phase.dtype) == ((6, 1, 1, 256, 256), np.float32)
    labels = LabelImages(run, measuring.Follower(run, experiment().sequence).layout)
    for t in range(6):
        cells, plane = labels.read(0, t)[0] > 0, np.asarray(phase[t, 0, 0])
        assert 0.5 < np.median(plane[cells]) < 3
        assert abs(np.median(plane[~ndimage.binary_dilation(cells, iterations=5)])) < 0.05
    yaozarrs.validate_zarr_store(str(run / "phase.ome.zarr"))


def test_measured_again_from_disk_it_is_the_same(run: Path) -> None:
    cells, summary = read_cells(run), read_rows(run, "summary")
    assert measure_run(run, again=True).finished
    same(cells, read_cells(run))
    same(summary, read_rows(run, "summary"))


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_stopped_anywhere_and_taken_up_it_is_the_same(run: Path, at: int) -> None:
    cells, outlines = read_cells(run), all_labels(run)
    shutil.rmtree(run / "images.ome.zarr" / "labels")
    stopped = measure_run(run, again=True, stop=stop_after(at))
    assert not stopped.finished
    assert measure_run(run).finished
    same(cells, read_cells(run))
    np.testing.assert_array_equal(outlines, all_labels(run))


def all_labels(run: Path) -> np.ndarray:
    labels = LabelImages(run, measuring.Follower(run, experiment().sequence).layout)
    return np.array([labels.read(0, t) for t in range(6)])


def stop_after(count: int) -> Callable[[], bool]:
    asked = iter(range(1000))
    return lambda: next(asked) >= count


def test_a_kill_between_saves_repeats_what_was_not_saved(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = read_cells(run)
    monkeypatch.setattr(measuring, "_SAVE_EVERY_S", 0.0)
    measure_run(run, again=True, stop=stop_after(2))
    saved = (run / STATE_NAME).read_bytes()
    measure_run(run, stop=stop_after(1))  # rows behind the saved state
    (run / STATE_NAME).write_bytes(saved)
    assert measure_run(run).finished
    same(cells, read_cells(run))


def test_a_measurement_that_fails_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(measuring, "Position", broken)
    result = run_experiment(experiment(2), tmp_path / "run")
    assert result.complete
    assert result.measured is None
    assert any("livestain measure" in trouble and "no such luck" in trouble for trouble in result.troubles)
    monkeypatch.undo()
    assert measure_run(tmp_path / "run").finished


# ---------------------------------------------------------------------- what a stop has left is damaged


@pytest.fixture(scope="module")
def stopped(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measurement that was stopped after five of six time points, rows of the first two being final."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    shutil.copytree(run, folder)
    measure_run(folder, again=True, stop=stop_after(4))
    assert read_cells(folder).num_rows > 20
    return folder


def edited(data: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """Give a state that is whole, but not what it should be."""
    found = json.loads(data)
    edit(found["state"])
    return json.dumps(found | {"crc32": zlib.crc32(json.dumps(found["state"]).encode())}).encode()


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "state: empty": (STATE_NAME, lambda data: b"", "damaged"),
    "state: cut off": (STATE_NAME, lambda data: data[: len(data) // 2], "damaged"),
    "state: zeros": (STATE_NAME, lambda data: bytes(len(data)), "damaged"),
    "state: no text": (STATE_NAME, lambda data: b"\xff\xfe\x00", "damaged"),
    "state: something else": (STATE_NAME, lambda data: b"[1, 2]", "damaged"),
    "state: a digit flipped": (STATE_NAME, lambda data: data.replace(b'"y_um": [', b'"y_um": [1', 1), "checksum"),
    "state: of another version": (STATE_NAME, lambda data: data.replace(b'"version": 3', b'"version": 1'), "version 1"),
    "state: a field missing": (STATE_NAME, lambda data: edited(data, lambda s: s.pop("rows")), "rows: field required"),
    "state: a field of the cells missing": (
        STATE_NAME,
        lambda data: edited(data, lambda s: s["positions"][0].pop("tracker")),
        "KeyError.*tracker",
    ),
    "state: of other positions": (
        STATE_NAME,
        lambda data: edited(data, lambda s: s["measured"].append(1)),
        "positions",
    ),
    "cells: missing": ("cells.arrow", lambda data: None, "is not there"),
    "cells: cut off": ("cells.arrow", lambda data: data[: len(data) // 2], "has 0 that can be read|has .. that can"),
    "cells: empty": ("cells.arrow", lambda data: b"", "has 0 that can be read"),
    "cells: no table": ("cells.arrow", lambda data: b"\xff" * len(data), "has 0 that can be read"),
    "summary: missing": ("summary.arrow", lambda data: None, "is not there"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_a_stop_left_is_not_gone_on_with_if_it_is_damaged(stopped: Path, damage: str) -> None:
    name, damaged, said = DAMAGE[damage]
    whole = (stopped / name).read_bytes()
    broken = damaged(whole)
    assert broken != whole
    (stopped / name).unlink()
    if broken is not None:
        (stopped / name).write_bytes(broken)
    try:
        with pytest.raises(StoreError, match=f"(?s){said}.*livestain measure .*run --again"):
            measure_run(stopped)
        assert (stopped / name).read_bytes() == broken if broken is not None else not (stopped / name).exists()
    finally:
        (stopped / name).write_bytes(whole)


def test_after_damage_that_was_mended_it_goes_on_to_the_same(run: Path, stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    assert measure_run(tmp_path / "run").finished
    same(read_cells(run), read_cells(tmp_path / "run"))
    (tmp_path / "run" / STATE_NAME).write_text("nonsense")
    (tmp_path / "run" / "cells.parquet").write_text("nonsense")
    assert measure_run(tmp_path / "run", again=True).finished
    same(read_cells(run), read_cells(tmp_path / "run"))


def test_rows_of_two_settings_do_not_go_into_one_table(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    half = experiment()
    assert half.measure is not None
    half = half.model_copy(update={"measure": half.measure.model_copy(update={"alpha_ml_per_g": 0.36})})
    measure_run(folder, settings=half, stop=stop_after(3))
    with pytest.raises(StoreError, match=r"measure.alpha_ml_per_g was 0.36, and is 0.18.*--again"):
        measure_run(folder)
    counts: list[int] = []
    assert measure_run(folder, settings=half, on_progress=counts.append).finished
    assert counts[0] == 5  # gone on with, not begun anew
    assert set(read_cells(folder)["alpha_ml_per_g"].to_pylist()) == {0.36}
    np.testing.assert_allclose(
        read_cells(folder)["dry_mass_pg"].to_numpy() * 2, read_cells(run)["dry_mass_pg"].to_numpy()
    )


# ---------------------------------------------------------------------- it fails, or is killed, half way

FAULTS: dict[str, tuple[type | Any, str, int]] = {
    "reading": (Planes, "seen", 6),
    "measuring": (Position, "add", 6),
    "following, the tracker being ahead": (Position, "_followed", 6),
    "a label image": (LabelImages, "write", 3),
    "a row of cells": (CellTable, "append", 3),
    "a row of the summary, its cells being written": (measuring, "summarised", 3),
    "the end": (CellTable, "compact", 1),
}


def failing(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Have the n-th call of something fail."""
    where, name, call = FAULTS[fault]
    whole, calls = getattr(where, name), iter(range(1, 1000))

    def broken(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise RuntimeError("no such luck")
        return whole(*args, **kwargs)

    monkeypatch.setattr(where, name, broken)


@pytest.mark.parametrize(
    ("fault", "save_every_s"),
    [
        ("a row of the summary, its cells being written", 0.0),
        *(pytest.param(fault, 0.0, marks=pytest.mark.slow) for fault in FAULTS if "summary" not in fault),
        *(pytest.param(fault, 1000.0, marks=pytest.mark.slow) for fault in ("measuring", "the end")),
    ],
)
def test_a_fault_leaves_tables_to_read_and_to_go_on_with(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, save_every_s: float
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    monkeypatch.setattr(measuring, "_SAVE_EVERY_S", save_every_s)
    with monkeypatch.context() as patch:
        failing(patch, fault)
        where = "at its end" if fault == "the end" else r"at t=[2-5] of control"
        with pytest.raises(LivestainError, match=f"{where}: RuntimeError: no such luck.*livestain measure .*run$"):
            measure_run(folder, again=True)
    partly = read_cells(folder)
    assert partly.num_rows > 20
    same(partly, read_cells(run).slice(0, partly.num_rows))
    assert measure_run(folder).finished
    same(read_cells(run), read_cells(folder))
    same(read_rows(run, "summary"), read_rows(folder, "summary"))


@pytest.mark.slow
def test_a_fault_beside_the_run_is_made_up_for_after_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "measuring")
    result = run_experiment(experiment(), tmp_path / "run")
    assert result.complete
    assert [trouble for trouble in result.troubles if "no such luck" in trouble]
    if result.measured is None:  # the thread had not come to the fault when the run ended
        measure_run(tmp_path / "run")
    same(read_cells(run), read_cells(tmp_path / "run"))


KILLED = {
    "between cells and summary": "livestain.measure.summary.SummaryTable.append:3",
    "before a state is in its place": "pathlib.Path.replace:8",
    "between the tables at the end": "livestain.measure.summary.SummaryTable.compact:1",
    "before the tracks": "livestain._measure_run.make_products:1",
}
_KILL = """
import importlib, itertools, os, pathlib, sys
from livestain.measure import measuring
from livestain._measure_run import measure_run
import livestain._measure_run
measuring._SAVE_EVERY_S = 0.0
way, call = sys.argv[2].split(":")
owner, name = way.rsplit(".", 1)
module = owner if owner in sys.modules else owner.rsplit(".", 1)[0]
where = sys.modules[module] if module == owner else getattr(sys.modules[module], owner.rsplit(".", 1)[1])
whole, calls = getattr(where, name), itertools.count(1)
def killed(*args, **kwargs):
    if next(calls) == int(call):
        os.kill(os.getpid(), 9)
    return whole(*args, **kwargs)
setattr(where, name, killed)
measure_run(pathlib.Path(sys.argv[1]), again=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
@pytest.mark.parametrize("when", KILLED)
def test_killed_at_any_moment_it_is_taken_up_to_the_same(run: Path, tmp_path: Path, when: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    command = [sys.executable, "-c", _KILL, str(folder), KILLED[when]]
    assert subprocess.run(command, check=False, env=dict(os.environ)).returncode == -9
    counts: list[int] = []
    assert measure_run(folder, on_progress=counts.append).finished
    assert not counts or counts[0] > 1  # a state was there to go on from
    same(read_cells(run), read_cells(folder))
    same(read_rows(run, "summary"), read_rows(folder, "summary"))


def with_measure(**measure: Any) -> Experiment:
    changed = experiment()
    assert changed.measure is not None
    return changed.model_copy(update={"measure": type(changed.measure).model_validate(measure)})


def with_optics(**optics: Any) -> Experiment:
    changed = experiment()
    none = not optics
    kind = type(changed.rig.optics)
    return changed.model_copy(
        update={"rig": changed.rig.model_copy(update={"optics": None if none else kind.model_validate(optics)})}
    )


def with_model(model: str) -> Experiment:
    """Stain with a second model too, the time between time points not being given."""
    changed = experiment()
    assert changed.measure is not None
    stains = (*changed.stains, changed.stains[0].model_copy(update={"model": model}))
    return changed.model_copy(
        update={"stains": stains, "measure": changed.measure.model_copy(update={"interval_s": None})}
    )


STEPS_PHASE = {"method": "steps", "channels": STEPS, "sign": -1}
REFUSED = {
    "no wavelength": (with_optics, {}, "wavelength.*optics"),
    "a channel that is not acquired": (
        with_measure,
        {"phase": STEPS_PHASE | {"channels": ["Phase0", "Phase1", "Phase2", "Phase4"]}},
        "no channel 'Phase4'",
    ),
    "nuclei that nobody predicts": (with_measure, {"nuclei": "DAPI"}, r"no channel 'DAPI'.*'Nuclei \(predicted\)'"),
    "a calibration that is not there": (
        with_measure,
        {"interval_s": 600, "phase": STEPS_PHASE | {"empty_field": "/nowhere.npz"}},
        "nowhere",
    ),
    "what the camera gives in the dark, for steps": (
        with_optics,
        {"wavelength_um": 0.55},
        "light off.*dark_counts: 100",
    ),
    "the time between time points, for deaths": (
        with_model,
        {"model": "viability-demo"},
        "when one died.*runs free.*interval_s: 600",
    ),
    "one focal plane for phase from defocus": (
        with_measure,
        {"phase": {"method": "defocus", "channel": "BF"}},
        "two or more.*focal planes.*z_plan",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_the_measurement_lacks_is_said_before_the_first_frame(tmp_path: Path, fault: str) -> None:
    make, changes, message = REFUSED[fault]
    with pytest.raises(LivestainError, match=message):
        run_experiment(make(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("phase", "needed"),
    [
        (STEPS_PHASE, True),
        (STEPS_PHASE | {"empty_field": "empty_field.npz"}, False),  # it holds its own
        ({"method": "defocus", "channel": "BF"}, True),
        ({"method": "given", "channel": "Phase0", "rad_per_grey": 1e-3}, False),
    ],
)
def test_what_the_camera_gives_in_the_dark_is_asked_for_where_it_matters(phase: dict[str, Any], needed: bool) -> None:
    plan = {"z_plan": {"relative": [-4, 0, 4]}} if phase["method"] == "defocus" else {}
    asked = with_measure(phase=phase)
    layout = Layout.of(asked.sequence.replace(**plan), height=8, width=8, pixel_size_um=0.325)
    dark = asked.rig.model_copy(update={"optics": asked.rig.optics})
    assert asked.measure is not None
    check_phase(asked.measure, dark, layout)
    optics = type(asked.rig.optics).model_validate({k: v for k, v in OPTICS.items() if k != "dark_counts"})
    dark = asked.rig.model_copy(update={"optics": optics})
    if needed:
        with pytest.raises(ExperimentError, match="light off"):
            check_phase(asked.measure, dark, layout)
    else:
        check_phase(asked.measure, dark, layout)


class _InMasks(PhaseOfImage):
    """Stands for phase within masks, whose nuclei depend on the masks."""

    method = "defocus, mask-supported"

    def __call__(self, planes: Any, cells: Any) -> FieldPhase:
        made = super().__call__(planes, cells)
        return FieldPhase(np.where(cells > 0, made.phase_rad, 0), made.zones, sum_sd_rad={1: 1.0})


@pytest.mark.parametrize(
    ("maker", "in_pg", "nucleus"), [(PhaseOfImage, True, True), (PhaseOfImage, False, False), (_InMasks, True, False)]
)
def test_a_nucleus_whose_cell_was_not_outlined_is_no_cell_to_weigh(
    maker: type[PhaseOfImage], in_pg: bool, nucleus: bool
) -> None:
    y, x = np.mgrid[:128, :128] * 0.5
    away_um = np.hypot(y - 32, x - 32)
    grey = np.where(away_um < 9, 1000, 0).astype(np.uint16)  # 1 rad over a cell of 18 um
    stain = Plane(np.where(away_um < 4, 40_000, 200).astype(np.uint16), "image")
    whole = Plane(np.where(away_um < 9, 40_000, 200).astype(np.uint16), "image")
    given = experiment_phase_given(1e-3 if in_pg else None)
    scale = MassScale(0.5, 0.55)
    found = {}
    for name, cells in (("outlined", whole), ("not", None)):
        position = Position(64, 64, 0.5, maker(given, 0.5), scale if in_pg else None, None)
        rows = position.add(Seen(0, 0.0, stain, cells, None, grey[None])).rows
        ((_, _, found[name], _),) = rows + position.finish().rows
    mass = "dry_mass_pg" if in_pg else "relative_dry_mass"
    assert np.isfinite(found["outlined"][mass]).all()
    for column in (mass, mass.replace("_pg", "_sd_pg") if in_pg else f"{mass}_sd", "area_um2"):
        assert np.isnan(found["not"][column]).all(), column
    assert "nucleus grown by" in found["not"]["reason"][0]
    assert np.isnan(found["not"]["cytoplasm_projected_dry_mass_pg"]).all()
    assert np.isfinite(found["not"]["nucleus_area_um2"]).all()
    under = [found[name]["nucleus_projected_dry_mass_pg"] for name in ("not", "outlined")]
    if nucleus:
        np.testing.assert_allclose(*under, rtol=0.01)
    else:
        assert np.isnan(under[0]).all()


def experiment_phase_given(rad_per_grey: float | None) -> Any:
    asked = with_measure(phase={"method": "given", "channel": "Phase0", "rad_per_grey": rad_per_grey}).measure
    assert asked is not None
    return asked.phase


def test_a_time_that_nobody_knows_is_not_made_up(run: Path, tmp_path: Path) -> None:
    """The camera runs free, and one frame has no time: that time point has no row, rather than one at 0 s."""
    shutil.copytree(run, tmp_path / "run")
    journal = tmp_path / "run" / JOURNAL_NAME
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if line.get("kind") == "raw" and line["at"][1] == 2:
            del line["time"]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    free = experiment()
    assert free.measure is not None
    free = free.model_copy(update={"measure": free.measure.model_copy(update={"interval_s": None})})
    done = measure_run(tmp_path / "run", settings=free)
    assert done.finished
    assert done.time_points == 5
    summary = read_rows(tmp_path / "run", "summary")
    assert summary["t"].to_pylist() == [0, 1, 3, 4, 5]
    times_s = summary["time_s"].to_numpy()
    assert times_s[0] == 0
    assert (np.diff(times_s) > 0).all()


def test_a_dish_without_cells_has_rows_that_say_so(tmp_path: Path) -> None:
    empty = experiment(2)
    properties = [p for p in empty.rig.properties if p[1] != "CellsPerMm2"] + [("Scope", "CellsPerMm2", 0)]
    empty = empty.model_copy(update={"rig": empty.rig.model_copy(update={"properties": properties})})
    result = run_experiment(empty, tmp_path / "run")
    assert result.troubles == ()
    assert read_cells(tmp_path / "run").num_rows == 0
    summary = read_rows(tmp_path / "run", "summary")
    assert summary["cells"].to_pylist() == [0, 0]
    assert all(summary["reason"].to_pylist())


def test_other_settings_can_be_tried_on_a_run(run: Path, tmp_path: Path) -> None:
    cells = read_cells(run)
    half = experiment()
    assert half.measure is not None
    half = half.model_copy(update={"measure": half.measure.model_copy(update={"alpha_ml_per_g": 0.36})})
    assert measure_run(run, settings=half).finished
    other = read_cells(run)
    np.testing.assert_allclose(other["dry_mass_pg"].to_numpy(), cells["dry_mass_pg"].to_numpy() / 2)
    assert measure_run(run, again=True).finished
    same(cells, read_cells(run))


def test_the_shipped_experiment_is_one_of_these() -> None:
    shipped = load_experiment(shipped_folder() / "simulated_cells.yaml")
    assert shipped.measure is not None
    assert shipped.rig.optics is not None
    assert shipped.rig.optics.model_dump(exclude_none=True) == {**OPTICS, "medium_index": 1.0}


def test_a_phase_that_takes_the_steps_the_other_way_is_said_and_weighs_nothing(tmp_path: Path) -> None:
    wrong = with_measure(interval_s=600, phase=STEPS_PHASE | {"sign": 1, "coherence_um": 18})
    result = run_experiment(wrong, tmp_path / "run")
    assert result.complete
    cells = read_cells(tmp_path / "run")
    assert cells.num_rows > 20
    assert not np.isfinite(cells["dry_mass_pg"].to_numpy()).any()
    assert sum("sign of the phase steps to -1" in reason for reason in cells["reason"].to_pylist()) > 20


def test_two_focal_planes_of_bright_field_weigh_cells(tmp_path: Path) -> None:
    """The model's masks, the plane nearest to 0 stained; the sign of z is found."""
    planes = experiment(2)
    optics = type(planes.rig.optics).model_validate(OPTICS | {"focus_offset_um": -2})
    sequence = planes.sequence.replace(channels=[{"config": "BF", "exposure": 10}], z_plan={"relative": [-4, 0]})
    measure = type(planes.measure).model_validate({"interval_s": 600, "phase": {"method": "defocus", "channel": "BF"}})
    properties = [p for p in planes.rig.properties if p[1] != "SecondsPerExposure"]
    rig = planes.rig.model_copy(
        update={"optics": optics, "properties": [*properties, ("Scope", "SecondsPerExposure", 300)]}
    )
    changed = planes.model_copy(update={"rig": rig, "sequence": sequence, "measure": measure})
    run_experiment(changed, tmp_path / "run")
    cells = read_cells(tmp_path / "run")
    mass, border = cells["dry_mass_pg"].to_numpy(), np.array(cells["at_border"].to_pylist())
    assert np.isfinite(mass[~border]).mean() > 0.9
    assert 110 < np.median(mass[~border & np.isfinite(mass)]) < 180  # cells of 105 to 210 pg
    assert {m for m in cells["mass_method"].to_pylist() if m} == {"defocus, mask-supported"}


def test_phase_without_a_scale_gives_relative_mass(tmp_path: Path) -> None:
    """The simulated membrane stands in for a phase image: it too is bright in cells and dark beside them."""
    given = experiment(3)
    sequence = given.sequence.replace(channels=[{"config": "Membrane", "exposure": 10}], z_plan=None)
    measure = type(given.measure).model_validate(
        {"interval_s": 600, "phase": {"method": "given", "channel": "Membrane", "zero_grey": 100}}
    )
    changed = given.model_copy(update={"sequence": sequence, "measure": measure, "stains": ()})
    result = run_experiment(changed, tmp_path / "run")
    assert result.troubles == ()
    cells = read_cells(tmp_path / "run")
    assert cells.num_rows > 20
    assert not np.isfinite(cells["dry_mass_pg"].to_numpy()).any()
    relative = cells["relative_dry_mass"].to_numpy()
    seen = ~np.array(cells["gap"].to_pylist())
    assert np.isfinite(relative[seen]).mean() > 0.9
    assert np.nanmedian(relative) > 1000
    assert all("relative" in reason for reason in np.array(cells["reason"].to_pylist())[seen])


def test_the_run_folder_says_how_it_was_measured(run: Path) -> None:
    again = load_experiment(run / "experiment.yaml")
    assert again.measure == experiment().measure
    provenance = json.loads(read_cells(run).schema.metadata[b"livestain"])
    assert provenance["optics"]["wavelength_um"] == 0.55
    assert provenance["pixel_size_um"] == 0.325
    assert {model["model"] for model in provenance["predicted"]} == {"nuclei-membrane"}


def test_positions_of_one_name_are_told_apart(tmp_path: Path) -> None:
    twice = experiment(1)
    places = [{"x": x, "y": 0, "z": 0, "name": "dish"} for x in (0, 160)]
    both = twice.model_copy(update={"sequence": twice.sequence.replace(stage_positions=places)})
    run_experiment(both, tmp_path / "run")
    cells = read_cells(tmp_path / "run")
    assert set(cells["position"].to_pylist()) == {"dish (0)", "dish (1)"}
    names = np.array(cells["position"].to_pylist())
    for image in range(2):
        assert set(cells["image"].to_numpy()[names == f"dish ({image})"]) == {image}
    assert len(list((tmp_path / "run" / "tracks").glob("*.geff"))) == 2


def test_the_fields_of_a_well_are_one_condition() -> None:
    plate = useq.WellPlatePlan(
        plate="96-well",
        a1_center_xy=(0, 0),
        selected_wells=([0, 1], [0, 1]),
        well_points_plan=useq.RandomPoints(num_points=2, random_seed=0),
    )
    layout = Layout.of(useq.MDASequence(stage_positions=plate, channels=["BF"]), height=8, width=8, pixel_size_um=0.325)
    conditions = conditions_of(layout)
    assert conditions is not None
    assert len(conditions) == 4  # by name, so names differ
    assert sorted(conditions.values()) == ["A1", "A1", "B2", "B2"]
    alone = Layout.of(useq.MDASequence(channels=["BF"]), height=8, width=8, pixel_size_um=0.325)
    assert conditions_of(alone) is None


# ------------------------------------------------------------------ phase that cannot be, before the first frame


def with_empty_field(spoil: Callable[[Path], object], folder: Path) -> Experiment:
    """Phase from steps against a calibration file that `spoil` writes."""
    path = folder / "empty_field.npz"
    spoil(path)
    return with_measure(interval_s=600, phase=STEPS_PHASE | {"coherence_um": 18, "empty_field": str(path)})


def calibration(size: int = 256, dark_counts: float = 100.0) -> Callable[[Path], object]:
    light = np.full((size, size), 4000, np.float32)
    return EmptyField(light, np.zeros_like(light), dark_counts).save


WRONG_FILES = {
    "of a larger camera": (
        calibration(512),
        r"frames of 512 x 512 px, and this camera gives 256 x 256\. Take it again",
    ),
    "without a dark level": (calibration(dark_counts=math.nan), "dark level is nan, which is no number"),
    "a text": (lambda path: path.write_text("light"), "is no empty-field calibration, or a damaged one"),
    "an array": (lambda path: path.write_bytes(npy_of(np.ones(3))), "is no empty-field calibration, or a damaged one"),
    "a folder": (lambda path: path.mkdir(), "cannot be read: Is a directory"),
    "nothing": (lambda path: None, "cannot be read: No such file"),
}


def npy_of(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_wrong_calibration_file_is_said_before_the_first_frame(tmp_path: Path, kind: str) -> None:
    spoil, says = WRONG_FILES[kind]
    with pytest.raises(LivestainError, match=says) as caught:
        run_experiment(with_empty_field(spoil, tmp_path), tmp_path / "run")
    assert "pickle" not in str(caught.value)
    assert not (tmp_path / "run").exists()


IMPOSSIBLE_PHASE: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "one preset twice": (
        STEPS_PHASE | {"channels": ["Phase0", "Phase1", "Phase2", "Phase2"]},
        {},
        {},
        "names 'Phase2' more than once: Phase0, Phase1, Phase2, Phase2. Give four",
    ),
    "a coherence below a cell": (STEPS_PHASE | {"coherence_um": 1.8}, {}, {}, "is 1.8; in frames of 256 x 256 px of"),
    "a coherence beyond the field": (
        STEPS_PHASE | {"coherence_um": 200},
        {},
        {},
        r"it can be 5 to 83.2\. .*leave it out",
    ),
    "two planes at an unknown focus": (
        {"method": "defocus", "channel": "BF"},
        {"z_plan": {"relative": [-4, 0]}},
        {},
        "two focal planes, and two fit the cells at any focus. Take a third plane, or .*focus_offset_um: 0",
    ),
    "two planes at a known focus": (
        {"method": "defocus", "channel": "BF"},
        {"z_plan": {"relative": [-4, 0]}},
        {"focus_offset_um": -2},
        "",
    ),
    "three planes at an unknown focus": (
        {"method": "defocus", "channel": "BF"},
        {"z_plan": {"relative": [-4, 0, 4]}},
        {},
        "",
    ),
    "a coherence of its field": (STEPS_PHASE | {"coherence_um": 18}, {}, {}, ""),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE_PHASE)
def test_a_phase_that_cannot_be_is_said_before_the_first_frame(kind: str) -> None:
    phase, plan, optics, says = IMPOSSIBLE_PHASE[kind]
    asked = with_measure(phase=phase)
    assert asked.measure is not None
    layout = Layout.of(asked.sequence.replace(**plan), height=256, width=256, pixel_size_um=0.325)
    rig = asked.rig.model_copy(update={"optics": type(asked.rig.optics).model_validate(OPTICS | optics)})
    if not says:
        check_phase(asked.measure, rig, layout)
        return
    with pytest.raises(ExperimentError, match=says):
        check_phase(asked.measure, rig, layout)


def test_a_predicted_channel_is_no_phase_step() -> None:
    asked = experiment()
    measure = type(asked.measure).model_validate({"phase": STEPS_PHASE | {"channels": [*STEPS[:3], "Nuclei"]}})
    asked = asked.model_copy(update={"measure": measure})
    layout = Layout.of(asked.sequence, height=256, width=256, pixel_size_um=0.325)
    predicted = LayoutChannel("Nuclei (predicted)", stain=0, output=0)
    layout = replace(layout, channels=(*layout.channels, predicted))
    with pytest.raises(ExperimentError, match="'Nuclei' is predicted by a model, and phase comes from what the camera"):
        find_sources(asked, layout, [{"name": "Nuclei", "kind": "stain"}])


def test_a_fluorescence_channel_among_the_steps_weighs_nothing(tmp_path: Path) -> None:
    asked = with_measure(interval_s=600, phase=STEPS_PHASE | {"channels": [*STEPS[:3], "Nuclei"], "coherence_um": 18})
    channels = [*asked.sequence.channels[:-1], {"config": "Nuclei", "exposure": 10}]
    asked = asked.model_copy(update={"sequence": asked.sequence.replace(channels=channels, time_plan=None)})
    run_experiment(asked, tmp_path / "run")
    cells = read_cells(tmp_path / "run")
    assert cells.num_rows > 5
    assert not np.isfinite(cells["dry_mass_pg"].to_numpy()).any()
    said = "Phase0 and Phase2 should sum to the same light as Phase1 and Nuclei"
    assert all(said in reason for reason in cells["reason"].to_pylist())
