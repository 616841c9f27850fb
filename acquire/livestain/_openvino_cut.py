"""Cuts an OpenVINO graph in front of its network: grey values and normalisation on one side, convolutions on the other.

Asked for bfloat16, OpenVINO rounds everything up to the last convolution to its 8 bits, camera frames first: one part
in 250, where a cell differs from the medium by a few in a hundred. Cut in two, the first part stays in fp32. What the
last convolution gives is still rounded: above grey level 32768 stains go in steps of 256.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cut_before_network"]

_CONVOLUTIONS = frozenset(
    {"Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData"}
)
# Behind them a grey value is still one: they change type, order or shape.
_GREY_STILL = frozenset(
    {"Concat", "Convert", "Pad", "Reshape", "Slice", "SpaceToDepth", "Split", "StridedSlice", "Transpose"}
)


def cut_before_network(ov: Any, model: Any) -> tuple[Any, Any] | None:
    """Cut a graph of fixed shape where its convolutions begin; those that take grey values themselves do not count.

    Parameters
    ----------
    ov : module
        openvino.
    model : openvino.Model
        One input; it is taken apart.

    Returns
    -------
    tuple of openvino.Model or None
        What comes before, and the network, whose inputs are the outputs of the first, in the same order. None if
        there is no network.
    """
    folding = importlib.import_module("openvino.passes")  # shapes that are computed become numbers, and are not cut
    manager = folding.Manager()
    manager.register_pass(folding.ConstantFolding())
    manager.run_passes(model)
    network = _network(model)
    fixed = _fixed(model)
    crossing: dict[tuple[str, int], tuple[Any, list[Any]]] = {}
    for node in model.get_ordered_ops():
        if node.get_friendly_name() not in network:
            continue
        for port in node.inputs():
            source = port.get_source_output()
            name = source.get_node().get_friendly_name()
            if name not in network and name not in fixed:
                crossing.setdefault((name, source.get_index()), (source, []))[1].append(port)
    if not crossing:
        return None
    operators = importlib.import_module("openvino.opset13")
    given = []
    for source, ports in crossing.values():
        parameter = operators.parameter(source.get_shape(), source.get_element_type())
        given.append(parameter)
        for port in ports:
            port.replace_source_output(parameter.output(0))
    results = [operators.result(source) for source, _ in crossing.values()]
    return ov.Model(results, model.get_parameters(), "before"), ov.Model(model.get_results(), given, "network")


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


def _fixed(model: Any) -> set[str]:
    """Name the nodes that depend on no input: weights, and what is made of them."""
    found: set[str] = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Parameter" and found.issuperset(_sources(node)):
            found.add(node.get_friendly_name())
    return found


def _sources(node: Any) -> Iterator[str]:
    return (port.get_source_output().get_node().get_friendly_name() for port in node.inputs())
