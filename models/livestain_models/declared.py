"""What a package made elsewhere declares of its graph, and the way of a camera frame through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain_models._errors import ModelError
from livestain_models.processing import Around, run_operations

if TYPE_CHECKING:
    from livestain_models.contract import Output
    from livestain_models.processing import Operation
    from livestain_models.tensors import Sizes, TensorLayout

__all__ = ["Declared"]

_WHITE = 65535


@dataclass(frozen=True, slots=True)
class Declared:
    """Parsed once from the description; the operations themselves are pure functions.

    Parameters
    ----------
    id : str
        Of the input, for operations that refer to it.
    input_layout, output_layout : TensorLayout
        Axes of the graph's input and output.
    rows, columns : Sizes
        What heights and widths the graph takes.
    before, after : tuple of Operation
        What is done to the whole frame before the graph, and to the whole prediction behind it.
    greys : bool
        Whether the prediction is whole numbers that are stored as they are.
    """

    id: str
    input_layout: TensorLayout
    output_layout: TensorLayout
    rows: Sizes
    columns: Sizes
    before: tuple[Operation, ...]
    after: tuple[Operation, ...]
    greys: bool

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """What the graph gets to eat."""
        return np.dtype(getattr(self.before[-1], "dtype", "bool"))

    def prepare(self, planes: np.ndarray) -> np.ndarray:
        """Do to a whole frame what the package declares before its network.

        Parameters
        ----------
        planes : np.ndarray
            (P, H, W), grey values of the camera or a test input.

        Returns
        -------
        np.ndarray
            (P, H, W) in the type that the graph takes; may be `planes` itself.

        Raises
        ------
        ModelError
            The frame does not fit into the declared type, or an operation fails.
        """
        planes = np.asarray(planes, planes.dtype.newbyteorder("="))
        _refuse_cut_off(planes, self.before[0])
        return _run(self.before, planes, Around(self.input_layout, {self.id: (planes, self.input_layout)}))

    def predicted(self, raw: np.ndarray, planes: np.ndarray) -> np.ndarray:
        """Do to a whole prediction what the package declares behind its network.

        Parameters
        ----------
        raw : np.ndarray
            (C, H, W), what the graph gave.
        planes : np.ndarray
            (P, H, W), the frame as `prepare` got it.

        Returns
        -------
        np.ndarray
            (C, H, W) in the declared type.

        Raises
        ------
        ModelError
            An operation fails, or the result holds NaN or infinity.
        """
        planes = np.asarray(planes, planes.dtype.newbyteorder("="))
        raw = raw.astype(np.float32) if raw.dtype == np.float16 else raw
        values = _run(self.after, raw, Around(self.output_layout, {self.id: (planes, self.input_layout)}))
        # One sum instead of a mask: a single NaN or infinity spoils it.
        if values.dtype.kind == "f" and not np.isfinite(values.sum(dtype=np.float64)):
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise ModelError(f"the model predicts NaN or infinity in {bad} of {values.size} pixels.")
        return values

    def stains(self, values: np.ndarray, outputs: tuple[Output, ...]) -> np.ndarray:
        """Turn values in the outputs' units into grey levels; what lies outside an output's range is cut off.

        Parameters
        ----------
        values : np.ndarray
            (C, H, W), from `predicted`.
        outputs : tuple of Output
            Say which values are black and white.

        Returns
        -------
        np.ndarray
            (C, H, W) uint16.
        """
        if self.greys:
            return values.clip(0, _WHITE).astype(np.uint16)
        zero = np.array([output.zero for output in outputs], np.float32)[:, None, None]
        white = np.array([output.full_scale for output in outputs], np.float32)[:, None, None]
        greys = values.astype(np.float32)  # a copy, changed in place from here on: frames are large
        greys -= zero
        greys *= _WHITE / (white - zero)
        np.clip(np.rint(greys, out=greys), 0, _WHITE, out=greys)
        return greys.astype(np.uint16)


def _run(operations: tuple[Operation, ...], x: np.ndarray, around: Around) -> np.ndarray:
    try:
        return run_operations(operations, x, around)
    except (ValueError, TypeError, MemoryError) as error:
        steps = ", ".join(operation.id for operation in operations)
        raise ModelError(f"the package's processing ({steps}) fails on a {x.shape} {x.dtype} frame: {error}") from error


def _refuse_cut_off(planes: np.ndarray, first: Operation) -> None:
    """Refuse a frame that the package's own type cannot hold: the cast would fold bright pixels to dark ones."""
    dtype = np.dtype(getattr(first, "dtype", planes.dtype))
    if planes.dtype.kind != "u" or dtype.kind not in "ui" or np.iinfo(dtype).max >= np.iinfo(planes.dtype).max:
        return
    if (brightest := int(planes.max(initial=0))) > np.iinfo(dtype).max:
        raise ModelError(
            f"the model takes {dtype} images, but this frame goes up to {brightest}. Set the camera to "
            f"{np.iinfo(dtype).bits} bits a pixel, or take a model for 16 bits."
        )
