"""Survival and fates from a cell table: against the simulated truth, against hand-made cells, and drawn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from livestain._errors import LivestainError
from livestain.measure.pictures import draw_survival
from livestain.measure.survival import incidence_of_death, incidence_of_division, survival_curves
from tests.simulated_culture import culture

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("lifelines", reason='survival needs the extra "cells"')

HOUR_S = 3600.0


def cells(*lives: tuple[int, int, int, str], position: str = "A1") -> dict[str, np.ndarray]:
    """A table of (cell, parent, first hour, a letter an hour): l live, i injured, d dead, - no class."""
    names = {"l": "live", "i": "injured", "d": "dead", "-": ""}
    rows = [(c, p, (first + i) * HOUR_S, names[x]) for c, p, first, letters in lives for i, x in enumerate(letters)]
    cell, parent, time_s, state = (np.array(column) for column in zip(*rows, strict=True))
    return {"position": np.full(cell.size, position), "cell": cell, "parent": parent, "time_s": time_s, "state": state}


def at(curve: Any, hour: float, column: str = "estimate") -> float:
    return float(getattr(curve, column)[np.searchsorted(curve.time_s, hour * HOUR_S, side="right") - 1])


# ------------------------------------------------------------------ by hand


def test_kaplan_meier_by_hand() -> None:
    table = cells((1, 0, 0, "lld"), (2, 0, 0, "llll"), (3, 0, 0, "llid"), (4, 0, 0, "l" * 6), (5, 0, 2, "l" * 4))
    (curve,) = survival_curves(table)
    # Deaths at 1.5 h (of 4 watched, the fifth comes at 2 h) and at 2.5 h (of 4: 2, 3, 4, 5).
    assert [at(curve, h) for h in (1, 2, 3, 5)] == pytest.approx([1, 3 / 4, 3 / 4 * 3 / 4, 9 / 16])
    assert (curve.n_cells, curve.n_deaths, curve.reason) == (5, 2, "")
    assert curve.time_s[0] == 0


def test_fates_by_hand() -> None:
    lives = (
        (1, 0, 0, "lld"),
        (2, 0, 0, "ll"),
        (3, 0, 0, "lllll"),
        (4, 0, 0, "lllll"),
        (21, 2, 2, "lll"),
        (22, 2, 2, "lll"),
    )
    (death,), (division,) = (
        incidence_of_death(cells(*lives), origin="run"),
        incidence_of_division(cells(*lives), origin="run"),
    )
    # One death and one division at 1.5 h, of four cells of which two live on; the daughters have another clock.
    assert (at(death, 4), at(division, 4)) == pytest.approx((0.25, 0.25))
    assert (division.n_cells, division.n_deaths, division.n_divisions) == (4, 1, 1)
    assert division.left_out == {"born during the run": 2}
    (young,) = incidence_of_death(cells(*lives))
    assert (young.origin, young.n_cells, young.left_out) == ("birth", 2, {"birth not seen": 4})


def test_what_divides_was_not_dead() -> None:
    table = cells((1, 0, 0, "lldd"), (2, 1, 4, "lll"), (3, 1, 4, "lll"), (4, 0, 0, "lldd"))
    (curve,) = survival_curves(table)
    assert curve.n_deaths == 1
    (division,) = incidence_of_division(table, origin="run")
    assert (division.n_deaths, division.n_divisions) == (1, 1)


def test_events_at_one_time_need_no_chance() -> None:
    lives = [(c, 0, 0, "lld") for c in range(1, 6)] + [(c, 0, 0, "ll") for c in range(6, 11)]
    lives += [(100 + c, c // 2, 2, "l" * 3) for c in range(12, 22)] + [(50, 0, 0, "l" * 6)]
    first, second = (incidence_of_death(cells(*lives), origin="run")[0] for _ in range(2))
    np.testing.assert_array_equal(first.estimate, second.estimate)
    assert at(first, 5) == pytest.approx(5 / 11)
    (division,) = incidence_of_division(cells(*lives), origin="run")
    assert at(division, 5) == pytest.approx(5 / 11)


def test_a_lone_cell_and_its_daughters_are_watched_without_a_break() -> None:
    (curve,) = survival_curves(cells((1, 0, 0, "lll"), (2, 1, 3, "lld"), (3, 1, 3, "llll")))
    assert (curve.reason, curve.n_cells) == ("", 3)
    assert at(curve, 6) == pytest.approx(0.5)


def test_conditions_join_positions() -> None:
    one, two = cells((1, 0, 0, "lld"), position="A1"), cells((1, 0, 0, "lll"), position="A2")
    table = {name: np.concatenate([one[name], two[name]]) for name in one}
    assert [c.condition for c in survival_curves(table)] == ["A1", "A2"]
    (joined,) = survival_curves(table, {"A1": "drug", "A2": "drug"})
    assert (joined.condition, joined.n_cells, at(joined, 2)) == ("drug", 2, 0.5)


def test_an_arrow_table_gives_the_same() -> None:
    table = cells((1, 0, 0, "lld"), (2, 0, 0, "lll"))
    arrow = pa.table({name: pa.array(column.tolist()) for name, column in table.items()})
    arrow = arrow.set_column(0, "position", arrow["position"].dictionary_encode())
    np.testing.assert_array_equal(survival_curves(arrow)[0].estimate, survival_curves(table)[0].estimate)


# ------------------------------------------------------------------ what cannot be estimated


@pytest.mark.parametrize(
    ("lives", "left_out"),
    [
        ([(1, 0, 0, "ddd"), (2, 0, 0, "-dd")], {"dead at first sight": 2}),
        ([(1, 0, 0, "---")], {"never classified": 1}),
        ([(1, 0, 0, "l")], {"seen alive in one frame only": 1}),
    ],
)
def test_without_living_cells_there_is_no_curve_but_a_reason(lives: Any, left_out: dict[str, int]) -> None:
    (curve,) = survival_curves(cells(*lives))
    assert curve.estimate.size == 0
    assert curve.reason == "no cell was seen alive in two frames"
    assert curve.left_out == left_out


def test_an_empty_table_gives_no_curve() -> None:
    empty = {name: column[:0] for name, column in cells((1, 0, 0, "l")).items()}
    assert survival_curves(empty) == []


def test_all_cells_die() -> None:
    (curve,) = survival_curves(cells(*[(c, 0, 0, "l" * c + "d") for c in range(2, 12)]))
    assert curve.estimate[-1] == pytest.approx(0)
    assert 0 <= curve.low[-1] <= curve.high[-1] <= 1
    assert curve.high[-1] > 0.05  # ten of ten died; that is no proof that all must
    assert np.isfinite([curve.low, curve.high]).all()


def test_no_cell_dies() -> None:
    (curve,) = survival_curves(cells(*[(c, 0, 0, "llll") for c in range(1, 11)]))
    assert (curve.estimate == 1).all()
    assert at(curve, 3, "low") == pytest.approx(1 - 0.3085, abs=1e-4)  # Clopper & Pearson, none of ten
    (death,) = incidence_of_death(cells(*[(c, 0, 0, "llll") for c in range(1, 11)]), origin="run")
    assert at(death, 3, "high") == pytest.approx(0.3085, abs=1e-4)


def test_cells_after_a_time_without_any_are_left_out() -> None:
    (curve,) = survival_curves(cells((1, 0, 0, "llld"), (2, 0, 0, "ll"), (3, 0, 8, "lll")))
    assert curve.left_out == {"came after a time without living cells": 1}
    assert curve.reason.startswith("no living cell was watched after 9000")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_s": np.array([0.0, np.nan, 7200.0])}, "time_s is not finite in 1 of 3 rows"),
        ({"state": np.array(["live"])}, "columns of a cell table have one length"),
        ({"cell": np.array([1.5, 1.5, 1.5])}, "Column cell cannot be float64"),
        ({"state": None}, "lacks state"),
    ],
)
def test_a_broken_table_is_refused(change: dict[str, Any], message: str) -> None:
    table = cells((1, 0, 0, "lld")) | change
    with pytest.raises(LivestainError, match=message):
        survival_curves({name: column for name, column in table.items() if column is not None})


def test_without_lifelines_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lifelines", None)
    with pytest.raises(LivestainError, match=r'pip install "livestain\[cells\]"'):
        survival_curves(cells((1, 0, 0, "lld")))


# ------------------------------------------------------------------ a culture whose truth is known


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_survival_agrees_with_the_rate_of_death(rate: float) -> None:
    (curve,) = survival_curves(culture(seed=2, hours=30, death_rate_per_h=rate))
    hours = np.arange(2, 30)
    truth = np.exp(-rate * (hours - 1))  # an injury takes an hour to kill
    inside = [at(curve, h, "low") <= s <= at(curve, h, "high") for h, s in zip(hours, truth, strict=True)]
    assert np.mean(inside) >= 0.9
    assert np.abs([at(curve, h) - s for h, s in zip(hours, truth, strict=True)]).max() < 0.08
    assert curve.left_out["dead at first sight"] > 0


def test_fates_add_up() -> None:
    table = culture(seed=1, hours=30, death_rate_per_h=0.05)
    (death,), (division,) = incidence_of_death(table), incidence_of_division(table)
    assert 0 < at(death, 25) < 1
    assert at(death, 25) + at(division, 25) <= 1 + 1e-9
    assert ((death.low <= death.estimate) & (death.estimate <= death.high)).all()


# ------------------------------------------------------------------ drawn


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_survival_is_drawn(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    curves = survival_curves(cells((1, 0, 0, "lld"), (2, 0, 0, "lll")))
    hours = np.linspace(0, 2, 9)
    path = draw_survival(tmp_path / f"survival{suffix}", curves, truth={"A1": (hours * HOUR_S, np.exp(-hours))})
    if suffix == ".png":
        with Image.open(path) as image:
            assert image.convert("L").getpixel((0, 0)) == 255  # opaque white: it is read on dark pages too
            assert len(set(np.asarray(image.convert("L")).ravel().tolist())) > 20
    else:
        assert path.read_text().startswith("<?xml")


def test_curves_without_points_are_drawn_as_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert draw_survival(tmp_path / "none.png", survival_curves(cells((1, 0, 0, "ddd")))).exists()


def test_pictures_have_known_names_and_one_kind(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table = cells((1, 0, 0, "lld"), (2, 0, 0, "lll"))
    with pytest.raises(LivestainError, match=r"\.png or \.svg"):
        draw_survival(tmp_path / "survival.bmp", survival_curves(table))
    with pytest.raises(LivestainError, match="one kind"):
        draw_survival(tmp_path / "a.png", [*survival_curves(table), *incidence_of_death(table, origin="run")])
    with pytest.raises(LivestainError, match="no curve"):
        draw_survival(tmp_path / "a.png", [])
