"""Scores a package on real images, through the prediction that the microscope runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from livestain_models._errors import DataError
from livestain_models.data import measure_scales, read_fields, to_units
from livestain_models.learned import with_learned
from livestain_models.score_fields import Scored, score_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from livestain_models.contract import Contract
    from livestain_models.data import Field, Scales
    from livestain_models.prepared import Prepared
    from livestain_models.recipe import Recipe, Target
    from livestain_models.table import Table

    Predict = Callable[[np.ndarray], np.ndarray]

__all__ = ["Trial", "fitted", "on_all", "on_test_part", "predictions"]

GREY = 65535.0


def fitted(recipe: Recipe, contract: Contract) -> Recipe:
    """Put a recipe's targets in the order of a package's outputs, distance maps where the package has them.

    Raises
    ------
    DataError
        The recipe's data are not what the package takes or predicts.
    """
    data = recipe.data
    targets = {target.name: target for target in data.targets}
    stains = [output.name for output in contract.outputs if output.kind == "stain"]
    if missing := [name for name in stains if name not in targets]:
        raise DataError(
            f"{contract.id} predicts {', '.join(stains)}, but the recipe's targets are {', '.join(targets)}. Name "
            f"{missing[0]} in data.targets: {{name: {missing[0]}, channel: the channel as acquired}}."
        )
    if data.planes.count != contract.planes.count:
        raise DataError(
            f"{contract.id} takes {contract.planes.count} focal planes, the recipe's data.planes.count is "
            f"{data.planes.count}. Write --set data.planes.count={contract.planes.count}."
        )
    if contract.contrast not in (None, data.contrast):
        raise DataError(f"{contract.id} is for {contract.contrast}, the recipe's data.contrast is {data.contrast!r}.")
    if any(output.kind == "class" for output in contract.outputs) != (data.classes is not None):
        raise DataError(f"{contract.id} and the recipe's data.classes do not fit: one has classes, the other has none.")
    maps = {
        output.of: output.name.removesuffix(" distance") for output in contract.outputs if output.kind == "distance"
    }
    ordered = [_with_map(targets[name], maps.get(name), contract) for name in stains]
    dyes = {data.classes.all_cells, data.classes.dead_cells} - {*stains} if data.classes is not None else set()
    ordered += [target.model_copy(update={"shown": False}) for target in data.targets if stains and target.name in dyes]
    changed = {"data": data.model_copy(update={"targets": tuple(ordered or data.targets)})}
    # A recipe for classes alone says enough of a package that predicts stains beside them.
    return recipe.model_copy(update=changed | ({"mode": "regression"} if stains and recipe.mode == "viability" else {}))


def _with_map(target: Target, objects: str | None, contract: Contract) -> Target:
    """Ask for the distance map of `objects` in a target's stain, or for none."""
    if objects is None or objects == target.name:
        return target.model_copy(update={"distance_map": objects is not None})
    if target.objects is None or target.objects.name != objects:
        raise DataError(
            f"{contract.id} predicts the distance map of {objects}, and the recipe does not say how to find them in "
            f"{target.name}. Write {{name: {target.name}, distance_map: {{name: {objects}, seeds: a target}}}}."
        )
    return target


def _check_pixel_size(fields: Sequence[Field], contract: Contract) -> None:
    """Refuse images of another pixel size than the package was trained at.

    Raises
    ------
    DataError
        With both sizes.
    """
    for field in fields:
        if contract.pixel_size_um is not None and not contract.accepts_pixel_size(field.pixel_size_um):
            raise DataError(
                f"{field.name} has pixels of {field.pixel_size_um:g} um, {contract.id} was trained at "
                f"{contract.pixel_size_um:g} um (+-{contract.pixel_size_tolerance:.0%}): a score would mean nothing."
            )


