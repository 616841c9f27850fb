"""The journal of a run: one JSON line for everything that is on disk, written after it is on disk."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from livestain._appended import Appended
from livestain._errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["JOURNAL_NAME", "Journal", "Tail", "mend", "read_header", "read_lines"]

JOURNAL_NAME = "frames.jsonl"


class Journal(Appended):
    """Appends lines. One `append` is one write, so a kill tears at most the last line of the file.

    The planes that a line speaks of were synced by their own commit; the lines themselves are synced at the
    start and at the end. After a loss of power the last lines may be gone while their planes are there:
    `livestain recover` finds such planes and journals them again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, what="the journal", when_torn="`livestain recover` mends it.")

    def append(self, lines: Iterable[Mapping[str, Any]], *, sync: bool = False) -> None:
        """Write the lines, whole, or raise.

        Raises
        ------
        StoreError
            If the file system refuses: a full disk, a lost network drive.
        """
        data = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
        self._add(data, sync=sync)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read a journal, also while it is being written: a torn last line is left out.

    Raises
    ------
    StoreError
        If there is no journal, or a line before the last is not JSON.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    return
                yield _parse(raw, path, number)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"{path.parent} has no {path.name}: it is not a run folder of livestain. Give the folder that holds "
            "images.ome.zarr and frames.jsonl."
        ) from error


def _parse(raw: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        line = json.loads(raw)
        line["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}, line {number}: not a journal line ({raw[:60]!r}). The file was edited or damaged; "
            "restore it from a copy, or delete the bad line to lose only what that line says."
        ) from error
    assert isinstance(line, dict)  # noqa: S101  (the subscription above has shown it)
    return line


def read_header(path: Path) -> dict[str, Any]:
    """Read a journal's first line, which says what was run.

    Raises
    ------
    StoreError
        If the file is missing or does not begin with a header of a version that we know.
    """
    first = next(read_lines(path), None)
    if first is None or first["kind"] != "run" or first.get("format") != 1:
        raise StoreError(
            f"{path} does not begin with a header that this livestain reads: {str(first)[:80]}. "
            "The run ended before its first frame, or was written by a newer livestain."
        )
    return first


def mend(path: Path) -> int:
    """Cut off a torn last line; return how many bytes were cut."""
    with path.open("r+b") as file:
        data_end = file.seek(0, os.SEEK_END)
        keep = data_end
        while keep > 0:  # a line is short: look back a little at a time for the last line end
            start = max(0, keep - 4096)
            file.seek(start)
            newline = file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep != data_end:
            file.truncate(keep)
            os.fsync(file.fileno())
        return data_end - keep


class Tail:
    """Follows a journal that is being written: each `read` gives the lines that are new and whole.

    A line that is none is an error of the reader's, unless `on_damaged` takes it.
    """

    def __init__(self, path: Path, on_damaged: Callable[[StoreError], None] | None = None) -> None:
        self._path = path
        self._on_damaged = on_damaged
        self._offset = self._number = 0

    def read(self, most_bytes: int = 1 << 20) -> list[dict[str, Any]]:
        """Read on, about `most_bytes` or one line if that is longer; an empty list if nothing new is there."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(most_bytes) + file.readline()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(self._parsed(whole))

    def _parsed(self, whole: bytes) -> Iterator[dict[str, Any]]:
        for raw in whole.splitlines():
            self._number += 1
            try:
                yield _parse(raw, self._path, self._number)
            except StoreError as error:
                if self._on_damaged is None:
                    raise
                self._on_damaged(error)
