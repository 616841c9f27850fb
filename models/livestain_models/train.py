"""Trains what a recipe describes; one plain loop, read top to bottom.

Every batch is a function of seed, step and process, and every step seeds torch anew: a training that was interrupted
at any moment goes on from its last checkpoint and ends with the same weights, to the bit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader, Subset

from livestain_models._errors import DataError
from livestain_models._ranks import Ranks
from livestain_models._training_folder import TrainingFolder
from livestain_models.learner import Learner
from livestain_models.prepared import patches_of, prepare
from livestain_models.validation import look_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livestain_models.prepared import Prepared
    from livestain_models.recipe import Recipe

__all__ = ["Trained", "train"]

LOG_EVERY = 10


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training ended.

    Parameters
    ----------
    folder : Path
        Holds recipe.yaml, fields.json, log.jsonl, preview.png, best.safetensors and last.safetensors.
    step : int
        Steps done.
    score : float
        Of the best weights on the validation part.
    finished : bool
        False if it was asked to stop: the same call goes on.
    """

    folder: Path
    step: int
    score: float
    finished: bool


def train(
    recipe: Recipe,
    out: Path,
    *,
    prepared: Prepared | None = None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    device: str = "auto",
    workers: int = 0,
) -> Trained:
    """Train, or go on with a training that was interrupted.

    Under torchrun every process calls this; together they do what one would.

    Parameters
    ----------
    recipe : Recipe
    out : Path
        Folder of this training. One that is there already must be of the same recipe and data, and is gone on with.
    prepared : Prepared, optional
        The data, if they were read already.
    say : callable
        Takes a line of progress.
    stop : callable
        Asked after each step; True saves a checkpoint and ends.
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    workers : int
        Processes that prepare patches; 0 prepares them in the loop.

    Returns
    -------
    Trained

    Raises
    ------
    LivestainError
        Data, recipe or folder are not usable, the loss is not finite any more, or the disk is full.
    """
    with Ranks.join(device, recipe.train.batch) as ranks:
        speak = say if ranks.first else _say_nothing
        data = prepared or prepare(recipe, speak)
        learner = Learner(recipe, data, ranks)
        folder = TrainingFolder.open(out, recipe, data, learner.size_bytes, write=ranks.first)
        if (checkpoint := folder.last()) is not None:
            learner.resume(checkpoint, out)
            speak(f"going on from step {learner.step}")
        folder.cut_log(learner.step)
        steps = range(learner.step, 0 if learner.patience_is_over else recipe.train.steps)
        patches = Subset(patches_of(data, recipe, seed=recipe.train.seed, ranks=ranks), steps)
        started, first_step, stopped = time.perf_counter(), learner.step, False
        for batch in DataLoader(patches, batch_size=None, num_workers=workers):
            values = _finite(learner.learn(batch), learner.step)
            if learner.step % LOG_EVERY == 0 or learner.step == recipe.train.steps:
                folder.log({"step": learner.step, "rate": learner.rate, **values})
                speak(_line(learner.step, recipe.train.steps, values, time.perf_counter() - started, first_step))
            if learner.step % recipe.train.validate_every == 0 or learner.step == recipe.train.steps:
                learner.note(ranks.from_first(lambda: look_at(learner.deployable(), data, recipe, folder.preview)))
                # In this order: what is logged beyond a checkpoint is cut when training goes on, and logged again.
                folder.log({"step": learner.step, **learner.look.as_json()})
                folder.save(learner)
                speak(
                    f"step {learner.step}: {learner.look}; best so far {learner.best:.4f} at step {learner.best_step}"
                )
            stopped = ranks.any(flag=stop())
            if stopped or learner.patience_is_over:
                break
        if stopped:
            folder.save(learner)
        return Trained(out, learner.step, learner.best, not stopped)


def _finite(terms: dict[str, float], step: int) -> dict[str, float]:
    if not all(abs(value) < float("inf") for value in terms.values()):
        raise DataError(
            f"At step {step} the loss is not a number any more ({terms}). Lower train.learning_rate in the recipe, or "
            "look for broken images; the last checkpoint is whole."
        )
    return terms


def _line(step: int, steps: int, terms: dict[str, float], seconds: float, first_step: int) -> str:
    left_s = seconds / (step - first_step) * (steps - step)
    parts = "  ".join(f"{name} {value:.4f}" for name, value in terms.items())
    return f"step {step:6d} of {steps}  loss {sum(terms.values()):.4f}  ({parts})  {left_s / 60:.1f} min left"


def _say_nothing(_: str) -> None:
    pass
