"""Reads the tables of a run as they grow: the summary, the cells of a time point, the history of a cell."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from livestain._errors import StoreError
from livestain.live._cell_history import cell_history
from livestain.live._row_blocks import Changed, joined, open_blocks
from livestain.live._row_index import INDEXED, RowIndex
from livestain.measure.summary import SUMMARY_SCHEMA
from livestain.measure.table import CELL_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from livestain.live._row_blocks import RowBlocks

__all__ = ["CellRows"]

# Not Schema.empty_table: that would import pandas, where there is one.
_NO_SUMMARY, _NO_CELLS = (pa.Table.from_batches([], schema) for schema in (SUMMARY_SCHEMA, CELL_SCHEMA))
_T = TypeVar("_T")
_AT_ONCE = 500  # batches of one row each that become one table
_NEEDED = ("image", "t", "cell")  # to find a cell's rows by


class CellRows:
    """Reads RUN/summary and RUN/cells, streams or Parquet, and reads on as they grow; any thread may ask.

    The summary is held in memory. Of the cells only where each time point lies is held, and that from the first
    question about cells on: then the table is read through once. A table that is compacted, cut or begun anew meanwhile
    is read anew. What cannot be read is told by `notes`, and is as if it were empty.

    Parameters
    ----------
    folder
        The run folder.

    Attributes
    ----------
    there
        Whether the run was measured at all, as of the last `refresh`.
    notes
        What is damaged, as sentences, as of the last `refresh`.
    """

    def __init__(self, folder: Path) -> None:
        self.there = False
        self.notes: tuple[str, ...] = ()
        self._folder = folder
        self._lock = threading.RLock()
        self._summary_blocks: RowBlocks | None = None
        self._summary: pa.Table = _NO_SUMMARY
        self._blocks: RowBlocks | None = None
        self._index: RowIndex | None = None  # None before the first question about cells
        self.refresh()

    def refresh(self) -> bool:
        """Read on, and say whether the summary has changed; cheap when nothing is new."""
        with self._lock:
            files = [self._folder / f"{name}{end}" for name in ("cells", "summary") for end in (".arrow", ".parquet")]
            self.there = any(file.exists() for file in files)
            before, notes = self._summary, []
            # A time point's cells are written before its summary: read in this order, all that it counts are there.
            for read in (self._read_summary, self._read_cells):
                try:
                    self._steady(read)
                except StoreError as error:
                    notes.append(str(error))
            self.notes = tuple(notes)
            return self._summary is not before and bool(len(self._summary) or len(before))

    def summary(self) -> pa.Table:
        """Give the rows of SUMMARY_SCHEMA in the order written."""
        return self._summary

    def at(self, image: int, t: int) -> pa.Table:
        """Give the cells of one time point, columns of CELL_SCHEMA; no row where nothing was measured.

        Raises
        ------
        StoreError
            If the table cannot be read.
        """
        return self._ask(lambda blocks, index: _at(blocks, index, image, t)) or _NO_CELLS

    def history(self, image: int, cell: int, t: int, columns: Sequence[str] | None = None) -> pa.Table | None:
        """Give all rows of one cell that is there at time point `t`, in order of time; None if it is not.

        Parameters
        ----------
        image, cell, t
            Which cell, and a time point at which it is there.
        columns
            Those of CELL_SCHEMA that are wanted, all by default: a few are read several times faster.

        Raises
        ------
        StoreError
            If the table cannot be read.
        """
        wanted = list(CELL_SCHEMA.names if columns is None else columns)
        read = [name for name in CELL_SCHEMA.names if name in wanted or name in _NEEDED]
        found = self._ask(lambda blocks, index: cell_history(blocks, index.spans(image), image, cell, t, read))
        return None if found is None else found.select(wanted)

    def children(self, image: int, cell: int) -> tuple[int, ...]:
        """Give the daughters of a cell, of which there are none before it has divided.

        Raises
        ------
        StoreError
            If the table cannot be read.
        """
        return self._ask(lambda _, index: index.daughters(image, cell)) or ()

    # ------------------------------------------------------------------ reading on

    def _read_summary(self) -> None:
        if self._summary_blocks is None or not self._summary_blocks.is_same():
            self._summary_blocks, self._summary = None, _NO_SUMMARY
            self._summary_blocks = open_blocks(self._folder, "summary", SUMMARY_SCHEMA)
        new = (rows for _, rows in self._summary_blocks.read_on()) if self._summary_blocks else iter(())
        if parts := [joined(some) for some in iter(lambda: list(itertools.islice(new, _AT_ONCE)), [])]:
            self._summary = joined([self._summary, *parts])

    def _read_cells(self) -> None:
        if self._index is None:
            return
        if self._blocks is None or not self._blocks.is_same():
            self._blocks, self._index = None, RowIndex()
            self._blocks = open_blocks(self._folder, "cells", CELL_SCHEMA)
        if self._blocks is not None:
            for where, block in self._blocks.read_on(INDEXED):
                self._index.add(where, block)

    def _ask(self, question: Callable[[RowBlocks, RowIndex], _T]) -> _T | None:
        """Ask the table as it was at the last `refresh`, or as it is now where it was replaced; None without one."""

        def asked() -> _T | None:
            if self._index is None or self._blocks is None or not self._blocks.is_same():
                self._index = self._index or RowIndex()
                self._read_cells()
            return None if self._blocks is None else question(self._blocks, self._index)

        with self._lock:
            return self._steady(asked)

    def _steady(self, read: Callable[[], _T]) -> _T:
        """Read, and begin again where the writer has just replaced a table."""
        for _ in range(3):
            try:
                return read()
            except Changed:
                self._summary_blocks = self._blocks = None
        raise StoreError(f"the tables of {self._folder} change faster than they can be read. Ask again in a moment.")


def _at(blocks: RowBlocks, index: RowIndex, image: int, t: int) -> pa.Table | None:
    spans = index.spans(image)
    mine, found = spans.of(t), []
    for span, block in zip(mine, blocks.read([spans.where(span) for span in mine]), strict=True):
        rows = block.slice(*spans.rows(span))
        if set(rows.column("image").to_pylist()) != {image} or set(rows.column("t").to_pylist()) != {t}:
            raise Changed
        found.append(rows)
    return joined(found) if found else None
