"""Runs a stain model on camera frames of any size: warm-up, padding, tiling with halo, in either runtime."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from livestain._errors import ModelError, OutOfMemory
from livestain._tiles import check_tile_px, fill_reflected, plan_tiles
from livestain.runtimes.onnxruntime import OnnxruntimeGraph
from livestain.runtimes.openvino import OpenVinoGraph
from livestain_models.runtime import check_signature, tensor_dtype
from livestain_models.tensors import OURS, Sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestain._tiles import Tile
    from livestain_models.contract import Contract
    from livestain_models.package import Package
    from livestain_models.tensors import TensorLayout

__all__ = ["OnnxModel", "Prediction", "StainModel"]

log = logging.getLogger("livestain")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model made of one input.

    Parameters
    ----------
    planes : np.ndarray
        (C, H, W) uint16, a fresh array that the caller may keep.
    net_ms : float
        Inside the runtime alone.
    host_to_host_ms : float
        From planes in memory to predicted planes in memory: padding, copies and network.
    """

    planes: np.ndarray
    net_ms: float
    host_to_host_ms: float


class StainModel(Protocol):
    """What the stain thread needs of a model; called from that one thread only."""

    contract: Contract
    fingerprint: str
    provider: str
    """What actually runs, e.g. "CPUExecutionProvider" or "OpenVINO CPU fp32"."""

    def warm_up(self, height: int, width: int) -> None:
        """Run frames of this size until the first real one costs no more than any other."""
        ...

    def predict(self, planes: np.ndarray) -> Prediction:
        """Stain (P, H, W) uint8 or uint16 planes."""
        ...

    def close(self) -> None:
        """Give the runtime's memory back."""
        ...


