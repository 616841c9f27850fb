"""A look at a network while it trains: its score on the validation part, and a picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from livestain_models._some import some_of
from livestain_models.data import to_units
from livestain_models.heads import DEVIATION_RANGE, STAIN_RANGE
from livestain_models.report import picture
from livestain_models.score import pearson

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor

    from livestain_models.data import Field
    from livestain_models.deployed import Deployed
    from livestain_models.prepared import Prepared
    from livestain_models.recipe import Recipe

__all__ = ["Look", "classes_seen", "look_at", "precise_batchnorm", "predict"]

MAX_FIELDS, MAX_SIDE_PX = 24, 1024  # a look shall cost little beside the training
FOREGROUND = 0.1  # of the reference brightness
ONE_SIGMA = 0.6827


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found.

    Parameters
    ----------
    score : float
        Mean over stains, of Pearson's r over all validation pixels, and over the classes that occur, of their F1.
    each : dict of str to float
        The same by stain or class.
    deviation_factor : float
        By which predicted deviations have to be multiplied for 68 % of the errors in the predicted foreground to lie
        within one; 1 where there are none.
    """

    score: float = float("-inf")
    each: dict[str, float] = field(default_factory=dict)
    deviation_factor: float = 1.0

    def __str__(self) -> str:
        """Say it in a line."""
        return "validation " + ", ".join(f"{name} {value:.4f}" for name, value in self.each.items())

    def as_json(self) -> dict[str, Any]:
        """Give a dict that JSON knows, from which `Look(**it)` makes it again."""
        return dataclasses.asdict(self)


def look_at(
    model: Deployed,
    data: Prepared,
    recipe: Recipe,
    preview: Path | None = None,
    *,
    fields: Sequence[Field] = (),
) -> Look:
    """Score a network on the validation part, or, where there is none, on the training part.

    Parameters
    ----------
    model : Deployed
        In evaluation mode.
    data : Prepared
    recipe : Recipe
    preview : Path, optional
        Where a picture of the first field goes.
    fields : sequence of Field, optional
        To score on in place of those.
    """
    fields = fields or data.parts.validation or data.parts.train
    pooled: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
    for number, shown in enumerate(some_of(fields, MAX_FIELDS)):
        windows = shown.windows(recipe.data.planes)
        window = windows[len(windows) // 2]
        rows, columns = _middle(shown.size_px, model.multiple_px)
        shares = predict(model, shown.input(window, rows, columns))
        real = to_units(shown.target(window, rows, columns), data.scales[shown.instrument])
        labels = shown.labels_of(rows, columns)
        pooled.append((shares, real, labels))
        if number == 0 and preview is not None:
            truth = labels if labels is not None and not data.heads.stains else real[0]
            _draw(preview, shown, shown.input(window, rows, columns), shares, truth, data)
    stains = len(data.heads.stains)
    each = _stain_scores([(shares, real) for shares, real, _ in pooled], data)
    each |= _class_scores([(shares[-3:], labels) for shares, _, labels in pooled if labels is not None])
    factor = _deviation_factor([(shares, real) for shares, real, _ in pooled], stains) if data.heads.error_bars else 1.0
    return Look(float(np.mean(list(each.values()))) if each else 0.0, each, factor)


def predict(model: Deployed, planes: np.ndarray) -> np.ndarray:
    """Run the deployed graph in torch: (P, H, W) uint16 -> (C, H, W) float32 shares of full scale, not clipped."""
    device = next(model.net.parameters()).device
    with torch.no_grad():
        x = torch.from_numpy(planes.astype(np.float32))[None].to(device)
        shares = model.shares(model.net(model.normalise(x)))
    return np.asarray(shares[0].float().cpu().numpy())


def classes_seen(shares: np.ndarray) -> np.ndarray:
    """Take the likeliest class of each pixel, 0 for background: (3, H, W) probabilities -> (H, W)."""
    background = 1 - shares.sum(axis=0, keepdims=True)
    return np.asarray(np.concatenate([background, shares]).argmax(axis=0))


def precise_batchnorm(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace BatchNorm's moving averages by the plain average over batches, in place.

    The moving averages of small batches lag behind the weights; those that are deployed should not.

    Parameters
    ----------
    net : nn.Module
    batches : iterable of Tensor
        Inputs of the network, as in training.

    References
    ----------
    Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, arXiv:2105.07576.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: a plain average over all batches
    net.eval()  # dropout would widen the statistics
    for norm in norms:
        norm.train()
    with torch.no_grad():
        for batch in batches:
            net(batch)
    net.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _middle(size_px: tuple[int, int], multiple_px: int) -> tuple[slice, slice]:
    sides = [min(side, MAX_SIDE_PX) // multiple_px * multiple_px for side in size_px]
    starts = [(size - side) // 2 // multiple_px * multiple_px for size, side in zip(size_px, sides, strict=True)]
    rows, columns = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return rows, columns


def _stain_scores(pooled: Sequence[tuple[np.ndarray, np.ndarray]], data: Prepared) -> dict[str, float]:
    each = {}
    for number, name in enumerate(data.heads.stains):
        # Over all pixels of all fields at once: a field without cells has no correlation of its own.
        predicted = np.concatenate([shares[number].ravel() for shares, _ in pooled])
        each[name] = pearson(predicted[None], np.concatenate([real[number].ravel() for _, real in pooled])[None])
    return each


def _deviation_factor(pooled: Sequence[tuple[np.ndarray, np.ndarray]], stains: int) -> float:
    ratios = []
    for shares, real in pooled:
        guess, deviation = shares[:stains] * STAIN_RANGE, shares[stains : 2 * stains] * DEVIATION_RANGE
        foreground = guess > FOREGROUND  # the predicted one: on the rig there is no other
        ratios.append((np.abs(guess - real[:stains]) / np.maximum(deviation, 1e-6))[foreground])
    found = np.concatenate(ratios)
    return float(np.quantile(found, ONE_SIGMA)) if found.size else 1.0


def _class_scores(pooled: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    each = {}
    for number, name in enumerate(("live", "injured", "dead"), start=1):
        hits = wrong = 0
        for shares, labels in pooled:
            guess, truth = classes_seen(shares) == number, labels == number
            hits += int((guess & truth).sum())
            wrong += int((guess ^ truth).sum())
        if hits + wrong:
            each[name] = 2 * hits / (2 * hits + wrong)
    return each


def _draw(file: Path, shown: Field, planes: np.ndarray, shares: np.ndarray, truth: np.ndarray, data: Prepared) -> None:
    predicted, stain, unit = classes_seen(shares[-3:]), "Class", "1 live, 2 injured, 3 dead"
    if data.heads.stains:
        predicted, stain, unit = shares[0] * STAIN_RANGE, data.heads.stains[0], "relative"
    predicted, truth = predicted.astype(np.float32), truth.astype(np.float32)
    picture(file, planes, predicted, truth, shown.pixel_size_um, stain=stain, unit=unit, title=shown.name)
