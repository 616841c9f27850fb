"""What a person is told of a measurement: reasons by quantity, the overview, and what the pictures' keys promise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestain.measure import pictures
from livestain.measure.features import Features
from livestain.measure.mass import Masses
from livestain.measure.overview import overview_of
from livestain.measure.reasons import CELL, MASS, NUCLEUS, VIABILITY, joined, of_quantity, told
from livestain.measure.segment import Plane, segment
from livestain.measure.summary import SummaryTable, summarised
from livestain.measure.survival import survival_curves
from livestain.measure.table import ONLY_POSITION, CellTable
from tests.test_table import rows

if TYPE_CHECKING:
    from pathlib import Path

QUANTITIES = (CELL, MASS, NUCLEUS, VIABILITY)
WHYS = st.sampled_from(["a", "b; check the order: of it", "the model sees background", "it did not converge; see a"])


# ---------------------------------------------------------------------- reasons


@given(st.lists(st.tuples(st.sampled_from(QUANTITIES), WHYS), max_size=6))
def test_what_is_joined_comes_apart_again_each_cause_once(parts: list[tuple[str, str]]) -> None:
    reason = joined(told(quantity, why) for quantity, why in parts)
    assert joined([reason, reason]) == reason
    for quantity in QUANTITIES:
        mine = dict.fromkeys(why for of, why in parts if of == quantity)
        assert of_quantity(reason, quantity) == "; ".join(mine)
    assert (reason == "") == (not parts)


def test_a_reason_of_an_older_table_is_of_every_quantity() -> None:
    assert of_quantity("no phase", MASS) == of_quantity("no phase", VIABILITY) == "no phase"
    assert told(MASS, "") == ""


def field(nuclei: int = 2) -> Features:
    """Two cells of which the first ones have nuclei."""
    y, x = np.mgrid[:64, :128]
    cells, cores = (
        np.maximum.reduce([np.clip(1 - np.hypot(y - 32, x - at) / r, 0, 1) for at in ats] or [np.zeros(y.shape)])
        for r, ats in ((20, (32, 96)), (10, (32, 96)[:nuclei]))
    )
    found = segment(_plane(cores), _plane(cells), pixel_size_um=0.5)
    assert len(found) == 2
    return Features.of(0, 0.0, found)


def _plane(values: np.ndarray) -> Plane:
    return Plane((values * 65535).astype(np.uint16), "distance")


def masses(pg: list[float], reason: list[str]) -> Masses:
    n, nan = len(pg), np.full(len(pg), math.nan)
    none = np.zeros(n, bool)
    return Masses(np.arange(1, n + 1), nan, nan, np.array(pg), np.array(pg) / 50, nan, nan, none, tuple(reason))


def test_reasons_begin_with_what_they_belong_to() -> None:
    lost = field().weighed(masses([120.0, math.nan], ["", "the camera is saturated"]), "steps", {})
    assert lost.reasons == ("", "dry mass: the camera is saturated")
    dark = lost.classified(np.full((2, 3), math.nan), ["the model sees background there"] * 2)
    assert dark.reasons == (
        "viability: the model sees background there",
        "dry mass: the camera is saturated; viability: the model sees background there",
    )
    assert field().without_mass("no planes").reasons == ("dry mass: no planes",) * 2


def test_a_cell_without_a_nucleus_says_so_once_and_has_its_mass() -> None:
    weighed = field(1).weighed(masses([120.0, 130.0], ["", "no nucleus was found in the cell"]), "steps", {})
    assert [reason.count("no nucleus") for reason in weighed.reasons] == [0, 1]
    assert weighed.reasons[1].startswith("nucleus: ")


# ---------------------------------------------------------------------- the overview


def table_of(folder: Path, time_points: list[dict[str, Any]], n: int = 4) -> Path:
    with CellTable(folder) as cells, SummaryTable(folder) as summary:
        for t, changes in enumerate(time_points):
            mass = 100.0 * np.exp(0.01 * t) + np.arange(n)
            plain = {"dry_mass_pg": mass, "dry_mass_sd_pg": mass / 50, "time_s": [3600.0 * t] * n}
            found = rows(n, t, **(plain | {"position": [ONLY_POSITION] * n} | changes))
            cells.append(found)
            summary.append(summarised(found))
    return folder


NO_MASS = {"dry_mass_pg": [math.nan] * 4, "dry_mass_sd_pg": [math.nan] * 4}
WHY = {"reason": ["dry mass: it did not converge; check the masks; viability: no class"] * 4}
ONE_LOST = {"dry_mass_pg": [1.0, 2.0, 3.0, math.nan], "reason": [""] * 3 + ["cell: not found at this time point"]}
UNSEEN = {"state": [""] * 4, "reason": ["viability: no class"] * 4}
OVERVIEWS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "all is there": (
        [{}] * 8,
        ["Position 0: 8 time points over 7 h", "median of whole cells 101.5 pg at first, 108.8"],
    ),
    "no mass at first": ([NO_MASS | WHY, *[{}] * 7], ["whole cells not known at first, 108.8 pg at last"]),
    "no mass at last": ([*[{}] * 7, NO_MASS | WHY], ["101.5 pg at first, not known at last"]),
    "no mass in between": (
        [{}, {}, NO_MASS | WHY, {}, {}, NO_MASS | WHY, {}, {}],
        ["missing at 2 of 8 time points (t=2, 5): it did not converge; check the masks\n"],
    ),
    "one cell not found": ([{}, ONE_LOST, {}, {}], ["missing for 6.2% of the cells, mostly: not found at this time"]),
    "no mass at all": ([NO_MASS | WHY] * 4, ["dry mass   none: it did not converge; check the masks"]),
    "no phase": ([NO_MASS] * 4, ["dry mass   none: no phase was measured"]),
    "no state at first": ([UNSEEN, {}, {}], ["viability  not known at first, 100.0% (51.0% to 100.0%) at last"]),
    "growth": (
        [{}] * 8,
        ["one cell's mass: 0.99% an hour, doubling in 70", "all cells' mass: 0.99% an hour, doubling in 70"],
    ),
}


@pytest.mark.parametrize("case", OVERVIEWS)
def test_the_overview_tells_first_from_last_and_what_is_missing(case: str, tmp_path: Path) -> None:
    time_points, said = OVERVIEWS[case]
    found = overview_of(table_of(tmp_path, time_points))
    for words in said:
        assert words in f"{found}\n"
    assert "nan" not in found


def test_the_overview_of_tables_without_a_row(tmp_path: Path) -> None:
    table_of(tmp_path, [])
    assert overview_of(tmp_path).startswith("no time point is in the tables so far")


def test_the_name_of_the_only_position_survives_csv(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pa.table({"position": [ONLY_POSITION], "cell": [1]})
    pa.csv.write_csv(table, tmp_path / "cells.csv")
    assert list(pandas.read_csv(tmp_path / "cells.csv").groupby("position").groups) == [ONLY_POSITION]


# ---------------------------------------------------------------------- pictures


@pytest.fixture
def sheet(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, not written."""
    pytest.importorskip("matplotlib")
    drawn: list[Any] = []

    def keep(figure: Any, path: Path) -> Path:
        figure.canvas.draw()
        drawn.append(figure)
        return path

    monkeypatch.setattr(pictures, "_save", keep)
    return drawn


