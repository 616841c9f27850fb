"""Looks into an ONNX file, without the onnx package: all weights must lie inside, where its hash covers them.

An ONNX file may name other files that hold its weights; onnxruntime would open them relative to wherever the
process happens to run. This walks the file's protocol buffer by the field numbers of onnx.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestain_models._errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["refuse_weights_outside"]

# message -> {field number: the message it holds}, only where a tensor may lie below. Source: onnx/onnx.proto.
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def refuse_weights_outside(content: bytes, label: str) -> None:
    """Refuse an ONNX file that keeps weights in other files.

    Parameters
    ----------
    content : bytes
        The file.
    label : str
        How errors name it.

    Raises
    ------
    ModelError
        Some weights lie outside, or the file ends early or is not ONNX at all.
    """
    try:
        outside = _is_outside(memoryview(content), "Model")
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{label} cannot be read as ONNX ({len(content)} bytes): {error}. The file is truncated or another kind "
            "of file: fetch or export it again."
        ) from error
    if outside:
        raise ModelError(
            f"{label} keeps weights in a second file, which no hash covers. Save it again with all weights inside: "
            "onnx.save(onnx.load(old), new)."
        )


def _is_outside(message: memoryview, kind: str) -> bool:
    for field, value in _fields(message):
        if kind == "Tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value == 1)):
            return True
        inner = _MESSAGES[kind].get(field)
        if inner and isinstance(value, memoryview) and _is_outside(value, inner):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Yield (field number, number or bytes) of one message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            number, at = _varint(message, at)
            yield field, number
        elif wire == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError(f"a field of {length} bytes does not fit into the rest of the file")
            yield field, message[at : at + length]
            at += length
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
            yield field, None
        else:
            raise ValueError(f"wire type {wire} is not one that ONNX uses")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it ends in the middle of a number")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("a number has more than ten bytes")
