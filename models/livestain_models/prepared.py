"""From a recipe to fields ready to learn from: read, checked, split, scaled; the same for training and for scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from livestain_models._errors import DataError
from livestain_models.data import Parts, measure_scales, read_fields, split_fields
from livestain_models.data.patches import Patches
from livestain_models.heads import Heads, heads_of
from livestain_models.learned import with_learned
from livestain_models.normalise import normaliser_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from livestain_models._ranks import Ranks
    from livestain_models.data import Field, Scales
    from livestain_models.normalise import FieldContrast, LocalContrast
    from livestain_models.recipe import PlanesWanted, Recipe

__all__ = ["Prepared", "make_ready", "patches_of", "prepare"]

_EXAMPLES, _EXAMPLE_PX = 3, 256


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the loop needs of the data.

    Parameters
    ----------
    parts : Parts
        Their targets are what the heads learn: stains, distance maps, mask; labels where there are classes.
    scales : dict
        By instrument, of every target; measured on the training part.
    heads : Heads
    normalise : LocalContrast or FieldContrast
    volume : bool
        Whether each plane of a stack has its own target.
    left_out : dict of str to str
        Fields that were not used, and why.
    """

    parts: Parts
    scales: Scales
    heads: Heads
    normalise: LocalContrast | FieldContrast
    volume: bool
    left_out: dict[str, str]

    def names(self) -> dict[str, list[str]]:
        """Which fields are in which part, by name."""
        return _names(self.parts)

    def examples(self, wanted: PlanesWanted, multiple_px: int) -> list[np.ndarray]:
        """Cut a few real inputs, (1, P, h, w) uint16, to prove with them that an export is faithful."""
        fields = (*self.parts.validation, *self.parts.test, *self.parts.train)[:_EXAMPLES]
        return [_middle_of(field, wanted, multiple_px) for field in fields]

    def limited(self, count: int, seed: int) -> Prepared:
        """Keep `count` training fields, drawn by seed; validation and test stay whole."""
        chosen = np.random.default_rng(seed).permutation(len(self.parts.train))[:count]
        train = tuple(self.parts.train[number] for number in sorted(chosen))
        return replace(self, parts=replace(self.parts, train=train))


def prepare(recipe: Recipe, say: Callable[[str], None], names: Mapping[str, Sequence[str]] | None = None) -> Prepared:
    """Read, check, split and scale a recipe's data.

    Parameters
    ----------
    recipe : Recipe
    say : callable
        Takes a line of progress.
    names : mapping of str to sequence of str, optional
        The parts of a training that was done, as `Prepared.names` gave them: fields that were added since do not
        change what was learned from and what was kept for the test.

    Raises
    ------
    DataError
        The data are missing, broken, do not fit each other, or are too few to split.
    """
    found = read_fields(recipe.data)
    for reason in found.left_out:
        say(f"left out: {reason}")
    parts = split_fields(found.fields, recipe.data.split)
    parts = parts if names is None else _as_before(parts, names)
    say(", ".join(f"{len(names)} fields for {part}" for part, names in _names(parts).items()))
    return make_ready(parts, recipe, say, {left.name: left.reason for left in found.left_out})


def _names(parts: Parts) -> dict[str, list[str]]:
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {part: [field.name for field in fields] for part, fields in named.items()}


def _as_before(parts: Parts, names: Mapping[str, Sequence[str]]) -> Parts:
    there = {field.name: field for field in (*parts.train, *parts.validation, *parts.test)}
    missing = [name for part in names.values() for name in part if name not in there]
    if missing:
        raise DataError(
            f"{len(missing)} fields that the training used are not there any more ({', '.join(missing[:5])}). Put the "
            "data back, or score on other data with --data."
        )
    return Parts(*(tuple(there[name] for name in names[part]) for part in ("train", "validation", "test")))


def make_ready(
    parts: Parts, recipe: Recipe, say: Callable[[str], None], left_out: dict[str, str] | None = None
) -> Prepared:
    """Scale fields that are split already, and add what is learned besides the stains.

    Raises
    ------
    DataError
        Nothing to learn from, stacks too thin, or dark stains.
    """
    if not parts.train:
        raise DataError("No field is left to learn from. Lower data.split.validation and data.split.test.")
    for field in (*parts.train, *parts.validation, *parts.test):
        _check_planes(field, recipe)
    names = [target.name for target in recipe.data.targets]
    scales = dict(measure_scales(parts.train, names))
    # An instrument kept for the score only is scaled by its own images: nothing else is known of its grey values.
    unseen = [field for field in (*parts.validation, *parts.test) if field.instrument not in scales]
    scales |= measure_scales(unseen, names) if unseen else {}
    learned = [with_learned(fields, scales, recipe, say) for fields in (parts.train, parts.validation, parts.test)]
    parts = Parts(*(tuple(fields) for fields, _ in learned))
    heads = heads_of(recipe)
    stacks = _are_stacks(parts.train)
    if recipe.network.kind == "unet3d" and not stacks:
        say("the stain was taken in one plane only, so only the middle plane of each volume is learned")
    return Prepared(
        parts=parts,
        scales=learned[0][1],
        heads=heads,
        normalise=normaliser_of(recipe.network, parts.train, recipe.data.planes),
        volume=recipe.network.kind == "unet3d" and stacks and not heads.classes,
        left_out=left_out or {},
    )


def _middle_of(field: Field, wanted: PlanesWanted, multiple_px: int) -> np.ndarray:
    sides = [min(side, _EXAMPLE_PX) // multiple_px * multiple_px for side in field.size_px]
    starts = [(whole - side) // 2 for whole, side in zip(field.size_px, sides, strict=True)]
    rows, columns = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    windows = field.windows(wanted)
    return field.input(windows[len(windows) // 2], rows, columns)[None]


def _check_planes(field: Field, recipe: Recipe) -> None:
    field.windows(recipe.data.planes)  # raises where a stack is too thin
    if recipe.data.planes.count > 1 and field.plane_spacing_um is None:
        raise DataError(
            f"{field.name} does not say how far its focal planes are apart, and the microscope has to know. Write "
            "data.plane_spacing_um into the recipe."
        )


def _are_stacks(fields: Sequence[Field]) -> bool:
    return all(field.targets.shape[1] == field.planes.shape[0] > 1 for field in fields)


def patches_of(data: Prepared, recipe: Recipe, *, seed: int, ranks: Ranks | None = None, steps: int = 0) -> Patches:
    """Draw patches of the training part, for as many steps as the recipe says or `steps`."""
    settings = recipe.train
    return Patches(
        data.parts.train,
        planes=recipe.data.planes,
        scales=data.scales,
        normalise=data.normalise,
        augment=recipe.augment,
        patch_px=settings.patch_px,
        batch=settings.batch,
        foreground=settings.foreground,
        seed=seed,
        rank=ranks.rank if ranks else 0,
        world=ranks.world if ranks else 1,
        steps=steps or settings.steps,
        volume=data.volume,
    )
