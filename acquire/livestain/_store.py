"""OME-Zarr 0.5 on disk through tensorstore, and the journal beside it: what is acknowledged is on disk."""

from __future__ import annotations

import dataclasses
import time
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import tensorstore as ts

from livestain._errors import StoreError
from livestain._frame import Frame, Job, Note, Place, Stained
from livestain._journal import JOURNAL_NAME, Journal
from livestain._layout import Channel, Image, Layout
from livestain._ome import groups, read_windows, write_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["IMAGES_NAME", "Store", "layout_from_header", "lock_run", "stain_line"]

IMAGES_NAME = "images.ome.zarr"
_LOCK_NAME = ".livestain.lock"
_T_BLOCK = 64  # time points by which an array grows: one resize costs as much as a plane's commit
_INNER_CHUNK_PX = 512

Item = Frame | Stained | Note


class Store:
    """The run folder, open for writing by one thread at a time.

    `commit` returns when the planes it was given are on disk, synced and renamed into place; their journal
    lines come after. One shard holds one plane, so a plane is there whole or not at all.
    """

    def __init__(
        self, folder: Path, layout: Layout, provenance: Mapping[str, Any], lock: filelock.BaseFileLock, *, sync: bool
    ) -> None:
        self.folder = folder
        self.layout = layout
        self._provenance = provenance
        self._lock = lock
        self._context = ts.Context({"file_io_sync": sync})
        self._arrays: list[ts.TensorStore] = []
        self._last_t = [-1] * len(layout.images)
        self.counts = {"raw": 0, "stained": 0, "owed": 0}  # of what is on disk, for whoever shows progress
        self._windows: dict[int, tuple[float, float]] = {}
        self._journal = Journal(folder / JOURNAL_NAME)

    # ---------------------------------------------------------------- open and close

    @classmethod
    def create(
        cls,
        folder: Path,
        layout: Layout,
        header: Mapping[str, Any],
        provenance: Mapping[str, Any],
        *,
        sync: bool = True,
    ) -> Store:
        """Make the run folder: groups, empty arrays and the journal's header, before the first frame.

        Raises
        ------
        StoreError
            If the folder exists, or cannot be made or written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=False)
        except FileExistsError as error:
            raise StoreError(
                f"{folder} exists already, and a run is never overwritten. Give output.name another value, or "
                "move the old run away."
            ) from error
        except OSError as error:
            raise StoreError(
                f"cannot make the run folder {folder}: {error.strerror}. Choose another output.folder, or mend "
                "its permissions."
            ) from error
        store = cls(folder, layout, provenance, lock_run(folder), sync=sync)
        try:
            store._write_groups()
            store._arrays = [store._create_array(image) for image in layout.images]
            store._journal.append([_header(layout, header)], sync=True)
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot prepare the run folder {folder}: {_first_line(error)}") from error
        return store

    @classmethod
    def reopen(cls, folder: Path, header: Mapping[str, Any], *, sync: bool = True) -> Store:
        """Open a run that ended, to check it or to add predictions to it.

        Raises
        ------
        StoreError
            If the run is still going on, or its arrays cannot be opened.
        """
        lock = lock_run(folder)
        layout = layout_from_header(header)
        store = cls(folder, layout, header["provenance"], lock, sync=sync)
        try:
            store._arrays = [
                ts.open(store._spec(image), open=True, context=store._context).result() for image in layout.images
            ]
        except (OSError, ValueError) as error:
            raise StoreError(
                f"cannot open the images of {folder}: {_first_line(error)} Run `livestain recover {folder}` first."
            ) from error
        store._last_t = [array.shape[0] - 1 for array in store._arrays]
        store._windows = read_windows(folder / IMAGES_NAME / layout.images[0].path)
        return store

    def close(self, reason: str) -> None:
        """Cut the time axis to what was written, say in the journal how the run ended, and let go."""
        try:
            for number, array in enumerate(self._arrays):
                self._arrays[number] = _resize_t(array, max(1, self._last_t[number] + 1))
            self._write_groups()
            self._journal.append([{"kind": "end", "reason": reason, "time": _iso(time.time())}])
            self._journal.close()
        except (OSError, ValueError) as error:
            raise StoreError(f"could not finish {self.folder}: {_first_line(error)}") from error
        finally:
            self._lock.release()

    def release(self) -> None:
        """Let go of a run that was only read."""
        self._journal.close()
        self._lock.release()

    def _write_groups(self) -> None:
        root = self.folder / IMAGES_NAME
        for path, attributes in groups(self.layout, self._provenance, self._windows).items():
            write_group(root / path, attributes)

    def _spec(self, image: Image) -> dict[str, Any]:
        path = self.folder / IMAGES_NAME / image.path / "0"
        return {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}

    def _create_array(self, image: Image) -> ts.TensorStore:
        height, width = self.layout.height, self.layout.width
        n_t = min(_T_BLOCK, self.layout.n_t or _T_BLOCK)
        inner = [1, 1, 1, min(_INNER_CHUNK_PX, height), min(_INNER_CHUNK_PX, width)]
        outer = [1, 1, 1, *(-(-n // i) * i for n, i in zip((height, width), inner[3:], strict=True))]
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        blosc = {
            "name": "blosc",
            "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0},
        }
        shard = {
            "chunk_shape": inner,
            "codecs": [little, blosc],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        metadata = {
            "shape": [n_t, len(self.layout.channels), image.n_z, height, width],
            "data_type": "uint16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": outer}},
            "codecs": [{"name": "sharding_indexed", "configuration": shard}],
            "dimension_names": ["t", "c", "z", "y", "x"],
            "fill_value": 0,
        }
        spec = {**self._spec(image), "metadata": metadata, "create": True}
        return ts.open(spec, context=self._context).result()

    # ---------------------------------------------------------------- planes

    def commit(self, items: Sequence[Item]) -> None:
        """Write the planes of all items at once, wait until they are on disk, then journal them.

        Raises
        ------
        StoreError
            If a plane or its line could not be written. What was committed before is safe.
        """
        planes = [plane for item in items for plane in _planes(item)]
        try:
            futures = [self._write(place, image) for place, image in planes]
            # While they are on their way: one pass over each plane for the checksum.
            sums = {place: zlib.crc32(np.ascontiguousarray(image)) for place, image in planes}
            for future in futures:
                future.result()
        except (OSError, ValueError) as error:
            raise StoreError(
                f"writing {', '.join(str(place) for place, _ in planes[:3])} into {self.folder} failed: "
                f"{_first_line(error)} Every frame journalled before is on disk. Free some space or mend the "
                f"drive, then run `livestain recover {self.folder}`."
            ) from error
        committed_ns = time.perf_counter_ns()
        lines = [line for item in items for line in _lines(item, committed_ns, sums)]
        self._journal.append(lines)
        self._count(lines)
        self._note_windows(items)

    def _count(self, lines: Iterable[Mapping[str, Any]]) -> None:
        for line in lines:
            if line["kind"] == "raw":
                self.counts["raw"] += 1
            elif line["kind"] == "stain" and line["status"] == "stained":
                self.counts["stained"] += 1
                self.counts["owed"] -= not line["live"]
            elif line["kind"] == "stain" and line["live"]:
                self.counts["owed"] += 1

    def _write(self, place: Place, image: NDArray[np.unsignedinteger]) -> ts.WriteFutures:
        array = self._arrays[place.image]
        if place.t >= array.shape[0]:
            grown = -(-(place.t + 1) // _T_BLOCK) * _T_BLOCK
            array = _resize_t(array, min(grown, self.layout.n_t or grown))
            self._arrays[place.image] = array
        self._last_t[place.image] = max(self._last_t[place.image], place.t)
        plane = image.astype(np.uint16, copy=False)
        return array[place.t, place.c, place.z].write(plane)

    def read(self, place: Place) -> NDArray[np.uint16]:
        """Read one plane back, (Y, X) uint16. Any thread may.

        Raises
        ------
        StoreError
            If the plane cannot be read.
        """
        try:
            plane: NDArray[np.uint16] = self._arrays[place.image][place.t, place.c, place.z].read().result()
        except (OSError, ValueError, IndexError) as error:
            raise StoreError(f"cannot read {place} of {self.folder}: {_first_line(error)}") from error
        return plane

    def note(self, line: Mapping[str, Any]) -> None:
        """Journal a line about planes that are on disk already."""
        self._journal.append([line])

    def places_on_disk(self) -> Iterator[Place]:
        """Give the place of every shard that is there, journalled or not."""
        for number, image in enumerate(self.layout.images):
            root = self.folder / IMAGES_NAME / image.path / "0" / "c"
            for shard in root.glob("*/*/*/0/0"):
                t, c, z = (int(part) for part in shard.relative_to(root).parts[:3])
                yield Place(number, t, c, z)

    def forget_after(self, t: int) -> None:
        """Have `close` cut the time axis after time point `t`, where nothing is that was acknowledged."""
        self._last_t = [t] * len(self._last_t)

    def _note_windows(self, items: Iterable[Item]) -> None:
        """Choose each channel's display range from its first plane, and write it once all channels have one."""
        if len(self._windows) == len(self.layout.channels):
            return
        for item in items:
            for place, image in _planes(item):
                if place.c not in self._windows:
                    low, high = np.percentile(image[::8, ::8], [0.5, 99.8])
                    self._windows[place.c] = (float(low), float(max(high, low + 1)))
        if len(self._windows) == len(self.layout.channels):
            self._write_groups()


