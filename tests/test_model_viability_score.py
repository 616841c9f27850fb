"""Live, injured and dead: counts, scores and what too few cells cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestain_models._errors import DataError
from livestain_models.viability_score import CLASSES, count_viability, score_viability, sensitivity_at

NUCLEI = np.repeat(np.repeat(np.arange(1, 13).reshape(3, 4), 6, axis=0), 6, axis=1)  # twelve cells of 6 x 6 px


def field(classes):
    """Give each of the twelve cells a class; a gap of background around each."""
    labels = np.asarray([0, *classes])[NUCLEI]
    labels[::6], labels[:, ::6] = 0, 0
    return labels


TRUTH = field([1] * 6 + [2] * 3 + [3] * 3)


def certain(labels):
    return np.stack([labels == i for i in range(4)]).astype(float)


@pytest.mark.parametrize("form", [lambda labels: labels, certain])
def test_a_perfect_prediction(form):
    pixels, cells = score_viability([count_viability(form(TRUTH), TRUTH, NUCLEI)])
    assert np.array_equal(cells.confusion, np.diag([0, 6, 3, 3]))
    assert pixels.confusion.sum() == TRUTH.size
    for scores in (pixels, cells):
        assert scores.balanced_accuracy == 1
        assert {name: value for name, value in scores.f1.items() if not np.isnan(value)}.keys() >= set(CLASSES[1:])
        assert all(scores.f1[name] == 1 for name in CLASSES[1:])
    assert np.isnan(cells.f1["background"])


def test_confused_cells():
    guess = field(
        [1] * 5 + [3] + [2, 2, 0] + [3, 3, 2]
    )  # one live taken for dead, one injured missed, one dead injured
    _, cells = score_viability([count_viability(guess, TRUTH, NUCLEI)])
    assert cells.confusion.tolist() == [[0, 0, 0, 0], [0, 5, 0, 1], [1, 0, 2, 0], [0, 0, 1, 2]]
    assert cells.balanced_accuracy == pytest.approx((5 / 6 + 2 / 3 + 2 / 3) / 3)
    assert cells.f1["dead"] == pytest.approx(2 * 2 / (3 + 3))
    assert "no threshold" in cells.note


def test_the_majority_is_the_cell():
    guess = TRUTH.copy()
    guess[1:3, 1:6] = 3  # 10 of 25 pixels of the first cell
    counts = count_viability(guess, TRUTH, NUCLEI)
    assert np.array_equal(counts.cells, np.diag([0, 6, 3, 3]))
    assert counts.pixels[1, 3] == 10


def test_fields_add_up():
    guess = field([1, 2, 3] * 4)
    one = count_viability(guess, TRUTH, NUCLEI)
    alone, twice = score_viability([one]), score_viability([one, one])
    assert np.array_equal(twice[0].confusion, 2 * alone[0].confusion)
    assert twice[1].balanced_accuracy == alone[1].balanced_accuracy
    with pytest.raises(DataError, match="got none"):
        score_viability([])


@given(order=st.permutations(range(1, 13)))
def test_the_numbers_of_nuclei_do_not_matter(order):
    renumbered = np.concatenate([[0], order])[NUCLEI] * 7
    guess = field([1, 2, 3] * 4)
    assert np.array_equal(count_viability(guess, TRUTH, NUCLEI).cells, count_viability(guess, TRUTH, renumbered).cells)


def test_sensitivity_of_normal_scores():
    """Dead cells score 3 sd higher: Phi(3 - 2.326) = 0.750 of them are beyond 99 % of the others."""
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(3, 1, 20000), rng.normal(0, 1, 20000)])
    dead = np.repeat([1, 0], 20000)
    found, note = sensitivity_at(0.99, scores, dead, 1 - dead)
    assert found == pytest.approx(0.750, abs=0.02)
    assert note == ""


LIMITS = {  # scores of dead, of others -> sensitivity, note
    "parted": ([0.9] * 5, [0.1] * 200, 1.0, ""),
    "useless": ([0.5] * 5, [0.5] * 200, 0.01, ""),
    "reversed": ([0.1] * 5, [0.9] * 200, 0.0, ""),
    "between two thresholds": ([0.9] + [0.5] * 3, [0.5] * 4 + [0.1] * 196, 0.25 + 0.75 * 0.5, ""),
    "too few others": ([0.9] * 5, [0.1] * 99, np.nan, "99 that are not dead, and 99% specificity needs 100"),
    "no dead": ([], [0.1] * 500, np.nan, "nothing dead"),
}


@pytest.mark.parametrize("case", LIMITS)
def test_limits_of_sensitivity(case):
    dead, others, expected, message = LIMITS[case]
    flags = np.repeat([1, 0], [len(dead), len(others)])
    found, note = sensitivity_at(0.99, np.array(dead + others), flags, 1 - flags)
    assert found == pytest.approx(expected, nan_ok=True)
    assert message in note


def test_probabilities_give_sensitivities_over_many_cells():
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(12):
        noisy = 0.6 * certain(TRUTH) + 0.4 * rng.dirichlet(np.ones(4), TRUTH.shape).transpose(2, 0, 1)
        counts.append(count_viability(noisy, TRUTH, NUCLEI))
    pixels, cells = score_viability(counts)
    assert cells.sensitivity_99 > 0.95  # 108 cells that are not dead
    assert pixels.sensitivity_99 > 0.9
    few = score_viability(counts[:2])[1]
    assert np.isnan(few.sensitivity_99)
    assert "18 that are not dead" in few.note


REFUSED = {
    "three planes": (np.zeros((3, 18, 24)), "four planes"),
    "grey values": (np.full((4, 18, 24), 255.0), "0 and 1"),
    "a fifth class": (np.full((18, 24), 4), "0 to 3"),
    "a float mask": (np.zeros((18, 24)), "integers"),
    "another size": (np.zeros((17, 24), int), r"\(18, 24\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_class_is_refused(case):
    predicted, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        count_viability(predicted, TRUTH)
