"""What is made of the tables once a run is measured to its end: tracks for other tools, and pictures."""

from __future__ import annotations

import itertools
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError
from livestain._journal import JOURNAL_NAME, read_header
from livestain._lines import layout_from_header
from livestain.measure._rows import iter_batches
from livestain.measure.ctc import CtcWriter
from livestain.measure.geff import GeffWriter
from livestain.measure.labels import LabelImages
from livestain.measure.table import read_cells, with_masses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livestain._layout import Layout

__all__ = ["Products", "conditions_of", "make_products", "write_ctc", "write_tracks"]


@dataclass(frozen=True, slots=True)
class Products:
    """The files that were made, and what could not be made and why."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def make_products(folder: Path, layout: Layout) -> Products:
    """Write the tracks and draw the pictures of a run whose tables are whole."""
    files, notes = [folder / "cells.parquet", folder / "summary.parquet"], []
    files += write_tracks(folder, layout)
    try:
        files += _pictures(folder, layout)
    except LivestainError as error:  # without the extra `cells`, or without a cell that was weighed
        notes.append(str(error))
    return Products(tuple(files), tuple(notes))


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

    Raises
    ------
    StoreError
        If the run was not measured, the folder holds such files already, or there are too many tracks.
    """
    layout = layout_from_header(read_header(folder / JOURNAL_NAME))
    labels = LabelImages(folder, layout)
    several = len(layout.images) > 1
    paths = [to / _file_name(name) if several else to for name in layout.position_names]
    digits = 4 if max(labels.n_t(image) for image in range(len(paths))) > 1000 else 3
    writers = [CtcWriter(path, digits) for path in paths]
    for image, t, rows in _time_points(folder):
        parents = dict(zip(rows["cell"].tolist(), rows["parent"].tolist(), strict=True))
        cells, _ = labels.read(image, t)
        writers[image].add(t, cells, parents)
    for writer in writers:
        writer.close()
    return paths


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


def _pictures(folder: Path, layout: Layout) -> list[Path]:
    from livestain.measure.pictures import draw_masses, draw_survival
    from livestain.measure.survival import survival_curves

    table, unit = with_masses(read_cells(folder))
    made = []
    if np.isfinite(table.column("dry_mass_pg").to_numpy()).any():
        made += [draw_masses(folder / f"masses.{kind}", table, unit=unit) for kind in ("png", "svg")]
    if any(state for state in table.column("state").unique().to_pylist()):
        curves = survival_curves(table, conditions_of(layout))
        made += [draw_survival(folder / f"survival.{kind}", curves) for kind in ("png", "svg")]
    return made
