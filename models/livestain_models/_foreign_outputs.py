"""Which stains a package made elsewhere predicts, and which of its values are black and white on disk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import numpy as np

from livestain_models.contract import Output
from livestain_models.processing import Binarize, Clip, EnsureDtype, Sigmoid, Softmax

if TYPE_CHECKING:
    from livestain_models._described import Data, Tensor
    from livestain_models.processing import Operation
    from livestain_models.tensors import TensorLayout

__all__ = ["outputs_of"]

_COLORS = ("00FF00", "FF00FF", "00BFFF", "FFB300", "FF4040", "FFFF00")


def outputs_of(
    tensor: Tensor, layout: TensorLayout, after: tuple[Operation, ...], expected: np.ndarray | None
) -> tuple[tuple[Output, ...], bool, tuple[str, ...]]:
    """Describe the predicted channels: names, and which values are black and white.

    Parameters
    ----------
    tensor : Tensor
        The described output.
    layout : TensorLayout
        Its axes.
    after : tuple of Operation
        What is done to it.
    expected : np.ndarray or None
        (C, H, W), the package's test output; sets the scale where nothing else does.

    Returns
    -------
    tuple
        The outputs, whether they are whole numbers that are stored as they are, and what had to be assumed.
    """
    axis = tensor.axis("channel") if layout.planes is not None else None
    names = [str(name) for name in axis.channel_names] if axis is not None else [tensor.id or "output"]
    if len(names) == 1 and re.fullmatch(r"(channel|c)?_?\d*", names[0]):
        names = [tensor.id or "output"]
    if after[-1].id != "binarize" and _final_dtype(after)[0] in "ui":
        return tuple(_grey_output(name, k, tensor) for k, name in enumerate(names)), True, ()
    outputs, notes = [], []
    for k, name in enumerate(names):
        output, note = _real_output(name, k, tensor, after, expected)
        outputs.append(output)
        notes += [note] if note else []
    return tuple(outputs), False, tuple(notes)


def _final_dtype(after: tuple[Operation, ...]) -> str:
    last = after[-1]
    return last.dtype if isinstance(last, EnsureDtype) else "bool"


def _color(k: int) -> str:
    return _COLORS[k % len(_COLORS)]


def _grey_output(name: str, k: int, tensor: Tensor) -> Output:
    values = tensor.data_of(k).values
    labels = f": {', '.join(map(str, values[:8]))}" if values else ""
    return Output(
        name=name,
        meaning=f"whole numbers as the model gives them{labels}",
        color=_color(k),
        full_scale=65535.0,
        unit=tensor.data_of(k).unit or "1",
    )


def _real_output(
    name: str, k: int, tensor: Tensor, after: tuple[Operation, ...], expected: np.ndarray | None
) -> tuple[Output, str | None]:
    low, high = _ends(tensor.data_of(k), after)
    note = None
    if low is None or high is None:
        low, high, note = _guessed(name, low, high, None if expected is None else expected[k])
    is_share = isinstance(_last_but_cast(after), Sigmoid | Softmax)
    unit = "1" if is_share else (tensor.data_of(k).unit or "arbitrary unit")
    meaning = f"{'probability' if is_share else 'value'} that the model gives; black = {low:g}, 65535 = {high:g}"
    meaning += "" if unit == "1" else f" {unit}"
    if note:
        meaning += " (the range of the package's test output, since it states none; what lies beyond is cut off)"
    kind: Literal["stain", "class"] = "class" if is_share else "stain"
    return Output(name=name, meaning=meaning, color=_color(k), kind=kind, full_scale=high, zero=low, unit=unit), note


def _last_but_cast(after: tuple[Operation, ...]) -> Operation | None:
    return next((operation for operation in reversed(after) if not isinstance(operation, EnsureDtype)), None)


def _ends(data: Data, after: tuple[Operation, ...]) -> tuple[float | None, float | None]:
    """Give the smallest and the largest value that can occur, None for what is not said."""
    last = _last_but_cast(after)
    if isinstance(last, Sigmoid | Softmax | Binarize) or _final_dtype(after) == "bool":
        return 0.0, 1.0
    low, high = data.ends
    if isinstance(last, Clip):
        low, high = (last.min if low is None else low), (last.max if high is None else high)
    return (low, high) if low is None or high is None or low < high else (None, None)


def _guessed(name: str, low: float | None, high: float | None, expected: np.ndarray | None) -> tuple[float, float, str]:
    finite = np.zeros(0) if expected is None else expected[np.isfinite(expected)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    low = min(least, 0.0) if low is None else low
    high = max(most, low) if high is None else high
    if not high > low:
        high = low + 1.0
    return low, high, f"the range of {name} is not stated; black is {low:g} and white is {high:g}, from its test output"
