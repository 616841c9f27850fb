"""What is minimised: every term says what its name promises, by hand-made images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from livestain_models.heads import Heads, Predicted
from livestain_models.losses import beta_nll, class_terms, loss_of, ms_ssim, pearson_r, soft_dice, ssim_map
from livestain_models.recipe import Loss

if TYPE_CHECKING:
    from torch import Tensor

STAIN = Heads(("Nuclei",), ("00BFFF",))


def stains(channels: int = 1, size: int = 64, seed: int = 0) -> Tensor:
    """Smooth blobs in network units, (2, C, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, channels, size // 8, size // 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def terms(guess: Tensor, real: Tensor, heads: Heads = STAIN, **weights: Any) -> dict[str, float]:
    found = loss_of(heads.split(guess), real, None, heads, Loss(**weights))
    return {name: float(term) for name, term in found.items()}


AT_IDENTITY: dict[str, tuple[Heads, dict[str, Any]]] = {
    "as shipped": (STAIN, {}),
    "mean square error": (STAIN, {"l1": 0, "mse": 2, "ms_ssim": 0, "pearson": 0}),
    "two stains": (Heads(("a", "b"), ("000000", "FFFFFF")), {}),
    "distance map": (Heads(("a",), ("000000",), ("a",)), {}),
}


@pytest.mark.parametrize("case", AT_IDENTITY)
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_does(case: str) -> None:
    heads, weights = AT_IDENTITY[case]
    real = stains(heads.channels)
    assert all(abs(value) < 1e-4 for value in terms(real, real, heads, **weights).values())
    wrong = terms(stains(heads.channels, seed=1), real, heads, **weights)
    assert all(value > 0.01 for value in wrong.values())


TERMS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "as shipped": ({}, {"l1", "ms_ssim", "pearson"}),
    "only mse": ({"l1": 0, "mse": 1, "ms_ssim": 0, "pearson": 0}, {"mse"}),
    "all": ({"mse": 1}, {"l1", "mse", "ms_ssim", "pearson"}),
}


@pytest.mark.parametrize("case", TERMS)
def test_a_weight_of_zero_leaves_a_term_out(case: str) -> None:
    weights, names = TERMS[case]
    assert terms(stains(), stains(seed=1), **weights).keys() == names


def test_terms_are_weighted() -> None:
    guess, real = stains(), stains(seed=1)
    once, thrice = terms(guess, real), terms(guess, real, l1=3.0, ms_ssim=0.9, pearson=3.0)
    assert thrice == pytest.approx({name: 3 * value for name, value in once.items()}, rel=1e-5)
    assert once["l1"] == pytest.approx(float((guess - real).abs().mean()), rel=1e-6)


def test_the_loss_of_a_volume_is_that_of_its_planes() -> None:
    guess, real = stains(size=64), stains(size=64, seed=1)
    as_planes = terms(guess, real)
    # (N, C, H, W) -> (1, C, P, H, W): the batch's images as planes of one stack.
    as_volume = terms(guess.transpose(0, 1)[None], real.transpose(0, 1)[None])
    assert as_volume == pytest.approx(as_planes, rel=1e-4)


@given(gain=st.floats(0.1, 20), offset=st.floats(-5, 5))
def test_pearson_does_not_mind_gain_and_offset(gain: float, offset: float) -> None:
    a, b = stains(2), stains(2, seed=1)
    assert torch.allclose(pearson_r(a * gain + offset, b), pearson_r(a, b), atol=1e-3)
    assert torch.allclose(pearson_r(-a * gain + offset, a), torch.tensor([-1.0, -1.0]), atol=1e-3)


def test_pearson_is_that_of_numpy_over_the_whole_batch() -> None:
    a, b = stains(2), stains(2, seed=1)
    for channel, found in enumerate(pearson_r(a, b)):
        expected = np.corrcoef(a[:, channel].numpy().ravel(), b[:, channel].numpy().ravel())[0, 1]
        assert float(found) == pytest.approx(expected, abs=1e-4)


def test_pearson_of_an_empty_patch_is_finite_with_a_gradient() -> None:
    guess = torch.zeros(2, 1, 8, 8, requires_grad=True)
    pearson_r(guess, torch.zeros(2, 1, 8, 8)).sum().backward()
    assert guess.grad is not None
    assert torch.isfinite(guess.grad).all()


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_ms_ssim_is_one_at_identity_and_less_elsewhere(size: int) -> None:
    real = stains(2, size)
    assert float(ms_ssim(real, real)) == pytest.approx(1, abs=1e-6)
    assert float(ms_ssim(stains(2, size, seed=1), real)) < 0.95
    noisy = float(ms_ssim(real + 0.02 * torch.randn(real.shape), real))
    assert 0.3 < noisy < 1 - 1e-3


def test_ssim_maps_are_those_of_two_constant_images() -> None:
    a, b = torch.full((1, 1, 16, 16), 0.5), torch.full((1, 1, 16, 16), 1.0)
    luminance, structure = ssim_map(a, b)
    assert luminance.shape == (1, 1, 10, 10)
    assert torch.allclose(luminance, torch.tensor((2 * 0.5 + 1e-4) / (1.25 + 1e-4)), atol=1e-5)
    assert torch.allclose(structure, torch.tensor(1.0), atol=1e-2)


