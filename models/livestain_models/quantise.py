"""The same network in fp16 or int8: its convolutions and what lies between them, never the grey values.

Grey values go up to 65535 and fp16 ends at 65504, so everything before the first convolution (the cast from uint16,
normalisation) and behind the last one (heads, rounding to grey levels) stays in fp32. So does a convolution that takes
the grey values themselves, as the stem of the fast network does to unfold and to average them. Both graphs keep their
metadata and their free height and width, and run on any provider; whether they are faster there is to be measured.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from livestain_models._errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["to_fp16", "to_int8"]

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
# Behind them a grey value is still one: they change type, order or shape.
_GREY_STILL = frozenset(
    {
        "Cast",
        "Concat",
        "Gather",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
# They give a type of their own, or hold graphs of their own: left in fp32, with casts around them.
_LEFT_ALONE = frozenset({"Cast", "ConstantOfShape", "If", "Loop", "Range", "Scan", "Shape"})
# The last convolutions of a network are cheap and decide most of the difference: with the last one in fp32 the mean
# difference of nuclei-demo is 141 grey levels, with the last two it is 30.
_LEFT_AT_THE_END = 2
# Inputs that the ONNX standard wants in fp32, whatever the type of the tensor.
_ALWAYS_FP32 = {"Resize": (1, 2)}


def to_fp16(onnx_in: Path, onnx_out: Path) -> None:
    """Write a graph whose convolutions and all that lies between them are in fp16.

    Parameters
    ----------
    onnx_in, onnx_out : Path
        An exported graph in fp32; where the new one goes.

    Raises
    ------
    ModelError
        There is no convolution behind the normalisation, or a weight is too large for fp16.
    """
    model = _inferred(onnx_in)
    graph = model.graph
    floats = _float_tensors(graph)
    island = [node for node in _between_convolutions(graph) if node.op_type not in _LEFT_ALONE]
    if not island:
        raise ModelError(f"{onnx_in} has no convolution behind its normalisation, so nothing to put into fp16.")
    made = {name for node in island for name in node.output if name in floats}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    casts: list[onnx.NodeProto] = []
    halved: dict[str, str] = {}
    for node in island:
        for i, name in enumerate(node.input):
            if name not in floats or name in made or i in _ALWAYS_FP32.get(node.op_type, ()):
                continue
            if name not in halved:
                halved[name] = f"{name}_fp16"
                if name in constants:
                    graph.initializer.append(_as_fp16(constants[name], halved[name], onnx_in))
                else:
                    casts.append(_cast(name, halved[name], TensorProto.FLOAT16))
            node.input[i] = halved[name]
    casts += _casts_back(graph, island, made)
    _replace_nodes(graph, [*graph.node, *casts])
    _drop_unused(graph)
    del graph.value_info[:]  # types changed; whoever opens the file infers them again
    _save(model, onnx_out)


def to_int8(onnx_in: Path, onnx_out: Path, calibration: Iterable[np.ndarray]) -> None:
    """Write a graph whose convolutions run in int8 where the runtime can.

    Static quantisation with ranges from calibration frames: weights per channel and 7 bits wide, so that
    processors without VNNI add them up without overflow and give the same; activations per tensor. The last
    two convolutions stay in fp32, since their 255 levels would be those of the stain. What a frame holds beyond
    the calibration frames (dust, another contrast) is cut off inside the network: there the difference to fp32
    may be large.

    Parameters
    ----------
    onnx_in, onnx_out : Path
        An exported graph in fp32; where the new one goes.
    calibration : iterable of np.ndarray
        (1, P, H, W) uint16 frames as those the model will see, 10 to 50 of them, cells included.

    Raises
    ------
    ModelError
        There are fewer than three convolutions in a row, or no frame to calibrate with.

    References
    ----------
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = _inferred(onnx_in)
    chosen = _inner_convolutions(model.graph)
    if not chosen:
        raise ModelError(f"{onnx_in} has no three convolutions in a row, so there is nothing to put into int8.")
    given = iter(calibration)
    first = next(given, None)
    if first is None:
        raise ModelError("no frame was given to calibrate with; give 10 to 50 of them.")
    frames = _Frames(model.graph.input[0].name, itertools.chain([first], given))
    onnx_out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        named, quantised = Path(folder) / "named.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, named)
        with _without_advice():
            quantize_static(
                named,
                quantised,
                frames,
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=chosen,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        result = onnx.load(quantised)
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    _save(result, onnx_out)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    # It advises, on the root logger, to run the shape inference that the graph has been through already.
    logger = logging.getLogger()
    logger.addFilter(_is_no_advice)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()


class _Frames:
    """Calibration frames in the form that onnxruntime asks for."""

    def __init__(self, name: str, frames: Iterable[np.ndarray]) -> None:
        self._name = name
        self._frames = iter(frames)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Give the next frame, or None at the end."""
        frame = next(self._frames, None)
        return None if frame is None else {self._name: frame}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(self.get_next, None)


def _inferred(file: Path) -> Any:
    """Load a graph, every node named and every tensor's type known."""
    model = onnx.shape_inference.infer_shapes(onnx.load(file))
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{i}"
    return model


def _float_tensors(graph: Any) -> set[str]:
    typed = [*graph.input, *graph.output, *graph.value_info]
    floats = {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return floats | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _between_convolutions(graph: Any) -> list[Any]:
    """Give the nodes that lie on a way from a convolution to a convolution, both ends included; in order."""
    chosen = _convolutions(graph)
    behind = _reached([*graph.node], chosen, lambda node: node.input, lambda node: node.output)
    before = _reached([*reversed(graph.node)], chosen, lambda node: node.output, lambda node: node.input)
    return [node for node in graph.node if node.name in behind and node.name in before]


def _inner_convolutions(graph: Any) -> list[str]:
    """Name the convolutions with at least two more on every way from them to the output."""
    of_the_network = _convolutions(graph)
    fewest = {value.name: 0 for value in graph.output}  # convolutions still to come, by tensor
    chosen = []
    for node in reversed(graph.node):
        to_come = min((fewest[name] for name in node.output if name in fewest), default=None)
        if to_come is None:  # leads nowhere
            continue
        is_convolution = node.name in of_the_network
        if is_convolution and to_come >= _LEFT_AT_THE_END:
            chosen.append(node.name)
        for name in node.input:
            fewest[name] = min(fewest.get(name, to_come + is_convolution), to_come + is_convolution)
    return chosen


def _convolutions(graph: Any) -> set[str]:
    """Name the convolutions that take what the network made, and not the grey values themselves."""
    grey = {value.name for value in graph.input}
    for node in graph.node:  # in the order in which they are computed
        if node.op_type in _GREY_STILL and grey.intersection(node.input):
            grey.update(node.output)
    return {node.name for node in graph.node if node.op_type in _CONVOLUTIONS and node.input[0] not in grey}


def _reached(nodes: list[Any], convolutions: set[str], entries: Any, exits: Any) -> set[str]:
    """Name the convolutions and all nodes that follow one, in the order given."""
    tensors: set[str] = set()
    found: set[str] = set()
    for node in nodes:
        if node.name in convolutions or tensors.intersection(entries(node)):
            found.add(node.name)
            tensors.update(exits(node))
    return found


def _as_fp16(tensor: Any, name: str, file: Path) -> Any:
    values = numpy_helper.to_array(tensor)
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise ModelError(
            f"{file}: the weights {tensor.name!r} go up to {np.abs(values).max():g}, which fp16 cannot hold."
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _casts_back(graph: Any, island: list[Any], made: set[str]) -> list[Any]:
    """Give what is outside the island, and the graph's outputs, its tensors in fp32 again."""
    inside = {node.name for node in island}
    outputs = {value.name for value in graph.output}
    wanted = {name for node in graph.node if node.name not in inside for name in node.input} | outputs
    back = {name: f"{name}_fp16" for name in made & wanted}
    for node in island:
        # Inside, the tensor goes by a new name; outside, the old name stands for its fp32 copy.
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = back.get(name, name)
    return [_cast(half, name, TensorProto.FLOAT) for name, half in back.items()]


def _cast(source: str, target: str, dtype: int) -> Any:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=dtype)


def _replace_nodes(graph: Any, nodes: list[Any]) -> None:
    """Put nodes in an order in which every tensor is made before it is used, as ONNX wants it."""
    known = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input} | {""}
    waiting, ordered = list(nodes), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise ModelError("the graph uses a tensor that nothing makes; export it again.")
        for node in ready:
            known.update(node.output)
        ordered += ready
        done = {id(node) for node in ready}
        waiting = [node for node in waiting if id(node) not in done]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def _save(model: Any, file: Path) -> None:
    onnx.checker.check_model(model, full_check=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file)
