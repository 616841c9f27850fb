"""Cells are found, matched and compared; what has none invents none."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from livestain_models._errors import DataError
from livestain_models.calibration import calibration
from livestain_models.learned import distance_map
from livestain_models.objects import (
    foreground,
    match_cells,
    score_objects,
    segment,
    segment_around,
    segment_map,
    typical_diameter_um,
)

PIXEL_UM = 0.5


def discs(centres, radius_px=12, shape=(160, 200), light=1000.0):
    """Labels and a stain of round nuclei; `light` of each, or of all."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for i, (cy, cx) in enumerate(centres, 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius_px**2] = i
    each = np.concatenate([[0], np.broadcast_to(light, len(centres))])
    stain = 100 + ndimage.gaussian_filter(each[labels], 1.0)
    return labels, stain + np.random.default_rng(0).normal(0, 10, shape)


APART = [(30, 30), (30, 90), (30, 160), (90, 40), (100, 120), (130, 170)]
TOUCHING = [(40, 40), (40, 62), (110, 60), (110, 82), (121, 71 + 29)]

EMPTY = {
    "zeros": np.zeros((80, 90)),
    "one value": np.full((80, 90), 7, np.uint16),
    "noise": np.random.default_rng(0).normal(500, 20, (80, 90)),
    "photons": np.random.default_rng(0).poisson(3, (80, 90)),
    "uneven light": np.add.outer(np.arange(80.0), np.arange(90.0)),
}


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_is_found_where_nothing_is(name):
    assert segment(EMPTY[name], PIXEL_UM).max() == 0
    assert not foreground(EMPTY[name], PIXEL_UM).any()
    assert typical_diameter_um(EMPTY[name], PIXEL_UM) is None


@pytest.mark.parametrize("centres", [APART, TOUCHING])
@pytest.mark.parametrize("diameter_um", [None, 12.0])
def test_every_cell_is_found_once(centres, diameter_um):
    truth, stain = discs(centres)
    found = segment(stain, PIXEL_UM, diameter_um)
    assert found.max() == len(centres)
    assert len(match_cells(found, truth, 0.7)) == len(centres)
    assert typical_diameter_um(stain, PIXEL_UM) == pytest.approx(12, abs=2)


@pytest.mark.parametrize("centres", [APART, TOUCHING])
def test_cells_are_found_again_in_their_distance_map(centres):
    truth, _ = discs(centres)
    found = segment_map(distance_map(truth), PIXEL_UM)
    assert found.max() == len(centres)
    assert len(match_cells(found, truth, 0.8)) == len(centres)


def test_no_distance_no_cell():
    assert not segment_map(np.zeros((40, 50), np.float16), PIXEL_UM).any()


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (30.0, 500.0)])
def test_whole_cells_grow_around_their_nuclei(gain, offset):
    cells, _ = discs([(60, 50), (60, 96), (60, 160)], radius_px=23)  # the first two touch
    nuclei, _ = discs([(60, 44), (60, 104), (60, 160)], radius_px=8)  # not in the middle, and unevenly so
    inside = ndimage.distance_transform_edt(cells == 1) + ndimage.distance_transform_edt(cells == 2)
    inside += ndimage.distance_transform_edt(cells == 3)
    membrane = 100 + 300 * (inside > 0) + 900 * np.exp(-((inside - 1) ** 2) / 4) * (inside > 0)
    membrane += np.random.default_rng(0).normal(0, 10, membrane.shape)
    found = segment_around(nuclei, gain * membrane + offset, PIXEL_UM)
    assert match_cells(found, cells, 0.8).tolist() == [[1, 1], [2, 2], [3, 3]]


