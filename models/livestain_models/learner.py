"""Network, averaged weights, optimisers and the step they are at: what a checkpoint holds and one step changes."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from livestain_models.checkpoint import load_into, optimiser_tensors, restore_optimiser
from livestain_models.deployed import Deployed, build_network, middle_plane
from livestain_models.gan import PatchDiscriminator, discriminator_loss, generator_loss
from livestain_models.losses import loss_of
from livestain_models.prepared import patches_of
from livestain_models.validation import Look, precise_batchnorm

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from livestain_models._ranks import Ranks
    from livestain_models.checkpoint import Checkpoint
    from livestain_models.data.patches import Batch
    from livestain_models.heads import Predicted
    from livestain_models.prepared import Prepared
    from livestain_models.recipe import Recipe

__all__ = ["Learner"]

BATCHNORM_BATCHES = 24


class Learner:
    """A training's state; `learn` moves it one step on.

    Parameters
    ----------
    recipe : Recipe
    data : Prepared
    ranks : Ranks
        The processes that train together, and the device of this one.
    """

    def __init__(self, recipe: Recipe, data: Prepared, ranks: Ranks) -> None:
        self._recipe, self._data, self._ranks = recipe, data, ranks
        planes, settings = recipe.data.planes.count, recipe.train
        torch.manual_seed(settings.seed)
        self._net = build_network(recipe.network, planes, data.heads.channels).to(ranks.device)
        self._averaged = copy.deepcopy(self._net).requires_grad_(requires_grad=False)
        self._optimiser = _optimiser(self._net, recipe)
        self._judge: nn.Module | None = None
        if recipe.mode == "gan":
            self._judge = PatchDiscriminator(planes, len(data.heads.stains)).to(ranks.device)
            self._judge_optimiser = _optimiser(self._judge, recipe)
        self._shared_net, self._shared_judge = ranks.shared(self._net), ranks.shared(self._judge)
        self.step = self.best_step = self._looks_without_gain = 0
        self.best = -math.inf
        self.look = Look()
        self._deployable: Deployed | None = None

    @property
    def size_bytes(self) -> int:
        """What a checkpoint takes on disk, about: weights, their average and two moments."""
        modules = [self._net, *([self._judge] if self._judge is not None else [])]
        return int(4 * 4 * sum(p.numel() for module in modules for p in module.parameters()))

    @property
    def rate(self) -> float:
        """Learning rate of the next step: linear warm-up, then half a cosine down to one percent."""
        settings = self._recipe.train
        if self.step < settings.warm_up:
            return settings.learning_rate * (self.step + 1) / settings.warm_up
        progress = (self.step - settings.warm_up) / max(settings.steps - settings.warm_up, 1)
        return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    @property
    def patience_is_over(self) -> bool:
        """Whether the validation score has stopped rising for as long as the recipe waits."""
        return 0 < self._recipe.train.patience <= self._looks_without_gain

    @property
    def is_best(self) -> bool:
        """Whether the last look was the best one."""
        return self.best_step == self.step

    def learn(self, batch: Batch) -> dict[str, float]:
        """Take one step on a batch; return the weighted terms of the loss by name."""
        batch = batch.to(self._ranks.device)
        torch.manual_seed(self._recipe.train.seed + 7919 * self.step + self._ranks.rank)  # of dropout
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate
        self._net.train()
        with self._mixed_precision():
            predicted = self._predict(batch)
            terms = loss_of(predicted, batch.y, batch.labels, self._data.heads, self._recipe.loss)
            if self._shared_judge is not None:
                weight = self._recipe.loss.adversarial
                terms["adversarial"] = weight * generator_loss(self._shared_judge(batch.x, predicted.stains))
        _descend(self._optimiser, self._net, torch.stack(list(terms.values())).sum())
        if self._shared_judge is not None:
            terms["judge"] = self._teach_judge(batch, predicted.stains.detach())
        self.step += 1
        self._average()
        return {name: float(term.detach()) for name, term in terms.items()}

    def deployable(self) -> Deployed:
        """Give the averaged weights with BatchNorm statistics of their own, as they would be exported now."""
        net = copy.deepcopy(self._averaged)
        # Patches of another seed than the training's, so that they are the same whenever one looks.
        patches = patches_of(self._data, self._recipe, seed=self._recipe.train.seed + 1, steps=BATCHNORM_BATCHES)
        precise_batchnorm(net, (patches[number].x.to(self._ranks.device) for number in range(BATCHNORM_BATCHES)))
        self._deployable = Deployed(net, self._data.normalise, self._data.heads, self._recipe.data.planes.count).eval()
        return self._deployable

    def note(self, look: Look) -> None:
        """Take a look's result into account."""
        self.look = look
        better = look.score > self.best
        self._looks_without_gain = 0 if better else self._looks_without_gain + 1
        if better:
            self.best, self.best_step = look.score, self.step

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """Give all tensors from which training goes on."""
        parts = {
            "net": self._net.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimiser": optimiser_tensors(self._optimiser),
        }
        if self._judge is not None:
            parts["judge"] = self._judge.state_dict()
            parts["judge_optimiser"] = optimiser_tensors(self._judge_optimiser)
        return parts

    def facts(self) -> dict[str, Any]:
        """Give everything else from which training goes on."""
        return {
            "step": self.step,
            "best": self.best if math.isfinite(self.best) else None,
            "best_step": self.best_step,
            "looks_without_gain": self._looks_without_gain,
            "look": self.look.as_json(),
        }

    def deployed_parts(self) -> dict[str, dict[str, Tensor]]:
        """Give the tensors that are exported: those of the last look."""
        assert self._deployable is not None  # noqa: S101 - saved after a look
        wanted, multiple_px = self._recipe.data.planes, self._deployable.multiple_px
        examples = self._data.examples(wanted, multiple_px)
        return {
            "deployed": self._deployable.net.state_dict(),
            "examples": {str(number): torch.from_numpy(planes) for number, planes in enumerate(examples)},
        }

    def resume(self, checkpoint: Checkpoint, file: Path) -> None:
        """Take up a checkpoint of `parts` and `facts`.

        Raises
        ------
        ModelError
            It is another network's.
        """
        load_into(self._net, checkpoint.part("net"), file)
        load_into(self._averaged, checkpoint.part("averaged"), file)
        restore_optimiser(self._optimiser, checkpoint.part("optimiser"))
        if self._judge is not None:
            load_into(self._judge, checkpoint.part("judge"), file)
            restore_optimiser(self._judge_optimiser, checkpoint.part("judge_optimiser"))
        facts = checkpoint.facts
        self.step, self.best_step = facts["step"], facts["best_step"]
        self.best = -math.inf if facts["best"] is None else facts["best"]
        self._looks_without_gain, self.look = facts["looks_without_gain"], Look(**facts["look"])

    def _predict(self, batch: Batch) -> Predicted:
        raw = self._shared_net(batch.x)  # (N, K, h, w) or (N, K, P, h, w)
        return self._data.heads.split(raw if self._data.volume else middle_plane(raw))

    def _teach_judge(self, batch: Batch, stains: Tensor) -> Tensor:
        judge = self._shared_judge
        assert judge is not None  # noqa: S101 - the caller asked
        for group in self._judge_optimiser.param_groups:
            group["lr"] = self.rate
        real = batch.y[:, : stains.shape[1]]
        with self._mixed_precision():
            # One pass over both: DistributedDataParallel allows one before each backward.
            verdicts = judge(torch.cat([batch.x, batch.x]), torch.cat([real, stains]))
            loss = discriminator_loss(*verdicts.chunk(2))
        _descend(self._judge_optimiser, judge, loss)
        return loss

    def _average(self) -> None:
        decay = min(self._recipe.train.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for ours, theirs in zip(self._averaged.parameters(), self._net.parameters(), strict=True):
                ours.lerp_(theirs, 1 - decay)

    def _mixed_precision(self) -> Any:
        enabled = self._recipe.train.precision == "bf16"
        return torch.autocast(self._ranks.device.type, dtype=torch.bfloat16, enabled=enabled)


def _optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    settings = recipe.train
    return torch.optim.AdamW(module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _descend(optimiser: torch.optim.Optimizer, module: nn.Module, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimiser.step()
