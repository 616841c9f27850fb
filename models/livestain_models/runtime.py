"""Opens an ONNX file in onnxruntime on the provider that was asked for, loudly or not at all."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain_models._errors import ModelError

if TYPE_CHECKING:
    from livestain_models.contract import Contract
    from livestain_models.declared import Declared
    from livestain_models.tensors import Sizes, TensorLayout

__all__ = ["PROVIDERS", "check_signature", "engine_folder", "import_onnxruntime", "open_session", "tensor_dtype"]

_log = logging.getLogger(__name__)

# What a person writes -> what onnxruntime calls it. Behind TensorRT comes CUDA, for the operators it lacks.
PROVIDERS: dict[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
# TensorRT builds its engine for minutes before the first frame: only a person who asked for it should wait.
_AUTO = ("cuda", "cpu")
_INSTALL_GPU = 'pip uninstall onnxruntime, then pip install "livestain[gpu]" (an NVIDIA GPU and its driver are needed)'
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
# What a network spends its time in: left on the processor, these would make a graphics card a slow detour.
_HEAVY = frozenset({"Conv", "ConvTranspose", "QLinearConv", "ConvInteger", "Gemm", "MatMul"})
_QUIET = 4  # onnxruntime's "fatal": whatever matters comes back as an exception or is checked below


def import_onnxruntime() -> Any:
    """Import onnxruntime with its console log silenced.

    Returns
    -------
    module
        onnxruntime.

    Raises
    ------
    ModelError
        No onnxruntime is installed, or two of them; the text says which line to run.
    """
    _refuse_two_runtimes()
    try:
        ort = importlib.import_module("onnxruntime")
        ort.set_default_logger_severity(_QUIET)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"onnxruntime, which runs the models, does not import ({error}). "
            'Install one of the two: pip install "livestain[cpu]" or, with an NVIDIA GPU, '
            'pip install "livestain[gpu]".'
        ) from error
    return ort


def _refuse_two_runtimes() -> None:
    # They install the same folder: the last one wins, and to uninstall either breaks the other.
    there = [name for name in _RUNTIMES if importlib.util.find_spec("onnxruntime") and _is_installed(name)]
    if len(there) > 1:
        raise ModelError(
            f"{' and '.join(there)} are both installed and overwrite each other. Run: pip uninstall -y "
            f'{" ".join(there)}, then install one: pip install "livestain[cpu]" or pip install "livestain[gpu]".'
        )


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def engine_folder(weights: bytes) -> Path:
    """Name the folder where TensorRT keeps what it has built of a graph.

    Parameters
    ----------
    weights : bytes
        The ONNX file's content.

    Returns
    -------
    Path
        In the user's cache folder, one for each graph, version of onnxruntime and card: an engine serves no other.
    """
    import platformdirs

    ort = import_onnxruntime()
    made_for = f"onnxruntime {ort.__version__} {_card()}"
    return Path(
        platformdirs.user_cache_path("livestain", appauthor=False),
        "tensorrt",
        re.sub(r"[^0-9A-Za-z.]+", "-", made_for).strip("-"),
        hashlib.sha256(weights).hexdigest()[:16],
    )


def _card() -> str:
    """Give the first card's name, as its driver's own tool tells it; "unknown card" where that is missing."""
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "unknown card"
    return (told.stdout.splitlines() or ["unknown card"])[0].strip()


def open_session(
    weights: bytes, label: str, provider: str = "auto", threads: int | None = None, *, captured: bool = False
) -> Any:
    """Open a graph on a provider.

    Parameters
    ----------
    weights : bytes
        The ONNX file's content, all weights inside.
    label : str
        How errors name the model.
    provider : {"auto", "cpu", "cuda", "tensorrt"}
        "auto" takes the fastest one that works; every other name is met exactly or refused.
    threads : int or None
        Threads inside one operator; None takes all physical cores.
    captured : bool
        On CUDA: record the kernels of a shape once and replay them (a CUDA graph), which spares their launches. Such a
        session runs on memory of the device only, see `livestain_models.on_device`.

    Returns
    -------
    onnxruntime.InferenceSession

    Raises
    ------
    ModelError
        The file is no usable ONNX graph, or the provider is not to be had.
    """
    ort = import_onnxruntime()
    if provider in PROVIDERS:
        return _open_exactly(ort, weights, label, provider, threads, captured=captured)
    if provider != "auto":
        raise ModelError(f"No provider is called {provider!r}; take one of auto, {', '.join(PROVIDERS)}.")
    for name in _AUTO[:-1]:
        if PROVIDERS[name][0] not in ort.get_available_providers():
            continue
        try:
            return _open_exactly(ort, weights, label, name, threads, captured=captured)
        except ModelError as error:
            _log.warning("provider auto: %s", error)
    return _open_exactly(ort, weights, label, _AUTO[-1], threads)


def _open_exactly(
    ort: Any, weights: bytes, label: str, provider: str, threads: int | None, *, captured: bool = False
) -> Any:
    asked = PROVIDERS[provider]
    available = ort.get_available_providers()
    if asked[0] not in available:
        raise ModelError(
            f"Asked for provider {provider!r} ({asked[0]}), but this onnxruntime has only "
            f"{', '.join(available)}. To get it: {_INSTALL_GPU}; or write provider: cpu."
        )
    try:
        providers = [(name, _provider_options(name, weights, captured=captured)) for name in asked]
        session = ort.InferenceSession(weights, _options(ort, threads), providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise ModelError(
            f"{label}: onnxruntime {ort.__version__} cannot open the {len(weights)} byte ONNX file on "
            f"{asked[0]}: {error}. If the file is truncated or not ONNX at all, fetch or export it again."
        ) from error
    # A provider whose libraries are missing is dropped from the list without an exception.
    got = session.get_providers()
    if got[0] != asked[0]:
        raise ModelError(
            f"Asked for provider {provider!r} ({asked[0]}), but onnxruntime opened {label} on {got[0]}: the "
            f"GPU, its driver or the CUDA libraries are missing. To get it: {_INSTALL_GPU}; or write "
            "provider: cpu."
        )
    if provider != "cpu":
        _check_placement(session, label, asked[0])
    return session


def _provider_options(name: str, weights: bytes, *, captured: bool) -> dict[str, str]:
    """Give what onnxruntime should tell a provider. Precision is not in it: that is the package's."""
    if name == "TensorrtExecutionProvider":
        folder = engine_folder(weights)
        folder.mkdir(parents=True, exist_ok=True)
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder.parent),  # kernels' timings serve all graphs of this card
        }
    if name == "CUDAExecutionProvider" and captured:
        return {"enable_cuda_graph": "1"}
    return {}


