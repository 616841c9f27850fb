"""Where in the cell table the rows of a time point are, and which cells descend from which."""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from livestain.live._row_blocks import Where

__all__ = ["INDEXED", "RowIndex", "Spans"]

INDEXED = ("image", "t", "cell", "parent")  # the columns that an index is made of


class Spans:
    """The rows of one image: a span for each time point (or part of one, where two blocks share it), in their order."""

    def __init__(self) -> None:
        self.t, self._start, self._end, self._first, self._n = (array("q") for _ in range(5))

    def add(self, t: int, where: Where, first: int, n: int) -> None:
        """Add rows `first` to `first + n` of the block at `where`."""
        for column, value in zip(
            (self.t, self._start, self._end, self._first, self._n), (t, *where, first, n), strict=True
        ):
            column.append(value)

    def __len__(self) -> int:
        return len(self.t)

    def of(self, t: int) -> range:
        """Give the numbers of the spans of a time point."""
        return range(bisect_left(self.t, t), bisect_right(self.t, t))

    def where(self, span: int) -> Where:
        """Say in which block a span is."""
        return self._start[span], self._end[span]

    def rows(self, span: int) -> tuple[int, int]:
        """Say which rows of its block are a span's: first and how many."""
        return self._first[span], self._n[span]

    def blocks(self, span: int, step: int) -> Iterator[tuple[Where, range]]:
        """Walk over the blocks from that of `span` on, upwards or downwards (`step` 1 or -1); give their spans, too."""
        while 0 <= span < len(self):
            mine = self.beside(span)
            yield self.where(span), mine
            span = mine.stop if step > 0 else mine.start - 1

    def beside(self, span: int) -> range:
        """Give the spans that share a block with one."""
        first = last = span
        while first > 0 and self.where(first - 1) == self.where(span):
            first -= 1
        while last + 1 < len(self) and self.where(last + 1) == self.where(span):
            last += 1
        return range(first, last + 1)

    def divided(self, span: int, step: int) -> bool:
        """Whether the time point of a span goes on in the next one, upwards or downwards."""
        return 0 <= span + step < len(self) and self.t[span + step] == self.t[span]


class RowIndex:
    """Made from the blocks of a cell table in their order; memory grows with time points and cells, not with rows."""

    def __init__(self) -> None:
        self._spans: dict[int, Spans] = {}
        self._daughters: dict[tuple[int, int], list[int]] = {}  # by image and mother
        self._born: dict[int, set[tuple[int, int]]] = {}  # daughters and their mothers, by image
        self._last: dict[int, bytes] = {}  # cells and parents of the last time point, by image

    def add(self, where: Where, block: Any) -> None:
        """Take in a block, with the columns INDEXED."""
        image, t, cell, parent = (block.column(name).to_numpy() for name in INDEXED)
        if not len(t):
            return
        new = np.flatnonzero((image[1:] != image[:-1]) | (t[1:] != t[:-1])) + 1
        ends = [*new.tolist(), len(t)]
        for first, end in itertools.pairwise((0, *ends)):
            number = int(image[first])
            self.spans(number).add(int(t[first]), where, first, end - first)
            self._add_births(number, cell[first:end], parent[first:end])

    def _add_births(self, image: int, cell: NDArray[np.int64], parent: NDArray[np.int64]) -> None:
        same, self._last[image] = self._last.get(image), cell.tobytes() + parent.tobytes()
        if same == self._last[image]:
            return
        # Of every row, not of a cell's first one: a division may be understood only a time point later.
        known, born = self._born.setdefault(image, set()), parent != 0
        for daughter, mother in sorted(set(zip(cell[born].tolist(), parent[born].tolist(), strict=True)) - known):
            known.add((daughter, mother))
            self._daughters.setdefault((image, mother), []).append(daughter)

    def spans(self, image: int) -> Spans:
        """Give the spans of an image; none if it has no rows."""
        return self._spans.setdefault(image, Spans())

    def daughters(self, image: int, cell: int) -> tuple[int, ...]:
        """Give the cells whose parent a cell is."""
        return tuple(self._daughters.get((image, cell), ()))
