"""The simulated sample: growth, division, death, and a truth that agrees with the pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestain._errors import RigError
from livestain.simulate import ALPHA_UM3_PER_PG, WAVELENGTH_UM, Microscope, Settings
from livestain.simulate._cells import Population
from livestain.simulate._scene import Field, Painter
from livestain.simulate._settings import PROPERTIES, changed

SMALL = {"world_um": 200.0, "width": 256, "height": 256}


def population(**overrides: object) -> Population:
    return Population(Settings(**{"world_um": 200.0, **overrides}), 200.0)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_division_halves_the_mass_and_keeps_the_lineage(seed: int) -> None:
    sample = population(seed=seed, death_rate_per_h=0.0, dead_at_start=0.0, cells_per_mm2=1500.0, cycle_h=4.0)
    divided = 0
    for _ in range(40):
        before = {int(c["id"]): c.copy() for c in sample.cells}
        sample.advance(60.0)
        daughters = [c for c in sample.cells if int(c["parent"]) in before]
        for mother in {int(c["parent"]) for c in daughters}:
            two = [c for c in daughters if c["parent"] == mother]
            assert len(two) == 2
            assert two[0]["mass_pg"] == two[1]["mass_pg"]
            # the mother grew for one minute before she divided
            assert sum(c["mass_pg"] for c in two) == pytest.approx(before[mother]["mass_pg"], rel=0.01)
            assert sample.lineage[mother].end == "division"
            divided += 1
    assert divided > 0


def test_mass_doubles_in_a_cycle() -> None:
    sample = population(death_rate_per_h=0.0, dead_at_start=0.0, cells_per_mm2=800.0)
    young = {int(c["id"]): float(c["mass_pg"] / 2 ** c["phase"]) for c in sample.cells}
    sample.advance(6 * 3600.0)
    older = [c for c in sample.cells if int(c["id"]) in young]
    assert len(older) > 10
    for cell in older:
        assert cell["mass_pg"] == pytest.approx(young[int(cell["id"])] * 2 ** cell["phase"], rel=1e-6)


def test_cells_keep_apart() -> None:
    sample = population()
    sample.advance(3600.0)
    x, y, r = (sample.cells[name] for name in ("x_um", "y_um", "radius_um"))
    gap = np.hypot(*[(a[:, None] - a[None, :] + 100) % 200 - 100 for a in (x, y)])
    np.fill_diagonal(gap, np.inf)
    assert (gap / (r[:, None] + r[None, :])).min() > 0.6


def test_cells_crawl_but_the_dead_stay() -> None:
    sample = population(dead_at_start=0.4, cells_per_mm2=300.0, death_rate_per_h=0.0)
    before = sample.cells.copy()
    sample.advance(1800.0)
    both, i, j = np.intersect1d(before["id"], sample.cells["id"], return_indices=True)
    moved = np.hypot(*[(sample.cells[n][j] - before[n][i] + 100) % 200 - 100 for n in ("x_um", "y_um")])
    dead = before["state"][i] == 2
    assert len(both) > 5
    assert np.median(moved[~dead]) > 4 * np.median(moved[dead])


def test_a_toxic_dish_dies_shrinks_and_detaches() -> None:
    sample = population(dead_at_start=0.0, cells_per_mm2=500.0, death_rate_per_h=2.0)
    mass = sample.cells["mass_pg"].sum()
    sample.advance(6 * 3600.0)
    assert (sample.cells["state"] == 2).mean() > 0.8
    assert sample.cells["stained"][sample.cells["state"] == 2].max() == pytest.approx(1)
    assert sample.cells["mass_pg"].sum() < 0.8 * mass
    sample.advance(24 * 3600.0)
    assert len(sample.cells) == 0
    assert {birth.end for birth in sample.lineage.values()} <= {"detached", "division"}


def test_phase_integrates_to_dry_mass() -> None:
    px, world = 0.325, 616
    sample = Population(Settings(), world * px)
    canvas = Painter(1, px, world).paint(sample, Field(100, 50, world + 256, world + 256), "phase")
    mass_pg = WAVELENGTH_UM / (2 * np.pi * ALPHA_UM3_PER_PG) * canvas.sum(dtype=np.float64) * px**2
    assert mass_pg == pytest.approx(sample.cells["mass_pg"].sum(), rel=1e-4)


def test_labels_agree_with_the_nuclear_stain() -> None:
    scope = Microscope(Settings(**SMALL, dead_at_start=0.0))
    scope.bench.channel = "Nuclei"
    image = scope.expected(10.0)
    truth = scope.truth()
    inside = truth.nucleus_labels > 0
    assert image[inside].mean() > 8 * image[~inside].mean()
    assert np.all(truth.cell_labels[inside] == truth.nucleus_labels[inside])
    assert set(np.unique(truth.cell_labels)) - {0} == set(truth.cells["id"].tolist())
    assert truth.cell_labels.dtype == truth.nucleus_labels.dtype == np.uint16


def test_table_positions_are_where_the_labels_are() -> None:
    scope = Microscope(Settings(**SMALL, cells_per_mm2=400.0))
    scope.bench.x_um, scope.bench.y_um = 1234.5, -777.0
    truth = scope.truth()
    tested = 0
    for cell in truth.cells:
        rows, cols = np.nonzero(truth.cell_labels == cell["id"])
        if min(rows.min(), cols.min()) == 0 or max(rows.max(), cols.max()) == 255:
            continue
        x_um = 1234.5 + (cols.mean() - 128) * 0.325
        y_um = -777.0 + (rows.mean() - 128) * 0.325
        assert np.hypot(x_um - cell["x_um"], y_um - cell["y_um"]) < 4
        tested += 1
    assert tested > 0


def test_dead_cells_take_the_dead_stain() -> None:
    scope = Microscope(Settings(**SMALL, dead_at_start=0.4, cells_per_mm2=800.0))
    scope.bench.channel = "Dead"
    image = scope.expected(10.0)
    truth = scope.truth()
    for cell in truth.cells:
        nucleus = image[truth.nucleus_labels == cell["id"]]
        if nucleus.size > 30:
            assert (nucleus.mean() > 1000) == (cell["state"] == "dead")


def test_truth_changes_nothing() -> None:
    asked, left = Microscope(Settings(**SMALL)), Microscope(Settings(**SMALL))
    for _ in range(4):
        asked.truth()
        np.testing.assert_array_equal(asked.expose(10.0), left.expose(10.0))


def test_seed_decides() -> None:
    first, again, other = (Microscope(Settings(**SMALL, seed=seed)).expose(10.0) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9


def test_frames_clock_counts_exposures_of_any_channel() -> None:
    scope = Microscope(Settings(**SMALL, seconds_per_exposure=30.0, scene_step_s=60.0))
    times = []
    for channel in ("BF", "Nuclei") * 3:
        scope.bench.channel = channel
        scope.expose(1.0)
        times.append(scope.truth().time_s)
    assert times == [0, 0, 60, 60, 120, 120]


def test_wall_clock_lets_the_cells_live_on_their_own() -> None:
    scope = Microscope(Settings(**SMALL, clock="wall", speed=100_000.0, scene_step_s=0.0))
    scope.expose(1.0)
    assert scope.time_s == 0
    scope.expose(1.0)
    assert scope.time_s > 0


def test_an_empty_dish_can_be_imaged() -> None:
    scope = Microscope(Settings(**SMALL, cells_per_mm2=0.0))
    assert scope.expose(10.0).shape == (256, 256)
    assert len(scope.truth().cells) == 0


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(PROPERTIES)), value=st.sampled_from(["", "many", "nan", "inf", "-1e9", None]))
def test_bad_values_are_named_with_a_remedy(name: str, value: object) -> None:
    with pytest.raises(RigError, match=name) as caught:
        changed(Settings(), name, value)
    assert repr(value) in str(caught.value)
    assert "give a" in str(caught.value)


def test_settings_that_cannot_go_together() -> None:
    with pytest.raises(RigError, match=r"CondenserNA 0\.8"):
        changed(Settings(), "CondenserNA", 0.8)
    with pytest.raises(RigError, match="frames, wall"):
        changed(Settings(), "Clock", "sundial")