@dataclass(frozen=True, slots=True)
class Trial:
    """A package, and the real images that it is scored on.

    Parameters
    ----------
    contract : Contract
        The package's.
    fields : tuple of Field
        At least one.
    scales : dict
        By instrument, what black and the reference brightness of every target are.
    recipe : Recipe
        Says which planes make an input; its targets are in the order of the package's outputs.
    predict : callable
        (P, H, W) uint16 planes -> (C, H, W) uint16 grey values, as the package gives them.

    Raises
    ------
    DataError
        If the images have another pixel size than the package was trained at.
    """

    contract: Contract
    fields: tuple[Field, ...]
    scales: Scales
    recipe: Recipe
    predict: Predict

    def __post_init__(self) -> None:
        _check_pixel_size(self.fields, self.contract)

    @property
    def pixel_size_um(self) -> float:
        """What the package was trained at, or the images' own where it does not say."""
        return self.contract.pixel_size_um or self.fields[0].pixel_size_um

    def scored(self) -> Iterator[Scored]:
        """Predict each field, beside what is real; of many windows of focal planes the first, middle and last."""
        return predictions(self.fields, self.scales, self.recipe, self.contract, self.predict)

    def table(self, cells: Sequence[str] | None = None) -> Table:
        """Score it; `cells` names the outputs that show cells, where `score_fields` is not to choose."""
        return score_fields(self.scored(), self.pixel_size_um, self.contract.outputs, cells=cells)


def on_test_part(contract: Contract, recipe: Recipe, data: Prepared, predict: Predict) -> Trial:
    """Score on the test part of a recipe's data, in the scales that its training part gave.

    Raises
    ------
    DataError
        The recipe keeps nothing for the test, or its data are not what the package takes.
    """
    if not data.parts.test:
        raise DataError(
            "The recipe keeps no field for the test. Raise data.split.test, or give other data to score on."
        )
    return Trial(contract, data.parts.test, data.scales, recipe, predict)


def on_all(contract: Contract, recipe: Recipe, predict: Predict, say: Callable[[str], None]) -> Trial:
    """Score on all of a recipe's data, scaled by itself: for data that the model never saw.

    Black and reference of each stain are the 10th and 99.9th percentile of these images, so a difference of exposure
    from the training's does not count as an error.
    """
    found = read_fields(recipe.data)
    for reason in found.left_out:
        say(f"left out: {reason}")
    scales = measure_scales(found.fields, [target.name for target in recipe.data.targets])
    fields, scales = with_learned(found.fields, scales, recipe, say)
    return Trial(contract, tuple(fields), scales, recipe, predict)


def predictions(
    fields: Sequence[Field],
    scales: Scales,
    recipe: Recipe,
    contract: Contract,
    predict: Callable[[np.ndarray], np.ndarray],
) -> Iterator[Scored]:
    """Predict each field, beside what is real; of many windows of focal planes the first, the middle and the last.

    Parameters
    ----------
    fields, scales
        As a `Trial` has them.
    recipe : Recipe
        Says which planes make an input.
    contract : Contract
        The package's.
    predict : callable
        (P, H, W) uint16 planes -> (C, H, W) uint16 grey values, as the package gives them.

    Yields
    ------
    Scored
        In the outputs' units.
    """
    units = np.array([output.full_scale or 1.0 for output in contract.outputs], np.float32) / np.float32(GREY)
    everything = slice(None), slice(None)
    for field in fields:
        windows = _some(field.windows(recipe.data.planes))
        for window in windows:
            planes = field.input(window, *everything)
            classes = field.labels_of(*everything)
            yield Scored(
                name=field.name if len(windows) == 1 else f"{field.name} z{window[(len(window) - 1) // 2]}",
                input=planes,
                predicted=predict(planes).astype(np.float32) * units[:, None, None],
                real=_real(field, window, scales, contract),
                place=field.place,
                classes=classes,
                cells={} if classes is None else {"Viability": ndimage.label(classes > 0)[0]},
            )


def _some(windows: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [windows[number] for number in sorted({0, len(windows) // 2, len(windows) - 1})]


def _real(field: Field, window: Sequence[int], scales: Scales, contract: Contract) -> np.ndarray:
    """Arrange the targets as the outputs are: stains, deviations (nothing real), distances, classes (elsewhere)."""
    learned = to_units(field.target(window, slice(None), slice(None)), scales[field.instrument])
    stains = sum(output.kind == "stain" for output in contract.outputs)
    real = np.zeros((len(contract.outputs), *learned.shape[1:]), np.float32)
    distance = stains
    for number, output in enumerate(contract.outputs):
        if output.kind == "stain":
            real[number] = learned[number]
        elif output.kind == "distance":
            real[number] = learned[distance]
            distance += 1
    return real
