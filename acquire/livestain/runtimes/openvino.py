"""Runs a graph in OpenVINO on the CPU, on memory that the caller owns, in the precision that was asked for."""

from __future__ import annotations

import importlib
import io
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from livestain._errors import ModelError
from livestain.runtimes.openvino_cut import cut_around_network

if TYPE_CHECKING:
    import numpy as np

    from livestain_models.contract import Precision

__all__ = ["OpenVinoGraph", "import_openvino", "processor_without_bf16"]

_ONNXRUNTIMES_NAMES = {"float32": "float", "float64": "double"}


def import_openvino() -> Any:
    """Import OpenVINO without the package that reports its use.

    Returns
    -------
    module
        openvino.

    Raises
    ------
    ModelError
        It does not import; the text says which line to run.
    """
    # `import openvino` sends an event to a web analytics service and writes an identity into the home folder, unasked.
    # It does without where openvino_telemetry cannot be imported, and a microscope's computer reports to nobody.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # Python's "not there"
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ModelError(
            f"OpenVINO, which provider: openvino and precision: bf16 ask for, does not import ({error}). Install it: "
            'pip install "livestain[openvino]"; or write provider: cpu and another precision.'
        ) from error


def processor_without_bf16() -> str | None:
    """Name this computer's processor if it does not compute in bfloat16; None if it does.

    Raises
    ------
    ModelError
        OpenVINO is not installed.
    """
    core = import_openvino().Core()
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    return str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()


@dataclass(frozen=True, slots=True)
class _Node:
    """An input or output, told as onnxruntime tells it."""

    name: str
    type: str
    shape: list[Any]


class OpenVinoGraph:
    """An ONNX graph in OpenVINO, on the CPU.

    Parameters
    ----------
    content : bytes
        The ONNX file, all weights inside.
    label : str
        How errors name the model.
    precision : {"fp32", "bf16", "fp16", "int8"}
        Of the graph; "bf16" is one in fp32 whose network is to be computed in bfloat16.
    threads : int or None
        Threads inside one operator; None takes all physical cores.

    Raises
    ------
    ModelError
        OpenVINO is not installed, or cannot read the graph, or bf16 was asked for on a processor that lacks it.

    Notes
    -----
    What a graph does not quantise is computed in fp32, fp16 weights too. Left to itself OpenVINO takes bfloat16 on
    processors that have it and half precision on Arm, which is not what the package's scores were measured with.

    Asked for bfloat16, it takes that for all up to the last convolution's answer, so the graph is cut in three: grey
    values and their normalisation, and the last convolutions and what makes stains of them, are computed in fp32. On a
    processor that lacks bfloat16 OpenVINO would take fp32 and not say so.
    """

    def __init__(self, content: bytes, label: str, precision: Precision, threads: int | None) -> None:
        self._ov = import_openvino()
        self._label = label
        self._settings = _settings(threads)
        self._in_bf16 = precision == "bf16"
        self.provider = f"OpenVINO CPU {'fp32' if precision == 'fp16' else precision}"
        self._core = self._ov.Core()
        if self._in_bf16 and (name := processor_without_bf16()):
            raise ModelError(
                f"{label}: this processor ({name}) does not compute in bf16. Write precision: fp32, "
                "or int8 where the package has it."
            )
        self._requests: list[Any] = []  # of the graph's parts, each on what the one before it has made
        try:
            self._model = self._read(content)
        except Exception as error:  # OpenVINO's exceptions share no base of their own
            raise ModelError(
                f"{label}: OpenVINO {self._ov.get_version()} cannot read the {len(content)} byte ONNX file: "
                f"{_reason(error)}. If the file is truncated or not ONNX at all, fetch or export it again; if "
                "OpenVINO does not know one of its operators, write provider: cpu."
            ) from error

    def _read(self, content: bytes) -> Any:
        # Core.read_model would offer a broken file to the readers of other formats, and Paddle's wrote beyond its
        # memory on a truncated one (OpenVINO 2025.4 to 2026.1; the process died later, anywhere).
        onnx = self._ov.frontend.FrontEndManager().load_by_framework("onnx")
        return onnx.convert(onnx.load(io.BytesIO(content)))

    def get_inputs(self) -> list[_Node]:
        """Name, type and shape of each input."""
        return [_node(port) for port in self._model.inputs]

    def get_outputs(self) -> list[_Node]:
        """Name, type and shape of each output."""
        return [_node(port) for port in self._model.outputs]

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Compile the graph for inputs of this shape.

        Raises
        ------
        ModelError
            The graph takes no such shape, or OpenVINO cannot run it on this processor, or it has nothing that could be
            computed in bf16.
        """
        self._requests = []  # gives the memory of the last shape back before the next takes its own
        try:
            self._model.reshape(list(shape))
            self._requests = [self._compiled(model, arithmetic) for model, arithmetic in self._parts()]
        except ModelError:
            raise
        except Exception as error:
            raise self._failed(shape, error) from error
        for before, behind in pairwise(self._requests):
            for number in range(len(behind.model_inputs)):
                behind.set_input_tensor(number, before.get_output_tensor(number))

    def _parts(self) -> list[tuple[Any, str]]:
        """Give the graph, or what it is cut into, and what each is computed in."""
        if not self._in_bf16:
            return [(self._model, "f32")]
        cut = cut_around_network(self._ov, self._model.clone())
        if cut is None:
            raise ModelError(
                f"{self._label} has no convolution between its normalisation and its last one, so nothing to compute "
                "in bf16. Write precision: fp32."
            )
        before, network, last = cut
        return [(before, "f32"), (network, "bf16"), (last, "f32")]

    def _compiled(self, model: Any, arithmetic: str) -> Any:
        settings = self._settings | {"INFERENCE_PRECISION_HINT": arithmetic}
        return self._core.compile_model(model, "CPU", settings).create_infer_request()

    def run(self, given: np.ndarray, predicted: np.ndarray) -> None:
        """Run the graph from one array into another, both in place.

        Raises
        ------
        ModelError
            OpenVINO failed, or the output has another shape.
        """
        try:
            self._requests[0].set_input_tensor(self._ov.Tensor(given, shared_memory=True))
            self._requests[-1].set_output_tensor(self._ov.Tensor(predicted, shared_memory=True))
            for request in self._requests:
                request.infer(share_outputs=True)
        except Exception as error:
            raise self._failed(given.shape, error) from error

    def _failed(self, shape: tuple[int, ...], error: Exception) -> ModelError:
        return ModelError(f"{self._label} failed on a {shape} tile in OpenVINO: {_reason(error)}")


def _settings(threads: int | None) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # Pinned threads would wait for the camera's and the writer's to leave their core.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is None:
        return settings | {"ENABLE_HYPER_THREADING": False}
    return settings | {"INFERENCE_NUM_THREADS": threads}


def _node(port: Any) -> _Node:
    sizes = port.partial_shape
    shape = ["any"] if sizes.rank.is_dynamic else [n.get_length() if n.is_static else str(n) for n in sizes]
    try:
        dtype = str(port.element_type.to_dtype())
    except Exception:  # noqa: BLE001  (a type that numpy does not have: text, four bits)
        dtype = port.element_type.get_type_name()
    return _Node(port.any_name, f"tensor({_ONNXRUNTIMES_NAMES.get(dtype, dtype)})", shape)


def _reason(error: Exception) -> str:
    """Give what an exception says, without the places in OpenVINO's source that it passed through."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(said) or str(error)
