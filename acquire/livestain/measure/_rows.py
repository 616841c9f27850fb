"""Rows on disk: an Arrow IPC stream while they come, one Parquet file once they are all there."""

from __future__ import annotations

import json
import logging
import os
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from livestain._errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path

__all__ = ["PROVENANCE_KEY", "Extent", "RowStream", "extent", "iter_batches", "read_rows"]

log = logging.getLogger("livestain")

PROVENANCE_KEY = b"livestain"
_GROUP_ROWS = 131_072  # of a Parquet file; what is in memory at once while one is written
_MESSAGE_ERRORS = (pa.ArrowInvalid, OSError, EOFError)  # what pyarrow raises at a tear, by where the tear is


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a stream can be read: whole batches, then perhaps the torn rest of a write that a kill cut off."""

    n_rows: int
    n_bytes: int
    torn_bytes: int


class RowStream:
    """Appends batches of rows to FOLDER/NAME.arrow; one writer, any number of readers.

    Each append is one write of whole messages, so that a kill tears at most the last batch. There is no end mark: the
    stream is readable at any time, and can be taken up again. Opened on a folder that has rows already, it drops a
    torn end and goes on behind the last whole batch; rows that were compacted are turned into a stream again.

    Parameters
    ----------
    folder
        The run folder.
    name
        Of the table: "cells" gives cells.arrow, then cells.parquet.
    schema
        The columns.
    provenance
        Kept as JSON under the key "livestain" of the schema's metadata, if the rows are new.
    sync
        Whether every append waits for the drive (fsync), so that it survives a loss of power.

    Raises
    ------
    StoreError
        If the file cannot be opened, or has other columns.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        schema: pa.Schema,
        provenance: Mapping[str, Any] | None = None,
        *,
        sync: bool = False,
    ) -> None:
        self.path = folder / f"{name}.arrow"
        self.parquet_path = folder / f"{name}.parquet"
        self._sync = sync
        self._schema = schema.with_metadata({PROVENANCE_KEY: json.dumps(dict(provenance or {})).encode()})
        try:
            if not self.path.exists() and self.parquet_path.exists():
                self._expand()
            known = extent(self.path) if self.path.exists() else Extent(0, 0, 0)
            self.n_rows, self._n_bytes = known.n_rows, known.n_bytes
            if known.n_bytes:
                self._check_columns()
            self._file = self.path.open("ab", buffering=0)
            self._cut(known.n_bytes)
            if not known.n_bytes:
                self._write(self._schema.serialize().to_pybytes())
            self.parquet_path.unlink(missing_ok=True)  # the same rows: a kill came while they were compacted
        except OSError as error:
            raise _cannot("open", self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def schema(self) -> pa.Schema:
        """The columns, with the provenance that the file holds."""
        return self._schema

    def append(self, columns: Mapping[str, Any]) -> None:
        """Add rows, all or none; they can be read by others when this returns.

        Parameters
        ----------
        columns
            Every column by name: an array or sequence, all of one length.

        Raises
        ------
        StoreError
            If a column is missing, unknown or of another type, or the disk refuses.
        """
        self.append_batch(_batch(columns, self._schema, self.path))

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows that are Arrow already, of this schema."""
        if batch.num_rows == 0:
            return
        self._write(_messages(batch))
        self.n_rows += batch.num_rows

    def truncate(self, n_rows: int) -> None:
        """Drop all rows behind the first `n_rows`: a measurement that is resumed writes them again.

        Raises
        ------
        StoreError
            If there are fewer rows.
        """
        if not 0 <= n_rows <= self.n_rows:
            raise StoreError(
                f"{self.path} has {self.n_rows} rows, so it cannot be resumed behind row {n_rows}: measure the run "
                "again."
            )
        rest, kept = None, 0
        with closing(_whole_batches(self.path)) as batches:
            end = _schema_end(self.path)
            for batch, batch_end in batches:
                if kept + batch.num_rows > n_rows:
                    rest = batch.slice(0, n_rows - kept)
                    break
                kept, end = kept + batch.num_rows, batch_end
        self._cut(end)
        self.n_rows = kept
        if rest is not None:
            self.append_batch(rest)

    def close(self) -> None:
        """Sync and close; the stream stays as it is.

        Raises
        ------
        StoreError
            If the drive refuses; the file is closed all the same.
        """
        if self._file.closed:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _cannot("sync", self.path, error) from error
        finally:
            self._file.close()

    def compact(self) -> Path:
        """Close, turn the stream into Parquet in one step (a rename), and remove the stream.

        Raises
        ------
        StoreError
            If the disk refuses; then the stream is still there.
        """
        self.close()
        fresh = self.parquet_path.with_suffix(".parquet.new")
        try:
            _write_parquet(fresh, self._schema, self.path)
            fresh.replace(self.parquet_path)
            self.path.unlink()
        except OSError as error:
            raise _cannot("compact", self.path, error) from error
        return self.parquet_path

    # ------------------------------------------------------------------ inside

    def _check_columns(self) -> None:
        there = _read_schema(self.path)
        if not there.equals(self._schema, check_metadata=False):
            raise StoreError(
                f"{self.path} has the columns {', '.join(there.names)}, which this version of livestain does not "
                "write. Measure the run anew: `livestain measure --again`."
            )
        self._schema = there

    def _write(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) or 0 :]
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            self._cut(self._n_bytes)  # half a batch, with the next one behind it, would end the table there
            raise _cannot("write", self.path, error) from error
        self._n_bytes += len(data)

    def _cut(self, n_bytes: int) -> None:
        try:
            self._file.truncate(n_bytes)
        except OSError as error:
            raise _cannot("shorten", self.path, error) from error
        self._n_bytes = n_bytes

    def _expand(self) -> None:
        fresh = self.path.with_suffix(".arrow.new")
        with pq.ParquetFile(self.parquet_path) as source, fresh.open("wb") as file:
            file.write(source.schema_arrow.serialize().to_pybytes())
            for batch in source.iter_batches(_GROUP_ROWS):
                file.write(_messages(batch))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)


def extent(path: Path) -> Extent:
    """Say how far a stream can be read; nothing is kept in memory.

    Raises
    ------
    StoreError
        If the file cannot be read.
    """
    size = path.stat().st_size
    end = _schema_end(path)
    n_rows = 0
    with closing(_whole_batches(path)) as batches:
        for batch, batch_end in batches:
            n_rows, end = n_rows + batch.num_rows, batch_end
    return Extent(n_rows, end, size - end)


def iter_batches(folder: Path, name: str) -> Iterator[pa.RecordBatch]:
    """Give a table's batches one after another, from the stream where there is one, else from Parquet.

    A torn end is left out and logged.

    Raises
    ------
    StoreError
        If there is no such table.
    """
    path, parquet = folder / f"{name}.arrow", folder / f"{name}.parquet"
    if path.exists():
        end = _schema_end(path)
        for batch, batch_end in _whole_batches(path):
            end = batch_end
            yield batch
        if torn := path.stat().st_size - end:
            log.warning("%s ends in %d bytes of a batch that was not written to its end; they are left out", path, torn)
    elif parquet.exists():
        with pq.ParquetFile(parquet) as file:
            yield from file.iter_batches(_GROUP_ROWS)
    else:
        raise _no_table(folder, name)


def read_rows(folder: Path, name: str) -> pa.Table:
    """Read a table, whichever form it has at the moment; a torn end is left out and logged.

    Raises
    ------
    StoreError
        If there is no such table.
    """
    return pa.Table.from_batches(iter_batches(folder, name), read_schema(folder, name)).unify_dictionaries()


def read_schema(folder: Path, name: str) -> pa.Schema:
    """Read a table's columns and provenance."""
    path, parquet = folder / f"{name}.arrow", folder / f"{name}.parquet"
    if path.exists():
        return _read_schema(path)
    if parquet.exists():
        return pq.read_schema(parquet)
    raise _no_table(folder, name)


def _no_table(folder: Path, name: str) -> StoreError:
    return StoreError(
        f"{folder} has neither {name}.arrow nor {name}.parquet. Measure it first: `livestain measure {folder}`."
    )


def _batch(columns: Mapping[str, Any], schema: pa.Schema, path: Path) -> pa.RecordBatch:
    if set(columns) != set(schema.names):
        missing, unknown = set(schema.names) - set(columns), set(columns) - set(schema.names)
        raise StoreError(
            f"rows for {path.name} need its columns, but {sorted(missing)} are missing and {sorted(unknown)} unknown."
        )
    try:
        return pa.record_batch([_array(columns[field.name], field.type) for field in schema], schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise StoreError(f"rows for {path.name} do not fit its columns: {error}.") from error


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        array = pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    elif pa.types.is_string(kind):
        array = pa.array(values, kind)
    else:
        # By way of numpy, since pyarrow turns Python's 1.5 into an integer without a word.
        array = pa.array(np.asarray(values), from_pandas=False)
        array = array if len(array) and array.type == kind else array.cast(kind)
    if array.null_count:
        raise ValueError("a value is missing; a number that is not known is NaN, a text is empty")
    return array


def _messages(batch: pa.RecordBatch) -> bytes:
    """Serialise a batch with the dictionaries it needs, so that it can be read whatever was before it."""
    schema = batch.schema.serialize().size
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
        end = sink.tell()
    return bytes(sink.getvalue()[schema:end])


def _whole_batches(path: Path) -> Generator[tuple[pa.RecordBatch, int], None, None]:
    """Give each whole batch of a stream and where it ends, up to the end or the tear."""
    # Not mapped: a reader would crash when the writer shortens a mapped file.
    with pa.OSFile(str(path)) as source:
        try:
            reader = pa.ipc.open_stream(source)
        except _MESSAGE_ERRORS:
            return
        while True:
            try:
                batch = reader.read_next_batch()
            except (StopIteration, *_MESSAGE_ERRORS):
                return
            yield batch, source.tell()


def _read_schema(path: Path) -> pa.Schema:
    with pa.OSFile(str(path)) as source:
        return pa.ipc.read_schema(source)


def _schema_end(path: Path) -> int:
    """Give where the first batch begins; 0 if not even the schema is whole."""
    with pa.OSFile(str(path)) as source:
        try:
            pa.ipc.read_schema(source)
        except _MESSAGE_ERRORS:
            return 0
        return int(source.tell())


def _write_parquet(path: Path, schema: pa.Schema, stream: Path) -> None:
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            waiting: list[pa.RecordBatch] = []
            for batch, _ in _whole_batches(stream):
                waiting.append(batch)
                if sum(b.num_rows for b in waiting) >= _GROUP_ROWS:
                    writer.write_table(pa.Table.from_batches(waiting, schema).unify_dictionaries())
                    waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting, schema).unify_dictionaries())
        file.flush()
        os.fsync(file.fileno())


def _cannot(what: str, path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot {what} the table {path}: {error.strerror or error}.")
