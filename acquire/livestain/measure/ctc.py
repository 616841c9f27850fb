"""Tracks as Cell Tracking Challenge files: one mask a time point and `res_track.txt`, written as they come.

The rules are those of the challenge (Maska 2014; https://celltrackingchallenge.net): 16-bit masks `mask000.tif`, and a
line "L B E P" a track: its label, first and last time point, and its parent's label. A track has no gaps there, so a
cell that was not found for a time point becomes two tracks, the first one being the parent of the second: such a parent
ends two or three time points before, and has one child; that of a division ends just before, and has two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from livestain._errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["CtcWriter", "read_ctc"]

MOST_LABELS = 65_535  # in a 16-bit mask
REMEMBERED = 4  # time points that an ended track can still be the parent of another after; gaps are shorter


class CtcWriter:
    """Writes the tracks of one position to a folder; memory holds the living tracks only.

    Parameters
    ----------
    folder
        Created if need be, usually named `01_RES`.
    digits
        Of the number in mask names: 3, or 4 beyond 1,000 time points.

    Raises
    ------
    StoreError
        The folder has a `res_track.txt` already.
    """

    def __init__(self, folder: Path, digits: int = 3) -> None:
        self._folder, self._digits = folder, digits
        self._lines = folder / "res_track.txt"
        if self._lines.exists():
            raise StoreError(f"{self._lines} exists already; remove the folder or choose another one.")
        folder.mkdir(parents=True, exist_ok=True)
        self._lines.touch()
        self._open: dict[int, tuple[int, int, int]] = {}  # cell -> label, first time point, parent's label
        self._ended: dict[int, tuple[int, int]] = {}  # cell -> label, last time point
        self._next = 1
        self._t = -1

    def add(self, t: int, labels: NDArray[np.integer], parents: dict[int, int]) -> None:
        """Write one time point.

        Parameters
        ----------
        t
            Its index. Time points that were left out get an empty mask.
        labels
            (Y, X) integer, each pixel the number of its cell; 0 is background.
        parents
            The mothers of the cells in it (`Finished.cell` to `Finished.parent`); 0, or left out: none.

        Raises
        ------
        StoreError
            The time point is not later than the last one, or there are more tracks than 16 bits can number.
        """
        if t <= self._t:
            raise StoreError(f"Time point {t} came after {self._t}; give them in order, once.")
        for missing in range(self._t + 1, t):
            self._write(missing, np.zeros(labels.shape, np.uint16))
            self._end_others(missing, set())
        cells, index = np.unique(labels, return_inverse=True)
        here = [int(cell) for cell in cells if cell > 0]
        self._end_others(t, set(here))
        names = np.array([self._label(int(cell), t, parents) if cell > 0 else 0 for cell in cells], np.uint16)
        self._write(t, names[index].reshape(labels.shape))
        self._t = t

    def close(self, n_t: int = 0, shape: tuple[int, int] = (0, 0)) -> None:
        """Write the lines of the tracks that are still there, and empty masks (Y, X) up to `n_t` time points."""
        self._end_others(self._t + 1, set())
        for missing in range(self._t + 1, n_t):
            self._write(missing, np.zeros(shape, np.uint16))

    def _label(self, cell: int, t: int, parents: dict[int, int]) -> int:
        if cell not in self._open:
            if self._next > MOST_LABELS:
                raise StoreError(
                    f"At time point {t} there are more than {MOST_LABELS} tracks, which is what 16-bit Cell Tracking "
                    "Challenge masks can number; export fewer time points at once, or use GEFF."
                )
            before = self._ended.pop(cell, None) or self._ended.get(parents.get(cell, 0)) or (0, 0)
            self._open[cell] = (self._next, t, before[0])
            self._next += 1
        return self._open[cell][0]

    def _end_others(self, t: int, here: set[int]) -> None:
        """Write the lines of tracks that are no longer there at `t`."""
        gone = sorted(set(self._open) - here)
        with self._lines.open("a", encoding="ascii") as file:
            for cell in gone:
                label, first, parent = self._open.pop(cell)
                self._ended[cell] = (label, t - 1)
                file.write(f"{label} {first} {t - 1} {parent}\n")
        self._ended = {cell: end for cell, end in self._ended.items() if end[1] >= t - REMEMBERED}

    def _write(self, t: int, mask: NDArray[np.uint16]) -> None:
        tifffile.imwrite(self._folder / f"mask{t:0{self._digits}d}.tif", mask, compression="zlib")


def read_ctc(folder: Path, lines: str = "res_track.txt") -> dict[int, tuple[int, int, int]]:
    """Return the tracks of a Cell Tracking Challenge folder: label to (first, last, parent).

    Raises
    ------
    StoreError
        A line has not four whole numbers, ends before it begins, names a parent that is not there or not earlier,
        or a label comes twice.
    """
    tracks: dict[int, tuple[int, int, int]] = {}
    for number, line in enumerate((folder / lines).read_text(encoding="ascii").splitlines(), 1):
        if not line.strip():
            continue
        fields: list[Any] = line.split()
        if len(fields) != 4 or not all(field.isdigit() for field in fields):
            raise StoreError(f"{folder / lines}, line {number}: {line!r} is not four whole numbers 'L B E P'.")
        label, first, last, parent = map(int, fields)
        if label in tracks or last < first:
            raise StoreError(f"{folder / lines}, line {number}: {line!r} repeats a label or ends before it begins.")
        tracks[label] = (first, last, parent)
    for label, (first, _, parent) in tracks.items():
        if parent and (parent not in tracks or tracks[parent][1] >= first):
            raise StoreError(
                f"{folder / lines}: track {label} begins at {first}, but its parent {parent} does not end before."
            )
    return tracks
