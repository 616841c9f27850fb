"""The card of a model package: what a person reads before trusting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from livestain_models.contract import Contract

__all__ = ["card_of"]


def card_of(contract: Contract, made_by: str) -> str:
    """Write the README.md that stands beside the weights.

    Parameters
    ----------
    contract : Contract
        With its scores.
    made_by : str
        The command that trained it.

    Returns
    -------
    str
        Markdown; the section "Validation" is one that BioImage.IO asks for.
    """
    planes = contract.planes
    stack = "one plane" if planes.count == 1 else f"{planes.count} planes, {planes.spacing_um:g} um apart"
    outputs = "\n".join(f"- Output {output.name}: {output.meaning}." for output in contract.outputs)
    rows = "\n".join(f"| {name} | {value} |" for name, value in contract.scores.items())
    return f"""# {contract.id} {contract.version}

- Use it for: {contract.intended_use}
- Limits: {contract.limitations}
- Trained on: {contract.training_data}
- Input: {contract.contrast}, {contract.pixel_size_um:g} um a pixel, {stack}, raw grey values.
{outputs}
- Normalisation: {contract.normalisation}.

# Validation

On images held out from training, with the exported graph: Pearson's r, SSIM (range: the real image's; Gaussian
window of sigma 1.5 px) and the root mean square error over the real image's standard deviation, each the mean over
images. `copied_input` is the input itself after the best linear fit and `mean` the average of the real image: a
model has to beat both. `parity` is the difference between the exported graph and the training framework, in grey
levels of 65535, on held-out frames and on noise.

| score | value |
|---|---|
{rows}

Made by `{made_by}`.
"""
