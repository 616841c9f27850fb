"""What each output channel of a network means: stains, their error bars, distances, a mask, classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from livestain_models.contract import Output

if TYPE_CHECKING:
    from torch import Tensor

    from livestain_models.recipe import Recipe

__all__ = ["CLASSES", "Heads", "Predicted", "heads_of"]

CLASSES = ("Live", "Injured", "Dead")  # channels 1 to 3 of the class head; 0 is background
CLASS_COLOURS = ("00C853", "FFB300", "D50000")
STAIN_RANGE = 2.0  # a stain's grey level 65535 is twice the reference brightness of training
DEVIATION_RANGE = 1.0
# Standard deviations of exp(-3.5) = 3 % to exp(1.5) = 450 % of the reference: outside it training only diverges.
LOG_VARIANCE_RANGE = (-7.0, 3.0)


@dataclass(frozen=True, slots=True)
class Predicted:
    """A network's raw output, by meaning; (N, channels, ...) each, None where the network has no such head.

    Parameters
    ----------
    stains : Tensor
        In units of the reference brightness of training; may be negative.
    log_variance : Tensor or None
        Of the stains' error, in the same unit squared.
    distances : Tensor or None
        Distance to the edge of the object over the greatest within it, 0 outside.
    mask : Tensor or None
        Logit of "nucleus"; in training only.
    classes : Tensor or None
        Logits of background, live, injured, dead.
    """

    stains: Tensor
    log_variance: Tensor | None
    distances: Tensor | None
    mask: Tensor | None
    classes: Tensor | None


@dataclass(frozen=True, slots=True)
class Heads:
    """Which channels a network has, in the order stains, log-variances, distances, mask, classes.

    Parameters
    ----------
    stains : tuple of str
        Names of the stains.
    colors : tuple of str
        RRGGBB for each.
    distances : tuple of str
        The objects whose distance map is learned: "Nuclei", "Cells".
    outlined_by : tuple of str
        The stain that each of them is found in; of the same names if not given.
    error_bars, mask, classes : bool
        Whether there are such heads.
    """

    stains: tuple[str, ...]
    colors: tuple[str, ...]
    distances: tuple[str, ...] = ()
    outlined_by: tuple[str, ...] = ()
    error_bars: bool = False
    mask: bool = False
    classes: bool = False

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Channels of each kind, in their order."""
        stains = len(self.stains)
        return (
            stains,
            stains if self.error_bars else 0,
            len(self.distances),
            int(self.mask),
            1 + len(CLASSES) if self.classes else 0,
        )

    @property
    def channels(self) -> int:
        """Output channels of the network."""
        return sum(self.sizes)

    def split(self, raw: Tensor) -> Predicted:
        """Part a network's output by meaning, (N, K, ...) -> `Predicted`."""
        stains, log_variance, distances, mask, classes = torch.split(raw, list(self.sizes), dim=1)
        low, high = LOG_VARIANCE_RANGE
        return Predicted(
            stains,
            log_variance.clamp(low, high) if self.error_bars else None,
            distances if self.distances else None,
            mask if self.mask else None,
            classes if self.classes else None,
        )

    def deployed(self, raw: Tensor, deviation_factor: float = 1.0, full_scale: float = 1.0) -> Tensor:
        """Give what the microscope shows, (N, K, H, W) -> (N, C, H, W); `full_scale` is that of each output.

        The mask helps in training only and is left out here.

        Parameters
        ----------
        raw : Tensor
            The network's output.
        deviation_factor : float
            By which predicted deviations were found too small on validation images.
        full_scale : float
            What the largest value of an output becomes: 1 gives shares, 65535 grey levels.
        """
        if self.channels == len(self.stains):  # nothing to part: each pass over a large frame costs a millisecond
            return raw * (full_scale / STAIN_RANGE)
        predicted = self.split(raw)
        shown = [predicted.stains * (full_scale / STAIN_RANGE)]
        if predicted.log_variance is not None:
            deviation = torch.exp(0.5 * predicted.log_variance)
            shown.append(deviation * (full_scale * deviation_factor / DEVIATION_RANGE))
        if predicted.distances is not None:
            shown.append(predicted.distances * full_scale)
        if predicted.classes is not None:
            # A softmax in parts: onnxruntime transposes the frame for its own, which adds a quarter to the time.
            odds = torch.exp(predicted.classes - predicted.classes.amax(dim=1, keepdim=True))
            shown.append(odds[:, 1:] * (full_scale / odds.sum(dim=1, keepdim=True)))
        return torch.cat(shown, dim=1)

    def outputs(self) -> tuple[Output, ...]:
        """Describe the deployed channels, in their order."""
        described = [_stain(name, color) for name, color in zip(self.stains, self.colors, strict=True)]
        described += [_deviation(name) for name in self.stains if self.error_bars]
        stains = self.outlined_by or self.distances
        described += [_distance(name, stain) for name, stain in zip(self.distances, stains, strict=True)]
        if self.classes:
            described += [_class(name, color) for name, color in zip(CLASSES, CLASS_COLOURS, strict=True)]
        return tuple(described)


def heads_of(recipe: Recipe) -> Heads:
    """Choose the heads that a recipe asks for."""
    # The dyes that told the classes apart are what the model shall not need, so it does not learn them.
    shown = () if recipe.mode == "viability" else tuple(target for target in recipe.data.targets if target.shown)
    outlined = [(target.objects.name, target.name) for target in shown if target.objects is not None]
    return Heads(
        stains=tuple(target.name for target in shown),
        colors=tuple(target.color for target in shown),
        distances=tuple(name for name, _ in outlined),
        outlined_by=tuple(stain for _, stain in outlined),
        error_bars=recipe.mode == "error bars",
        mask=recipe.mode == "lupi",
        classes=recipe.data.classes is not None,
    )


def _stain(name: str, color: str) -> Output:
    return Output(
        name=name,
        meaning=f"relative fluorescence of {name}, background removed; 65535 = {STAIN_RANGE:g} times the 99.9th "
        "percentile of the training images",
        color=color,
        full_scale=STAIN_RANGE,
    )


def _deviation(name: str) -> Output:
    return Output(
        name=f"{name} deviation",
        meaning=f"expected standard deviation of the error of {name}, in the same unit; 65535 = {DEVIATION_RANGE:g}",
        color="FFFFFF",
        kind="deviation",
        of=name,
        full_scale=DEVIATION_RANGE,
    )


def _distance(name: str, stain: str) -> Output:
    return Output(
        name=f"{name} distance",
        meaning="distance to the edge of the object over the greatest within it; 0 outside, 65535 = 1",
        color="FFFFFF",
        kind="distance",
        of=stain,
        full_scale=1.0,
        unit="1",
    )


def _class(name: str, color: str) -> Output:
    meaning = f"probability that the pixel belongs to the nucleus of a cell that is {name.lower()}; 65535 = 1"
    return Output(name=name, meaning=meaning, color=color, kind="class", full_scale=1.0, unit="1")
