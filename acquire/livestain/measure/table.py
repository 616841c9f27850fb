"""The cell table of a run: one row a cell and time point, with units in the names and its provenance inside."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from livestain._errors import LivestainError
from livestain.measure._rows import PROVENANCE_KEY, RowStream, iter_batches, read_rows, read_schema
from livestain.measure.viability_model import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "CELL_SCHEMA",
    "ONLY_POSITION",
    "STATES",
    "CellTable",
    "provenance_of",
    "read_cells",
    "with_masses",
    "write_anndata",
    "write_csv",
]

SCHEMA_VERSION = 1
ONLY_POSITION = "Position 0"  # where there is one without a name: "" read from CSV is no text, and groups drop it
_NAME = pa.dictionary(pa.int8(), pa.string())

CELL_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in [
            ("position", pa.string()),
            ("image", pa.int32()),
            ("t", pa.int32()),
            ("time_s", pa.float64()),  # since the first frame of the run
            ("cell", pa.int64()),  # from 1, unique within a position
            ("parent", pa.int64()),  # 0: none, or not known
            ("y_um", pa.float64()),  # within the field, from the centre of pixel 0
            ("x_um", pa.float64()),
            ("area_um2", pa.float64()),
            ("nucleus_area_um2", pa.float64()),
            ("dry_mass_pg", pa.float64()),
            ("dry_mass_sd_pg", pa.float64()),
            ("nucleus_projected_dry_mass_pg", pa.float64()),  # light passes above and below the nucleus too
            ("cytoplasm_projected_dry_mass_pg", pa.float64()),
            ("relative_dry_mass", pa.float64()),  # sum of grey levels times um^2, where the phase is relative
            ("relative_dry_mass_sd", pa.float64()),
            ("mass_method", _NAME),
            ("wavelength_um", pa.float64()),
            ("alpha_ml_per_g", pa.float64()),
            ("live", pa.float64()),  # probabilities of the model
            ("injured", pa.float64()),
            ("dead", pa.float64()),
            ("state", _NAME),  # one of STATES, or ""
            ("dead_belief", pa.float64()),  # how likely it is dead, by the frames before and a few after
            ("at_border", pa.bool_()),
            ("gap", pa.bool_()),  # not seen: the position is interpolated
            ("reason", pa.string()),  # why values of the row are NaN, by quantity: see `livestain.measure.reasons`
        ]
    ]
)


class CellTable(RowStream):
    """Appends rows to RUN/cells.arrow; see `RowStream` for what a kill leaves.

    Parameters
    ----------
    folder
        The run folder.
    provenance
        Software, models' fingerprints, pixel size, settings of the methods: JSON, kept in the schema's metadata.
    sync
        Whether every append waits for the drive (fsync).

    Raises
    ------
    StoreError
        If the table cannot be opened, or has other columns.
    """

    def __init__(self, folder: Path, provenance: Mapping[str, Any] | None = None, *, sync: bool = False) -> None:
        super().__init__(folder, "cells", CELL_SCHEMA, {"version": SCHEMA_VERSION, **(provenance or {})}, sync=sync)


def read_cells(folder: Path) -> pa.Table:
    """Read a run's cell table, also while it grows; a torn end is left out and logged.

    Raises
    ------
    StoreError
        If the run was not measured.
    """
    return read_rows(folder, "cells")


def with_masses(table: pa.Table) -> tuple[pa.Table, str]:
    """Give a cell table to draw and fit masses of, and their unit: relative ones stand in where there are no others.

    Growth is relative to a cell's mass, so its rate is the same in any unit.
    """
    in_pg, relative = (bool(np.isfinite(table[n].to_numpy()).any()) for n in ("dry_mass_pg", "relative_dry_mass"))
    if in_pg or not relative:
        return table, "pg"
    for there, stands_for in (("relative_dry_mass", "dry_mass_pg"), ("relative_dry_mass_sd", "dry_mass_sd_pg")):
        table = table.set_column(table.column_names.index(stands_for), stands_for, table[there])
    return table, "relative: grey level \u00b5m\u00b2"


def provenance_of(schema: pa.Schema) -> dict[str, Any]:
    """Give what a table says of its origin; nothing if it says nothing."""
    found: dict[str, Any] = json.loads((schema.metadata or {}).get(PROVENANCE_KEY, b"{}"))
    return found


def write_csv(folder: Path, to: Path, name: str = "cells") -> None:
    """Write a run's table as CSV, batch by batch; NaN is "nan", names are quoted.

    Raises
    ------
    StoreError
        If the run has no such table.
    LivestainError
        If `to` cannot be written.
    """
    schema = plain_schema(read_schema(folder, name))
    try:
        with pyarrow.csv.CSVWriter(to, schema) as writer:
            for batch in iter_batches(folder, name):
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
    except OSError as error:
        raise _cannot_write(to, error) from error


def _cannot_write(to: Path, error: OSError) -> LivestainError:
    if not to.parent.is_dir():
        return LivestainError(f"cannot write {to}: there is no folder {to.parent}. Make it first, or name another.")
    if to.is_dir():
        return LivestainError(f"cannot write {to}: it is a folder. Name a file in it.")
    why = os.strerror(error.errno) if error.errno else error  # Arrow wraps the system's words in its own
    return LivestainError(f"cannot write {to}: {why}. Choose another place.")


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Give the columns without dictionaries, for formats that have none."""
    return pa.schema(
        [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema], schema.metadata
    )


def write_anndata(folder: Path, to: Path) -> None:
    """Write a run's cell table as AnnData (.h5ad): rows are observations, measured numbers the variables.

    `obs` has every column; `X` has those that were measured, by name in `var`; `uns["livestain"]` the provenance.

    Raises
    ------
    StoreError
        If the run was not measured.
    LivestainError
        If anndata is not installed, or `to` cannot be written.
    """
    try:
        import anndata
        import pandas as pd
    except ImportError as error:
        raise LivestainError(
            f"AnnData needs a package that is not installed ({error.name}). Install it: "
            'pip install "livestain[anndata]".'
        ) from error
    table = read_cells(folder)
    obs = table.to_pandas(strings_to_categorical=True)
    obs.index = pd.Index([f"{i}-{c}-{t}" for i, c, t in zip(obs["image"], obs["cell"], obs["t"], strict=True)])
    measured = [f.name for f in table.schema if f.type == pa.float64() and f.name != "time_s"]
    found = anndata.AnnData(X=obs[measured].to_numpy(), obs=obs, var=pd.DataFrame(index=measured))
    found.uns["livestain"] = json.dumps(provenance_of(table.schema))
    try:
        found.write_h5ad(to)
    except OSError as error:
        raise _cannot_write(to, error) from error
