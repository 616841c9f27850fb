"""Runs a graph in onnxruntime, on memory that the caller owns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livestain._errors import ModelError
from livestain_models.runtime import import_onnxruntime, open_session

if TYPE_CHECKING:
    import numpy as np

__all__ = ["OnnxruntimeGraph"]


class OnnxruntimeGraph:
    """An ONNX graph in onnxruntime.

    Parameters
    ----------
    content : bytes
        The ONNX file, all weights inside.
    label : str
        How errors name the model.
    provider : {"auto", "cpu", "cuda", "tensorrt"}
        "auto" takes the fastest that works; any other is met or refused.
    threads : int or None
        Threads inside one operator; None takes all physical cores.

    Raises
    ------
    ModelError
        No onnxruntime is installed, the graph is broken, or the provider is not to be had.
    """

    def __init__(self, content: bytes, label: str, provider: str, threads: int | None) -> None:
        self._label = label
        self._session = open_session(content, label, provider, threads)
        self._value = import_onnxruntime().OrtValue.ortvalue_from_numpy
        self._binding = self._session.io_binding()
        self._names = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        self.provider: str = self._session.get_providers()[0]

    def get_inputs(self) -> list[Any]:
        """Name, type and shape of each input."""
        return list(self._session.get_inputs())

    def get_outputs(self) -> list[Any]:
        """Name, type and shape of each output."""
        return list(self._session.get_outputs())

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Nothing: onnxruntime plans for a shape when it first sees it."""

    def run(self, given: np.ndarray, predicted: np.ndarray) -> None:
        """Run the graph from one array into another; on the CPU it reads and writes them in place.

        Raises
        ------
        ModelError
            onnxruntime failed.
        """
        values = self._value(given), self._value(predicted)
        try:
            self._binding.bind_ortvalue_input(self._names[0], values[0])
            self._binding.bind_ortvalue_output(self._names[1], values[1])
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise ModelError(f"{self._label} failed on a {given.shape} tile: {error}") from error
        finally:
            self._binding.clear_binding_inputs()  # or the binding would hold on to the caller's frame
            self._binding.clear_binding_outputs()
