"""Brings a BioImage.IO description of format 0.4 to the form of 0.5, as far as the rig uses it.

References
----------
https://github.com/bioimage-io/spec-bioimage-io, model description 0.4 and its conversion to 0.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livestain_models._errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["as_0_5"]

_TYPES = {"b": "batch", "c": "channel", "i": "index", "t": "time", "z": "space", "y": "space", "x": "space"}
_IDS = {"b": "batch", "c": "channel", "i": "index", "t": "time"}


def as_0_5(description: dict[str, Any], file: Path) -> dict[str, Any]:
    """Convert a description of format 0.4.

    Parameters
    ----------
    description : dict
        As YAML gives it; left as it is.
    file : Path
        For errors.

    Returns
    -------
    dict
        The same in format 0.5: inputs, outputs and weights; everything else unchanged.

    Raises
    ------
    ModelError
        A tensor has no axes or shape, or they do not fit.
    """
    converted = dict(description)
    inputs, outputs = (_listed(description, side) for side in ("inputs", "outputs"))
    sizes = {str(tensor.get("name")): _first_sizes(tensor) for tensor in inputs}
    try:
        converted["inputs"] = [
            _tensor(tensor, source, "preprocessing", sizes, as_float=True)
            for tensor, source in _with_tests(inputs, description.get("test_inputs"))
        ]
        converted["outputs"] = [
            _tensor(tensor, source, "postprocessing", sizes, as_float=False)
            for tensor, source in _with_tests(outputs, description.get("test_outputs"))
        ]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
        raise ModelError(
            f"{file}: a tensor of this 0.4 description is broken ({type(error).__name__}: {error}). Correct axes, "
            "shape and processing, or convert the package to format 0.5."
        ) from error
    return converted


def _listed(description: dict[str, Any], side: str) -> list[dict[str, Any]]:
    tensors = description.get(side)
    return [tensor for tensor in tensors if isinstance(tensor, dict)] if isinstance(tensors, list) else []


def _with_tests(tensors: list[dict[str, Any]], sources: Any) -> list[tuple[dict[str, Any], Any]]:
    sources = sources if isinstance(sources, list) else []
    return [(tensor, sources[i] if i < len(sources) else None) for i, tensor in enumerate(tensors)]


def _first_sizes(tensor: dict[str, Any]) -> dict[str, int]:
    shape = tensor.get("shape")
    least = shape.get("min") if isinstance(shape, dict) else shape
    if not isinstance(least, list):
        return {}
    return {axis: size for axis, size in zip(str(tensor.get("axes")), least, strict=False) if isinstance(size, int)}


def _tensor(
    tensor: dict[str, Any], test_tensor: Any, steps: str, sizes: dict[str, dict[str, int]], *, as_float: bool
) -> dict[str, Any]:
    letters = "".join(tensor["axes"])
    halo = tensor.get("halo") or [0] * len(letters)
    axes = [_axis(letters, i, tensor["shape"], halo[i], sizes) for i in range(len(letters))]
    low, high = tensor.get("data_range") or (None, None)
    processing = [_step(step, letters) for step in tensor.get(steps) or ()]
    if as_float:  # format 0.4 took it for granted that networks eat float32
        processing.append({"id": "ensure_dtype", "kwargs": {"dtype": "float32"}})
    return {
        "id": str(tensor["name"]),
        "axes": axes,
        "data": {"type": tensor.get("data_type", "float32"), "range": (low, high)},
        "test_tensor": None if test_tensor is None else {"source": test_tensor},
        steps: processing,
    }


def _axis(letters: str, i: int, shape: Any, halo: int, sizes: dict[str, dict[str, int]]) -> dict[str, Any]:
    letter = letters[i]
    kind = _TYPES[letter]
    axis: dict[str, Any] = {"type": kind, "id": _IDS.get(letter, letter)}
    size, scale = _size(letters, i, shape, sizes)
    if kind == "channel":
        axis["channel_names"] = [f"channel{k}" for k in range(size if isinstance(size, int) else 0)]
    elif kind != "batch":
        axis |= {"size": size, "scale": scale, "halo": halo}
    return axis


def _size(letters: str, i: int, shape: Any, sizes: dict[str, dict[str, int]]) -> tuple[Any, float]:
    """Give a size in the form of 0.5, and the pixel size that says how much finer or coarser an output is."""
    if isinstance(shape, list):
        return int(shape[i]), 1.0
    if "min" in shape:
        least, step = shape["min"][i], shape["step"][i]
        return (least if step == 0 else {"min": least, "step": step}), 1.0
    reference, offset = shape["reference_tensor"], int(2 * shape["offset"][i])
    scale = shape["scale"][i]
    if not scale:  # an axis that the input does not have
        return offset, 1.0
    letter = letters[i]
    if letter == "c":
        return int(scale * sizes.get(reference, {}).get("c", 1) + offset), 1.0
    return {"tensor_id": reference, "axis_id": _IDS.get(letter, letter), "offset": offset}, 1.0 / scale


def _step(step: dict[str, Any], letters: str) -> dict[str, Any]:
    name, kwargs = step["name"], dict(step.get("kwargs") or {})
    mode = kwargs.pop("mode", "fixed" if name == "zero_mean_unit_variance" else None)
    axes = kwargs.get("axes")
    if name == "zero_mean_unit_variance" and mode == "fixed":
        kwargs.pop("eps", None)
        name = "fixed_zero_mean_unit_variance"
    if name in {"fixed_zero_mean_unit_variance", "scale_linear"}:
        # 0.4 names the axes that share a number, 0.5 the one along which numbers differ.
        kwargs.pop("axes", None)
        alone = [letter for letter in letters if axes is not None and letter not in {*axes, "b"}]
        if len(alone) > 1:
            raise ValueError(f"{name} leaves the axes {', '.join(alone)} open; one may have numbers of its own")
        if alone:
            kwargs["axis"] = _IDS.get(alone[0], alone[0])
    elif axes is not None:
        kwargs["axes"] = [_IDS.get(letter, letter) for letter in axes]
    return {"id": name, "kwargs": kwargs}
