"""The card of a model package: what a person reads before trusting it, in full and in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestain_models.contract import UNSAID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livestain_models.contract import Contract, Output, Variant
    from livestain_models.package import Package

__all__ = ["card_of", "describe_package", "with_variants"]

_PRECISIONS = "# Other precisions"
_KINDS = {
    "stain": "fluorescence",
    "deviation": "error bar",
    "distance": "distance map",
    "class": "probability",
}


def card_of(contract: Contract, made_by: str, validation: str = "") -> str:
    """Write the README.md that stands beside the weights.

    Parameters
    ----------
    contract : Contract
        With its scores.
    made_by : str
        The command that trained it.
    validation : str
        Markdown: the scores of images held out from training, as `table.Table` writes them.

    Returns
    -------
    str
        Markdown; the section "Validation" is one that BioImage.IO asks for.
    """
    outputs = "\n".join(f"- Output {_said_output(output)}" for output in contract.outputs)
    contrast = contract.contrast or f"contrast: {UNSAID}"
    text = f"""# {contract.id} {contract.version}

- Use it for: {contract.intended_use}
- Limits: {contract.limitations}
- Trained on: {contract.training_data}
- Input: {contrast}, {_pixel_size(contract)} a pixel, {_stack(contract)}, raw grey values.
{outputs}
- Normalisation: {contract.normalisation}.

# Validation

{_heard(validation)}
In the package's description: `validation` is Pearson's r (of classes F1) on the images that chose the best step,
`parity` the difference between the exported graph and the training framework, in grey levels of 65535, on real frames
and on noise; all others are of images held out from training, `input_copied` of a straight line through the input.

{_table(contract.scores)}

Made by `{made_by}`.
"""
    return with_variants(text, contract)


def _heard(validation: str) -> str:
    if not validation:
        return "It was not scored on images held out from training."
    return "On images held out from training, predicted by the exported graph as on the microscope.\n\n" + validation


def with_variants(card: str, contract: Contract) -> str:
    """Bring the card's section on other precisions up to date; it goes last.

    Parameters
    ----------
    card : str
        Markdown.
    contract : Contract
        With its variants.

    Returns
    -------
    str
        The card; without the section where there is only fp32.
    """
    text = card.split(f"\n{_PRECISIONS}\n")[0].rstrip() + "\n"
    if not contract.variants:
        return text
    sections = "\n\n".join(_said_variant(variant, contract) for variant in contract.variants)
    return f"""{text}
{_PRECISIONS}

The same network, faster on some processors. `weights.onnx` (fp32) is the reference and what runs unless an
experiment asks for another `precision`. `difference_to_fp32` is that of a score to the score in fp32.

{sections}
"""


def describe_package(package: Package) -> dict[str, str]:
    """Say what a package is, for lists and for `show`.

    Parameters
    ----------
    package : Package

    Returns
    -------
    dict of str to str
        By what is described, in the order of reading: name, version, origin, outputs, pixel size, planes,
        contrast, size on disk, precisions, scores, trained on, use, limits, warnings.
    """
    contract = package.contract
    files = [package.folder / variant.file for variant in contract.variants] + [package.weights]
    size = sum(file.stat().st_size for file in set(files))
    return {
        "name": contract.id,
        "version": contract.version,
        "origin": "made elsewhere" if contract.foreign else "livestain",
        "outputs": ", ".join(f"{output.name} ({_KINDS[output.kind]})" for output in contract.outputs),
        "pixel size": _pixel_size(contract),
        "planes": _stack(contract),
        "contrast": contract.contrast or UNSAID,
        "size": f"{size / 1e6:.1f} MB",
        "precisions": ", ".join(contract.precisions),
        "scores": ", ".join(f"{name} {value}" for name, value in contract.scores.items()) or UNSAID,
        "trained on": contract.training_data,
        "use": contract.intended_use,
        "limits": contract.limitations,
        "warnings": "; ".join(contract.warnings) or "none",
    }


def _pixel_size(contract: Contract) -> str:
    return UNSAID if contract.pixel_size_um is None else f"{contract.pixel_size_um:g} um"


def _stack(contract: Contract) -> str:
    planes = contract.planes
    if planes.count == 1:
        return "one plane"
    apart = f"{planes.spacing_um:g} um apart" if planes.spacing_um is not None else f"how far apart: {UNSAID}"
    return f"{planes.count} planes, {apart}"


def _said_output(output: Output) -> str:
    belongs = f", belongs to {output.of}" if output.of else ""
    scale = ""
    if output.full_scale is not None:
        unit = "" if output.unit == "1" else f" ({output.unit})"
        scale = f" Grey 0 is {output.zero:g}, grey 65535 is {output.full_scale:g}{unit}."
    return f"{output.name} ({_KINDS[output.kind]}{belongs}): {output.meaning.rstrip('.')}.{scale}"


def _said_variant(variant: Variant, contract: Contract) -> str:
    rows: dict[str, float | str] = {**variant.parity, **variant.scores}
    for name, value in variant.scores.items():
        reference = contract.scores.get(name)
        if isinstance(value, float | int) and isinstance(reference, float | int):
            rows[f"{name} difference_to_fp32"] = f"{value - reference:+.4f}"
    return f"## {variant.precision}\n\n{_table(rows)}"


def _table(rows: Mapping[str, float | str]) -> str:
    lines = [
        f"| {name} | {value:.4g} |" if isinstance(value, float) else f"| {name} | {value} |"
        for name, value in rows.items()
    ]
    return "\n".join(["| score | value |", "|---|---|", *(lines or [f"| none | {UNSAID} |"])])
