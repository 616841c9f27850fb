"""Tiny ONNX graphs and packages that stand in for trained models; built in milliseconds with onnx.helper."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from livestain_models.contract import Contract, Output, Planes
from livestain_models.package import write_package

if TYPE_CHECKING:
    from pathlib import Path

    from livestain_models.package import Package

_IR_VERSION = 10  # what onnxruntime 1.22, the oldest we allow, still reads


def contract(**changes: Any) -> Contract:
    """A contract for one plane in and one stain out; every field can be changed."""
    fields: dict[str, Any] = {
        "id": "test-model",
        "version": "1",
        "pixel_size_um": 0.5,
        "contrast": "bright field",
        "outputs": (Output(name="Nuclei", meaning="grey value of the input"),),
        "multiple_px": 1,
        "halo_px": 0,
        "normalisation": "none",
        "training_data": "none",
        "intended_use": "tests",
        "limitations": "not a real model",
    }
    return Contract(**(fields | changes))


def identity_graph(*, planes: int = 1, dtype: int = TensorProto.UINT16) -> onnx.ModelProto:
    """(1, P, H, W) -> the same."""
    return graph(
        [helper.make_node("Identity", ["planes"], ["stains"])],
        planes,
        planes,
        dtype_in=dtype,
        dtype_out=dtype,
    )


def blur_graph() -> onnx.ModelProto:
    """3x3 binomial blur with zero padding: halo 1, and its border is unlike its interior."""
    kernel = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32).reshape(1, 1, 3, 3) / 16
    return graph(
        [
            _cast("planes", "real", TensorProto.FLOAT),
            helper.make_node("Conv", ["real", "kernel"], ["blurred"], pads=[1, 1, 1, 1]),
            helper.make_node("Round", ["blurred"], ["rounded"]),
            _cast("rounded", "stains", TensorProto.UINT16),
        ],
        constants={"kernel": kernel},
    )


def grid_graph(cell_px: int = 4) -> onnx.ModelProto:
    """Mean of every cell_px x cell_px cell, spread over the cell; right only on the grid."""
    scales = np.array([1, 1, cell_px, cell_px], np.float32)
    return graph(
        [
            _cast("planes", "real", TensorProto.FLOAT),
            helper.make_node("AveragePool", ["real"], ["mean"], kernel_shape=[cell_px] * 2, strides=[cell_px] * 2),
            helper.make_node("Resize", ["mean", "", "scales"], ["spread"], mode="nearest"),
            helper.make_node("Round", ["spread"], ["rounded"]),
            _cast("rounded", "stains", TensorProto.UINT16),
        ],
        constants={"scales": scales},
    )


def two_stains_graph(planes: int = 1) -> onnx.ModelProto:
    """First stain: the mean over planes. Second: 65535 minus it."""
    return graph(
        [
            _cast("planes", "real", TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["real", "axis"], ["mean"]),
            helper.make_node("Sub", ["top", "mean"], ["rest"]),
            helper.make_node("Concat", ["mean", "rest"], ["both"], axis=1),
            helper.make_node("Round", ["both"], ["rounded"]),
            _cast("rounded", "stains", TensorProto.UINT16),
        ],
        planes,
        2,
        constants={"axis": np.array([1], np.int64), "top": np.array(65535, np.float32)},
    )


def residual_graph() -> onnx.ModelProto:
    """First stain: the plane, with what three convolutions that are all zero add to it. Second: it, through two ones."""

    def convolution(given: str, kernel: str, result: str) -> onnx.NodeProto:
        return helper.make_node("Conv", [given, kernel], [result], pads=[1, 1, 1, 1])

    one = np.zeros((1, 1, 3, 3), np.float32)
    one[..., 1, 1] = 1
    return graph(
        [
            _cast("planes", "real", TensorProto.FLOAT),
            helper.make_node("Mul", ["real", "small"], ["normalised"]),
            convolution("normalised", "one", "first"),
            helper.make_node("Relu", ["first"], ["kept"]),
            convolution("kept", "one", "second"),
            helper.make_node("Relu", ["second"], ["deep"]),
            convolution("deep", "zero", "third"),
            helper.make_node("Add", ["normalised", "third"], ["whole"]),
            convolution("kept", "one", "early"),
            helper.make_node("Concat", ["whole", "early"], ["both"], axis=1),
            helper.make_node("Mul", ["both", "large"], ["grey"]),
            helper.make_node("Round", ["grey"], ["rounded"]),
            _cast("rounded", "stains", TensorProto.UINT16),
        ],
        stains=2,
        constants={
            "one": one,
            "zero": np.zeros_like(one),
            "small": np.array(1 / 65536, np.float32),
            "large": np.array(65536, np.float32),
        },
    )


def fragile_graph() -> onnx.ModelProto:
    """Identity, but the run fails when the first pixel of the frame is 666 (a Gather out of range)."""
    return graph(
        [
            helper.make_node("Slice", ["planes", "zeros", "ones", "axes"], ["pixel"]),
            _cast("pixel", "number", TensorProto.INT64),
            helper.make_node("Equal", ["number", "evil"], ["is_evil"]),
            _cast("is_evil", "index", TensorProto.INT64),
            helper.make_node("Gather", ["single_zero", "index"], ["zero"]),
            _cast("zero", "zero16", TensorProto.INT32),
            _cast("planes", "wide", TensorProto.INT32),
            helper.make_node("Add", ["wide", "zero16"], ["sum"]),
            _cast("sum", "stains", TensorProto.UINT16),
        ],
        constants={
            "zeros": np.zeros(4, np.int64),
            "ones": np.ones(4, np.int64),
            "axes": np.arange(4, dtype=np.int64),
            "evil": np.array(666, np.int64),
            "single_zero": np.zeros(1, np.int64),
        },
    )


def graph(
    nodes: list[onnx.NodeProto],
    planes: int = 1,
    stains: int = 1,
    *,
    dtype_in: int = TensorProto.UINT16,
    dtype_out: int = TensorProto.UINT16,
    size: tuple[Any, Any] = ("H", "W"),
    constants: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """A model with input `planes` (1, P, H, W) and output `stains` (1, C, H, W)."""
    built = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("planes", dtype_in, [1, planes, *size])],
        [helper.make_tensor_value_info("stains", dtype_out, [1, stains, *size])],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)], ir_version=_IR_VERSION)


def package(folder: Path, model: onnx.ModelProto | None = None, **changes: Any) -> Package:
    """Write a graph (identity if none is given) as a package whose test tensors are its own answer."""
    model = identity_graph() if model is None else model
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "weights.onnx")
    promise = contract(**changes)
    shape = (1, promise.planes.count, 8 * promise.multiple_px, 8 * promise.multiple_px)
    given = np.random.default_rng(0).integers(0, 65536, shape).astype(promise.input_dtype)
    return write_package(
        folder,
        promise,
        folder / "weights.onnx",
        given,
        answer(model, given),
        description="For tests.",
        card="# Test",
    )


def answer(model: onnx.ModelProto, given: np.ndarray) -> np.ndarray:
    """What onnxruntime makes of an input; zeros where the graph cannot run."""
    import onnxruntime as ort

    try:
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"planes": given})[0]
    except Exception:  # noqa: BLE001 - broken graphs are wanted too
        return np.zeros(given.shape, np.uint16)


def blur_package(folder: Path) -> Package:
    return package(folder, blur_graph(), halo_px=1)


def residual_package(folder: Path) -> Package:
    outputs = (Output(name="Whole", meaning="grey value"), Output(name="Early", meaning="grey value"))
    return package(folder, residual_graph(), outputs=outputs, halo_px=3)


def grid_package(folder: Path, cell_px: int = 4) -> Package:
    return package(folder, grid_graph(cell_px), multiple_px=cell_px, halo_px=cell_px)


def two_stains_package(folder: Path) -> Package:
    outputs = (Output(name="Nuclei", meaning="mean"), Output(name="Membrane", meaning="rest", color="FF00FF"))
    return package(folder, two_stains_graph(), outputs=outputs)


def z_stack_package(folder: Path, planes: int = 3) -> Package:
    outputs = (Output(name="Nuclei", meaning="mean"), Output(name="Membrane", meaning="rest"))
    return package(folder, two_stains_graph(planes), outputs=outputs, planes=Planes(count=planes, spacing_um=1.0))


def fragile_package(folder: Path) -> Package:
    """A model that raises on every frame whose first pixel is 666."""
    return package(folder, fragile_graph())


def _cast(source: str, target: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=dtype)


def float_graph(
    nodes: list[onnx.NodeProto],
    shape_in: list[Any],
    shape_out: list[Any] | None = None,
    *,
    dtypes: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A graph as others export it: input "x" and output "y" of any shape, float32 unless said otherwise."""
    built = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", dtypes[0], shape_in)],
        [helper.make_tensor_value_info("y", dtypes[1], shape_out or shape_in)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def doubling_graph(shape: list[Any]) -> onnx.ModelProto:
    """y = 2 x, whatever the order of the axes."""
    return float_graph([helper.make_node("Add", ["x", "x"], ["y"])], shape)


def float_blur_graph(height: Any = "H", width: Any = "W") -> onnx.ModelProto:
    """3x3 binomial blur with zero padding, float32: halo 1."""
    kernel = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32).reshape(1, 1, 3, 3) / 16
    node = helper.make_node("Conv", ["x", "kernel"], ["y"], pads=[1, 1, 1, 1])
    return float_graph([node], [1, 1, height, width], constants={"kernel": kernel})


