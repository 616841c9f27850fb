"""Many trainings of one recipe: how much data is enough, and how well a model does on a microscope it never saw."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from livestain_models._errors import DataError, LivestainError
from livestain_models._training_folder import BEST
from livestain_models.checkpoint import load_checkpoint
from livestain_models.curve import learning_curve
from livestain_models.curve_picture import draw_curve
from livestain_models.data import Parts, read_fields
from livestain_models.export import rebuild
from livestain_models.instruments import instrument_table, leave_one_instrument_out
from livestain_models.prepared import make_ready, prepare
from livestain_models.train import train
from livestain_models.validation import look_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from livestain_models.data import Field
    from livestain_models.prepared import Prepared
    from livestain_models.recipe import Recipe

__all__ = ["study_instruments", "study_learning_curve"]


def study_learning_curve(
    recipe: Recipe,
    out: Path,
    sizes: Sequence[int],
    seeds: Sequence[int],
    *,
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    device: str = "auto",
) -> str:
    """Train on growing numbers of fields; write curve.json and curve.png, and say what doubling the data would bring.

    Every training is scored on the recipe's test part, which stays the same.

    Parameters
    ----------
    recipe : Recipe
    out : Path
        Holds a folder for each training; one that is finished is not trained again.
    sizes, seeds : sequence of int
        Numbers of training fields; trainings of each, which differ in the fields drawn and in the weights.
    say, stop, device
        As for `train.train`.

    Raises
    ------
    DataError
        A size below 1 or above the number of training fields, or nothing kept for the test.
    LivestainError
        It was asked to stop; the same call goes on.
    """
    data = prepare(recipe, say)
    if not data.parts.test:
        raise DataError("The recipe keeps no field for the test. Raise data.split.test.")
    if min(sizes) < 1:
        raise DataError(f"A training needs at least one field to learn from, got the sizes {list(sizes)}.")
    if max(sizes) > len(data.parts.train):
        raise DataError(
            f"The largest size is {max(sizes)}, but there are {len(data.parts.train)} fields to learn from. Give "
            "smaller --sizes or acquire more."
        )

    def train_and_score(size: int, seed: int) -> float:
        say(f"{size} fields, seed {seed}")
        return _train_and_score(
            recipe, data.limited(size, seed), out / f"{size}-fields-{seed}", seed, say, stop, device
        )

    curve = learning_curve(train_and_score, sizes, seeds)
    (out / "curve.json").write_text(json.dumps(asdict(curve), indent=1) + "\n", encoding="utf-8")
    draw_curve(out / "curve.png", curve)
    return curve.text()


def study_instruments(
    recipe: Recipe,
    out: Path,
    *,
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    device: str = "auto",
) -> str:
    """Leave each instrument out in turn; write instruments.md and give it.

    Parameters
    ----------
    recipe : Recipe
        Its split is not used: a fifth of the training places is for validation.
    out : Path
        Holds a folder for each training; one that is finished is not trained again.
    say, stop, device
        As for `train.train`.

    Raises
    ------
    DataError
        Fewer than two instruments.
    LivestainError
        It was asked to stop; the same call goes on.
    """
    found = read_fields(recipe.data)
    for reason in found.left_out:
        say(f"left out: {reason}")
    number = 0

    def train_and_score(fields: Sequence[Field], tested: Sequence[Field], seed: int) -> float:
        nonlocal number
        number += 1
        places = list(dict.fromkeys(field.place for field in fields))
        held = set(places[::5] if len(places) > 1 else ())
        parts = Parts(
            tuple(field for field in fields if field.place not in held),
            tuple(field for field in fields if field.place in held),
            tuple(tested),
        )
        say(f"training {number}: {len(fields)} fields, tested on {len(tested)} of {tested[0].instrument}")
        ready = make_ready(parts, recipe, say)
        return _train_and_score(recipe, ready, out / f"training-{number}", seed, say, stop, device)

    table = instrument_table(leave_one_instrument_out(train_and_score, found.fields))
    (out / "instruments.md").write_text(table + "\n", encoding="utf-8")
    return table


def _train_and_score(
    recipe: Recipe,
    data: Prepared,
    out: Path,
    seed: int,
    say: Callable[[str], None],
    stop: Callable[[], bool],
    device: str,
) -> float:
    seeded = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})
    if not train(seeded, out, prepared=data, say=say, stop=stop, device=device).finished:
        raise LivestainError(f"Stopped during {out}; the same command goes on from there.")
    model, _ = rebuild(load_checkpoint(out / BEST), out / BEST)
    return look_at(model, data, seeded, fields=data.parts.test).score