def _resize_t(array: ts.TensorStore, n_t: int) -> ts.TensorStore:
    if array.shape[0] == n_t:
        return array
    return array.resize(exclusive_max=[n_t, None, None, None, None]).result()


def _planes(item: Item) -> list[tuple[Place, NDArray[Any]]]:
    match item:
        case Frame():
            return [(item.place, item.image)]
        case Stained():
            return list(zip(item.job.targets, item.planes, strict=True))
        case Note():
            return []


def _lines(item: Item, committed_ns: int, sums: Mapping[Place, int]) -> list[dict[str, Any]]:
    match item:
        case Frame():
            return [_raw_line(item, committed_ns, sums[item.place])]
        case Stained():
            return [_stained_line(item, committed_ns, [sums[t] for t in item.job.targets])]
        case Note():
            return [item.line]


def _raw_line(frame: Frame, committed_ns: int, crc32: int) -> dict[str, Any]:
    return {
        "kind": "raw",
        "at": dataclasses.astuple(frame.place),
        "time": _iso(frame.time_s),
        "camera_to_disk_ms": _ms(committed_ns - frame.received_ns),
        "crc32": crc32,
        **frame.meta,
    }


def _stained_line(item: Stained, committed_ns: int, crc32: list[int]) -> dict[str, Any]:
    line = stain_line(item.job, "stained") | {
        "provider": item.provider,
        "net_ms": round(item.net_ms, 3),
        "host_to_host_ms": round(item.host_to_host_ms, 3),
    }
    if item.job.live:
        # A model of several planes answers once it has the last of them.
        received_ns = max(frame.received_ns for frame in item.job.frames)
        line["camera_to_screen_ms"] = _ms(item.shown_ns - received_ns)
        line["camera_to_disk_ms"] = _ms(committed_ns - received_ns)
    return line | {"crc32": crc32}


