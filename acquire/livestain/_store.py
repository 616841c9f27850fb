"""The run folder: images and journal together. What is acknowledged is on disk."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
import zlib
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Self

import filelock
import numpy as np

from livestain._errors import StoreError
from livestain._frame import Frame, Note, Stained
from livestain._images import IMAGES_NAME, Images, first_sentence
from livestain._journal import JOURNAL_NAME, Journal, mend, read_header
from livestain._lines import header_line, iso_time, layout_from_header, raw_line, stained_line
from livestain._ome import groups, read_interval_s, read_windows, write_group
from livestain._recent import Recent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._frame import Place
    from livestain._layout import Layout

__all__ = ["Store", "crc32_of", "locked", "refuse_existing"]

log = logging.getLogger("livestain")

_LOCK_NAME = ".livestain.lock"

Planes = list[tuple["Place", "NDArray[Any]"]]


class Store:
    """A run folder that is open for writing, by one process and in it by one thread.

    `commit` returns when the planes it was given are on disk; their journal lines come after. Make one with
    `create` or `reopen`, end it with `close` or, after an error, with `abandon`.
    """

    def __init__(self, folder: Path, layout: Layout, header: Mapping[str, Any], lock: filelock.BaseFileLock) -> None:
        self.folder = folder
        self.layout = layout
        self.header = header
        self.images: Images  # set by create and reopen
        self.counts = {"raw": 0, "stained": 0, "owed": 0}  # of what this process put on disk, to show progress
        self.recent = Recent()
        self._held = ExitStack()  # what is let go at the end, however it comes
        self._held.callback(lock.release)
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
        store = cls(folder, layout, header_line(layout, time.time(), header), _lock(folder))
        try:
            store._write_groups()
            store.images = store._held.enter_context(closing(Images(folder, layout, create=True, sync=sync)))
            store._journal.append([store.header], sync=True)
        except (OSError, ValueError, StoreError) as error:
            store.abandon()
            shutil.rmtree(folder, ignore_errors=True)  # we made it a moment ago, and there is no frame in it
            raise StoreError(f"cannot prepare the run folder {folder}: {first_sentence(error)}") from error
        return store

    @classmethod
    def reopen(cls, folder: Path, *, sync: bool = True, mend_metadata: bool = False) -> tuple[Self, int]:
        """Open a run that has ended, however it ended, to mend it or to add predictions to it.

        Parameters
        ----------
        folder
            The run folder.
        sync
            See `Images`.
        mend_metadata
            Whether to write the Zarr metadata that is missing again, from the journal's header.

        Returns
        -------
        tuple
            The store, and the length in bytes of the torn last journal line that was cut off (0 if none was).

        Raises
        ------
        StoreError
            If the folder is no run, the run is still going on, or its images cannot be opened.
        """
        read_header(folder / JOURNAL_NAME)  # a folder that is no run is left as it is, without a lock file
        lock = _lock(folder)
        try:
            torn_bytes = mend(folder / JOURNAL_NAME)
            header = read_header(folder / JOURNAL_NAME)
            store = cls(folder, layout_from_header(header), header, lock)
        except BaseException:
            lock.release()
            raise
        try:
            images = Images(folder, store.layout, mend=mend_metadata, sync=sync)
            store.images = store._held.enter_context(closing(images))
            if mend_metadata:
                store._mend_groups()
            first = folder / IMAGES_NAME / store.layout.images[0].path
            store._windows = read_windows(first)
            if store.layout.interval_s:  # the header has what was asked for, the images what was measured
                store.layout = dataclasses.replace(store.layout, interval_s=read_interval_s(first))
        except (OSError, ValueError, LookupError) as error:
            store.abandon()
            raise StoreError(
                f"cannot open the images of {folder}: {first_sentence(error)} `livestain recover {folder}` writes "
                "metadata that is missing again."
            ) from error
        store._last_t = [store.images.n_t(i) - 1 for i in range(len(store.layout.images))]
        return store, torn_bytes

    def close(self, reason: str, *, interval_s: float | None = None) -> None:
        """Cut the time axes to what was written, say in the journal how the run ended, and let go.

        Parameters
        ----------
        reason
            "completed", "canceled", "errored", "recovered" or "backfilled".
        interval_s
            The interval that was measured, if it is not the one that was asked for; the images' time scale.

        Raises
        ------
        StoreError
            If one of this cannot be done; what was committed is safe all the same.
        """
        try:
            if interval_s is not None:
                self.layout = dataclasses.replace(self.layout, interval_s=interval_s)
            for image, last_t in enumerate(self._last_t):
                self.images.resize_t(image, max(1, last_t + 1))
            self._write_groups()
            measured = {} if interval_s is None else {"interval_s": interval_s}
            self.note([{"kind": "end", "reason": reason, "time": iso_time(time.time()), **measured}], sync=True)
            self._journal.close()
        except (OSError, ValueError, StoreError) as error:
            raise StoreError(
                f"could not finish {self.folder}: {first_sentence(error)} Its frames are safe; when the drive is "
                f"well again, run `livestain recover {self.folder}`."
            ) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go and touch nothing: after an error, what is on disk may be more than what we know of."""
        try:
            self._journal.close()
        except StoreError as error:
            log.warning("%s", error)
        finally:
            self._held.close()

    def commit(self, items: Sequence[Frame | Stained | Note]) -> None:
        """Write the planes of all items at once, wait until they are on disk, then journal them.

        Raises
        ------
        StoreError
            If a plane or its line could not be written. What could be written is journalled and safe.
        """
        planes = [plane for item in items for plane in _planes(item)]
        for place, _ in planes:
            self._last_t[place.image] = max(self._last_t[place.image], place.t)
        crc32, failed = self._write(planes)
        committed_ns = time.perf_counter_ns()
        done = [item for item in items if not any(place in failed for place, _ in _planes(item))]
        lines = [_line(item, committed_ns, crc32) for item in done]
        self._journal.append(lines)
        self._count(lines)
        if failed:
            place, error = next(iter(failed.items()))
            raise StoreError(
                f"writing {place} into {self.folder} failed: {first_sentence(error)} Every frame journalled is on "
                "disk. Free some space or mend the drive, then run "
                f"`livestain recover {self.folder}`."
            ) from error
        self._choose_windows(planes)

    def _write(self, planes: Planes) -> tuple[dict[Place, int], dict[Place, Exception]]:
        """Write planes side by side and wait for all of them; give their checksums, and why some failed."""
        writes: list[tuple[Place, Any]] = []
        failed: dict[Place, Exception] = {}
        for place, image in planes:
            try:
                writes.append((place, self.images.write(place, image)))
            except (OSError, ValueError) as error:
                failed[place] = error
        crc32 = {place: crc32_of(image) for place, image in planes}  # while they are on their way
        for place, write in writes:
            try:
                write.result()
            except (OSError, ValueError) as error:
                failed[place] = error
        return crc32, failed

    def note(self, lines: Iterable[Mapping[str, Any]], *, sync: bool = False) -> None:
        """Journal lines that come without planes, or about planes that are on disk already."""
        self._journal.append(lines, sync=sync)

    @property
    def time_points(self) -> int:
        """How many time points have begun to be written, of the position that is furthest."""
        return max(self._last_t) + 1

    def end_after(self, last_t: Sequence[int]) -> None:
        """Have `close` cut each image's time axis after its last acknowledged time point."""
        self._last_t = list(last_t)

    def _count(self, lines: Iterable[Mapping[str, Any]]) -> None:
        for line in lines:
            self.recent.add(line)
            if line["kind"] == "raw":
                self.counts["raw"] += 1
            elif line.get("status") == "stained":
                self.counts["stained"] += 1
                self.counts["owed"] -= not line["live"]
            elif line.get("status") == "pending":
                self.counts["owed"] += line["live"]

    def _choose_windows(self, planes: Planes) -> None:
        """Choose each channel's display range from its first plane; write them once all channels have one."""
        if len(self._windows) == len(self.layout.channels):
            return
        for place, image in planes:
            if place.c not in self._windows:
                low, high = np.percentile(image[::8, ::8], [0.5, 99.8])
                least_high = self.layout.channels[place.c].least_high
                low = 0.0 if least_high >= 65535 else low
                self._windows[place.c] = (float(low), float(max(high, least_high, low + 1)))
        if len(self._windows) == len(self.layout.channels):
            try:
                self._write_groups()
            except OSError as error:  # only how it looks in a viewer; `close` writes them again
                log.warning("could not write the display ranges yet: %s", error)

    def _mend_groups(self) -> None:
        for path, attributes in groups(self.layout, self.header["provenance"], {}).items():
            if not (self.folder / IMAGES_NAME / path / "zarr.json").is_file():
                write_group(self.folder / IMAGES_NAME / path, attributes)

    def _write_groups(self) -> None:
        for path, attributes in groups(self.layout, self.header["provenance"], self._windows).items():
            write_group(self.folder / IMAGES_NAME / path, attributes)