class Graph(Protocol):
    """An ONNX graph opened in a runtime; it raises ModelError where the runtime fails."""

    provider: str

    def get_inputs(self) -> Sequence[Any]:
        """Name, type and shape of each input, as onnxruntime tells them."""
        ...

    def get_outputs(self) -> Sequence[Any]:
        """Name, type and shape of each output."""
        ...

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Get ready for inputs of this shape, and no other until the next call."""
        ...

    def run(self, given: np.ndarray, predicted: np.ndarray) -> None:
        """Run from one C-contiguous array into another."""
        ...


class OnnxModel:
    """A model package in onnxruntime or OpenVINO: both read the same file and give the same answer.

    Parameters
    ----------
    package : Package
        From ``livestain_models.package.load_package``.
    provider : {"auto", "cpu", "cuda", "tensorrt", "openvino"}
        "auto" takes onnxruntime's fastest that works, or OpenVINO for bf16; any other is met or refused.
    threads : int or None
        Threads inside one operator; None takes all physical cores.
    max_tile_px : int
        A frame with a longer side is stained in tiles of at most this size, where the model's halo allows it.

    Raises
    ------
    ModelError
        The weights are not the contract's, the graph is broken or breaks the contract, no runtime is
        installed, the provider is not to be had or does not compute in this precision, or a tile of this size is all
        halo.

    Notes
    -----
    The graphs of our own packages take camera frames as they are and give grey levels, so a frame that needs neither
    padding nor tiles is read where it lies, and its stains are written where they stay. A package made elsewhere
    declares what is done before and behind its graph; that is done to whole frames, since statistics of a tile are not
    those of the frame.
    """

    def __init__(
        self, package: Package, provider: str = "auto", *, threads: int | None = None, max_tile_px: int = 2048
    ) -> None:
        self.contract = package.contract
        self.fingerprint = package.fingerprint
        self._declared = declared = package.declared
        ours = Sizes.on_grid(self.contract.multiple_px, self.contract.halo_px)
        self._rows, self._columns = (declared.rows, declared.columns) if declared else (ours, ours)
        for sizes in (self._rows, self._columns):
            check_tile_px(sizes, self.contract, max_tile_px)
        self._max_tile_px = max_tile_px
        # Opened from the very bytes that were hashed; weights in a second file would escape the hash.
        self._graph: Graph | None = _open(_checked_bytes(package), package, provider, threads)
        check_signature(self._graph, self.contract, self.fingerprint, declared)
        self.provider = self._graph.provider
        self._slot: _Slot | None = None

    def warm_up(self, height: int, width: int) -> None:
        """Run frames of this size until the first real one costs no more than any other.

        Parameters
        ----------
        height, width : int
            Of the camera's frames, in pixels.

        Raises
        ------
        OutOfMemory
            Not even the smallest tile that the model's halo allows fits into the device's memory.
        ModelError
            The graph does not run at this size.

        Notes
        -----
        A frame that does not fit is stained in tiles, half as long each time; a halo makes them the same picture.
        """
        # Not constant, since a package made elsewhere may divide by the spread of the frame.
        frame = (np.arange(height * width, dtype=np.uint32) % 250).astype(np.uint16).reshape(1, height, width)
        planes = np.repeat(frame, self.contract.planes.count, 0)
        while True:
            try:
                # The first run plans memory and tunes kernels for the shape, the second runs as all later ones do.
                for _ in range(2):
                    self.predict(planes)
            except OutOfMemory as error:
                self._take_smaller_tiles(max(height, width), error)
            else:
                return

    def predict(self, planes: np.ndarray) -> Prediction:
        """Stain the planes of one frame.

        Parameters
        ----------
        planes : np.ndarray
            (P, H, W) uint8 or uint16, as the camera gave them.

        Returns
        -------
        Prediction

        Raises
        ------
        ModelError
            Wrong shape or dtype, or the runtime failed.
        """
        started_ns = time.perf_counter_ns()
        self._check(planes)
        if self._declared is None:
            stains, net_ns = self._tile_by_tile(planes)
        else:
            raw, net_ns = self._tile_by_tile(self._declared.prepare(planes))
            stains = self._declared.stains(self._declared.predicted(raw, planes), self.contract.outputs)
        return Prediction(stains, net_ns / 1e6, (time.perf_counter_ns() - started_ns) / 1e6)

    def close(self) -> None:
        """Give the runtime's memory back; the model cannot predict any more."""
        self._slot = None
        self._graph = None

    def _take_smaller_tiles(self, longest_px: int, error: OutOfMemory) -> None:
        self._slot = None
        smaller_px = min(self._max_tile_px, longest_px) // 2
        try:
            for sizes in (self._rows, self._columns):
                check_tile_px(sizes, self.contract, smaller_px)
        except ModelError as too_small:
            raise OutOfMemory(
                f"{error} Nor can smaller tiles be taken, for the model's halo. Close what else uses the memory of "
                f"{self.provider}, or take a smaller model or another provider."
            ) from too_small
        log.warning("%s Frames are stained in tiles of at most %d px.", error, smaller_px)
        self._max_tile_px = smaller_px

    def _check(self, planes: np.ndarray) -> None:
        count = self.contract.planes.count
        if planes.ndim != 3 or planes.shape[0] != count or 0 in planes.shape:
            raise ModelError(f"{self.fingerprint} takes planes of shape ({count}, H, W), got {planes.shape}.")
        if planes.dtype.kind != "u" or planes.dtype.itemsize > 2:  # either byte order; the copy puts it right
            raise ModelError(f"{self.fingerprint} takes uint8 or uint16 camera frames, got {planes.dtype}.")

    def _tile_by_tile(self, planes: np.ndarray) -> tuple[np.ndarray, int]:
        """Run the graph over a whole (P, H, W) frame; give (C, H, W) and the nanoseconds inside the runtime."""
        height, width = planes.shape[1:]
        rows = self._tiles(height, self._rows, "high")
        columns = self._tiles(width, self._columns, "wide")
        slot = self._slot_for(rows[0].size, columns[0].size)
        predicted = np.empty((len(self.contract.outputs), height, width), slot.output_dtype)
        net_ns = 0
        for row in rows:
            for column in columns:
                net_ns += slot.run(planes, row, column, predicted)
        return predicted, net_ns

    def _tiles(self, length: int, sizes: Sizes, direction: str) -> tuple[Tile, ...]:
        if sizes.halo_px is None and sizes.most_px is not None and length > sizes.most_px:
            raise ModelError(
                f"{self.fingerprint} takes frames of {sizes.most_px} px and declares no halo, so it cannot be run in "
                f"tiles, but the frame is {length} px {direction}. Crop the camera to {sizes.most_px} px, or take a "
                "model with a halo or without a fixed size."
            )
        return tuple(plan_tiles(length, self._max_tile_px, sizes))

    def _slot_for(self, height: int, width: int) -> _Slot:
        if self._graph is None:
            raise ModelError(f"{self.fingerprint} was closed; open it again to predict.")
        # One camera, one frame size: only the latest shape's buffers are kept.
        if self._slot is None or self._slot.shape != (height, width):
            self._slot = None
            declared = self._declared
            layouts = (declared.input_layout, declared.output_layout) if declared else (OURS, OURS)
            self._slot = _Slot(self._graph, self.contract, layouts, height, width)
        return self._slot