def stain_line(job: Job, status: str, why: str | None = None) -> dict[str, Any]:
    """Make the journal line of a prediction: `status` is "stained" or "pending"."""
    line: dict[str, Any] = {
        "kind": "stain",
        "status": status,
        "stain": job.stain,
        "at": [dataclasses.astuple(place) for place in job.targets],
        "from": [dataclasses.astuple(place) for place in job.sources],
        "live": job.live,
    }
    return line | ({"why": why} if why else {})


def _header(layout: Layout, header: Mapping[str, Any]) -> dict[str, Any]:
    plain = dataclasses.asdict(dataclasses.replace(layout, image_of={}))
    return {"kind": "run", "format": 1, "time": _iso(time.time()), "layout": plain, **header}


def layout_from_header(header: Mapping[str, Any]) -> Layout:
    """Read back the layout that a journal's header carries. It places no events: those are over."""
    plain = dict(header["layout"])
    plain["images"] = tuple(
        Image(i["path"], i["name"], i["n_z"], tuple(i["well"]) if i["well"] else None) for i in plain["images"]
    )
    plain["channels"] = tuple(Channel(**channel) for channel in plain["channels"])
    plain["plate"] = tuple(plain["plate"]) if plain["plate"] else None
    return Layout(**plain)


def lock_run(folder: Path) -> filelock.BaseFileLock:
    """Take the run folder for this process. The lock dies with the process, however it dies.

    Raises
    ------
    StoreError
        If another process has it.
    """
    lock = filelock.FileLock(folder / _LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StoreError(f"{folder} is being written by another process. Wait until that run has ended.") from error
    except OSError as error:
        raise StoreError(f"cannot lock {folder}: {error.strerror}. Is the folder writable?") from error
    return lock


def _first_line(error: BaseException) -> str:
    # tensorstore appends its source locations; a person needs the first sentence.
    return str(error).partition(" [")[0].strip().rstrip(".") + "."


def _ms(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 3)


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, tz=UTC).isoformat(timespec="milliseconds")
