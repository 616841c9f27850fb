"""Learning curves: what is fitted, what is promised, and what is not said when points are too few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from livestain_models._errors import DataError
from livestain_models.curve import Fit, Point, fit_learning_curve, learning_curve
from livestain_models.curve_picture import draw_curve
from livestain_models.instruments import instrument_table, leave_one_instrument_out

SIZES, SEEDS = (2, 4, 8, 16), (0, 1, 2)


def trainings(truth, sd, seed=0):
    """A fake training: a point of the true curve, and noise."""
    rng = np.random.default_rng(seed)
    return lambda n_fields, _: min(truth(n_fields) + rng.normal(0, sd), 1.0)


@settings(max_examples=40)
@given(a=st.floats(0.5, 1), b=st.floats(0.05, 0.5), c=st.floats(0.2, 2))
def test_without_noise_the_curve_is_found(a, b, c):
    truth = Fit(a, b, c)
    found = fit_learning_curve([Point(n, truth(n)) for n in SIZES])
    assert found.fit(32) == pytest.approx(truth(32), abs=2e-3)
    assert found.gain.value == pytest.approx(truth(32) - truth(16), abs=2e-3)


@pytest.mark.parametrize("truth", [Fit(0.9, 0.3, 0.7), pytest.param(Fit(0.85, 0.3, 1.2), marks=pytest.mark.slow)])
def test_the_true_gain_lies_in_the_interval_about_as_often_as_promised(truth):
    gain, hits = truth(32) - truth(16), 0
    for seed in range(40):
        curve = learning_curve(trainings(truth, 0.01, seed), SIZES, SEEDS)
        hits += curve.gain.low <= gain <= curve.gain.high
    assert hits / 40 >= 0.8


def test_a_curve_in_sentences():
    curve = learning_curve(trainings(Fit(0.92, 0.35, 0.6), 0.005), (2, 4, 8, 16, 24), SEEDS)
    assert curve.largest == 24
    text = curve.text()
    assert "Trained on 24 fields the model reaches Pearson r = 0.8" in text
    assert "Twice as many (48) would bring about +0.0" in text
    assert "levels off near 0.9" in text
    assert text == learning_curve(trainings(Fit(0.92, 0.35, 0.6), 0.005), (2, 4, 8, 16, 24), SEEDS).text()


HONEST = {  # points -> has a fit, an interval, a plateau; words
    "one size": ([Point(4, 0.8, s) for s in range(5)], False, False, False, "1 is too few"),
    "two sizes": ([Point(n, 0.8, s) for n in (4, 8) for s in range(5)], False, False, False, "2 are too few"),
    "three points": ([Point(n, 0.9 - 1 / n) for n in (4, 8, 16)], True, False, False, "repeat with other seeds"),
    "no gain": (
        [Point(n, 0.7 + 0.02 * (s - 1), s) for n in SIZES for s in range(3)],
        True,
        True,
        False,
        "do not show that more fields help",
    ),
    "a straight rise": (
        [Point(n, 0.3 + 0.1 * np.log2(n) + 0.01 * (s - 1), s) for n in SIZES for s in range(3)],
        True,
        True,
        False,
        "levels off cannot be told",
    ),
    "falling": ([Point(n, 0.9 - 0.01 * n, s) for n in SIZES for s in range(2)], True, True, False, "do not show"),
}


@pytest.mark.parametrize("case", HONEST)
def test_what_the_points_cannot_tell_is_not_said(case):
    points, fitted, interval, plateau, words = HONEST[case]
    curve = fit_learning_curve(points)
    assert (curve.fit is not None) == fitted
    assert (curve.gain is not None and curve.gain.low is not None) == interval
    assert (curve.plateau is not None) == plateau
    assert words in curve.text()


def test_errors_can_be_scored_with_a_minus():
    curve = fit_learning_curve([Point(n, -0.3 - 1 / n, s) for n in SIZES for s in range(2)], best=0.0)
    assert curve.fit.a == pytest.approx(-0.3, abs=0.01)


@pytest.mark.parametrize("point", [Point(0, 0.5), Point(4, float("nan")), Point(4, 1.2)])
def test_impossible_points_are_refused(point):
    with pytest.raises(DataError, match="at least one field and a finite score"):
        fit_learning_curve([Point(2, 0.5), point])
    with pytest.raises(DataError, match="got none"):
        fit_learning_curve([])


@pytest.mark.parametrize("case", HONEST)
def test_every_curve_can_be_drawn(tmp_path, case):
    with Image.open(draw_curve(tmp_path / "curve.png", fit_learning_curve(HONEST[case][0]))) as image:
        assert image.size == (960, 700)
        assert len(image.getcolors(maxcolors=100000)) > 5


# Leave one instrument out


@dataclass(frozen=True)
class FakeField:
    name: str
    instrument: str
    place: str


def fields_of(**counts):
    return [FakeField(f"{name} {i}", name, f"{name} {i}") for name, count in counts.items() for i in range(count)]


def knows_instruments(train, test, seed):
    """A fake training: good where the test's instrument was seen."""
    assert not set(train) & set(test)
    assert len({one.instrument for one in test}) == 1
    return (0.9 if test[0].instrument in {one.instrument for one in train} else 0.6) + 0.01 * seed


def test_an_instrument_never_seen_is_harder():
    rows = leave_one_instrument_out(knows_instruments, fields_of(Nikon=5, Zeiss=4, Home=1), seeds=(0, 1))
    assert [(row.instrument, row.n_fields, row.n_tested) for row in rows] == [
        ("Home", 1, 1),
        ("Nikon", 5, 3),
        ("Zeiss", 4, 2),
    ]
    assert all(row.held_out == (0.6, 0.61) for row in rows)
    assert [row.within for row in rows] == [(), (0.9, 0.91), (0.9, 0.91)]
    table = instrument_table(rows)
    assert "| Nikon | 5 (3) | 0.605 (0.600 to 0.610) | 0.905 (0.900 to 0.910) | -0.300 |" in table
    assert "| Home | 1 (1) | 0.605 (0.600 to 0.610) | - | - |" in table
    assert "one field" in table


def test_time_points_of_a_place_stay_together():
    films = [FakeField(f"{name} {p} t{t}", name, f"{name} {p}") for name in "AB" for p in range(2) for t in range(3)]

    def train_and_score(train, test, seed):
        assert not {one.place for one in train} & {one.place for one in test}
        return 0.5

    assert [row.n_tested for row in leave_one_instrument_out(train_and_score, films)] == [3, 3]


@pytest.mark.parametrize("counts", [{}, {"Nikon": 7}])
def test_one_instrument_cannot_be_left_out(counts):
    with pytest.raises(DataError, match="takes two"):
        leave_one_instrument_out(knows_instruments, fields_of(**counts))