def _check_placement(session: Any, label: str, asked: str) -> None:
    """Refuse a session that has the provider asked for, and computes on the processor all the same."""
    try:
        parts = session.get_provider_graph_assignment_info()
    except Exception:  # noqa: BLE001  (an onnxruntime that does not tell: older than 1.24)
        return
    left = [
        node.op_type
        for part in parts
        if part.ep_name == "CPUExecutionProvider"
        for node in part.get_nodes()
        if node.op_type in _HEAVY
    ]
    if left:
        raise ModelError(
            f"{label}: {asked} takes the graph, but leaves {len(left)} of its operators "
            f"({', '.join(sorted(set(left)))}) to the processor. Export the graph in a precision that the provider "
            "has, or write provider: cpu."
        )


def _options(ort: Any, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads or 0  # 0: one for every physical core
    # Threads that spin between operators and frames take the camera's cores. Measured on two cores, 512x512 at
    # 10 frames/s beside the simulated microscope: without spinning half the processor time (0.5 of a core
    # against 1.1), at the same median within a few ms.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def check_signature(session: Any, contract: Contract, label: str, declared: Declared | None = None) -> None:
    """Hold the graph's inputs and outputs against the contract.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    contract : Contract
    label : str
        How errors name the model.
    declared : Declared or None
        What a package made elsewhere says of its tensors; None for our own.

    Raises
    ------
    ModelError
        More than one input or output, a wrong type, rank or number of channels, or a frame size that the
        contract does not know of.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{label}: the graph has inputs {[node.name for node in inputs]} and outputs "
            f"{[node.name for node in outputs]}; a stain model has one of each. Export it again with the "
            "planes stacked along the channel axis."
        )
    if declared is not None:
        _check_declared(inputs[0], declared.input_layout, contract.planes.count, declared, f"{label}: input")
        _check_declared(outputs[0], declared.output_layout, len(contract.outputs), declared, f"{label}: output")
        if (got := tensor_dtype(inputs[0], label)) != declared.input_dtype:
            raise ModelError(
                f"{label}: input {inputs[0].name!r} takes {got}, the package's preprocessing gives "
                f"{declared.input_dtype}. End it with ensure_dtype {got}."
            )
        tensor_dtype(outputs[0], label)
        return
    _check_tensor(inputs[0], contract.input_dtype, contract.planes.count, f"{label}: input")
    _check_tensor(outputs[0], "uint16", len(contract.outputs), f"{label}: output")


def tensor_dtype(node: Any, label: str) -> np.dtype[Any]:
    """Give numpy's name of a graph's input or output type.

    Raises
    ------
    ModelError
        It holds no numbers.
    """
    name = str(node.type).removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype({"float": "float32", "double": "float64"}.get(name, name))
    except TypeError as error:
        raise ModelError(
            f"{label}: {node.name!r} is {node.type}, which is no image. Export the graph again."
        ) from error


def _check_declared(node: Any, layout: TensorLayout, planes: int, declared: Declared, label: str) -> None:
    wanted = layout.shape(planes, _fixed(declared.rows), _fixed(declared.columns))
    shape = list(node.shape)
    said = f"{label} {node.name!r} has shape {shape}, the package describes "
    remedy = "Description and weights are not of the same export: fetch the package again."
    if len(shape) != len(wanted):
        raise ModelError(f"{said}the axes {', '.join(layout.axes)}. {remedy}")
    for axis, there, size in zip(layout.axes, shape, wanted, strict=True):
        if isinstance(there, int) and there != size:
            raise ModelError(f"{said}{axis} of {size if size else 'any size'}. {remedy}")


def _fixed(sizes: Sizes) -> int:
    """Give the only size there is, or 0."""
    return sizes.least_px if sizes.most_px == sizes.least_px else 0


def _check_tensor(node: Any, dtype: str, channels: int, label: str) -> None:
    wanted = "float" if dtype == "float32" else dtype
    if node.type != f"tensor({wanted})":
        raise ModelError(
            f"{label} {node.name!r} is {node.type}, the contract needs tensor({wanted}). Export the graph "
            "with normalisation and quantisation inside, uint16 in and out."
        )
    shape = list(node.shape)
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != channels):
        raise ModelError(
            f"{label} {node.name!r} has shape {shape}, the contract needs (1, {channels}, H, W). "
            "Export the graph with these axes, or correct the contract's planes and outputs."
        )
    if any(isinstance(size, int) for size in shape[2:]):
        raise ModelError(
            f"{label} {node.name!r} has the fixed frame size {shape[2:]}; cameras differ. "
            "Export the graph with dynamic height and width."
        )
