"""Cuts an OpenVINO graph around its network: grey values before and after it on their own, convolutions between.

Asked for bfloat16, OpenVINO rounds everything up to the last convolution's answer to its 8 bits. Camera frames first:
one part in 250, where a cell differs from the medium by a few in a hundred. Stains last: above grey level 32768 they
would go in steps of 256. Cut in three, the first and the last part stay in fp32.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cut_around_network"]

_CONVOLUTIONS = frozenset(
    {"Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData"}
)
# Behind them a grey value is still one: they change type, order or shape.
_GREY_STILL = frozenset(
    {
        "Concat",
        "Convert",
        "Gather",
        "Pad",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "StridedSlice",
        "Transpose",
        "Unsqueeze",
        "VariadicSplit",
    }
)


def cut_around_network(ov: Any, model: Any) -> tuple[Any, Any, Any] | None:
    """Cut a graph of fixed shape where its convolutions begin, and before the last of them.

    Convolutions that take grey values themselves belong to what comes before.

    Parameters
    ----------
    ov : module
        openvino.
    model : openvino.Model
        One input; it is taken apart.

    Returns
    -------
    tuple of openvino.Model or None
        What comes before, the network, and its last convolutions with all that follows. The inputs of each are the
        outputs of the one before, in the same order. None if nothing is left for the network.
    """
    folding = importlib.import_module("openvino.passes")  # shapes that are computed become numbers, and are not cut
    manager = folding.Manager()
    manager.register_pass(folding.ConstantFolding())
    manager.run_passes(model)
    network, last = _network(model), _last(model)
    if network <= last:
        return None
    before, rest = _cut(ov, model, network, None)
    return before, *_cut(ov, rest, last, "bf16")


def _cut(ov: Any, model: Any, behind: set[str], handed_on: str | None) -> tuple[Any, Any]:
    """Make two models of one: ``behind`` is the second. Reals that were computed are handed on in the given type."""
    operators = importlib.import_module("openvino.opset13")
    fixed = _fixed(model)
    crossing: dict[tuple[str, int], tuple[Any, list[Any]]] = {}
    for node in model.get_ordered_ops():
        if node.get_friendly_name() not in behind:
            continue
        for port in node.inputs():
            source = port.get_source_output()
            name = source.get_node().get_friendly_name()
            if name not in behind and name not in fixed:
                crossing.setdefault((name, source.get_index()), (source, []))[1].append(port)
    results, parameters = [], []
    for source, ports in crossing.values():
        computed = source.get_node().get_type_name() != "Parameter" and source.get_element_type() == ov.Type.f32
        given = operators.convert(source, handed_on).output(0) if handed_on and computed else source
        parameter = operators.parameter(given.get_shape(), given.get_element_type())
        taken = parameter if given is source else operators.convert(parameter, source.get_element_type())
        for port in ports:
            port.replace_source_output(taken.output(0))
        results.append(operators.result(given))
        parameters.append(parameter)
    return ov.Model(results, model.get_parameters(), "first"), ov.Model(model.get_results(), parameters, "second")


def _network(model: Any) -> set[str]:
    """Name the first convolutions that take no grey values, and all that follows them."""
    grey = {parameter.get_friendly_name() for parameter in model.get_parameters()}
    found: set[str] = set()
    for node in model.get_ordered_ops():
        name, kind, sources = node.get_friendly_name(), node.get_type_name(), list(_sources(node))
        if kind in _GREY_STILL and grey.intersection(sources):
            grey.add(name)
        if found.intersection(sources) or (kind in _CONVOLUTIONS and sources[0] not in grey):
            found.add(name)
    return found


def _last(model: Any) -> set[str]:
    """Name the convolutions behind which there is none, and all that follows them."""
    to_come: set[str] = set()  # nodes with a convolution behind them
    last: set[str] = set()
    for node in reversed(model.get_ordered_ops()):
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind in _CONVOLUTIONS and name not in to_come:
            last.add(name)
        if kind in _CONVOLUTIONS or name in to_come:
            to_come.update(_sources(node))
    for node in model.get_ordered_ops():
        if last.intersection(_sources(node)):
            last.add(node.get_friendly_name())
    return last


def _fixed(model: Any) -> set[str]:
    """Name the nodes that depend on no input: weights, and what is made of them."""
    found: set[str] = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Parameter" and found.issuperset(_sources(node)):
            found.add(node.get_friendly_name())
    return found


def _sources(node: Any) -> Iterator[str]:
    return (port.get_source_output().get_node().get_friendly_name() for port in node.inputs())
