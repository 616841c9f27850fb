"""Reads rows from disk: a stream up to where it ends or is torn, or the Parquet file that it was turned into."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from livestain._errors import StoreError
from livestain._journal import JOURNAL_NAME

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

__all__ = [
    "GROUP_ROWS",
    "Extent",
    "damaged",
    "extent",
    "iter_batches",
    "open_parquet",
    "read_rows",
    "read_schema",
    "schema_end",
    "stream_schema",
    "whole_batches",
]

log = logging.getLogger("livestain")

GROUP_ROWS = 16_384  # of a Parquet file; what is in memory at once while one is read or written
# What pyarrow raises at a tear or at damage, by where it is.
_MESSAGE_ERRORS = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a stream can be read: whole batches, then perhaps the torn rest of a write that a kill cut off."""

    n_rows: int
    n_bytes: int
    torn_bytes: int


def extent(path: Path) -> Extent:
    """Say how far a stream can be read; nothing is kept in memory.

    Raises
    ------
    StoreError
        If the file cannot be read.
    """
    size = path.stat().st_size
    end = schema_end(path)
    n_rows = 0
    with closing(whole_batches(path)) as batches:
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
        end = schema_end(path)
        for batch, batch_end in whole_batches(path):
            end = batch_end
            yield batch
        if torn := path.stat().st_size - end:
            log.warning("%s ends in %d bytes of a batch that was not written to its end; they are left out", path, torn)
    elif parquet.exists():
        with open_parquet(parquet) as file:
            yield from file.iter_batches(GROUP_ROWS)
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
    """Read a table's columns and provenance.

    Raises
    ------
    StoreError
        If there is no such table, or its beginning is damaged.
    """
    path, parquet = folder / f"{name}.arrow", folder / f"{name}.parquet"
    if path.exists():
        return stream_schema(path)
    if parquet.exists():
        with open_parquet(parquet) as file:
            return file.schema_arrow
    raise _no_table(folder, name)


def _no_table(folder: Path, name: str) -> StoreError:
    if not (folder / JOURNAL_NAME).is_file():
        return StoreError(
            f"{folder} is no run folder: it has no {JOURNAL_NAME}, and no table {name}. Give the folder of a run."
        )
    return StoreError(
        f"{folder} has neither {name}.arrow nor {name}.parquet. Measure it first: `livestain measure {folder}`."
    )


def whole_batches(path: Path) -> Generator[tuple[pa.RecordBatch, int], None, None]:
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


def stream_schema(path: Path) -> pa.Schema:
    """Read a stream's columns and provenance; StoreError if its beginning is damaged."""
    with pa.OSFile(str(path)) as source:
        try:
            return pa.ipc.read_schema(source)
        except _MESSAGE_ERRORS as error:
            raise damaged(path) from error


def schema_end(path: Path) -> int:
    """Give where the first batch begins; 0 if not even the schema is whole."""
    with pa.OSFile(str(path)) as source:
        try:
            pa.ipc.read_schema(source)
        except _MESSAGE_ERRORS:
            return 0
        return int(source.tell())


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file; StoreError if it is damaged."""
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise damaged(path) from error


def damaged(path: Path) -> StoreError:
    """Say that a table cannot be read from its beginning on."""
    return StoreError(
        f"{path} does not begin as a table: it was damaged, or a kill cut it off. Restore it from a copy, or measure "
        f"the run anew: livestain measure {path.parent} --again"
    )