class _Slot:
    """The graph made ready for one tile shape, and the buffers of tiles that the frame's own memory cannot serve."""

    def __init__(
        self, graph: Graph, contract: Contract, layouts: tuple[TensorLayout, TensorLayout], height: int, width: int
    ) -> None:
        self.shape = (height, width)
        self._graph = graph
        self._plain = layouts == (OURS, OURS)
        given, predicted = graph.get_inputs()[0], graph.get_outputs()[0]
        self.output_dtype = tensor_dtype(predicted, contract.id)
        self._given = np.empty(layouts[0].shape(contract.planes.count, height, width), tensor_dtype(given, contract.id))
        self._predicted = np.empty(layouts[1].shape(len(contract.outputs), height, width), self.output_dtype)
        # Whatever the order of the graph's axes, it is filled and read as (P, H, W).
        self._input, self._output = layouts[0].view(self._given), layouts[1].view(self._predicted)
        graph.prepare(self._given.shape)

    def run(self, planes: np.ndarray, row: Tile, column: Tile, stains: np.ndarray) -> int:
        """Stain one tile into ``stains``; return the nanoseconds inside the runtime."""
        if self._as_it_is(planes):
            return self._timed(planes[None], stains[None])
        fill_reflected(planes, row.start, column.start, self._input)
        net_ns = self._timed(self._given, self._predicted)
        kept = self._output[:, row.kept_of_tile, column.kept_of_tile]
        stains[:, row.kept_of_frame, column.kept_of_frame] = kept
        return net_ns

    def _as_it_is(self, planes: np.ndarray) -> bool:
        """Whether the graph can read the frame where it lies, and write the stain where it goes."""
        same = planes.shape == self._input.shape and planes.dtype == self._given.dtype
        return self._plain and same and planes.flags.c_contiguous and planes.flags.aligned and planes.flags.writeable

    def _timed(self, given: np.ndarray, predicted: np.ndarray) -> int:
        started_ns = time.perf_counter_ns()
        self._graph.run(given, predicted)
        return time.perf_counter_ns() - started_ns


def _open(content: bytes, package: Package, provider: str, threads: int | None) -> Graph:
    in_bf16 = package.precision == "bf16"
    if in_bf16 and provider not in ("auto", "openvino"):
        raise ModelError(
            f"{package.fingerprint} is computed by OpenVINO only, and provider is {provider!r}. Write provider: auto, "
            "or precision: fp32."
        )
    if provider == "openvino" or in_bf16:
        return OpenVinoGraph(content, package.fingerprint, package.precision, threads)
    return OnnxruntimeGraph(content, package.fingerprint, provider, threads)


def _checked_bytes(package: Package) -> bytes:
    try:
        content = package.weights.read_bytes()
    except OSError as error:
        raise ModelError(f"{package.weights} cannot be read: {error}. Fetch the package again.") from error
    got = hashlib.sha256(content).hexdigest()
    if got != package.contract.weights_sha256:
        raise ModelError(
            f"{package.weights} has sha256 {got}, the contract says {package.contract.weights_sha256!r}: "
            "the file is damaged or another one. Fetch or export the package again."
        )
    return content
