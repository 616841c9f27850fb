"""What is learned besides the stains themselves: distance maps, a nucleus mask, classes; made from the real stains."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from livestain_models._errors import DataError
from livestain_models.data.fields import Planes, Targets
from livestain_models.data.scales import Scale
from livestain_models.objects import segment, segment_around

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from livestain_models.data.fields import Field
    from livestain_models.data.scales import Scales
    from livestain_models.recipe import Classes, Recipe, Target

__all__ = ["classes_of", "distance_map", "with_learned"]

_UNIT = Scale(0.0, 1.0)


def with_learned(
    fields: Sequence[Field], scales: Scales, recipe: Recipe, say: Callable[[str], None]
) -> tuple[list[Field], Scales]:
    """Add to each field what the recipe's heads need beyond the stains.

    Parameters
    ----------
    fields : sequence of Field
        With the recipe's targets.
    scales : Scales
        Of these targets.
    recipe : Recipe
    say : callable
        Takes a line of progress.

    Returns
    -------
    tuple
        Fields whose targets are stains, distance maps and mask in the order of `heads.Heads`, behind them the dyes
        that are not shown, labels where there are classes; and the scales of all of them.
    """
    if recipe.data.classes is not None:
        fields = _with_classes(fields, recipe, say)
    if recipe.mode == "viability":
        return list(fields), scales
    targets, mask = recipe.data.targets, recipe.mode == "lupi"
    shown = [number for number, target in enumerate(targets) if target.shown]
    hidden = [number for number, target in enumerate(targets) if not target.shown]
    maps = sum(targets[number].objects is not None for number in shown) + mask
    if maps:
        say(f"finding the objects of {len(fields)} fields")
    return [_with_maps(field, recipe, shown, hidden) for field in fields], {
        instrument: (*(scale[n] for n in shown), *(_UNIT,) * maps, *(scale[n] for n in hidden))
        for instrument, scale in scales.items()
    }


def distance_map(labels: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the edge of its object, over the greatest within it.

    Relative, so that it does not change with magnification: a small and a large nucleus both rise to 1.

    Parameters
    ----------
    labels : np.ndarray
        (H, W) integers, 0 is background.

    Returns
    -------
    np.ndarray
        (H, W) float16, 0 to 1.
    """
    found = np.zeros(labels.shape, np.float32)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        # One pixel more each way, so that neighbours and the box's edge count as outside.
        inside = np.pad(labels[box] == number, 1)
        distance = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
        found[box] += distance / distance.max()
    return found.astype(np.float16)


def classes_of(all_cells: np.ndarray, dead_cells: np.ndarray, nuclei: np.ndarray, classes: Classes) -> np.ndarray:
    """Sort nuclei into live, injured and dead by the ratio of two dyes.

    Parameters
    ----------
    all_cells, dead_cells : np.ndarray
        (H, W) float, the dyes in network units: 0 is the background, 1 the bright end.
    nuclei : np.ndarray
        (H, W) integer labels, 0 is background.
    classes : Classes
        Says from which ratio on.

    Returns
    -------
    np.ndarray
        (H, W) uint8: 0 background, 1 live, 2 injured, 3 dead.
    """
    numbers = np.arange(1, nuclei.max() + 1)
    whole = ndimage.mean(all_cells, nuclei, numbers)
    dead = ndimage.mean(dead_cells, nuclei, numbers)
    ratio = np.asarray(dead) / np.maximum(whole, 1e-6)
    kinds = 1 + (ratio >= classes.injured_ratio).astype(np.uint8) + (ratio >= classes.dead_ratio)
    return np.asarray(np.concatenate([[0], kinds]).astype(np.uint8)[nuclei])


def _with_maps(field: Field, recipe: Recipe, shown: Sequence[int], hidden: Sequence[int]) -> Field:
    stains = dict(zip((target.name for target in recipe.data.targets), field.targets.stains, strict=True))
    targets = [recipe.data.targets[number] for number in shown]
    more = [_mapped(_objects(field, stains, target), distance_map) for target in targets if target.objects is not None]
    if recipe.mode == "lupi":
        more.append(_mapped(_objects(field, stains, targets[0]), lambda labels: (labels > 0).astype(np.uint8)))
    kept = [[field.targets.stains[number] for number in numbers] for numbers in (shown, hidden)]
    return replace(field, targets=Targets((*kept[0], *more, *kept[1])))


def _objects(field: Field, stains: Mapping[str, Planes], target: Target) -> Iterator[np.ndarray]:
    """Find the objects of each plane of a stain."""
    seeds = target.objects.seeds if target.objects is not None else None
    for z, page in enumerate(stains[target.name].pages):
        stain = np.asarray(page[:, :])
        if seeds is None:
            yield segment(stain, field.pixel_size_um)
        else:
            nuclei = segment(np.asarray(stains[seeds].pages[z][:, :]), field.pixel_size_um)
            yield segment_around(nuclei, stain, field.pixel_size_um)


def _mapped(planes: Iterable[np.ndarray], made: Callable[[np.ndarray], np.ndarray]) -> Planes:
    return Planes(tuple(made(labels) for labels in planes))


def _with_classes(fields: Sequence[Field], recipe: Recipe, say: Callable[[str], None]) -> list[Field]:
    classes = recipe.data.classes
    assert classes is not None  # noqa: S101 - the caller asked
    if classes.labels is not None:
        return [_checked_labels(field) for field in fields]
    names = [target.name for target in recipe.data.targets]
    whole, dead = names.index(str(classes.all_cells)), names.index(str(classes.dead_cells))
    sorted_fields = [_sorted(field, whole, dead, classes) for field in fields]
    counts = np.sum([np.bincount(np.asarray(field.labels).ravel(), minlength=4) for field in sorted_fields], axis=0)
    shares = counts[1:] / max(counts[1:].sum(), 1)
    say(
        "nuclei by the dyes: "
        + ", ".join(f"{s:.0%} {n}" for n, s in zip(("live", "injured", "dead"), shares, strict=True))
    )
    return sorted_fields


def _sorted(field: Field, whole: int, dead: int, classes: Classes) -> Field:
    # Ratios are of one exposure to another, so each dye counts over its own background, in its own grey values.
    stains = [np.asarray(field.targets.stains[number].pages[0][:, :], np.float64) for number in (whole, dead)]
    over = [stain - np.percentile(stain[::4, ::4], 10) for stain in stains]
    nuclei = segment(stains[0], field.pixel_size_um)
    return replace(field, labels=classes_of(over[0], over[1], nuclei, classes))


def _checked_labels(field: Field) -> Field:
    if field.labels is None:
        raise DataError(f"{field.name} has no class labels, but the recipe names them in data.classes.labels.")
    values = np.unique(np.asarray(field.labels[:, :]))
    if values.min() < 0 or values.max() > 3:
        raise DataError(
            f"{field.name}: the class labels are {values[:8].tolist()}; they must be 0 background, 1 live, 2 injured, "
            "3 dead."
        )
    return field
