"""Trains the demo's model on pairs acquired on the simulated microscope; read it top to bottom.

    python -m livestain_models.demo_pairs pairs/
    python -m livestain_models.train_demo --train pairs/train-??? --held-out pairs/held-out-???

Every argument is a run folder that livestain wrote. Held-out runs have seeds of their own: other cells, never seen
in training. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from livestain_models.card import card_of
from livestain_models.contract import Contract, Output
from livestain_models.data import pixel_size_um, read_pairs
from livestain_models.export import export_onnx, parity, precise_batchnorm
from livestain_models.package import verify_package, write_package
from livestain_models.runtime import open_session
from livestain_models.score import score_table
from livestain_models.unet import Deployed, LocalContrast, UNet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from livestain_models.data import Pair

__all__ = ["main", "train"]

SOURCE, TARGET = "BF", "Nuclei"
PATCH_PX, BATCH = 256, 4
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 1e-2, 100
EMA_DECAY = 0.998
GREY_PER_UNIT = 65535 / 2  # room for twice the reference brightness
ZOO = Path(__file__).parent / "zoo" / "nuclei-demo"


def train(pairs: Sequence[Pair], black: float, reference: float, steps: int, seed: int) -> Deployed:
    """Train a network and return it as it will be deployed.

    Parameters
    ----------
    pairs : sequence of Pair
        At least PATCH_PX on each side.
    black, reference : float
        Grey values of the camera that become 0 and 1.
    steps : int
        Optimiser steps.
    seed : int
        Of initial weights, patches and augmentation.

    Returns
    -------
    Deployed
        In evaluation mode, with the averaged weights and their exact BatchNorm statistics.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    normalise = LocalContrast()
    # Fields are normalised whole, as on the microscope, and patches cut from them afterwards.
    fields = [normalise(torch.from_numpy(pair.planes.astype(np.float32))[None])[0] for pair in pairs]  # (1, H, W)
    stains = [torch.from_numpy((pair.target.astype(np.float32) - black) / reference)[None] for pair in pairs]

    net = UNet()
    averaged = copy.deepcopy(net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    net.train()
    started, smooth = time.perf_counter(), math.nan
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * schedule(step, steps)
        x, y = draw(fields, stains, rng)  # (N, 1, 256, 256) each
        loss = loss_of(net(x), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        average(averaged, net, min(EMA_DECAY, (step + 1) / (step + 10)))
        smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0 or step == steps - 1:
            say(f"step {step:5d}/{steps}  loss {smooth:.4f}  {time.perf_counter() - started:6.0f} s")
    precise_batchnorm(averaged, (draw(fields, stains, rng)[0] for _ in range(min(steps, 100))))
    model = Deployed(averaged, normalise, GREY_PER_UNIT)
    model.eval()
    return model


def schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to one percent."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    progress = (step - WARM_UP) / max(steps - WARM_UP, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def draw(fields: Sequence[Tensor], stains: Sequence[Tensor], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cut a batch of patches at random, turned, mirrored, and with another contrast and noise."""
    xs, ys = [], []
    for index in rng.integers(0, len(fields), BATCH):
        height, width = fields[index].shape[1:]
        top, left = rng.integers(0, height - PATCH_PX + 1), rng.integers(0, width - PATCH_PX + 1)
        window = (slice(None), slice(top, top + PATCH_PX), slice(left, left + PATCH_PX))
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
        x, y = (torch.rot90(image[window], turns, (1, 2)) for image in (fields[index], stains[index]))
        x, y = (x.flip(2), y.flip(2)) if mirror else (x, y)
        x = x * float(rng.uniform(0.7, 1.4)) + float(rng.uniform(-0.05, 0.05))
        xs.append(x + float(rng.uniform(0, 0.15)) * torch.randn_like(x))
        ys.append(y)
    return torch.stack(xs), torch.stack(ys)


def loss_of(predicted: Tensor, real: Tensor) -> Tensor:
    """Mean absolute error plus one minus Pearson's r; r is taken over the batch, empty patches included."""
    a, b = predicted - predicted.mean(), real - real.mean()
    r = (a * b).sum() / (a.square().sum() * b.square().sum() + 1e-8).sqrt()
    return (predicted - real).abs().mean() + 1 - r


def average(averaged: torch.nn.Module, net: torch.nn.Module, decay: float) -> None:
    """Move the averaged weights towards the network's."""
    with torch.no_grad():
        for ours, theirs in zip(averaged.parameters(), net.parameters(), strict=True):
            ours.lerp_(theirs, 1 - decay)


def contract_of(model: Deployed, pixel_um: float, training_data: str) -> Contract:
    """Say what the demo's model promises."""
    return Contract(
        id="nuclei-demo",
        version="0.1.0",
        pixel_size_um=pixel_um,
        contrast="bright field",
        outputs=(
            Output(
                name=TARGET,
                meaning="relative fluorescence of a DNA stain, background removed; "
                "65535 = 2 times the 99.9th percentile of the training images",
                color="00BFFF",
            ),
        ),
        multiple_px=model.multiple_px,
        halo_px=model.halo_px,
        normalisation="inside the graph: each pixel over the mean of its surroundings (a window of about "
        f"144 px), minus 1, times {model.normalise.gain:g}, clipped at +-{model.normalise.limit:g}",
        training_data=training_data,
        intended_use="livestain's demo and tests on the simulated microscope",
        limitations="Never saw a real cell. Do not use it on real images: what it draws there means nothing.",
    )


def evaluate(weights: Path, pairs: Sequence[Pair], black: float, reference: float, grid_px: int) -> dict[str, float]:
    """Score the exported graph, as the microscope runs it, on held-out pairs."""
    session = open_session(weights.read_bytes(), weights.name, "cpu")
    inputs, predicted, real = [], [], []
    for pair in pairs:
        height, width = (size // grid_px * grid_px for size in pair.target.shape)
        planes = pair.planes[None, :, :height, :width]  # (1, 1, H, W)
        (stains,) = session.run(None, {"planes": planes})
        inputs.append(planes[0, 0])
        predicted.append(stains[0, 0] / GREY_PER_UNIT)
        real.append((pair.target[:height, :width] - black) / reference)
    return score_table(inputs, predicted, real)


def publish(
    model: Deployed, contract: Contract, held_out: Sequence[Pair], black: float, reference: float, out: Path
) -> None:
    """Export, prove parity, score, and write the package with its card; only then is an older one replaced."""
    frames = [pair.planes[None, :, :PATCH_PX, :PATCH_PX] for pair in held_out]
    noise = np.random.default_rng(0).integers(0, 65536, (1, 1, 256, 320), dtype=np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.onnx"
        export_onnx(model, contract, weights)
        scores = evaluate(weights, held_out, black, reference, model.multiple_px)
        scores |= parity(model, weights, [noise, *frames])
        contract = contract.model_copy(
            update={"scores": {name: round(value, 4) + 0.0 for name, value in scores.items()}}
        )
        session = open_session(weights.read_bytes(), weights.name, "cpu")
        (answer,) = session.run(None, {"planes": frames[0]})
        package = write_package(
            out,
            contract,
            weights,
            frames[0],
            answer,
            description="Nuclei from one bright-field plane of livestain's simulated microscope; not for real cells.",
            card=card_of(contract, "python -m livestain_models.train_demo"),
        )
    verify_package(package)


def say(text: str) -> None:
    """Print a line of progress."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, export, score and write the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True, metavar="RUN")
    parser.add_argument("--held-out", type=Path, nargs="+", required=True, metavar="RUN")
    parser.add_argument("--out", type=Path, default=ZOO)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)

    learn = [pair for run in args.train for pair in read_pairs(run, SOURCE, TARGET)]
    held_out = [pair for run in args.held_out for pair in read_pairs(run, SOURCE, TARGET)]
    sample = np.stack([pair.target[::4, ::4] for pair in learn])
    black, white = (float(grey) for grey in np.percentile(sample, [10, 99.9]))
    say(f"{len(learn)} pairs to learn from, {len(held_out)} held out; grey {black:.0f} is 0, {white:.0f} is 1")
    model = train(learn, black, white - black, args.steps, args.seed)

    origin = (
        f"{len(learn)} bright-field planes from {len(args.train)} seeds of the simulated microscope; no real images"
    )
    contract = contract_of(model, pixel_size_um(args.train[0]), origin)
    publish(model, contract, held_out, black, white - black, args.out)
    say((args.out / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
