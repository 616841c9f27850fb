"""Growth of cells and of populations, against the simulated truth, with bad frames, borders and deaths; and drawn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from livestain._errors import LivestainError
from livestain.measure.growth import growth_rates, population_growth
from livestain.measure.pictures import draw_masses
from tests.simulated_culture import culture

if TYPE_CHECKING:
    from pathlib import Path

RATE_PER_H = np.log(2) / 20


def cell(masses: Any, **columns: Any) -> dict[str, np.ndarray]:
    """One cell's table, a frame every 10 minutes."""
    mass = np.asarray(masses, dtype=np.float64)
    n = mass.size
    table: dict[str, Any] = {
        "position": np.full(n, "A1"), "cell": np.ones(n, int), "parent": np.zeros(n, int), "t": np.arange(n),
        "time_s": 600.0 * np.arange(n), "state": np.full(n, "live"), "dry_mass_pg": mass,
        "dry_mass_sd_pg": 0.03 * mass, "at_border": np.zeros(n, bool),
    }  # fmt: skip
    return table | columns


def growing(n: int = 60, noise: float = 0.03, seed: int = 0) -> np.ndarray:
    return 150 * np.exp(RATE_PER_H * np.arange(n) / 6 + np.random.default_rng(seed).normal(0, noise, n))


def measured(table: dict[str, Any], *, sd: float = 0.03, bad: float = 0.02, seed: int = 0) -> dict[str, Any]:
    """The table as it would be measured: masses off by `sd`, and some halved or doubled by a wrong segmentation."""
    rng = np.random.default_rng(seed)
    mass = table["dry_mass_pg"] * np.exp(rng.normal(0, sd, table["cell"].size))
    wrong = np.where(rng.random(mass.size) < bad, rng.choice([0.5, 2.0], mass.size), 1.0)
    return table | {"dry_mass_pg": mass * wrong, "dry_mass_sd_pg": sd * mass}


# ------------------------------------------------------------------ one cell


def test_a_clean_exponential_is_found_exactly() -> None:
    (rate,) = growth_rates(cell(growing(noise=0)))
    assert rate.rate_per_h == pytest.approx(RATE_PER_H, rel=1e-9)
    assert rate.doubling_h == pytest.approx(20, rel=1e-9)
    assert (rate.n, rate.reason) == (60, "")


def test_bad_frames_are_ignored() -> None:
    masses = growing()
    (clean,) = growth_rates(cell(masses))
    spoilt = masses.copy()
    spoilt[[50, 52, 53, 55, 58]] *= 2
    (rate,) = growth_rates(cell(spoilt, dry_mass_sd_pg=0.03 * masses))
    assert rate.n_bad >= 5
    assert abs(rate.rate_per_h - clean.rate_per_h) < clean.se_per_h


def test_masses_count_by_their_standard_deviations() -> None:
    masses, sd = growing(noise=0.01), np.full(60, 1.0)
    masses[::2] *= np.exp(np.random.default_rng(1).normal(0, 0.3, 30))
    sd[::2] = 50
    (weighted,) = growth_rates(cell(masses, dry_mass_sd_pg=sd))
    assert weighted.rate_per_h == pytest.approx(RATE_PER_H, rel=0.05)


def test_standard_errors_hold_when_errors_repeat() -> None:
    """Segmentation errs alike in successive frames; an error bar that ignores it would be far too small."""
    off = []
    for seed in range(60):
        rng, noise = np.random.default_rng(seed), np.zeros(120)
        for i in range(1, 120):
            noise[i] = 0.7 * noise[i - 1] + rng.normal(0, 0.02)
        (rate,) = growth_rates(cell(growing(120, 0) * np.exp(noise)))
        off.append((rate.rate_per_h - RATE_PER_H) / rate.se_per_h)
    assert 0.7 < np.std(off) < 1.5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dry_mass_pg": np.full(60, np.nan)}, "0 masses, fewer than 5"),
        ({"dry_mass_pg": np.full(60, -1.0)}, "0 masses, fewer than 5"),
        ({"at_border": np.ones(60, bool)}, "0 masses, fewer than 5"),
        ({"state": np.array(["live"] * 4 + ["dead"] * 56)}, "4 masses, fewer than 5"),
        ({"state": np.full(60, "dead")}, "0 masses, fewer than 5"),
    ],
)
def test_what_has_no_rate_has_a_reason(changes: dict[str, Any], reason: str) -> None:
    (rate,) = growth_rates(cell(growing(), **changes))
    assert np.isnan([rate.rate_per_h, rate.se_per_h, rate.doubling_h]).all()
    assert rate.reason == reason


