"""The table of scores: intervals over fields, baselines, every kind of output, and what is written of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from livestain_models._errors import DataError
from livestain_models.bootstrap import estimate, mean_estimate
from livestain_models.contract import Output
from livestain_models.report import picture, write_report
from livestain_models.score import nrmse, pearson, ssim
from livestain_models.score_fields import Scored, copied_input, score_fields
from livestain_models.table import CEILING, COPIED, MEAN
from tests.model_builders import contract

PIXEL_UM = 0.5
STAIN = Output(name="Nuclei", meaning="stain")
DEVIATION = Output(name="Nuclei deviation", meaning="sd", kind="deviation", of="Nuclei")
CLASSES = tuple(Output(name=name, meaning="probability", kind="class") for name in ("Live", "Injured", "Dead"))


def scored(seed, outputs=1, shape=(96, 112), **more):
    """Nuclei, a dull prediction of them, and an input whose second plane is nearly the stain upside down."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    real = np.zeros(shape)
    for cy in (20, 50, 78):
        for cx in (20, 56, 92):
            dy, dx = rng.uniform(-4, 4, 2)
            real += rng.uniform(0.5, 1) * ((y - cy - dy) ** 2 + (x - cx - dx) ** 2 < 64)
    real = ndimage.gaussian_filter(real, 1.2) + rng.normal(0, 0.02, shape)
    guess = 0.8 * ndimage.gaussian_filter(real, 1.5) + rng.normal(0, 0.03, shape)
    planes = np.stack([rng.normal(500, 50, shape), 3000 - 900 * real + rng.normal(0, 200, shape)])
    stacked = {"predicted": np.stack([guess] * outputs), "real": np.stack([real] * outputs)}
    return Scored(f"field {seed}", planes.clip(0).astype(np.uint16), **(stacked | more))


# Intervals


def test_an_interval_covers_about_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(0.8, 0.05, 25)
        found = mean_estimate(values, seed=seed, draws=400)
        hits += found.low <= 0.8 <= found.high
    assert 0.88 <= hits / 200 <= 0.98


def test_an_interval_is_seeded_and_knows_its_worst():
    values = [0.9, 0.7, float("nan"), 0.8]
    found = mean_estimate(values)
    assert found == mean_estimate(values)
    assert (found.value, found.n, found.worst) == (pytest.approx(0.8), 3, 0.7)
    assert 0.699 < found.low < 0.8 < found.high < 0.901
    assert mean_estimate(values, higher_is_better=False).worst == 0.9
    assert str(found).startswith("0.800 [0.7")


def test_one_field_has_no_interval():
    for found in (mean_estimate([0.9]), mean_estimate([0.9, 0.7, 0.8], ["a", "a", "a"])):
        assert (found.low, found.high, found.n) == (None, None, 1)
    assert np.isnan(mean_estimate([]).value)
    assert np.isnan(mean_estimate([float("nan")] * 3).value)
    assert mean_estimate([np.inf, 30.0]).low is None


def test_time_points_of_a_place_are_not_fields():
    rng = np.random.default_rng(0)
    places = np.repeat([f"well {i}" for i in range(6)], 20)
    values = np.repeat(rng.normal(0.8, 0.1, 6), 20) + rng.normal(0, 0.01, 120)
    naive, honest = mean_estimate(values), mean_estimate(values, list(places))
    assert honest.n == 6
    assert honest.high - honest.low > 3 * (naive.high - naive.low)
    with pytest.raises(DataError, match="120 scores"):
        mean_estimate(values, ["one"])


def test_any_statistic_can_be_resampled():
    found = estimate([1.0, 2.0, 3.0, 4.0], lambda chosen: float(np.median(chosen)), level=0.8)
    assert found.low < found.value == 2.5 < found.high
    with pytest.raises(DataError, match="between 0 and 1"):
        estimate([1.0], lambda _: 0.0, level=95)


# The table


