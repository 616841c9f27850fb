"""Reads BioImage.IO packages that were made elsewhere: what they declare, as a contract and a way for frames.

Only what the rig can run is read: one input, one output, images in the plane, ONNX weights. What the package does
not say stays unsaid in the contract, and is warned of; what it says and we cannot do is refused with the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from livestain_models._described import Description, Parameterised, Reference
from livestain_models._errors import ModelError
from livestain_models._foreign_outputs import outputs_of
from livestain_models.contract import UNSAID, Contract, Planes
from livestain_models.declared import Declared
from livestain_models.processing import describe_operations, operations_in
from livestain_models.tensors import Sizes, TensorLayout

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from livestain_models._described import Axis, Tensor
    from livestain_models.processing import Operation

__all__ = ["ForeignModel", "faults_in", "read_foreign"]

_UM = {
    "micrometer": 1.0,
    "nanometer": 1e-3,
    "angstrom": 1e-4,
    "picometer": 1e-6,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
_MOST_CHANNELS = 64


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """What the description of a package made elsewhere comes to."""

    contract: Contract
    declared: Declared


def read_foreign(
    description: dict[str, Any], file: Path, weights_sha256: str, expected: np.ndarray | None
) -> ForeignModel:
    """Turn a description of format 0.5 into a contract, and into what is done to frames.

    Parameters
    ----------
    description : dict
        As YAML gives it.
    file : Path
        Its file, for errors.
    weights_sha256 : str
        Of the ONNX file that was found.
    expected : np.ndarray or None
        The package's test output. It sets the grey scale where the package does not say what values to expect.

    Returns
    -------
    ForeignModel

    Raises
    ------
    ModelError
        The description is broken, or asks for what the rig cannot do.
    """
    try:
        read = Description.model_validate(description)
        return _assembled(read, description, file, weights_sha256, expected)
    except ValidationError as error:
        raise ModelError(f"{file}: {faults_in(error)}. Correct the description, or fetch the package again.") from error


def _assembled(
    read: Description, description: dict[str, Any], file: Path, weights_sha256: str, expected: np.ndarray | None
) -> ForeignModel:
    given, predicted = _only(read.inputs, "input", file), _only(read.outputs, "output", file)
    before = operations_in(given.preprocessing, given.dtype, begin=True)
    after = operations_in(predicted.postprocessing, predicted.dtype, begin=False)
    _refuse_unknown_axes(given, before, file)
    _refuse_unknown_axes(predicted, after, file)
    layout, planes = _input_layout(given, file)
    output_layout = _output_layout(predicted, file)
    rows, columns = (_sizes(given, predicted, axis, file) for axis in ("y", "x"))
    values = None if expected is None else _viewed(output_layout, expected, file)
    outputs, greys, notes = outputs_of(predicted, output_layout, after, values)
    declared = Declared(given.id or "input", layout, output_layout, rows, columns, before, after, greys)
    pixel_um, pixel_note = _pixel_size_um(given)
    contract = Contract(
        id=_model_id(read),
        version=str(read.version if read.version is not None else "0"),
        pixel_size_um=pixel_um,
        contrast=None,
        planes=planes,
        outputs=outputs,
        multiple_px=max(rows.step_px, columns.step_px),
        halo_px=None if rows.halo_px is None or columns.halo_px is None else max(rows.halo_px, columns.halo_px),
        input_dtype=given.dtype,  # type: ignore[arg-type] # the same names
        normalisation=f"as the package declares: {describe_operations(before)}",
        weights_sha256=weights_sha256,
        foreign=True,
        notes=(*pixel_note, *_plane_notes(given, planes), *_range_notes(given, before), *notes),
        training_data=_training_data(description),
        intended_use=read.description or UNSAID,
        limitations=_limits(description),
    )
    return ForeignModel(contract, declared)


def faults_in(error: ValidationError) -> str:
    """Say in one line what pydantic found, and what was written."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or fault['input']}: {fault['msg']} (got {_short(fault['input'])})"
        for fault in error.errors()[:5]
    )


def _short(value: Any) -> str:
    # Not repr of everything: what a stranger wrote may be long.
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}..."