def test_a_cell_that_shrinks_has_no_doubling_time() -> None:
    (rate,) = growth_rates(cell(growing()[::-1]))
    assert rate.rate_per_h < 0
    assert np.isnan(rate.doubling_h)


@given(rate=st.floats(-0.1, 0.1), start_pg=st.floats(1, 1000), sd=st.sampled_from([np.nan, 0.0, 1.0, 30.0]))
def test_any_exponential_is_found(rate: float, start_pg: float, sd: float) -> None:
    masses = start_pg * np.exp(rate * np.arange(20) / 6)
    (found,) = growth_rates(cell(masses, dry_mass_sd_pg=np.full(20, sd)))
    assert found.rate_per_h == pytest.approx(rate, abs=1e-8)


@pytest.mark.parametrize("edge_um", [180, pytest.param(250, marks=pytest.mark.slow)])
def test_rates_of_a_culture_are_within_five_per_cent(edge_um: float) -> None:
    table = culture(seed=1, death_rate_per_h=0.004, edge_um=edge_um)
    long = np.bincount(table["cell"])[table["cell"]] >= 72  # half a day
    true, seen = ({name: column[long] for name, column in t.items()} for t in (table, measured(table)))
    truth = {rate.cell: rate.rate_per_h for rate in growth_rates(true)}
    found = [rate for rate in growth_rates(seen) if rate.n >= 72 and truth[rate.cell] > 0]
    off = np.array([rate.rate_per_h / truth[rate.cell] - 1 for rate in found])
    z = np.array([(rate.rate_per_h - truth[rate.cell]) / rate.se_per_h for rate in found])
    assert len(found) > 60
    assert abs(np.median(off)) < 0.02
    assert np.median(np.abs(off)) < 0.05
    assert 0.85 < np.mean(np.abs(z) < 2) <= 1


# ------------------------------------------------------------------ a population


def true_net_per_h(table: dict[str, Any], hours: float) -> float:
    counts = np.bincount(table["t"][table["state"] != "dead"])
    return float(np.log(counts[-1] / counts[0]) / hours)


@pytest.mark.parametrize("rate", [0.0, 0.02])
def test_doubling_time_of_a_population_within_five_per_cent(rate: float) -> None:
    table = culture(seed=1, death_rate_per_h=rate)
    count, mass = population_growth(measured(table))
    assert (count.basis, mass.basis) == ("count", "mass")
    assert count.net_rate_per_h == pytest.approx(true_net_per_h(table, 24), rel=1e-6)
    perfect = population_growth(table)
    assert mass.doubling_h == pytest.approx(perfect[1].doubling_h, rel=0.05)
    assert count.doubling_h == perfect[0].doubling_h
    if rate == 0:
        assert count.doubling_h == pytest.approx(np.log(2) / true_net_per_h(table, 24), rel=0.05)
        assert mass.doubling_h == pytest.approx(np.log(2) / true_net_per_h(table, 24), rel=0.05)
    for growth in (count, mass):
        assert growth.doubling_low_h < growth.doubling_h < growth.doubling_high_h
        assert growth.reason == ""


def test_deaths_do_not_slow_the_growth_of_the_living() -> None:
    quiet = population_growth(culture(seed=1, death_rate_per_h=0))[0]
    deadly = population_growth(culture(seed=1, death_rate_per_h=0.05))[0]
    assert deadly.net_rate_per_h < 0 < deadly.rate_per_h
    # The dish fills less where cells die, and growth slows as it fills: the living grow no slower.
    assert deadly.rate_per_h > 0.9 * quiet.rate_per_h
    assert deadly.n_deaths > 50