def test_the_copied_input_is_the_best_plane_after_the_best_line():
    one = scored(0)
    real = one.real[0]
    expected = np.poly1d(np.polyfit(one.input[1].ravel().astype(float), real.ravel(), 1))(one.input[1])
    assert copied_input(one.input, real) == pytest.approx(expected)
    assert pearson(copied_input(one.input, real), real) == pytest.approx(-pearson(one.input[1], real))
    flat = copied_input(np.full((1, *real.shape), 9, np.uint16), real)
    assert flat == pytest.approx(np.full(real.shape, real.mean()))


def test_baselines_stand_beside_the_score():
    fields = [scored(seed) for seed in range(4)]
    table = score_fields(iter(fields), PIXEL_UM, (STAIN,))
    each = [(one.predicted[0], one.real[0]) for one in fields]
    model = table.row("Nuclei").scores
    for name, measure in (("pearson", pearson), ("ssim", ssim), ("nrmse", nrmse)):
        assert model[name].value == pytest.approx(np.mean([measure(*pair) for pair in each]))
        assert model[name].low < model[name].value < model[name].high
    assert model["f1"].value == 1
    assert model["intensity_error"].value == pytest.approx(0.2, abs=0.05)
    assert table.row("Nuclei", MEAN).scores["pearson"].value == 0
    assert table.row("Nuclei", MEAN).scores["nrmse"].value == pytest.approx(1)
    assert table.row("Nuclei", MEAN).scores["f1"].value == 0
    assert 0 < table.row("Nuclei", COPIED).scores["pearson"].value < model["pearson"].value
    assert model["pearson"].value < table.row("Nuclei", CEILING).scores["pearson"].value <= 1
    assert len(table.by_field["Nuclei"]["micro_ssim"]) == 4
    with pytest.raises(KeyError, match="Membrane"):
        table.row("Membrane")


def test_what_is_written_of_it():
    table = score_fields([scored(0), scored(1)], PIXEL_UM, (STAIN,))
    flat = table.flat()
    assert contract(scores=flat).scores == flat  # finite floats
    for name in ("pearson", "pearson_low", "pearson_high", "pearson_worst", "ssim", "nrmse", "micro_ssim", "f1"):
        assert name in flat
    assert {"input_copied_pearson", "mean_pearson", "mean_nrmse", "ceiling_pearson"} <= flat.keys()
    assert flat["fields"] == 2
    assert flat["pearson_worst"] == min(table.by_field["Nuclei"]["pearson"])
    json.dumps(table.as_json(), allow_nan=False)
    assert "| input copied |" in table.markdown()
    assert "| model | 0.9" in table.markdown()
    lines = table.text().splitlines()
    widths = {len(line) for line in lines if line.startswith(("pixels ", "model ", "input copied "))}
    assert len(widths) == 2  # one for each of the two aligned blocks


def test_a_single_field_says_so():
    table = score_fields([scored(0), scored(1, place="field 0")], PIXEL_UM, (STAIN,))
    assert table.n_places == 1
    assert "no interval" in table.text()
    assert "pearson_low" not in table.flat()
    assert "[" not in table.markdown()


def test_a_second_output_has_its_name_in_front():
    other = STAIN.model_copy(update={"name": "Cell Membrane"})
    table = score_fields([scored(0, 2)], PIXEL_UM, (STAIN, other), cells=["Nuclei"])
    flat = table.flat()
    assert flat["cell_membrane_pearson"] == flat["pearson"]
    assert "f1" in flat
    assert "cell_membrane_f1" not in flat


def test_error_bars_have_rows_of_their_own():
    one = scored(0, 2)
    one.predicted[1] = np.abs(one.predicted[0] - one.real[0]) / 1.3
    found = score_fields([one], PIXEL_UM, (STAIN, DEVIATION)).row("Nuclei deviation").scores
    assert found["coverage_1sd"].value == 0
    assert found["coverage_90"].value == 1
    assert found["sd_error_pearson"].value == pytest.approx(1)


def classes_field(seed):
    rng = np.random.default_rng(seed)
    one = scored(seed)
    nuclei, n = ndimage.label(ndimage.gaussian_filter(one.real[0], 1) > 0.25)
    truth = np.concatenate([[0], rng.integers(1, 4, n)])[nuclei]
    sure = np.stack([truth == i for i in (1, 2, 3)]).astype(float)
    guess = np.clip(0.7 * sure + 0.1 * rng.random(sure.shape), 0, 1)
    return Scored(one.name, one.input, guess, np.zeros_like(guess), classes=truth, cells={"Viability": nuclei})