def key(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def lives(*cells: tuple[int, int, range, str], every_h: float = 1.0) -> dict[str, Any]:
    """(cell, parent, time points, state at the last one), 100 pg each."""
    found = [(cell, parent, t, last if t == span[-1] else "live") for cell, parent, span, last in cells for t in span]
    cell, parent, t, state = (np.array(column) for column in zip(*found, strict=True))
    n = len(found)
    return {
        "position": np.full(n, ONLY_POSITION), "cell": cell, "parent": parent, "t": t, "state": state,
        "time_s": 3600.0 * every_h * t, "dry_mass_pg": np.full(n, 100.0), "at_border": np.zeros(n, bool),
    }  # fmt: skip


LONG = [(n, 0, range(12), "live") for n in (1, 2, 3)]
STUBS = [(n, 0, range(8, 10), "live") for n in (5, 6, 7, 8)]
PARTED = [(20, 0, range(5), "live"), (21, 20, range(5, 12), "live"), (22, 20, range(5, 12), "live")]
KEYS: dict[str, tuple[list[Any], list[str]]] = {
    "long ones before stubs": (
        [*STUBS, *LONG],
        ["cell 1: 0 divisions", "cell 2: 0 divisions", "cell 3: 0 divisions", "4 other families"],
    ),
    "a division": (
        [*STUBS, *PARTED],
        ["cell 20: 1 division", "cell 5: 0 divisions", "cell 6: 0 divisions", "2 other families", "division"],
    ),
    "a death": ([(1, 0, range(9), "dead"), *STUBS[:1]], ["cell 1: 0 divisions", "cell 5: 0 divisions", "death"]),
    "a division of which no daughter can be drawn": (
        [(1, 0, range(6), "live"), (2, 1, range(6, 7), "live"), (3, 1, range(6, 7), "live")],
        ["cell 1: 0 divisions"],
    ),
}


@pytest.mark.parametrize("case", KEYS)
def test_the_key_of_masses_names_what_is_drawn(case: str, sheet: list[Any], tmp_path: Path) -> None:
    cells, said = KEYS[case]
    pictures.draw_masses(tmp_path / "a.png", lives(*cells))
    assert key(sheet[0]) == said


@pytest.mark.parametrize(
    ("hours", "step"), [(5, 1), (17, 2), (20, 3), (40, 6), (100, 12), (200, 24), (300, 48), (1000, 168)]
)
def test_hours_are_marked_in_steps_of_a_clock(hours: int, step: int, sheet: list[Any], tmp_path: Path) -> None:
    pictures.draw_masses(tmp_path / "a.png", lives((1, 0, range(11), "live"), every_h=hours / 10))
    ticks = [t for t in sheet[0].axes[0].get_xticks() if 0 <= t <= hours]
    np.testing.assert_allclose(np.diff(ticks), step)
    assert ticks[0] == 0
    assert len(ticks) > 2


def test_the_key_of_survival_has_the_bands_colour_and_says_whose_truth(sheet: list[Any], tmp_path: Path) -> None:
    pytest.importorskip("lifelines")
    curves = survival_curves(lives(*[(n, 0, range(5 + n), "dead") for n in range(1, 6)]))
    truth = {ONLY_POSITION: (np.array([0.0, 3600.0]), np.array([1.0, 0.9]))}
    pictures.draw_survival(tmp_path / "a.png", curves, truth=truth)
    assert {"truth (simulated)", "95 % interval"} <= set(key(sheet[0]))
    axes = sheet[0].axes[0]
    band, sample = axes.collections[0], axes.get_legend().legend_handles[key(sheet[0]).index("95 % interval")]
    np.testing.assert_array_equal(band.get_facecolor()[0], sample.get_facecolor())
