"""Cells are measured while a run goes on, or later from disk, with one result; through stops, kills and faults."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import useq
import yaozarrs
import zarr
from scipy import ndimage

from livestain._errors import LivestainError
from livestain._experiment import Experiment
from livestain._layout import Layout
from livestain._measure_run import measure_run
from livestain._reading import load_experiment, load_rig
from livestain._session import run_experiment
from livestain._shipped import shipped_folder
from livestain.measure import measuring
from livestain.measure._rows import read_rows
from livestain.measure.labels import LabelImages
from livestain.measure.products import conditions_of
from livestain.measure.table import read_cells

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
    assert not (run / measuring.STATE_NAME).exists()


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
    cells = read_cells(run)
    stopped = measure_run(run, again=True, stop=stop_after(at))
    assert not stopped.finished
    assert measure_run(run).finished
    same(cells, read_cells(run))


def stop_after(count: int) -> Callable[[], bool]:
    asked = iter(range(1000))
    return lambda: next(asked) >= count


def test_a_kill_between_saves_repeats_what_was_not_saved(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = read_cells(run)
    monkeypatch.setattr(measuring, "_SAVE_EVERY_S", 0.0)
    measure_run(run, again=True, stop=stop_after(2))
    saved = (run / measuring.STATE_NAME).read_bytes()
    measure_run(run, stop=stop_after(1))  # rows behind the saved state
    (run / measuring.STATE_NAME).write_bytes(saved)
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


STEPS_PHASE = {"method": "steps", "channels": STEPS, "sign": -1}
REFUSED = {
    "no wavelength": (with_optics, {}, "wavelength.*optics"),
    "a channel that is not acquired": (
        with_measure,
        {"phase": STEPS_PHASE | {"channels": ["Phase0", "Phase1", "Phase2", "Phase4"]}},
        "no channel 'Phase4'",
    ),
    "nuclei that nobody predicts": (with_measure, {"nuclei": "DAPI"}, "no channel 'DAPI'.*'Nuclei'"),
    "a calibration that is not there": (
        with_measure,
        {"interval_s": 600, "phase": STEPS_PHASE | {"empty_field": "/nowhere.npz"}},
        "nowhere",
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
