"""The BioImage.IO 0.5 description of a package, as plain data for the YAML file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from livestain_models.contract import UNSAID

if TYPE_CHECKING:
    from livestain_models.contract import Contract

__all__ = ["describe"]


def describe(
    contract: Contract,
    hashes: dict[str, str],
    *,
    description: str,
    licence: str,
    authors: tuple[str, ...],
) -> dict[str, Any]:
    """Describe a package in BioImage.IO model description format 0.5.

    Parameters
    ----------
    contract : Contract
        Goes under config.livestain as it is.
    hashes : dict of str to str
        SHA-256 of weights.onnx, test_input.npy and test_output.npy.
    description, licence : str
    authors : tuple of str

    Returns
    -------
    dict
        Only what YAML knows: dict, list, str, int, float, None.

    References
    ----------
    https://github.com/bioimage-io/spec-bioimage-io, model description 0.5.
    """
    return {
        "format_version": "0.5.4",
        "type": "model",
        "name": contract.id,
        "version": contract.version,
        "description": description,
        "authors": [{"name": name} for name in authors],
        "license": licence,
        "documentation": "README.md",
        "tags": ["label-free", "virtual-staining", _identifier(contract.contrast or UNSAID).replace("_", "-")],
        "inputs": [_input(contract, hashes["test_input.npy"])],
        "outputs": [_output(contract, hashes["test_output.npy"])],
        "weights": {
            "onnx": {"source": "weights.onnx", "sha256": hashes["weights.onnx"], "opset_version": 20},
        },
        "config": {
            # Rounding to grey levels may differ by one or two between processors.
            "bioimageio": {"reproducibility_tolerance": [{"absolute_tolerance": 2, "relative_tolerance": 0}]},
            "livestain": contract.model_dump(mode="json"),
        },
    }


def _input(contract: Contract, sha256: str) -> dict[str, Any]:
    step = contract.multiple_px
    scale = {"unit": "micrometer", "scale": contract.pixel_size_um}
    channels = [f"plane{index}" for index in range(contract.planes.count)]
    return {
        "id": "planes",
        "description": f"{contract.contrast}, raw grey values",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": channels},
            *({"type": "space", "id": axis, "size": {"min": step, "step": step}, **scale} for axis in ("y", "x")),
        ],
        "data": {"type": contract.input_dtype},
        "test_tensor": {"source": "test_input.npy", "sha256": sha256},
    }


def _output(contract: Contract, sha256: str) -> dict[str, Any]:
    stains = [_identifier(output.name) for output in contract.outputs]
    scale = {"unit": "micrometer", "scale": contract.pixel_size_um}
    return {
        "id": "stains",
        "description": "predicted fluorescence, grey values as config.livestain.outputs says",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": stains},
            *(
                {"type": "space", "id": axis, "size": {"tensor_id": "planes", "axis_id": axis}, **scale}
                for axis in ("y", "x")
            ),
        ],
        "data": {"type": "uint16"},
        "test_tensor": {"source": "test_output.npy", "sha256": sha256},
    }


def _identifier(name: str) -> str:
    word = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_") or "stain"
    return word if word[0].isalpha() else f"stain_{word}"