def crc32_of(image: NDArray[np.unsignedinteger]) -> int:
    """Checksum a plane as it is stored: CRC-32 of its uint16 bytes, little-endian, row by row."""
    return zlib.crc32(np.ascontiguousarray(image, dtype="<u2").data)


def _lock(folder: Path) -> filelock.BaseFileLock:
    """Take the run folder for this process. The lock dies with the process, however it dies."""
    lock = filelock.FileLock(folder / _LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StoreError(
            f"{folder} is being written by another process: its run, or a livestain measure, backfill or recover. Wait "
            "until that has ended."
        ) from error
    except OSError as error:
        raise StoreError(f"cannot lock {folder}: {error.strerror}. Is the folder writable?") from error
    return lock


@contextmanager
def locked(folder: Path) -> Iterator[Layout]:
    """Take a run folder for this process, to add to it what is not frames; give its layout.

    Raises
    ------
    StoreError
        If the folder is no run, or is being written by another process.
    """
    layout = layout_from_header(read_header(folder / JOURNAL_NAME))
    lock = _lock(folder)
    try:
        yield layout
    finally:
        lock.release()


def refuse_existing(folder: Path) -> None:
    """Refuse a run folder that is there, or that cannot be because a file stands in its way.

    Raises
    ------
    StoreError
        With the remedy.
    """
    if folder.exists():
        raise StoreError(
            f"{folder} exists already, and a run is never overwritten. Give output.name another value, or move the "
            "old run away."
        )
    if in_the_way := next((parent for parent in folder.parents if parent.is_file()), None):
        raise StoreError(f"cannot make the run folder {folder}: {in_the_way} is a file. Choose another output.folder.")


def _make_folder(folder: Path) -> None:
    refuse_existing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=False)
    except OSError as error:
        raise StoreError(
            f"cannot make the run folder {folder}: {error.strerror}. Choose another output.folder, or mend its "
            "permissions."
        ) from error


def _planes(item: Frame | Stained | Note) -> Planes:
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
