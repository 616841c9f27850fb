"""The run folder: images and journal together. What is acknowledged is on disk."""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING, Any, Self

import filelock
import numpy as np

from livestain._errors import StoreError
from livestain._frame import Frame, Note, Stained
from livestain._images import IMAGES_NAME, Images, first_sentence
from livestain._journal import JOURNAL_NAME, Journal
from livestain._lines import header_line, iso_time, layout_from_header, raw_line, stained_line
from livestain._ome import groups, read_windows, write_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._frame import Place
    from livestain._layout import Layout

__all__ = ["Store", "crc32_of", "lock_run"]

_LOCK_NAME = ".livestain.lock"


class Store:
    """A run folder that is open for writing, by one process and in it by one thread.

    `commit` returns when the planes it was given are on disk; their journal lines come after. Make one with
    `create` or `reopen`, end it with `close`.
    """

    def __init__(
        self, folder: Path, layout: Layout, provenance: Mapping[str, Any], lock: filelock.BaseFileLock
    ) -> None:
        self.folder = folder
        self.layout = layout
        self.images: Images  # set by create and reopen
        self.counts = {"raw": 0, "stained": 0, "owed": 0}  # of what this process put on disk, to show progress
        self._provenance = provenance
        self._lock = lock
        self._last_t: list[int] = [-1] * len(layout.images)
        self._windows: dict[int, tuple[float, float]] = {}
        self._journal = Journal(folder / JOURNAL_NAME)

    @classmethod
    def create(cls, folder: Path, layout: Layout, header: Mapping[str, Any], *, sync: bool = True) -> Self:
        """Make the run folder: groups, empty arrays and the journal's header, before the first frame.

        Parameters
        ----------
        folder
            Must not exist.
        layout
            What will be written.
        header
            What the journal's first line says beside the layout; its "provenance" goes into the images too.
        sync
            See `Images`.

        Raises
        ------
        StoreError
            If the folder exists, or cannot be made or written.
        """
        _make_folder(folder)
        store = cls(folder, layout, header["provenance"], lock_run(folder))
        try:
            store._write_groups()
            store.images = Images(folder, layout, create=True, sync=sync)
            store._journal.append([header_line(layout, time.time(), header)], sync=True)
        except (OSError, ValueError, StoreError) as error:
            store._let_go()
            raise StoreError(f"cannot prepare the run folder {folder}: {first_sentence(error)}") from error
        return store

    @classmethod
    def reopen(cls, folder: Path, header: Mapping[str, Any], *, sync: bool = True) -> Self:
        """Open a run that has ended, to mend it or to add predictions to it.

        Raises
        ------
        StoreError
            If the run is still going on, or its images cannot be opened.
        """
        layout = layout_from_header(header)
        store = cls(folder, layout, header["provenance"], lock_run(folder))
        try:
            store.images = Images(folder, layout, sync=sync)
            store._windows = read_windows(folder / IMAGES_NAME / layout.images[0].path)
        except (OSError, ValueError, LookupError) as error:
            store._let_go()
            raise StoreError(f"cannot open the images of {folder}: {first_sentence(error)}") from error
        store._last_t = [store.images.n_t(i) - 1 for i in range(len(layout.images))]
        return store

    def close(self, reason: str) -> None:
        """Cut the time axes to what was written, say in the journal how the run ended, and let go.

        Raises
        ------
        StoreError
            If one of this cannot be done; what was committed is safe all the same.
        """
        try:
            for image, last_t in enumerate(self._last_t):
                self.images.resize_t(image, max(1, last_t + 1))
            self._write_groups()
            self._journal.append([{"kind": "end", "reason": reason, "time": iso_time(time.time())}], sync=True)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"could not finish {self.folder}: {first_sentence(error)} Its frames are safe; when the drive is "
                f"well again, run `livestain recover {self.folder}`."
            ) from error
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._journal.close()
        self._lock.release()

    def commit(self, items: Sequence[Frame | Stained | Note]) -> None:
        """Write the planes of all items at once, wait until they are on disk, then journal them.

        Raises
        ------
        StoreError
            If a plane or its line could not be written. What was committed before is safe.
        """
        planes = [plane for item in items for plane in _planes(item)]
        try:
            writes = [self.images.write(place, image) for place, image in planes]
            crc32 = {place: crc32_of(image) for place, image in planes}  # while the planes are on their way
            for write in writes:
                write.result()
        except (OSError, ValueError) as error:
            raise StoreError(
                f"writing {planes[0][0]} into {self.folder} failed: {first_sentence(error)} Every frame journalled "
                "before is on disk. Free some space or mend the drive, then run "
                f"`livestain recover {self.folder}`."
            ) from error
        committed_ns = time.perf_counter_ns()
        lines = [_line(item, committed_ns, crc32) for item in items]
        self._journal.append(lines)
        self._remember(planes, lines)

    def note(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Journal lines about planes that are on disk already."""
        self._journal.append(lines)

    def forget_after(self, t: int) -> None:
        """Have `close` cut the time axes after time point `t`: nothing that was acknowledged is there."""
        self._last_t = [t] * len(self._last_t)

    def _remember(self, planes: Iterable[tuple[Place, NDArray[Any]]], lines: Iterable[Mapping[str, Any]]) -> None:
        for place, _ in planes:
            self._last_t[place.image] = max(self._last_t[place.image], place.t)
        for line in lines:
            if line["kind"] == "raw":
                self.counts["raw"] += 1
            elif line.get("status") == "stained":
                self.counts["stained"] += 1
                self.counts["owed"] -= not line["live"]
            elif line.get("status") == "pending":
                self.counts["owed"] += line["live"]
        self._choose_windows(planes)

    def _choose_windows(self, planes: Iterable[tuple[Place, NDArray[Any]]]) -> None:
        """Choose each channel's display range from its first plane; write them once all channels have one."""
        if len(self._windows) == len(self.layout.channels):
            return
        for place, image in planes:
            if place.c not in self._windows:
                low, high = np.percentile(image[::8, ::8], [0.5, 99.8])
                self._windows[place.c] = (float(low), float(max(high, low + 1)))
        if len(self._windows) == len(self.layout.channels):
            self._write_groups()

    def _write_groups(self) -> None:
        for path, attributes in groups(self.layout, self._provenance, self._windows).items():
            write_group(self.folder / IMAGES_NAME / path, attributes)


def crc32_of(image: NDArray[np.unsignedinteger]) -> int:
    """Checksum a plane as it is stored: CRC-32 of its uint16 bytes, little-endian, row by row."""
    return zlib.crc32(np.ascontiguousarray(image, dtype="<u2").data)


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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=False)
    except FileExistsError as error:
        raise StoreError(
            f"{folder} exists already, and a run is never overwritten. Give output.name another value, or move the "
            "old run away."
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot make the run folder {folder}: {error.strerror}. Choose another output.folder, or mend its "
            "permissions."
        ) from error


def _planes(item: Frame | Stained | Note) -> list[tuple[Place, NDArray[Any]]]:
    match item:
        case Frame():
            return [(item.place, item.image)]
        case Stained():
            return list(zip(item.job.targets, item.planes, strict=True))
        case Note():
            return []


def _line(item: Frame | Stained | Note, committed_ns: int, crc32: Mapping[Place, int]) -> dict[str, Any]:
    match item:
        case Frame():
            return raw_line(item, committed_ns, crc32[item.place])
        case Stained():
            return stained_line(item, committed_ns, [crc32[target] for target in item.job.targets])
        case Note():
            return item.line
