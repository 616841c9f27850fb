"""Rows on disk: an Arrow IPC stream while they come, one Parquet file once they are all there."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from livestain._appended import Appended
from livestain._errors import StoreError
from livestain.measure._row_files import (
    GROUP_ROWS,
    Extent,
    damaged,
    extent,
    iter_batches,
    open_parquet,
    read_rows,
    read_schema,
    schema_end,
    stream_schema,
    whole_batches,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["PROVENANCE_KEY", "Extent", "RowStream", "extent", "iter_batches", "read_rows", "read_schema"]

PROVENANCE_KEY = b"livestain"


class RowStream(Appended):
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
        If the file cannot be opened, is damaged, or has other columns.
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
        header = self._schema.serialize().to_pybytes()
        try:
            if not self.path.exists() and self.parquet_path.exists():
                self._expand()
            known = extent(self.path) if self.path.exists() else Extent(0, 0, 0)
            if known.n_bytes:
                self._check_columns()
            elif known.torn_bytes >= len(header):  # not a beginning that a kill cut off
                raise damaged(self.path)
            super().__init__(self.path, what="the table", when_torn="measure the run again, which mends it.")
            self._shorten(known.n_bytes)
            if not known.n_bytes:
                self._add(header, sync=sync)
            self.parquet_path.unlink(missing_ok=True)  # the same rows: a kill came while they were compacted
        except OSError as error:
            raise _cannot("open", self.path, error) from error
        self.n_rows = known.n_rows

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
        self._add(_messages(batch), sync=self._sync)
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
        with closing(whole_batches(self.path)) as batches:
            end = schema_end(self.path)
            for batch, batch_end in batches:
                if kept + batch.num_rows > n_rows:
                    rest = batch.slice(0, n_rows - kept)
                    break
                kept, end = kept + batch.num_rows, batch_end
        self._shorten(end)
        self.n_rows = kept
        if rest is not None:
            self.append_batch(rest)

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
        there = stream_schema(self.path)
        if not there.equals(self._schema, check_metadata=False):
            raise StoreError(
                f"{self.path} has the columns {', '.join(there.names)}, which this version of livestain does not "
                "write. Measure the run anew: `livestain measure --again`."
            )
        self._schema = there

    def _expand(self) -> None:
        fresh = self.path.with_suffix(".arrow.new")
        with open_parquet(self.parquet_path) as source, fresh.open("wb") as file:
            file.write(source.schema_arrow.serialize().to_pybytes())
            for batch in source.iter_batches(GROUP_ROWS):
                file.write(_messages(batch))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)


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


def _write_parquet(path: Path, schema: pa.Schema, stream: Path) -> None:
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            waiting: list[pa.RecordBatch] = []
            for batch, _ in whole_batches(stream):
                waiting.append(batch)
                if sum(b.num_rows for b in waiting) >= GROUP_ROWS:
                    writer.write_table(pa.Table.from_batches(waiting, schema).unify_dictionaries())
                    waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting, schema).unify_dictionaries())
        file.flush()
        os.fsync(file.fileno())


def _cannot(what: str, path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot {what} the table {path}: {error.strerror or error}.")