def _only(tensors: tuple[Tensor, ...], what: str, file: Path) -> Tensor:
    needed = [tensor for tensor in tensors if not tensor.optional]
    if len(tensors) != 1:
        raise ModelError(
            f"{file}: the model has {len(tensors)} {what}s ({', '.join(str(tensor.id) for tensor in tensors)}; "
            f"{len(needed)} of them needed); the rig runs models with one. Export it again with the planes or "
            "stains stacked along the channel axis."
        )
    return tensors[0]


def _refuse_unknown_axes(tensor: Tensor, operations: tuple[Operation, ...], file: Path) -> None:
    there = [axis.name for axis in tensor.axes]
    if len(set(there)) < len(there):
        raise ModelError(f"{file}: {tensor.id} names an axis twice: {', '.join(there)}. Correct the description.")
    for operation in operations:
        if unknown := [axis for axis in operation.axes_named() if axis not in {*there, "batch", "channel"}]:
            raise ModelError(
                f"{file}: {operation.id} works along {', '.join(unknown)}, but {tensor.id} has the axes "
                f"{', '.join(there)}. Correct the description."
            )


def _input_layout(tensor: Tensor, file: Path) -> tuple[TensorLayout, Planes]:
    _check_plane_axes(tensor, file)
    deep = [axis for axis in tensor.axes if axis.name not in {"batch", "y", "x"} and axis.count != 1]
    if not deep:
        return TensorLayout(tuple(axis.name for axis in tensor.axes), None), Planes()
    if len(deep) > 1 or deep[0].name not in {"channel", "z"} or deep[0].count is None:
        raise ModelError(
            f"{file}: the input's axes {', '.join(f'{axis.name} ({_size_text(axis)})' for axis in deep)} hold "
            "more than one stack of planes of a known number; the rig feeds one focal plane, or a stack along z "
            "or the channel axis. Take a 2D model, or export this one with a fixed number of planes."
        )
    (axis,) = deep
    count = axis.count
    if count is None or count > _MOST_CHANNELS:
        raise ModelError(f"{file}: the input has {count} planes along {axis.name}; at most {_MOST_CHANNELS} are fed.")
    spacing_um = axis.scale * _UM[axis.unit] if axis.name == "z" and axis.unit in _UM else None
    planes = Planes(count=count, spacing_um=spacing_um, stated=spacing_um is not None)
    return TensorLayout(tuple(axis.name for axis in tensor.axes), axis.name), planes


def _output_layout(tensor: Tensor, file: Path) -> TensorLayout:
    _check_plane_axes(tensor, file)
    deep = [axis for axis in tensor.axes if axis.name not in {"batch", "channel", "y", "x"} and axis.count != 1]
    if deep:
        raise ModelError(
            f"{file}: the output has the axes {', '.join(axis.name for axis in tensor.axes)}: a stack or a series "
            f"along {', '.join(axis.name for axis in deep)}, but the rig stores one image of each stain. Take a "
            "model that predicts in the plane, or export this one for one plane."
        )
    channels = tensor.axis("channel")
    if channels is not None and not 1 <= len(channels.channel_names) <= _MOST_CHANNELS:
        raise ModelError(
            f"{file}: the output's channel axis names {len(channels.channel_names)} channels; 1 to "
            f"{_MOST_CHANNELS} can be stored. Correct channel_names."
        )
    return TensorLayout(tuple(axis.name for axis in tensor.axes), "channel" if channels is not None else None)


def _check_plane_axes(tensor: Tensor, file: Path) -> None:
    names = [axis.name for axis in tensor.axes]
    if not {"y", "x"} <= set(names):
        raise ModelError(f"{file}: {tensor.id} has the axes {', '.join(names)}; an image needs y and x.")


def _size_text(axis: Axis) -> str:
    return str(axis.count) if axis.count is not None else "any size"


