"""How far a run is measured, and what to run so that it goes on; for a person, while it grows or after a stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from livestain._errors import StoreError
from livestain._journal import JOURNAL_NAME, read_header, read_lines
from livestain._ledger import Ledger
from livestain._lines import layout_from_header
from livestain.measure._rows import read_rows
from livestain.measure.saved import Saved, is_finished

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Standing", "standing_of", "to_go_on"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run is measured.

    Attributes
    ----------
    finished
        Whether the tables are whole.
    measured, there
        Time points that were measured or passed over, and that the run has, of all positions.
    go_on
        What to run.
    """

    finished: bool
    measured: int
    there: int
    go_on: str

    def __str__(self) -> str:
        """Say it in a sentence."""
        if self.finished:
            return f"measured to its end: {_points(self.there)}."
        if self.measured == self.there:
            return f"not finished: of all {_points(self.there)} that are measured no tracks were made. {self.go_on}"
        return (
            f"not finished: {self.measured} of {_points(self.there)} are measured, and the rows of the last few wait "
            f"for those after them. {self.go_on}"
        )


def standing_of(folder: Path, *, over: bool = False) -> Standing:
    """Say how far a run is measured; nothing is written.

    Parameters
    ----------
    folder
        The run folder.
    over
        Whether it is known that nobody writes the run: then one without an end was killed.

    Raises
    ------
    StoreError
        If the folder is no run.
    """
    if is_finished(folder):
        n = len(read_rows(folder, "summary"))
        return Standing(finished=True, measured=n, there=n, go_on="")
    last = [-1] * len(layout_from_header(read_header(folder / JOURNAL_NAME)).images)
    for line in read_lines(folder / JOURNAL_NAME):
        if line["kind"] in ("raw", "missing", "lost"):
            image, t = line["at"][:2]
            last[image] = max(last[image], t)
    measured, there = (sum(t + 1 for t in ts) for ts in (_measured(folder, len(last)), last))
    return Standing(finished=False, measured=measured, there=there, go_on=to_go_on(folder, over=over))


def to_go_on(folder: Path, *, over: bool = False) -> str:
    """Say what to run so that a run is measured to its end; `over` as for `standing_of`.

    Raises
    ------
    StoreError
        If the folder is no run.
    """
    stats = Ledger(read_header(folder / JOURNAL_NAME), read_lines(folder / JOURNAL_NAME)).stats()
    measure = f"livestain measure {folder}"
    if stats.ended is None:
        going = "The run was killed. To go on" if over else "The run goes on, and so does this; if it was killed"
        return f"{going}: livestain recover {folder}, then {measure}"
    if owed := stats.frames_pending:
        owes = f"The run owes {owed} prediction{'s' * (owed != 1)}"
        return f"{owes}. To go on: livestain backfill {folder}, then {measure}"
    return f"To go on: {measure}"


def _measured(folder: Path, n_images: int) -> Sequence[int]:
    """Give the last time point that was measured of each position, -1 for none."""
    last = [-1] * n_images
    try:
        if (saved := Saved.load(folder)) is not None:
            return saved.measured
        rows = read_rows(folder, "summary")
    except StoreError:  # said by whoever goes on with it
        return last
    for image, t in zip(rows["image"].to_pylist(), rows["t"].to_pylist(), strict=True):
        last[image] = max(last[image], t)
    return last


def _points(n: int) -> str:
    return f"{n} time point{'s' * (n != 1)}"
