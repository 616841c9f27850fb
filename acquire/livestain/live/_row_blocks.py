"""A table on disk as blocks of rows: the batches of a stream that grows, or the row groups of a Parquet file."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from livestain._errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["Changed", "ParquetBlocks", "RowBlocks", "StreamBlocks", "Where", "joined", "open_blocks"]

Where = tuple[int, int]  # first byte and end of a batch in its stream; row group and 0 in a Parquet file

_READ_BYTES = 1 << 19  # at once: little enough for a processor's cache
_FAULTS = (pa.ArrowException, OSError, EOFError, ValueError)  # what pyarrow raises at a tear, by where the tear is


class Changed(Exception):  # noqa: N818  (not an error: the reader begins again)
    """What was read once is not what is on disk now: the table was cut, compacted or begun anew."""


class RowBlocks(Protocol):
    """A table on disk. The file is open only while it is read, so that the writer can always replace it."""

    at_once: int  # how many blocks are well read together

    def is_same(self) -> bool:
        """Whether what was read is still there."""

    def read_on(self, columns: Sequence[str] | None = None) -> Iterator[tuple[Where, Any]]:
        """Give the blocks that are new, and where they lie."""

    def read(self, wheres: Iterable[Where], columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Give blocks again; Changed if they are gone."""


def open_blocks(folder: Path, name: str, schema: pa.Schema) -> RowBlocks | None:
    """Open FOLDER/NAME.arrow, else FOLDER/NAME.parquet; None if there is neither.

    Raises
    ------
    StoreError
        If it cannot be read, or has other columns than `schema`.
    """
    kinds = ((StreamBlocks, folder / f"{name}.arrow"), (ParquetBlocks, folder / f"{name}.parquet"))
    for kind, path in kinds:
        try:
            return kind(path, schema)
        except FileNotFoundError:
            continue
        except _FAULTS as error:
            raise StoreError(
                f"{path} cannot be read: {_told(error)}. Measure the run again: `livestain measure {folder} --again`."
            ) from error
    return None


class StreamBlocks:
    """The batches of an Arrow stream that a `RowStream` writes.

    Each batch is written with its dictionaries, so the schema's bytes and those of any batches are a stream, too. A
    batch that is not there whole is left for later.
    """

    at_once = 64

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        with path.open("rb") as file:
            self._inode = os.fstat(file.fileno()).st_ino
            with pa.PythonFile(file, "r") as source:
                found = pa.ipc.read_schema(source)
                self._end = source.tell()
                source.seek(0)
                self._schema = source.read(self._end)
        _check(path, found, schema)
        self._names = schema.names
        self._last = (0, self._schema)  # what was read last, and where

    def is_same(self) -> bool:
        """Whether the last batch that was read is still where it was: a table is only ever cut at its end."""
        start, data = self._last
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_ino != self._inode:
                    return False
                file.seek(start)
                return bool(file.read(len(data)) == data)
        except OSError:
            return False

    def read_on(self, columns: Sequence[str] | None = None) -> Iterator[tuple[Where, pa.RecordBatch]]:
        """Give the batches that are new and whole; memory holds a megabyte, or one batch if that is larger."""
        size, more = _READ_BYTES, True
        while more:
            with _changes(), self._path.open("rb") as file:
                file.seek(self._end)
                data = file.read(size)
            more, before = len(data) == size, self._end
            for batch, start, end in self._batches(data, columns):
                self._last, self._end = (before + start, data[start:end]), before + end
                yield (before + start, before + end), batch
            size = _READ_BYTES if self._end > before else 4 * size

    def read(self, wheres: Iterable[Where], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Give batches again; those that lie one behind another are read at once."""
        for run in _runs(wheres):
            first, end = run[0][0], run[-1][1]
            with _changes(), self._path.open("rb") as file:
                file.seek(first)
                data = file.read(end - first)
            found = [(batch, (first + start, first + stop)) for batch, start, stop in self._batches(data, columns)]
            if [where for _, where in found] != run:
                raise Changed
            yield from (batch for batch, _ in found)

    def _batches(self, data: bytes, columns: Sequence[str] | None) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        """Give the whole batches of `data`, and their first byte and end in it."""
        fields = None if columns is None else [self._names.index(name) for name in columns]
        head, source = len(self._schema), pa.BufferReader(self._schema + data)
        reader = pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False))
        start = 0
        while True:
            try:
                batch = reader.read_next_batch()
            except (StopIteration, *_FAULTS):
                return
            end = source.tell() - head
            yield batch, start, end
            start = end


class ParquetBlocks:
    """The row groups of a Parquet file that a `RowStream` was compacted to."""

    at_once = 1

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._stream = path, path.with_suffix(".arrow")
        self._is = _signature(path)
        with pq.ParquetFile(path) as file:
            _check(path, file.schema_arrow, schema)
            self._metadata = file.metadata
        self._read = 0

    def is_same(self) -> bool:
        """Whether it is the same file, and no measurement has taken its rows up again."""
        try:
            return _signature(self._path) == self._is and not self._stream.exists()
        except OSError:
            return False

    def read_on(self, columns: Sequence[str] | None = None) -> Iterator[tuple[Where, pa.Table]]:
        """Give the row groups that were not read yet."""
        new = [(group, 0) for group in range(self._read, self._metadata.num_row_groups)]
        for where, rows in zip(new, self.read(new, columns), strict=True):
            self._read = where[0] + 1
            yield where, rows

    def read(self, wheres: Iterable[Where], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Give row groups again."""
        names = None if columns is None else list(columns)
        for group, _ in wheres:
            with _changes(), pq.ParquetFile(self._path, metadata=self._metadata) as file:
                rows = file.read_row_group(group, columns=names, use_threads=False)
            yield rows


def joined(blocks: Sequence[Any]) -> pa.Table:
    """Copy blocks, or parts of them, of one table on disk into one; a part alone would hold its block in memory."""
    if isinstance(blocks[0], pa.Table):
        return pa.concat_tables(blocks).unify_dictionaries().combine_chunks()
    return pa.Table.from_batches([pa.concat_batches(blocks)])


@contextmanager
def _changes() -> Generator[None, None, None]:
    """Take a file that is gone, or other than it was, for what it is: a table that its writer has replaced."""
    try:
        yield
    except _FAULTS as error:
        raise Changed from error


def _runs(wheres: Iterable[Where]) -> Iterator[list[Where]]:
    """Group batches that lie one behind another, up to what is read at once."""
    run: list[Where] = []
    for where in wheres:
        if run and (where[0] != run[-1][1] or where[1] - run[0][0] > _READ_BYTES):
            yield run
            run = []
        run.append(where)
    if run:
        yield run


def _check(path: Path, found: pa.Schema, wanted: pa.Schema) -> None:
    if not found.equals(wanted, check_metadata=False):
        raise StoreError(
            f"{path} has the columns {', '.join(found.names)}, which this version of livestain does not read. "
            f"Measure the run anew: `livestain measure {path.parent} --again`."
        )


def _signature(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _told(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).partition("\n")[0].rstrip(".")