def foreign_axes(order: str, size: Any = None, *, channels: int = 1, output: bool = False, **space: Any) -> list[Any]:
    """Axes of format 0.5 from letters, "bcyx" and the like."""
    axes: list[Any] = []
    for letter in order:
        if letter == "b":
            axes.append({"type": "batch"} if output else {"type": "batch", "size": 1})
        elif letter == "c":
            axes.append({"type": "channel", "channel_names": [f"channel{k}" for k in range(channels)]})
        elif output:
            axes.append({"type": "space", "id": letter, "size": {"tensor_id": "raw", "axis_id": letter}, **space})
        else:
            axes.append({"type": "space", "id": letter, "size": size or {"min": 8, "step": 4}, **space})
    return axes


def foreign_package(
    folder: Path,
    model: onnx.ModelProto,
    given: np.ndarray,
    expected: np.ndarray,
    *,
    inputs: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a BioImage.IO 0.5 package as others do: no word of livestain in it, float graph, processing declared."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "weights.onnx")
    np.save(folder / "in.npy", given)
    np.save(folder / "out.npy", expected)

    def entry(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}

    description: dict[str, Any] = {
        "format_version": "0.5.4",
        "type": "model",
        "name": "Nuclei of somebody 2024-11-05",
        "description": "For tests.",
        "authors": [{"name": "somebody"}],
        "license": "MIT",
        "inputs": [{"id": "raw", "axes": foreign_axes("bcyx"), "test_tensor": entry("in.npy"), **(inputs or {})}],
        "outputs": [
            {
                "id": "mask",
                "axes": foreign_axes("bcyx", output=True),
                "test_tensor": entry("out.npy"),
                **(outputs or {}),
            }
        ],
        "weights": {
            "onnx": {**entry("weights.onnx"), "opset_version": 17},
            "pytorch_state_dict": {"source": "https://example.org/w.pt", "sha256": "0" * 64},
        },
    } | changes
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    return folder
