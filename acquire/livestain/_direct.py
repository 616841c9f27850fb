"""Large planes written past the page cache, where the system can: the same files in a fraction of its time.

Since Linux keeps files in large pages (ext4 from 6.16, XFS earlier), one buffered write of more than 2 MiB first looks
for memory in one piece: 24 ms of processor time for 8 MiB where 16 writes of 0.5 MiB took 2 ms. With O_DIRECT it is
0.5 ms, and the drive is done after 6 ms instead of 50 (measured on Linux 6.18, ext4, in a virtual machine). tensorstore
writes a file in one piece and through the page cache, so here it only encodes, into memory.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorstore as ts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DirectPlanes", "can_write_directly"]

_BLOCK_BYTES = 4096  # what addresses, lengths and offsets are multiples of; no drive's blocks are larger
# What is written at once: more than there are cores, since it mostly waits for the drive; but memory is held for each.
_MOST_THREADS, _MOST_BYTES = 8, 32 << 20


def can_write_directly(folder: Path) -> bool:
    """Try whether files in a folder can be written past the page cache: not on Windows, not on every file system."""
    if not hasattr(os, "O_DIRECT"):
        return False
    probe = folder / f".{uuid.uuid4().hex}.probe"
    try:
        with mmap.mmap(-1, _BLOCK_BYTES) as block:
            _write(probe, block, _BLOCK_BYTES)
        _sync_folder(folder)
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


class DirectPlanes:
    """Writes planes as files of one shard each, byte for byte as tensorstore would.

    A plane is written to a temporary name, synced and renamed, and then its folder is synced: it is there whole or not
    at all, and outlives a loss of power.

    Parameters
    ----------
    metadata
        Zarr 3 metadata of the array, as `sharded` gives it; one shard holds one plane, Y and X the last two axes.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        plane = [1] * (len(metadata["shape"]) - 2) + metadata["shape"][-2:]
        self._metadata = {**metadata, "shape": plane}
        self._key = "c/" + "/".join("0" for _ in plane)
        self._own = threading.local()  # each thread's encoder and buffer
        plane_bytes = math.prod(plane) * np.dtype(metadata["data_type"]).itemsize
        threads = max(2, min(_MOST_THREADS, _MOST_BYTES // plane_bytes))
        self._threads = ThreadPoolExecutor(threads, "livestain-disk")
        # Threads, encoders and buffers are made now: that takes as long as a commit, and the first frame would wait.
        for begun in [self._threads.submit(self._prepare) for _ in range(threads)]:
            begun.result()

    def write(self, file: Path, plane: NDArray[Any]) -> Future[None]:
        """Begin to write a plane, (Y, X); the future is done when it is on disk, or has an OSError or ValueError.

        `plane` must not change before that. One that is all fill value is no file, and removes what is there.
        """
        return self._threads.submit(self._put, file, plane)

    def close(self) -> None:
        """Wait for what was begun, and end the threads."""
        self._threads.shutdown()

    def _prepare(self) -> None:
        plane = np.ones(self._metadata["shape"][-2:], self._metadata["data_type"])
        self._encode(plane)
        self._aligned(plane.tobytes())

    def _put(self, file: Path, plane: NDArray[Any]) -> None:
        encoded = self._encode(plane)
        if not encoded:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part")
        try:
            _write(part, self._aligned(encoded), len(encoded))
            part.replace(file)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(file.parent)

    def _encode(self, plane: NDArray[Any]) -> bytes:
        """Encode a plane to the bytes of its shard; none if it is all fill value."""
        if not hasattr(self._own, "array"):
            spec = {"driver": "zarr3", "kvstore": {"driver": "memory"}, "metadata": self._metadata}
            self._own.array = ts.open(spec, create=True, context=ts.Context()).result()
        array: ts.TensorStore = self._own.array
        array[(0,) * (len(array.shape) - 2)].write(plane).result()
        encoded: ts.KvStore = array.kvstore  # type: ignore[assignment] # there always is one below zarr3
        found = encoded.read(self._key).result()
        return bytes(found.value) if found.state == "value" else b""

    def _aligned(self, encoded: bytes) -> mmap.mmap:
        """Copy bytes to where the drive can take them from: memory of whole pages, kept from plane to plane."""
        buffer: mmap.mmap | None = getattr(self._own, "buffer", None)
        if buffer is None or len(buffer) < len(encoded):
            self._own.buffer = buffer = mmap.mmap(-1, _whole_blocks(len(encoded) * 5 // 4))
        buffer[: len(encoded)] = encoded
        return buffer


def _whole_blocks(n_bytes: int) -> int:
    return -(-n_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


def _write(file: Path, buffer: mmap.mmap, n_bytes: int) -> None:
    """Write the first bytes of a buffer and wait until the drive has them."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o666)  # less the user's umask
    try:
        with memoryview(buffer) as view:
            done = 0
            while done < n_bytes:
                # A short write ends on a block: what is left begins on one again.
                with view[done : _whole_blocks(n_bytes)] as rest:
                    done += os.write(descriptor, rest)
        os.ftruncate(descriptor, n_bytes)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Wait until the drive has the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