def test_whole_cells_of_a_full_dish():
    y, x = np.mgrid[:160, :200]
    inside = np.minimum(np.minimum(y % 40, 39 - y % 40), np.minimum(x % 40, 39 - x % 40)) >= 3
    cells = np.where(inside, 1 + y // 40 * 5 + x // 40, 0)
    nuclei, _ = discs([(20 + 40 * (n // 5), 20 + 40 * (n % 5)) for n in range(20)], radius_px=8)
    membrane = 100 + 400 * ndimage.gaussian_filter(inside.astype(float), 2)
    assert not foreground(membrane, PIXEL_UM).any()  # on its own the stain does not stand out
    found = segment_around(nuclei, membrane, PIXEL_UM)
    np.testing.assert_array_equal(match_cells(found, cells, 0.7), np.repeat(np.arange(1, 21), 2).reshape(-1, 2))


def test_a_nucleus_without_membrane_is_its_own_cell():
    nuclei, _ = discs(APART)
    np.testing.assert_array_equal(segment_around(nuclei, np.zeros(nuclei.shape), PIXEL_UM), nuclei)


def test_dim_cells_pass_beside_bright_ones():
    truth, stain = discs(APART, light=np.array([300, 400, 500, 2000, 400, 300.0]))
    assert len(match_cells(segment(stain, PIXEL_UM), truth)) == 6


@settings(max_examples=30)
@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_segmentation_does_not_see_gain_and_offset(gain, offset):
    _, stain = discs(APART[:3], shape=(60, 190))
    assert np.array_equal(segment(gain * stain + offset, PIXEL_UM), segment(stain, PIXEL_UM))


def shifted(labels, px):
    return np.roll(labels, px, axis=1)


def test_matching():
    truth, _ = discs(APART)
    assert len(match_cells(truth, truth)) == 6
    assert len(match_cells(shifted(truth, 4), truth)) == 6
    assert len(match_cells(shifted(truth, 12), truth)) == 0
    assert len(match_cells(truth * 0, truth)) == 0
    assert match_cells(np.where(truth == 2, 70, 0), truth).tolist() == [[70, 2]]
    merged = np.where(truth > 0, 1, 0)  # one object over all of them matches none
    assert len(match_cells(merged, truth)) == 0
    for wrong in (truth[:-1], truth.astype(float)):
        with pytest.raises(DataError, match="label masks"):
            match_cells(wrong, truth)


def test_as_many_matches_as_possible_come_first():
    """A overlaps both; B only one of them: A must give it up although it fits A best."""
    a = np.zeros((1, 30), int)
    b = np.zeros((1, 30), int)
    a[0, :10], a[0, 10:13] = 1, 2
    b[0, :4], b[0, 4:13] = 1, 2
    assert match_cells(a, b, 0.25).tolist() == [[1, 1], [2, 2]]


@settings(max_examples=30)
@given(order=st.permutations(range(1, 7)), px=st.integers(0, 14))
def test_f1_does_not_see_the_numbering(order, px):
    truth, stain = discs(APART)
    guess = shifted(truth, px)
    renumbered = np.concatenate([[0], order])[guess] * 3
    plain, other = (
        score_objects(stain, stain, PIXEL_UM, predicted_cells=cells, real_cells=truth) for cells in (guess, renumbered)
    )
    assert astuple(plain) == pytest.approx(astuple(other), nan_ok=True)


NAN = float("nan")
COUNTS = {  # cells of the prediction, of the truth -> matched, f1, count error
    "all": (APART, APART, 6, 1.0, 0.0),
    "two missed": (APART[:4], APART, 4, 0.8, 1 / 3),
    "one invented": (APART, APART[:5], 5, 10 / 11, 0.2),
    "all missed": ([], APART, 0, 0.0, 1.0),
    "all invented": (APART, [], 0, 0.0, NAN),
    "both empty": ([], [], 0, NAN, NAN),
}


@pytest.mark.parametrize("case", COUNTS)
def test_cells_are_counted(case):
    ours, theirs, matched, f1, count_error = COUNTS[case]
    found = score_objects(discs(ours)[1], discs(theirs)[1], PIXEL_UM)
    assert (found.n_predicted, found.n_real, found.n_matched) == (len(ours), len(theirs), matched)
    assert [found.f1, found.count_error] == pytest.approx([f1, count_error], nan_ok=True)


def test_areas_and_light_of_matched_cells():
    light = np.array([500, 800, 1100, 1400, 1700, 2000.0])
    truth, real = discs(APART, light=light)
    _, brighter = discs(APART, light=1.2 * light)
    found = score_objects(brighter, real, PIXEL_UM)
    assert found.intensity_error == pytest.approx(0.2, abs=0.03)
    assert found.intensity_pearson > 0.99
    assert found.area_error < 0.05
    _, smaller = discs(APART, radius_px=10, light=light)
    assert score_objects(smaller, real, PIXEL_UM).area_error == pytest.approx(1 - (10 / 12) ** 2, abs=0.05)
    few = score_objects(real, real, PIXEL_UM, real_cells=np.where(truth <= 2, truth, 0))
    assert np.isnan(few.intensity_pearson)  # two cells always lie on a line


def test_real_nuclei_and_bacteria(shared_data):
    import tifffile

    nuclei = tifffile.imread(shared_data / "isl" / "dapi_yx.tif")
    assert 35 <= segment(nuclei, 0.65).max() <= 65
    blurred = ndimage.gaussian_filter(nuclei.astype(float), 2) + np.random.default_rng(0).normal(0, 200, nuclei.shape)
    assert score_objects(blurred, nuclei, 0.65).f1 > 0.8
    folder = shared_data / "ecoli" / "ds1"
    scores = []
    for number in ("00001", "00002", "00003"):
        stain = tifffile.imread(folder / "fluorescence" / f"{number}.tif")
        drawn = tifffile.imread(folder / "binary" / f"{number}_Probabilities_filtered.tif").astype(int)
        scores.append(score_objects(stain, stain, 0.08, real_cells=drawn).f1)
    assert np.mean(scores) > 0.7


# Error bars


def test_right_error_bars_cover_what_they_promise():
    rng = np.random.default_rng(0)
    _, clean = discs(APART)
    deviation = 5 + 0.05 * (clean - 100).clip(0)
    real = clean + rng.normal(0, 1, clean.shape) * deviation
    found = calibration(clean, deviation, real, PIXEL_UM)
    assert [found.coverage_1sd, found.coverage_90] == pytest.approx([0.683, 0.9], abs=0.02)
    assert [found.coverage_1sd_all, found.coverage_90_all] == pytest.approx([0.683, 0.9], abs=0.01)
    assert found.sd_error_pearson > 0.4
    halved = calibration(clean, deviation / 2, real, PIXEL_UM)
    assert halved.coverage_1sd == pytest.approx(0.383, abs=0.02)


def test_background_does_not_excuse_the_foreground():
    _, real = discs(APART)
    guess = np.where(foreground(real, PIXEL_UM), real * 1.5, real)
    found = calibration(guess, np.full(real.shape, 20.0), real, PIXEL_UM)
    assert found.coverage_90 < 0.05 < 0.8 < found.coverage_90_all


def test_the_foreground_is_the_predictions():
    _, real = discs(APART)
    found = calibration(np.full(real.shape, 100.0), np.full(real.shape, 50.0), real, PIXEL_UM)
    assert np.isnan(found.coverage_1sd)
    with pytest.raises(DataError, match="not negative"):
        calibration(real, -real, real, PIXEL_UM)