def _sizes(given: Tensor, predicted: Tensor, name: str, file: Path) -> Sizes:
    """Read which sizes the graph takes along y or x, once the output was found to have the same."""
    axis, out = given.axis(name), predicted.axis(name)
    assert axis is not None  # noqa: S101 - both were looked for above
    assert out is not None  # noqa: S101
    _check_same_size(given, axis, out, file)
    halo_px = out.halo or None
    size: Any = axis.size
    if isinstance(size, Reference):
        other = given.axis(size.axis_id)
        if size.tensor_id != (given.id or "input") or other is None or not isinstance(other.size, int):
            raise ModelError(
                f"{file}: the input's {name} depends on {size.tensor_id}.{size.axis_id}; the rig needs a size of "
                "its own. Write it as {min, step} or as a number."
            )
        size = int(other.size * other.scale / axis.scale + size.offset)
    if isinstance(size, int):
        if halo_px is not None and 2 * halo_px >= size:
            raise ModelError(f"{file}: a halo of {halo_px} px on both sides leaves nothing of {size} px along {name}.")
        return Sizes.fixed(size, halo_px)
    if not isinstance(size, Parameterised):
        raise ModelError(f"{file}: the input's {name} has no size. Write it as {{min, step}} or as a number.")
    return Sizes(size.min, size.step, None, halo_px)


def _check_same_size(given: Tensor, axis: Axis, out: Axis, file: Path) -> None:
    said = f"{file}: along {axis.name} the output "
    remedy = "The rig stores predictions pixel for pixel with the camera; export the model so that sizes agree."
    if isinstance(out.size, int):
        if out.size != axis.size:
            raise ModelError(f"{said}has {out.size} px where the input has {_size_text(axis)}. {remedy}")
        return
    if not isinstance(out.size, Reference) or out.size.tensor_id != (given.id or "input"):
        raise ModelError(f"{said}has a size that is known only afterwards. {remedy}")
    if out.size.axis_id not in {axis.name, axis.id}:
        raise ModelError(f"{said}is as long as {out.size.axis_id} of the input. {remedy}")
    if abs(out.scale / axis.scale - 1.0) > 1e-6:
        raise ModelError(f"{said}has pixels {out.scale / axis.scale:g} times as large as the input's. {remedy}")
    if out.size.offset != 0:
        raise ModelError(f"{said}is {out.size.offset:+d} px longer than the input. {remedy}")


def _viewed(layout: TensorLayout, expected: np.ndarray, file: Path) -> np.ndarray:
    if expected.ndim != len(layout.axes):
        raise ModelError(
            f"{file}: the test output has shape {expected.shape}, described are the axes {', '.join(layout.axes)}. "
            "Fetch the package again."
        )
    return layout.view(expected)


def _pixel_size_um(tensor: Tensor) -> tuple[float | None, tuple[str, ...]]:
    sizes = [axis.scale * _UM[axis.unit] for axis in tensor.axes if axis.name in {"y", "x"} and axis.unit in _UM]
    if len(sizes) < 2:
        return None, ()
    if max(sizes) > 1.01 * min(sizes):
        return None, (
            f"its pixels are not square ({sizes[0]:g} x {sizes[1]:g} um), so no camera's size is held against them",
        )
    return sizes[0], ()


def _plane_notes(tensor: Tensor, planes: Planes) -> tuple[str, ...]:
    if planes.count == 1 or planes.stated:
        return ()
    channels = tensor.axis("channel")
    names = f" ({', '.join(map(str, channels.channel_names))})" if channels and len(channels.channel_names) > 1 else ""
    return (f"its {planes.count} input channels{names} are fed with focal planes in rising order, spacing unsaid",)


def _range_notes(tensor: Tensor, before: tuple[Operation, ...]) -> tuple[str, ...]:
    """Warn where the package expects values that no camera gives, and does not scale to them itself."""
    high = tensor.data_of(0).ends[1]
    measures = any(operation.id in {"zero_mean_unit_variance", "scale_range"} for operation in before)
    if high is None or high > 255 or measures or tensor.dtype == "uint8":
        return ()
    return (f"its input is to lie below {high:g}, but no step scales to that: camera grey values go in as they are",)


def _model_id(read: Description) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", read.id or read.name).strip("-._")
    return name[:80] or "unnamed"


def _training_data(description: dict[str, Any]) -> str:
    data = description.get("training_data")
    if isinstance(data, dict):
        return str(data.get("id") or data.get("name") or UNSAID)[:200]
    return UNSAID


def _limits(description: dict[str, Any]) -> str:
    tree: Any = description
    for key in ("config", "bioimageio", "bias_risks_limitations", "limitations"):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree[:2000] if isinstance(tree, str) and tree else UNSAID
