"""From a trained network to a package: ONNX with dynamic height and width, and the proof that both say the same."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from livestain_models._errors import ModelError
from livestain_models._training_folder import BEST
from livestain_models.card import card_of
from livestain_models.checkpoint import load_checkpoint, load_into
from livestain_models.contract import Contract, Planes
from livestain_models.deployed import Deployed, build_network
from livestain_models.heads import heads_of
from livestain_models.normalise import FieldContrast, local_contrast
from livestain_models.package import write_package
from livestain_models.recipe import Recipe
from livestain_models.runtime import open_session
from livestain_models.verify import verify_package
from livestain_models.viability_score import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from livestain_models.checkpoint import Checkpoint
    from livestain_models.package import Package
    from livestain_models.table import Table

__all__ = [
    "OPSET",
    "contract_of",
    "decides",
    "export_checkpoint",
    "export_onnx",
    "parity",
    "rebuild",
    "with_scores",
    "without_traces",
]

OPSET = 20
DECISIVE = (
    *("fields", "pearson", "pearson_low", "pearson_high", "pearson_worst", "ssim", "nrmse", "f1", "intensity_pearson"),
    *("coverage_1sd", "coverage_90", "balanced_accuracy", "f1_live", "f1_injured", "f1_dead", "sensitivity_99"),
    *(f"cells_{true}_as_{seen}" for true in CLASSES[1:] for seen in (*CLASSES[1:], "missed")),
)
PARITY_GREY = 4  # of 65535; rounding alone makes 1, other orders of summation a little more
NOISE_PX = (256, 320)


def export_checkpoint(checkpoint: Path, out: Path) -> Package:
    """Export a training's best weights as a model package, parity proven and written into it.

    Parameters
    ----------
    checkpoint : Path
        The folder of a training, or its best.safetensors.
    out : Path
        Where the package goes; a package that is there is replaced.

    Returns
    -------
    Package
        Verified. Its scores are the parity and the validation's; `score` adds those of the test part.

    Raises
    ------
    ModelError
        No such checkpoint, or the export does not say what the network says.
    """
    file = checkpoint / BEST if checkpoint.is_dir() else checkpoint
    if not file.is_file():
        raise ModelError(f"{file} is not there. Give the folder of a training that has come to its first validation.")
    saved = load_checkpoint(file)
    if "deployed" not in {name.split(".")[0] for name in saved.tensors}:
        raise ModelError(f"{file} is a checkpoint to go on from, not one to export. Give {BEST} beside it.")
    _check_out(out)
    model, recipe = rebuild(saved, file)
    examples = [planes.numpy() for planes in saved.part("examples").values()]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 65536, (1, model.planes, *NOISE_PX), dtype=np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.onnx"
        contract = contract_of(model, recipe, saved)
        export_onnx(model, contract, weights)
        scores = parity(model, weights, [noise, *examples])
        if scores["parity_max_grey"] > PARITY_GREY:
            raise ModelError(
                f"The export of {file} differs from the network by {scores['parity_max_grey']:g} grey levels of 65535 "
                f"(allowed: {PARITY_GREY}); it was not written. Please report this with the versions of torch and "
                "onnxruntime."
            )
        contract = contract.model_copy(update={"scores": contract.scores | scores})
        package = _write(out, contract, weights, examples[0], recipe)
    verify_package(package)
    return package


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ModelError(f"{out} is a file; give the folder that the package is to be.")
    if out.is_dir() and any(out.iterdir()) and not (out / "rdf.yaml").exists():
        raise ModelError(f"{out} holds other files and no package. Give another --out.")


def with_scores(package: Package, table: Table, recipe: Recipe) -> Package:
    """Write scores of held-out images into a package and its card.

    Parameters
    ----------
    package : Package
        That was just exported.
    table : Table
        Whole in the card; what decides, in the contract.
    recipe : Recipe
        For the card.
    """
    decisive = {name: float(f"{value:.4g}") for name, value in table.flat().items() if decides(name)}
    contract = package.contract.model_copy(update={"scores": package.contract.scores | decisive})
    given = np.load(package.folder / "test_input.npy")
    return _write(package.folder, contract, package.weights, given, recipe, table.markdown())


def decides(name: str) -> bool:
    """Whether a score belongs into the contract; all of them are in the card."""
    return not name.startswith("ceiling_") and any(f"_{name}".endswith(f"_{score}") for score in DECISIVE)


def rebuild(saved: Checkpoint, file: Path) -> tuple[Deployed, Recipe]:
    """Build the deployed graph of a checkpoint again.

    Raises
    ------
    ModelError
        The checkpoint's recipe or tensors are damaged.
    """
    recipe = Recipe.model_validate(saved.facts["recipe"])
    heads, planes = heads_of(recipe), recipe.data.planes.count
    net = build_network(recipe.network, planes, heads.channels)
    load_into(net, saved.part("deployed"), file)
    field = recipe.network.normalise == "field"
    normalise = FieldContrast() if field else local_contrast(recipe.network, saved.facts["gain"])
    return Deployed(net, normalise, heads, planes, saved.facts["look"]["deviation_factor"]).eval(), recipe


def contract_of(model: Deployed, recipe: Recipe, saved: Checkpoint) -> Contract:
    """Say what an exported model promises."""
    data, facts = recipe.data, saved.facts
    spacing_um = facts["plane_spacing_um"] * data.planes.step if data.planes.count > 1 else None
    names = facts["fields"]
    seen = f"{len(names['train'])} fields (of {', '.join(sorted(facts['scales']))}), {facts['step']} steps"
    look = {f"validation_{name}": round(value, 4) for name, value in facts["look"]["each"].items()}
    return Contract(
        id=recipe.id,
        version=recipe.version,
        pixel_size_um=facts["pixel_size_um"],
        contrast=data.contrast,
        planes=Planes(count=data.planes.count, spacing_um=spacing_um),
        outputs=model.heads.outputs(),
        multiple_px=model.multiple_px,
        halo_px=model.halo_px,
        normalisation=model.normalise.describe(),
        training_data="; ".join(part for part in (recipe.training_data.rstrip(". "), seen) if part),
        intended_use=recipe.intended_use,
        limitations=recipe.limitations,
        scores=look,
    )


def export_onnx(model: Deployed, contract: Contract, file: Path) -> None:
    """Write the deployable graph, the contract's essentials in its metadata.

    Parameters
    ----------
    model : Deployed
        Is left as it is.
    contract : Contract
        Says how many planes; its multiple becomes part of the input's shape.
    file : Path
        The ONNX file.
    """
    model = copy.deepcopy(model).eval().cpu()
    multiple = contract.multiple_px
    example = torch.full((1, contract.planes.count, 4 * multiple, 6 * multiple), 1000, dtype=torch.uint16)
    height, width = (torch.export.Dim(name, min=1, max=4096) * multiple for name in ("h", "w"))
    graph = _exported(model, example, {2: height, 3: width}).model_proto
    essentials = {
        "livestain_id": contract.id,
        "livestain_version": contract.version,
        "pixel_size_um": str(contract.pixel_size_um),
        "contrast": contract.contrast,
        "planes": str(contract.planes.count),
        "outputs": ", ".join(output.name for output in contract.outputs),
        "multiple_px": str(multiple),
        "halo_px": str(contract.halo_px),
    }
    without_traces(graph)
    onnx.helper.set_model_props(graph, essentials)
    onnx.checker.check_model(graph, full_check=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, file)


def without_traces(graph: Any) -> None:
    """Remove from an ONNX model, in place, where in the source each node came from: paths of a private machine."""
    parts = [graph.graph, *graph.graph.node, *graph.graph.initializer, *graph.graph.value_info]
    parts += [*graph.graph.input, *graph.graph.output, *graph.functions]
    parts += [node for function in graph.functions for node in function.node]
    for part in parts:
        part.ClearField("doc_string")
        del part.metadata_props[:]


def parity(model: Deployed, file: Path, inputs: Iterable[np.ndarray]) -> dict[str, float]:
    """Compare torch with onnxruntime on the CPU.

    Parameters
    ----------
    model : Deployed
        In evaluation mode.
    file : Path
        Its export.
    inputs : iterable of np.ndarray
        (1, P, H, W) uint16; real frames and noise, never constant ones.

    Returns
    -------
    dict of str to float
        ``parity_max_grey`` and ``parity_mean_grey``, differences in grey levels of the uint16 output.
    """
    session = open_session(file.read_bytes(), file.name, "cpu")
    worst, means = 0.0, []
    model.eval()
    for planes in inputs:
        with torch.no_grad():
            ours = model(torch.from_numpy(planes)).numpy()
        (theirs,) = session.run(None, {"planes": planes})
        difference = np.abs(ours.astype(np.float64) - theirs)
        worst = max(worst, float(difference.max()))
        means.append(float(difference.mean()))
    return {"parity_max_grey": worst, "parity_mean_grey": round(float(np.mean(means)), 5)}


# It tells of every operator of torchvision, which is not installed and not used.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


def _exported(model: nn.Module, example: torch.Tensor, sizes: dict[int, object]) -> torch.onnx.ONNXProgram:
    with warnings.catch_warnings():
        # torch 2.13 meets its own deprecation while it copies the exported program.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        program = torch.onnx.export(
            model,
            (example,),
            input_names=["planes"],
            output_names=["stains"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=(sizes,),
            verbose=False,
        )
    assert program is not None  # noqa: S101 - None only without dynamo
    return program


def _write(
    out: Path, contract: Contract, weights: Path, planes: np.ndarray, recipe: Recipe, validation: str = ""
) -> Package:
    session = open_session(weights.read_bytes(), weights.name, "cpu")
    (answer,) = session.run(None, {"planes": planes})
    stains = ", ".join(output.name for output in contract.outputs)
    return write_package(
        out,
        contract,
        weights,
        planes,
        answer,
        description=f"{stains} from {contract.contrast}, predicted while the camera runs.",
        card=card_of(contract, f"livestain models train, recipe {recipe.id} {recipe.version}", validation),
        licence=recipe.licence,
    )
