"""Gathers the rows of one cell out of a cell table on disk, without reading the rest of it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from livestain.live._row_blocks import Changed, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from livestain.live._row_blocks import RowBlocks
    from livestain.live._row_index import Spans

__all__ = ["cell_history"]


def cell_history(
    blocks: RowBlocks, spans: Spans, image: int, cell: int, t: int, columns: Sequence[str]
) -> pa.Table | None:
    """Give the rows of a cell that is there at time point `t`, in order of time; None if it is not.

    A cell has a row at each time point from its first to its last, so the table is read from `t` on in both
    directions, up to the first time point without it.

    Raises
    ------
    Changed
        If the table is not the one that was indexed.
    """
    here = spans.of(t)
    if not here:
        return None
    walk = _Walk(blocks, spans, image, cell, t, columns)
    start = spans.beside(here[0])
    later = list(walk.from_block(start.start, 1))
    if t not in walk.seen:
        return None
    earlier = []
    if spans.t[start.start] in walk.seen or spans.divided(start.start, -1):
        earlier = list(walk.from_block(start.start - 1, -1))
    return joined([*reversed(earlier), *later])


class _Walk:
    """Goes from block to block; `seen` are the time points at which the cell was found."""

    def __init__(self, blocks: RowBlocks, spans: Spans, image: int, cell: int, t: int, columns: Sequence[str]) -> None:
        self._blocks, self._spans, self._columns = blocks, spans, columns
        self._image, self._cell, self._t = image, cell, t
        self.seen: set[int] = set()

    def from_block(self, span: int, step: int) -> Iterator[pa.Table]:
        """Give the cell's rows, a table for some blocks, up to the first time point without it."""
        path, gone = self._spans.blocks(span, step), False
        while not gone and (some := list(itertools.islice(path, self._blocks.at_once))):
            parts = []
            for mine, block in self._read(some, step):
                parts.append(self._rows(block, mine))
                if gone := self._lacks(mine, step):
                    break
            yield joined(parts[::step])

    def _read(self, some: list[tuple[Any, range]], step: int) -> Iterator[tuple[range, Any]]:
        if step > 0:
            yield from zip(
                (mine for _, mine in some), self._blocks.read([w for w, _ in some], self._columns), strict=True
            )
        else:  # read in the order of the file all the same
            read = list(self._blocks.read([where for where, _ in reversed(some)], self._columns))
            yield from zip((mine for _, mine in some), reversed(read), strict=True)

    def _rows(self, block: Any, mine: range) -> Any:
        image, cell, t = (block.column(name).to_numpy() for name in ("image", "cell", "t"))
        where = np.flatnonzero((image == self._image) & (cell == self._cell))
        rows = block.slice(where[0], 1) if len(where) == 1 else block.take(pa.array(where))
        found = set(t[where].tolist())
        if not found <= {self._spans.t[span] for span in mine}:
            raise Changed
        self.seen |= found
        return rows

    def _lacks(self, mine: range, step: int) -> bool:
        """Whether the cell is missing at a time point of these spans, seen in the direction of the walk."""
        times = {self._spans.t[span] for span in mine}
        far = mine[-1] if step > 0 else mine[0]
        if self._spans.divided(far, step):
            times.discard(self._spans.t[far])  # the cell may be in the rest of that time point's rows
        return any((t - self._t) * step >= 0 and t not in self.seen for t in times)
