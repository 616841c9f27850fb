"""What is made of the tables once a run is measured to its end: tracks for other tools, and pictures."""

from __future__ import annotations

import itertools
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError, StoreError
from livestain._images import IMAGES_NAME
from livestain._journal import JOURNAL_NAME, read_header
from livestain._lines import layout_from_header
from livestain.measure._rows import iter_batches, read_rows
from livestain.measure.ctc import CtcWriter
from livestain.measure.geff import GeffWriter
from livestain.measure.labels import CellLabels
from livestain.measure.phase_images import PHASE_NAME
from livestain.measure.table import read_cells, with_masses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._layout import Layout

__all__ = ["Products", "conditions_of", "files_of", "make_products", "write_ctc", "write_tracks"]


@dataclass(frozen=True, slots=True)
class Products:
    """The files that were made, and what could not be made and why."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def make_products(folder: Path, layout: Layout) -> Products:
    """Write the tracks and draw the pictures of a run whose tables are whole."""
    notes = []
    write_tracks(folder, layout)
    try:
        _pictures(folder, layout)
    except LivestainError as error:  # without the extra `cells`, or without a cell that was weighed
        notes.append(str(error))
    return Products(files_of(folder, layout), tuple(notes))


def files_of(folder: Path, layout: Layout) -> tuple[Path, ...]:
    """Give what there is of a run that was measured to its end."""
    several = len(layout.images) > 1
    one = f"{layout.images[0].path}/labels".lstrip("/")
    names = ["cells.parquet", "summary.parquet", "tracks" if several else "tracks.geff"]
    names += [IMAGES_NAME if several else f"{IMAGES_NAME}/{one}", PHASE_NAME]  # of several, labels lie in each
    names += [f"{name}.{kind}" for name in ("masses", "survival") for kind in ("png", "svg")]
    return tuple(path for path in (folder / name for name in names) if path.exists())


def write_tracks(folder: Path, layout: Layout) -> list[Path]:
    """Write tracks.geff, or tracks/POSITION.geff where there are several; memory holds one batch of rows."""
    several = len(layout.images) > 1
    names = [_file_name(name) for name in layout.position_names]
    paths = [folder / "tracks" / f"{name}.geff" if several else folder / "tracks.geff" for name in names]
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)  # of an earlier measurement
        path.parent.mkdir(exist_ok=True)
    writers = [GeffWriter(path) for path in paths]
    for image, t, rows in _time_points(folder):
        writers[image].add(t, rows)
    for writer in writers:
        writer.close()
    return paths


def write_ctc(folder: Path, to: Path) -> list[Path]:
    """Write the label images as Cell Tracking Challenge files: TO, or TO/POSITION where there are several.

    The run folder is only read.

    Raises
    ------
    StoreError
        If the run was not measured, its label images are not there or not those of its table, the folder holds such
        files already, or there are too many tracks.
    """
    layout = layout_from_header(read_header(folder / JOURNAL_NAME))
    summary = read_rows(folder, "summary")
    labels = CellLabels(folder, layout)
    several = len(layout.images) > 1
    paths = [to / _file_name(name) if several else to for name in layout.position_names]
    images, times = (summary[name].to_numpy() for name in ("image", "t"))
    lengths = [int(times[images == image].max(initial=-1)) + 1 for image in range(len(paths))]
    if not any(lengths):
        raise StoreError(f"the table of {folder} has no time point so far, so there is nothing to write.")
    writers = [CtcWriter(path, 4 if max(lengths) > 1000 else 3) for path in paths]
    try:
        for image, t, rows in _time_points(folder):
            parents = dict(zip(rows["cell"].tolist(), rows["parent"].tolist(), strict=True))
            cells = labels.read(image, t)
            _check_labels(folder, t, cells, rows["cell"][~rows["gap"]])
            writers[image].add(t, cells, parents)
        for writer, n_t in zip(writers, lengths, strict=True):
            writer.close(n_t, (layout.height, layout.width))
    except BaseException:
        for path in paths:  # without it nobody takes what is there for whole, and it can be written again
            (path / "res_track.txt").unlink(missing_ok=True)
        raise
    return paths


def _check_labels(folder: Path, t: int, labels: NDArray[np.uint32], cells: NDArray[np.int64]) -> None:
    """Refuse outlines that are gone, or of another measurement: their masks would not be the table's cells."""
    there = np.unique(labels[labels > 0])
    if not np.array_equal(there, np.sort(cells)):
        missing, foreign = np.setdiff1d(cells, there).size, np.setdiff1d(there, cells).size
        raise StoreError(
            f"the label images of {folder} are not those of its table: at t={t} it has {cells.size} cells, of which "
            f"{missing} have no outline, and {foreign} outlines are of no cell of it. They were deleted or are of "
            f"another measurement; to make them again: livestain measure {folder} --again"
        )


def _time_points(folder: Path) -> Iterator[tuple[int, int, Any]]:
    """Give (image, t, rows) of each time point, rows with the columns that a track needs."""
    kept: dict[str, Any] = {}
    for batch in iter_batches(folder, "cells"):
        new = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in _TRACK}
        columns = {name: np.concatenate([kept[name], new[name]]) for name in _TRACK} if kept else new
        ends = np.flatnonzero((np.diff(columns["image"]) != 0) | (np.diff(columns["t"]) != 0)) + 1
        starts = [0, *ends.tolist()]
        for start, end in itertools.pairwise(starts):
            part = {name: values[start:end] for name, values in columns.items()}
            yield int(part["image"][0]), int(part["t"][0]), part
        kept = {name: values[starts[-1] :] for name, values in columns.items()}
    if kept and len(kept["t"]):
        yield int(kept["image"][0]), int(kept["t"][0]), kept


_TRACK = ("image", "t", "cell", "parent", "y_um", "x_um", "gap")


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "position"


def conditions_of(layout: Layout) -> dict[str, str] | None:
    """Say which well each position of a plate lies in; None where there is no plate: then each position is its own."""
    named = zip(layout.position_names, layout.images, strict=True)
    wells = {name: "".join(image.well[:2]) for name, image in named if image.well}
    return wells or None


def _pictures(folder: Path, layout: Layout) -> None:
    from livestain.measure.pictures import draw_masses, draw_survival
    from livestain.measure.survival import survival_curves

    table, unit = with_masses(read_cells(folder))
    if np.isfinite(table.column("dry_mass_pg").to_numpy()).any():
        for kind in ("png", "svg"):
            draw_masses(folder / f"masses.{kind}", table, unit=unit)
    if any(state for state in table.column("state").unique().to_pylist()):
        curves = survival_curves(table, conditions_of(layout))
        for kind in ("png", "svg"):
            draw_survival(folder / f"survival.{kind}", curves)
