"""From a trained network to ONNX with dynamic height and width, and the proof that both say the same."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import nn

from livestain_models.runtime import open_session

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from livestain_models.contract import Contract
    from livestain_models.unet import Deployed

__all__ = ["OPSET", "export_onnx", "parity", "precise_batchnorm"]

OPSET = 20


def precise_batchnorm(net: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace BatchNorm's moving averages by the plain average over batches, in place.

    The moving averages of small batches lag behind the weights; those that are deployed should not.

    Parameters
    ----------
    net : nn.Module
    batches : iterable of Tensor
        Inputs of the network, as in training.

    References
    ----------
    Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, arXiv:2105.07576.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: a plain average over all batches
    net.train()
    with torch.no_grad():
        for batch in batches:
            net(batch)
    net.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


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
    model = copy.deepcopy(model).eval()
    multiple = contract.multiple_px
    example = torch.full((1, contract.planes.count, 4 * multiple, 6 * multiple), 1000, dtype=torch.uint16)
    height, width = (torch.export.Dim(name, min=1, max=4096) * multiple for name in ("h", "w"))
    program = _exported(model, example, {2: height, 3: width})
    graph = program.model_proto
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
    onnx.helper.set_model_props(graph, essentials)
    onnx.checker.check_model(graph, full_check=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, file)


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
    return {"parity_max_grey": worst, "parity_mean_grey": float(np.mean(means))}
