"""Runs a stain model on camera frames of any size: warm-up, padding, tiling with halo, IO binding."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from livestain._errors import ModelError
from livestain_models.runtime import check_signature, import_onnxruntime, open_session, tensor_dtype
from livestain_models.tensors import OURS, Sizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livestain_models.contract import Contract
    from livestain_models.package import Package
    from livestain_models.tensors import TensorLayout

__all__ = ["OnnxModel", "Prediction", "StainModel"]


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
    """What actually runs, e.g. "CPUExecutionProvider"."""

    def warm_up(self, height: int, width: int) -> None:
        """Run frames of this size until the first real one costs no more than any other."""
        ...

    def predict(self, planes: np.ndarray) -> Prediction:
        """Stain (P, H, W) uint8 or uint16 planes."""
        ...

    def close(self) -> None:
        """Give the runtime's memory back."""
        ...


class OnnxModel:
    """A model package in onnxruntime.

    Parameters
    ----------
    package : Package
        From ``livestain_models.package.load_package``.
    provider : {"auto", "cpu", "cuda", "tensorrt"}
        "auto" takes the fastest that works; any other is met or refused.
    threads : int or None
        Threads inside one operator; None takes all physical cores.
    max_tile_px : int
        A frame with a longer side is stained in tiles of at most this size, where the model's halo allows it.

    Raises
    ------
    ModelError
        The weights are not the contract's, the graph is broken or breaks the contract, no runtime is
        installed, the provider is not to be had, or a tile of this size is all halo.

    Notes
    -----
    The graphs of our own packages take camera frames as they are and give grey levels, so a frame goes straight
    into the bound buffer. A package made elsewhere declares what is done before and behind its graph; that is
    done to whole frames, since statistics of a tile are not those of the frame.
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
            _check_tile_px(sizes, self.contract, max_tile_px)
        self._max_tile_px = max_tile_px
        # Opened from the very bytes that were hashed; weights in a second file would escape the hash.
        self._session = open_session(_checked_bytes(package), self.fingerprint, provider, threads)
        check_signature(self._session, self.contract, self.fingerprint, declared)
        self.provider: str = self._session.get_providers()[0]
        self._slot: _Slot | None = None

    def warm_up(self, height: int, width: int) -> None:
        """Run frames of this size until the first real one costs no more than any other.

        Parameters
        ----------
        height, width : int
            Of the camera's frames, in pixels.

        Raises
        ------
        ModelError
            The graph does not run at this size.
        """
        # Not constant, since a package made elsewhere may divide by the spread of the frame.
        frame = (np.arange(height * width, dtype=np.uint32) % 250).astype(np.uint16).reshape(1, height, width)
        planes = np.repeat(frame, self.contract.planes.count, 0)
        # The first run plans memory and tunes kernels for the shape, the second runs as all later ones do.
        for _ in range(2):
            self.predict(planes)

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
        self._session = None

    def _check(self, planes: np.ndarray) -> None:
        if self._session is None:
            raise ModelError(f"{self.fingerprint} was closed; open it again to predict.")
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

    def _tiles(self, length: int, sizes: Sizes, direction: str) -> tuple[_Tile, ...]:
        if sizes.halo_px is None and sizes.most_px is not None and length > sizes.most_px:
            raise ModelError(
                f"{self.fingerprint} takes frames of {sizes.most_px} px and declares no halo, so it cannot be run in "
                f"tiles, but the frame is {length} px {direction}. Crop the camera to {sizes.most_px} px, or take a "
                "model with a halo or without a fixed size."
            )
        return tuple(plan_tiles(length, self._max_tile_px, sizes))

    def _slot_for(self, height: int, width: int) -> _Slot:
        # One camera, one frame size: only the latest shape's buffers are kept.
        if self._slot is None or self._slot.shape != (height, width):
            self._slot = None
            declared = self._declared
            layouts = (declared.input_layout, declared.output_layout) if declared else (OURS, OURS)
            self._slot = _Slot(self._session, self.contract, layouts, height, width)
        return self._slot


@dataclass(frozen=True, slots=True)
class _Tile:
    """One axis of a tile: where it lies in the frame and which part of it is kept.

    ``start`` and ``size`` are what the network sees, multiples of its grid; ``keep_start`` to ``keep_stop``
    is the part of the frame that is taken from it. All in pixels of the frame.
    """

    start: int
    size: int
    keep_start: int
    keep_stop: int

    @property
    def kept_of_frame(self) -> slice:
        return slice(self.keep_start, self.keep_stop)

    @property
    def kept_of_tile(self) -> slice:
        return slice(self.keep_start - self.start, self.keep_stop - self.start)


def plan_tiles(length: int, max_tile_px: int, sizes: Sizes) -> Iterator[_Tile]:
    """Cut one axis into equal tiles on the network's grid.

    The outer edges of the first and the last tile are those of the padded frame, so that the network meets
    its own border only where it would meet it in the whole frame; elsewhere a halo as wide as its receptive
    field is thrown away. That makes tiled and untiled output the same, without blending.

    Parameters
    ----------
    length : int
        Of the frame along this axis, in pixels.
    max_tile_px : int
        Longest tile, unless the graph takes none that is so short.
    sizes : Sizes
        What the graph takes. Without a halo there is one tile.

    Yields
    ------
    _Tile
        From low to high; the kept parts cover the frame once.
    """
    padded, size = sizes.padded(length), sizes.tile(max_tile_px)
    if sizes.halo_px is None or padded <= size:
        yield _Tile(0, padded, 0, length)
        return
    halo = sizes.up(sizes.halo_px)
    keep_start = 0
    while keep_start < length:
        start = min(max(keep_start - halo, 0), padded - size)
        # A tile begins on the grid; where the smallest size is no multiple of it, what is kept begins off it.
        start = start // sizes.step_px * sizes.step_px
        keep_stop = length if start + size >= padded else start + size - halo
        yield _Tile(start, size, keep_start, min(keep_stop, length))
        keep_start = keep_stop


class _Slot:
    """Buffers for one tile shape, bound to the session once and used for every frame."""

    def __init__(
        self, session: Any, contract: Contract, layouts: tuple[TensorLayout, TensorLayout], height: int, width: int
    ) -> None:
        self.shape = (height, width)
        self._session = session
        self._label = contract.id
        given, predicted = session.get_inputs()[0], session.get_outputs()[0]
        self.output_dtype = tensor_dtype(predicted, contract.id)
        tensors = (
            np.empty(layouts[0].shape(contract.planes.count, height, width), tensor_dtype(given, contract.id)),
            np.empty(layouts[1].shape(len(contract.outputs), height, width), self.output_dtype),
        )
        # Whatever the order of the graph's axes, it is filled and read as (P, H, W).
        self._input, self._output = (layout.view(tensor) for layout, tensor in zip(layouts, tensors, strict=True))
        # Values over our own memory: on the CPU the graph reads and writes it in place.
        value = import_onnxruntime().OrtValue.ortvalue_from_numpy
        self._values = (value(tensors[0]), value(tensors[1]))
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(given.name, self._values[0])
        self._binding.bind_ortvalue_output(predicted.name, self._values[1])

    def run(self, planes: np.ndarray, row: _Tile, column: _Tile, stains: np.ndarray) -> int:
        """Stain one tile into ``stains``; return the nanoseconds inside the runtime."""
        _fill_reflected(planes, row.start, column.start, self._input)
        started_ns = time.perf_counter_ns()
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise ModelError(f"{self._label} failed on a {self.shape} tile: {error}") from error
        net_ns = time.perf_counter_ns() - started_ns
        kept = self._output[:, row.kept_of_tile, column.kept_of_tile]
        stains[:, row.kept_of_frame, column.kept_of_frame] = kept
        return net_ns


def _fill_reflected(planes: np.ndarray, top: int, left: int, tile: np.ndarray) -> None:
    """Copy a window of (P, H, W) planes into a (P, h, w) tile, mirrored beyond the last row and column."""
    height = min(planes.shape[1] - top, tile.shape[1])
    width = min(planes.shape[2] - left, tile.shape[2])
    tile[:, :height, :width] = planes[:, top : top + height, left : left + width]
    if width < tile.shape[2]:
        columns = _mirrored(left + width, left + tile.shape[2], planes.shape[2])
        tile[:, :height, width:] = planes[:, top : top + height, columns]
    if height < tile.shape[1]:
        rows = _mirrored(top + height, top + tile.shape[1], planes.shape[1])
        columns = _mirrored(left, left + tile.shape[2], planes.shape[2])
        tile[:, height:, :] = planes[:, rows[:, None], columns]


def _mirrored(start: int, stop: int, length: int) -> np.ndarray:
    """Fold indices start..stop back into 0..length-1, the edge pixel not repeated; any number of folds."""
    period = max(2 * (length - 1), 1)
    folded = np.arange(start, stop) % period
    return np.where(folded < length, folded, period - folded)


def _check_tile_px(sizes: Sizes, contract: Contract, max_tile_px: int) -> None:
    halo_px = 0 if sizes.halo_px is None else sizes.up(sizes.halo_px)
    least = max(sizes.least_px, 2 * halo_px + sizes.step_px)
    tile_px = sizes.tile(max_tile_px)
    if tile_px < least or (sizes.most_px is None and tile_px > max_tile_px):
        raise ModelError(
            f"max_tile_px {max_tile_px} is too small for {contract.id}: with its halo of {sizes.halo_px} px on "
            f"each side and its grid of {sizes.step_px} px a tile needs at least {least} px."
        )


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
