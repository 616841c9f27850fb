"""Runs an onnxruntime session on a device's own memory: a frame goes over once, its stain comes back once."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from livestain_models.runtime import import_onnxruntime

if TYPE_CHECKING:
    import numpy as np

__all__ = ["OnDevice"]

_numbers = count(1)


class OnDevice:
    """A session for one shape, its input and its output held in the device's memory.

    What is bound stays bound, so that nothing is allocated from frame to frame, and recorded kernels, which know
    addresses and not tensors, can be replayed.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Open; one input, one output.
    given, predicted : np.ndarray
        Arrays like those that will come; only their shapes and types count.
    device : str
        onnxruntime's name of it: "cuda"; "cpu" copies in ordinary memory, for tests.
    """

    def __init__(self, session: Any, given: np.ndarray, predicted: np.ndarray, device: str = "cuda") -> None:
        ort = import_onnxruntime()
        self._session = session
        self._given, self._predicted = (
            ort.OrtValue.ortvalue_from_shape_and_type(list(like.shape), like.dtype, device, 0)
            for like in (given, predicted)
        )
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(session.get_inputs()[0].name, self._given)
        self._binding.bind_ortvalue_output(session.get_outputs()[0].name, self._predicted)
        # A recording belongs to its shape: another one must not replay it.
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(next(_numbers)))
        self.shapes = given.shape, predicted.shape

    def run(self, given: np.ndarray, predicted: np.ndarray) -> None:
        """Run from one C-contiguous host array into another."""
        self._given.update_inplace(given)
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        predicted[...] = self._predicted.numpy()