DICE: dict[str, tuple[list[float], list[float], float]] = {
    # two channels of two pixels, flat: probability, truth, loss
    "right": ([1, 0, 0, 1], [1, 0, 0, 1], 0.0),
    "all wrong": ([0, 1, 1, 0], [1, 0, 0, 1], 1.0),
    "half of one": ([0.5, 0, 0, 1], [1, 0, 0, 1], 0.5 * (1 - 2 * 0.5 / 1.5)),
    "the absent is not counted": ([1, 0, 1, 1], [1, 0, 0, 0], 0.0),
    "the absent does not thin out the rest": ([0.5, 0, 1, 1], [1, 0, 0, 0], 1 - 2 * 0.5 / 1.5),
    "none occurs": ([1, 1, 1, 1], [0, 0, 0, 0], 0.0),
}


@pytest.mark.parametrize("case", DICE)
def test_dice(case: str) -> None:
    probability, truth, expected = DICE[case]
    shaped = [torch.tensor(values).reshape(1, 2, 1, 2) for values in (probability, truth)]
    assert float(soft_dice(*shaped)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("deviation", [0.05, 0.3, 1.0])
def test_error_bars_are_cheapest_where_they_are_right(deviation: float) -> None:
    real = torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0)) * deviation
    said = torch.tensor(2 * np.log(deviation) + np.linspace(-2, 2, 41), dtype=torch.float32)

    def gradient(log_variance: Tensor) -> float:
        # beta-NLL is minimised by its gradient; its value is weighted by a constant that moves with the variance.
        leaf = torch.full((1, 1, 1, 1), float(log_variance), requires_grad=True)
        beta_nll(torch.zeros(1), leaf.expand(1, 1, 200, 200), real).backward()
        assert leaf.grad is not None
        return float(leaf.grad)

    slopes = np.array([gradient(one) for one in said])
    assert (slopes[:19] < 0).all()
    assert (slopes[22:] > 0).all()


def test_a_pixel_said_to_be_hard_still_teaches() -> None:
    """The plain likelihood divides the mean's gradient by the variance; here by its root only."""

    def pull(log_variance: float) -> float:
        mean = torch.zeros(1, 1, 1, 1, requires_grad=True)
        beta_nll(mean, torch.full((1, 1, 1, 1), log_variance), torch.ones(1, 1, 1, 1)).backward()
        assert mean.grad is not None
        return abs(float(mean.grad))

    assert pull(2.0) / pull(0.0) == pytest.approx(np.exp(-1.0), rel=1e-4)


def of_logits(truth_logit: float, gamma: float) -> dict[str, float]:
    logits = torch.zeros(1, 4, 2, 2)
    logits[:, 1] = truth_logit
    found = class_terms(logits, torch.ones(1, 2, 2, dtype=torch.int64), Loss(focal_gamma=gamma))
    return {name: float(value) for name, value in found.items()}


def test_the_focal_loss_discounts_easy_pixels() -> None:
    plain, focal = ([of_logits(logit, gamma)["focal"] for logit in (0.0, 4.0)] for gamma in (0.0, 2.0))
    assert plain[0] == pytest.approx(np.log(4), rel=1e-5)  # gamma 0 is the cross-entropy
    assert focal[0] == pytest.approx(0.75**2 * np.log(4), rel=1e-5)
    assert focal[1] / focal[0] < 0.02 * plain[1] / plain[0]


def test_classes_are_learned_from_labels() -> None:
    heads = Heads((), (), classes=True)
    labels = torch.tensor([[[0, 1], [2, 3]]])
    right = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1) * 30.0
    found = loss_of(heads.split(right), torch.zeros(1, 0, 2, 2), labels, heads, Loss())
    assert {name: float(value) for name, value in found.items()} == pytest.approx({"focal": 0, "dice": 0}, abs=1e-5)
    wrong = loss_of(heads.split(right.roll(1, 1)), torch.zeros(1, 0, 2, 2), labels, heads, Loss())
    assert float(wrong["focal"]) > 10
    assert float(wrong["dice"]) > 0.9


@pytest.mark.parametrize(("mask_says_nucleus", "factor"), [(True, 1.0), (False, 2.0)])
def test_where_the_mask_is_wrong_the_error_counts_twice(mask_says_nucleus: bool, factor: float) -> None:
    guess, real = stains(), stains(seed=1)
    logit = torch.full_like(guess, 9.0 if mask_says_nucleus else -9.0)
    predicted = Predicted(guess, None, None, logit, None)
    heads = Heads(("Nuclei",), ("00BFFF",), mask=True)
    y = torch.cat([real, torch.ones_like(real)], 1)  # a nucleus everywhere
    found = loss_of(predicted, y, None, heads, Loss(ms_ssim=0, pearson=0))
    assert float(found["l1"]) == pytest.approx(factor * float((guess - real).abs().mean()), rel=1e-5)
    assert float(found["mask"]) == pytest.approx(0.0 if mask_says_nucleus else 0.5 * (9 + 1), abs=2e-3)
