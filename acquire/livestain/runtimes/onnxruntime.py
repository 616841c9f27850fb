"""Runs a graph in onnxruntime, on memory that the caller owns."""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import ModelError, OutOfMemory
from livestain_models.on_device import OnDevice
from livestain_models.runtime import PROVIDERS, import_onnxruntime, open_session

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OnnxruntimeGraph"]

log = logging.getLogger("livestain")

_NO_MEMORY = re.compile(r"out of memory|failed to allocate|bad.?alloc|ALLOC_FAILED", re.IGNORECASE)


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
        session = open_session(content, label, provider, threads)
        self.provider: str = session.get_providers()[0]
        self._inputs, self._outputs = list(session.get_inputs()), list(session.get_outputs())
        self._runner: _InPlace | _OnCard
        if self.provider == "CPUExecutionProvider":
            self._runner = _InPlace(session)
        else:
            name = next(name for name, asked in PROVIDERS.items() if asked[0] == self.provider)
            reopened = partial(open_session, content, label, name, threads)
            self._runner = _OnCard(label, session, reopened, captured=name == "cuda")

    def get_inputs(self) -> list[Any]:
        """Name, type and shape of each input."""
        return self._inputs

    def get_outputs(self) -> list[Any]:
        """Name, type and shape of each output."""
        return self._outputs

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Nothing: onnxruntime plans for a shape when it first sees it."""

    def run(self, given: np.ndarray, predicted: np.ndarray) -> None:
        """Run the graph from one array into another; on the CPU it reads and writes them in place.

        Raises
        ------
        OutOfMemory
            The tile is too large for the device.
        ModelError
            onnxruntime failed.
        """
        try:
            self._runner.run(given, predicted)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            if _NO_MEMORY.search(str(error)):
                raise OutOfMemory(
                    f"{self._label}: a {given.shape} tile does not fit into the memory of {self.provider} ({error})."
                ) from error
            raise ModelError(f"{self._label} failed on a {given.shape} tile: {error}") from error


class _InPlace:
    """Reads and writes the caller's arrays where they lie."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = session.get_inputs()[0].name, session.get_outputs()[0].name
        self._value = import_onnxruntime().OrtValue.ortvalue_from_numpy
        self._binding = session.io_binding()

    def run(self, given: np.ndarray, predicted: np.ndarray) -> None:
        values = self._value(given), self._value(predicted)
        try:
            self._binding.bind_ortvalue_input(self._names[0], values[0])
            self._binding.bind_ortvalue_output(self._names[1], values[1])
            self._session.run_with_iobinding(self._binding)
        finally:
            self._binding.clear_binding_inputs()  # or the binding would hold on to the caller's frame
            self._binding.clear_binding_outputs()


class _OnCard:
    """Copies frames to a card and stains back, and replays recorded kernels where that gives the same answer.

    Parameters
    ----------
    label
        How the log names the model.
    session
        Open on the card.
    reopened
        Opens it again, with `captured` as in `open_session`.
    captured
        Whether recording is tried.
    device
        onnxruntime's name of the card's memory.
    """

    def __init__(
        self,
        label: str,
        session: Any,
        reopened: Callable[..., Any],
        *,
        captured: bool,
        device: str = "cuda",
    ) -> None:
        self._label, self._reopened, self._captured, self._memory = label, reopened, captured, device
        self._session: Any = session  # that the next shape begins with; none while a recorded one runs
        self._device: OnDevice | None = None

    def run(self, given: np.ndarray, predicted: np.ndarray) -> None:
        if self._device is None or self._device.shapes != (given.shape, predicted.shape):
            self._device = None  # gives the memory of the last shape back before the next takes its own
            self._device = self._begun(given, predicted)
        else:
            self._device.run(given, predicted)

    def _begun(self, given: np.ndarray, predicted: np.ndarray) -> OnDevice:
        """Run the first frame of a shape, in both ways where there are two; give the way for all others."""
        plain = self._plain(given, predicted)
        plain.run(given, predicted)
        if not self._captured:
            return plain
        plain = self._session = None  # type: ignore[assignment]  # a large network does not fit twice
        replayed = np.empty_like(predicted)
        try:
            recorded = OnDevice(self._reopened(captured=True), given, replayed, self._memory)
            for _ in range(3):  # as it is, while it is recorded, and from the recording
                recorded.run(given, replayed)
            why = "" if np.allclose(predicted, replayed, rtol=1e-3, atol=1.0) else "its answers differ"
        except Exception as error:  # noqa: BLE001  (a node that cannot be recorded: the plain way still works)
            why = str(error)
        if not why:
            return recorded
        log.warning("%s: recorded kernels (a CUDA graph) are not used: %s", self._label, why)
        self._captured = False
        return self._plain(given, predicted)

    def _plain(self, given: np.ndarray, predicted: np.ndarray) -> OnDevice:
        if self._session is None:
            self._session = self._reopened(captured=False)
        return OnDevice(self._session, given, predicted, self._memory)
