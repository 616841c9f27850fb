"""What is minimised, mode by mode: every term a short function, and one that adds them up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from livestain_models.heads import Heads, Predicted
    from livestain_models.recipe import Loss

__all__ = ["loss_of", "pearson_r", "soft_dice", "ssim_map"]

# The scales' weights of Wang, Simoncelli and Bovik 2003, for as many scales as a patch allows.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW_PX = 7
_BETA = 0.5


def loss_of(predicted: Predicted, y: Tensor, labels: Tensor | None, heads: Heads, weights: Loss) -> dict[str, Tensor]:
    """Weigh all terms that a network's heads call for.

    Parameters
    ----------
    predicted : Predicted
        Parted by `Heads.split`.
    y : Tensor
        (N, K, ...) what was to be learned: stains, then distance maps, then the mask; what comes behind is not.
    labels : Tensor or None
        (N, H, W) int64 classes.
    heads : Heads
    weights : Loss

    Returns
    -------
    dict of str to Tensor
        Weighted scalar terms by name; the loss is their sum.
    """
    terms = image_terms(predicted, y, heads, weights) if heads.stains else {}
    if predicted.classes is not None:
        assert labels is not None  # noqa: S101 - the data side saw to it
        terms |= class_terms(predicted.classes, labels, weights)
    return terms


def image_terms(predicted: Predicted, y: Tensor, heads: Heads, weights: Loss) -> dict[str, Tensor]:
    """Weigh the terms of stains, their deviations, distance maps and mask."""
    sizes = [len(heads.stains), len(heads.distances), int(heads.mask)]
    real, distances, mask, _ = torch.split(y, [*sizes, y.shape[1] - sum(sizes)], 1)
    if predicted.log_variance is not None:
        terms = {"likelihood": beta_nll(predicted.stains, predicted.log_variance, real)}
    else:
        terms = stain_terms(predicted, real, mask, weights)
    if predicted.distances is not None and weights.distance:
        terms["distance"] = weights.distance * (predicted.distances - distances).abs().mean()
    return terms


def stain_terms(predicted: Predicted, real: Tensor, mask: Tensor, weights: Loss) -> dict[str, Tensor]:
    """Weigh the terms between predicted and real stain; with a mask head, those of LUPI too."""
    guess = predicted.stains
    error = (guess - real).abs()
    terms = {}
    if predicted.mask is not None:
        # Learning using privileged information: where the network does not even know that there is a nucleus, its
        # error counts twice.
        wrong = (predicted.mask > 0) != (mask > 0.5)
        error = error * (1.0 + wrong.to(error.dtype))
        entropy = functional.binary_cross_entropy_with_logits(predicted.mask, mask)
        terms["mask"] = weights.mask * (entropy + soft_dice(torch.sigmoid(predicted.mask), mask))
    terms["l1"] = weights.l1 * error.mean()
    if weights.mse:
        terms["mse"] = weights.mse * (guess - real).square().mean()
    if weights.ms_ssim:
        terms["ms_ssim"] = weights.ms_ssim * (1 - ms_ssim(guess, real))
    if weights.pearson:
        terms["pearson"] = weights.pearson * (1 - pearson_r(guess, real)).mean()
    return {name: term for name, term in terms.items() if name != "l1" or weights.l1}


def pearson_r(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's r of each channel over the whole batch, so that patches without cells have their say: (C,)."""
    over = [axis for axis in range(a.ndim) if axis != 1]
    a, b = a - a.mean(over, keepdim=True), b - b.mean(over, keepdim=True)
    return (a * b).sum(over) / (a.square().sum(over) * b.square().sum(over) + 1e-8).sqrt()


def ssim_map(a: Tensor, b: Tensor, span: float = 1.0) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure terms of SSIM (Wang et al. 2004), window 7 px square, (N, C, H, W) each."""
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    var_a, var_b = _window_mean(a * a) - mean_a**2, _window_mean(b * b) - mean_b**2
    covariance = _window_mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * covariance + c2) / (var_a + var_b + c2)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale SSIM of Wang, Simoncelli and Bovik 2003 as a mean over scales, range 1 (the reference brightness).

    A weighted mean in place of the product of powers: negative structure terms, common early in training, have no
    real power.
    """
    if a.ndim == 5:  # (N, C, P, H, W): every plane is an image
        a, b = a.flatten(1, 2), b.flatten(1, 2)
    score, total = a.new_zeros(()), 0.0
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if min(a.shape[-2:]) < 2 * _WINDOW_PX:
            break
        a, b = (functional.avg_pool2d(image, 2) if scale else image for image in (a, b))
        luminance, structure = ssim_map(a, b)
        score, total = score + weight * (luminance * structure).mean(), total + weight
    return score / max(total, 1e-12)


def beta_nll(mean: Tensor, log_variance: Tensor, real: Tensor) -> Tensor:
    """Gaussian negative log likelihood (Kendall and Gal 2017), weighted by variance**0.5 (Seitzer et al. 2022).

    Without the weight the network is let off where it finds a pixel hard, and never learns it.
    """
    likelihood = 0.5 * (torch.exp(-log_variance) * (mean - real).square() + log_variance)
    return (torch.exp(_BETA * log_variance).detach() * likelihood).mean()


def class_terms(logits: Tensor, labels: Tensor, weights: Loss) -> dict[str, Tensor]:
    """Focal loss (Lin et al. 2017) and Dice, as published for viability (Hu et al. 2022)."""
    log_p = functional.log_softmax(logits, dim=1)
    of_truth = log_p.gather(1, labels[:, None])[:, 0]  # (N, H, W)
    focal = -((1 - of_truth.exp()) ** weights.focal_gamma * of_truth).mean()
    truth = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(log_p.dtype)  # (N, 4, H, W)
    dice = soft_dice(log_p.exp()[:, 1:], truth[:, 1:])
    return {"focal": weights.classes * focal, "dice": weights.classes * dice}


def soft_dice(probability: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of each channel over the batch, averaged over the channels that occur in it; 0 if none does."""
    over = [axis for axis in range(truth.ndim) if axis != 1]
    overlap, size = (probability * truth).sum(over), probability.sum(over) + truth.sum(over)
    occurs = (truth.sum(over) > 0).to(size.dtype)
    missed = 1 - (2 * overlap + 1e-6) / (size + 1e-6)
    return (missed * occurs).sum() / occurs.sum().clamp(min=1)


def _window_mean(image: Tensor) -> Tensor:
    return functional.avg_pool2d(image, _WINDOW_PX, stride=1)
