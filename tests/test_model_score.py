"""Scores agree with their textbook forms, and baselines score what they deserve."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from livestain_models.score import nrmse, pearson, score_table, ssim


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    real = rng.gamma(2, 500, (64, 80))
    return real + rng.normal(0, 300, real.shape), real


def test_pearson(pair):
    assert pearson(*pair) == pytest.approx(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])
    assert pearson(pair[0] * 3 + 7, pair[1]) == pytest.approx(pearson(*pair))
    assert pearson(np.ones((4, 4), np.uint16), np.eye(4, dtype=np.uint16)) == 0


def test_ssim_is_scikit_images(pair):
    guess, real = pair
    span = real.max() - real.min()
    _, full = structural_similarity(
        guess, real, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert ssim(guess, real) == pytest.approx(full.mean(), abs=1e-6)
    assert ssim(real, real) == pytest.approx(1)


def test_nrmse(pair):
    _, real = pair
    assert nrmse(np.full(real.shape, real.mean()), real) == pytest.approx(1)
    assert nrmse(real, real) == 0


def test_table_sets_baselines_beside_the_score(pair):
    guess, real = pair
    inverted = 60000 - real  # a copy of the inverted image explains everything
    scores = score_table([inverted, inverted], [guess, real], [real, real])
    assert scores["copied_input_pearson"] == pytest.approx(1)
    assert scores["mean_pearson"] == 0
    assert scores["mean_nrmse"] == pytest.approx(1)
    assert scores["pearson"] == pytest.approx((pearson(guess, real) + 1) / 2)
    assert scores["pearson_worst"] == pytest.approx(pearson(guess, real))
    assert scores["images"] == 2