def test_what_crosses_the_border_is_no_growth() -> None:
    table = culture(seed=4, death_rate_per_h=0, edge_um=350)
    inside = (table["x_um"] < 250) & (table["y_um"] < 250)
    field = {name: column[inside] for name, column in measured(table).items()}
    edges = [field["x_um"], field["y_um"], 250 - field["x_um"], 250 - field["y_um"]]
    field["at_border"] = np.minimum.reduce(edges) < 9
    for growth in population_growth(field):
        assert growth.low_per_h <= true_net_per_h(table, 24) <= growth.high_per_h
        assert growth.rate_per_h == pytest.approx(true_net_per_h(table, 24), rel=0.2)
    # A mother that the border cuts, and whose other daughter nobody sees, says nothing.
    families = []
    for k in range(5):
        for c, parent, n, start in ((3 * k + 1, 0, 3, 0), (3 * k + 2, 3 * k + 1, 3, 3), (3 * k + 3, 3 * k + 1, 3, 3)):
            if k == 4 and c % 3 == 0:
                continue  # the one that is not seen
            t, border = np.arange(start, start + n), np.full(n, k == 4)
            ids = {"cell": np.full(n, c), "parent": np.full(n, parent)}
            families.append(cell(np.full(n, 100.0), t=t, time_s=3600.0 * t, at_border=border, **ids))
    seen = {name: np.concatenate([part[name] for part in families]) for name in families[0]}
    of_count, _ = population_growth(seen)
    assert of_count.n_divisions == 4
    assert of_count.rate_per_h == pytest.approx(np.log(2) / 5)
    # A stream of newcomers alone is no growth at all.
    n = 50
    came = np.arange(n)
    t = np.concatenate([np.arange(start, n + 1) for start in came])
    length = n + 1 - came
    stream = cell(np.full(t.size, 150.0), t=t, time_s=600.0 * t, cell=np.repeat(came + 1, length))
    for growth in population_growth(stream):
        assert growth.rate_per_h == pytest.approx(0, abs=1e-12)
        assert growth.reason == "the population does not grow"
        assert np.isnan(growth.doubling_h)


def test_one_family_that_shrinks_has_both_its_reasons() -> None:
    of_count, of_mass = population_growth(cell(150 * np.exp(-0.01 * np.arange(20))))
    for growth in (of_count, of_mass):
        assert growth.reason == "1 families, fewer than 5: no interval; the population does not grow"
        assert np.isnan([growth.low_per_h, growth.high_per_h, growth.doubling_h]).all()


def test_a_division_counts_only_with_both_daughters() -> None:
    def family(*daughters: int) -> dict[str, np.ndarray]:
        parts = [cell(np.full(5, 200.0))]
        parts += [
            cell(
                np.full(5, 100.0),
                cell=np.full(5, d),
                parent=np.ones(5, int),
                t=np.arange(5, 10),
                time_s=600.0 * np.arange(5, 10),
            )
            for d in daughters
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    both, mass = population_growth(family(2, 3))
    assert both.n_divisions == 1
    assert both.rate_per_h == pytest.approx(np.log(2) / 1.5)
    assert mass.rate_per_h == pytest.approx(0)
    assert both.reason == "1 families, fewer than 5: no interval"
    assert np.isnan(both.low_per_h)
    rounded = family(2, 3)
    rounded["state"][3:5] = "dead"  # as a round cell may be called before it divides
    again, _ = population_growth(rounded)
    assert (again.n_divisions, again.n_deaths, again.rate_per_h) == (1, 0, pytest.approx(both.rate_per_h))
    one, _ = population_growth(family(2))
    assert (one.n_divisions, one.rate_per_h) == (0, 0)


@pytest.mark.parametrize(
    "changes",
    [{"state": np.full(60, "dead")}, {"t": np.zeros(60, int), "cell": np.arange(60)}],
    ids=["dead", "one frame"],
)
def test_no_growth_without_living_cells(changes: dict[str, Any]) -> None:
    for growth in population_growth(cell(growing(), **changes)):
        assert np.isnan([growth.rate_per_h, growth.doubling_h]).all()
        assert "is seen in two successive frames" in growth.reason


def test_an_empty_table_has_no_growth() -> None:
    empty = {name: column[:0] for name, column in cell(growing()).items()}
    assert growth_rates(empty) == []
    assert population_growth(empty) == []


def test_a_table_without_masses_is_refused() -> None:
    table = cell(growing())
    del table["dry_mass_pg"]
    with pytest.raises(LivestainError, match="lacks dry_mass_pg"):
        growth_rates(table)


# ------------------------------------------------------------------ drawn


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_masses_are_drawn(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # its global state is not to be touched
    table = culture(seed=1, hours=6, death_rate_per_h=0.1, edge_um=120)
    path = draw_masses(tmp_path / f"masses{suffix}", measured(table))
    if suffix == ".png":
        with Image.open(path) as image:
            colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
        assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (255, 255, 255)} <= colours
    else:
        assert "dry mass (pg)" in path.read_text()


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(LivestainError, match="No cell of the table has a mass"):
        draw_masses(tmp_path / "a.png", cell(np.full(5, np.nan)))


def test_without_matplotlib_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(LivestainError, match=r'pip install "livestain\[cells\]"'):
        draw_masses(tmp_path / "a.png", cell(growing()))