def test_classes_are_counted_over_all_fields():
    table = score_fields([classes_field(seed) for seed in range(3)], PIXEL_UM, CLASSES)
    cells = table.row("Viability", "cells").scores
    assert cells["balanced_accuracy"].value == 1
    assert np.isnan(cells["sensitivity_99"].value)
    assert any("needs 100" in note for note in table.notes)
    assert sum(map(sum, table.confusions["cells"])) == 27
    assert table.flat()["pixels_f1_dead"] > 0.95
    json.dumps(table.as_json(), allow_nan=False)


def test_a_ceiling_in_doubt_is_said():
    one = scored(0)
    smooth = Scored("smooth", one.input, one.predicted, ndimage.gaussian_filter(one.real, (0, 1, 1)))
    assert any("1 of 2 fields" in note for note in score_fields([one, smooth], PIXEL_UM, (STAIN,)).notes)
    known = Scored("known", one.input, one.predicted, one.real, noise_variance={"Nuclei": 0.02**2})
    table = score_fields([known], PIXEL_UM, (STAIN,))
    assert table.notes == ()
    assert table.flat()["ceiling_pearson"] == pytest.approx(np.sqrt(1 - 0.0004 / one.real.var()))


REFUSED = {
    "no field": ([], (STAIN,), {}, "no field"),
    "an output too many": ([scored(0, 2)], (STAIN,), {}, "field 0: 1 outputs"),
    "no such cells": ([scored(0)], (STAIN,), {"cells": ["DAPI"]}, "DAPI"),
    "no such stain": ([scored(0, 2)], (STAIN, DEVIATION.model_copy(update={"of": "ER"})), {}, "'ER'"),
    "no true classes": ([scored(0, 3)], CLASSES, {}, "no true ones"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_scored_is_refused(case):
    fields, outputs, more, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        score_fields(fields, PIXEL_UM, outputs, **more)


# Pictures


@pytest.mark.parametrize("shape", [(96, 112), (300, 64), (40, 400), (700, 700)])
def test_a_picture_of_any_shape(tmp_path, shape):
    real = np.random.default_rng(0).random(shape)
    file = picture(tmp_path / "a.png", (900 * real)[None], real * 0.5, real, PIXEL_UM, stain="DNA", title="a field")
    with Image.open(file) as image:
        assert image.mode == "RGB"
        assert 400 < image.width < 1700
        assert 300 < image.height < 1300


def test_prediction_and_truth_share_their_range_of_grey(tmp_path):
    real = scored(0, shape=(96, 96)).real[0]
    file = picture(tmp_path / "a.png", real[None] * 100, real * 0.5, real, PIXEL_UM)
    with Image.open(file) as image:
        pixels = np.asarray(image)[80 : 80 + 480, :, 0].astype(float)
    predicted, truth = pixels[:, 528:1008], pixels[:, 1032:1512]
    assert np.percentile(predicted, 99) == pytest.approx(np.percentile(truth, 99) / 2, rel=0.1)


def test_flat_images_can_be_drawn(tmp_path):
    flat = np.full((64, 64), 3.0)
    assert picture(tmp_path / "a.png", flat[None], flat, flat, PIXEL_UM).is_file()
    with pytest.raises(DataError, match=r"\(64, 64\)"):
        picture(tmp_path / "a.png", flat, flat, flat, PIXEL_UM)


def test_a_report_is_a_folder(tmp_path):
    fields = [scored(seed) for seed in range(14)]
    table = score_fields(fields[:2], PIXEL_UM, (STAIN,))
    files = write_report(tmp_path / "report", table, fields, PIXEL_UM, (STAIN,), contrast="Bright field")
    assert len(files) == 2 + 12
    assert json.loads(files[0].read_text())["rows"][0]["method"] == "model"
    assert "![00_field_0_Nuclei](00_field_0_Nuclei.png)" in files[1].read_text()
    assert all(file.is_file() for file in files)
