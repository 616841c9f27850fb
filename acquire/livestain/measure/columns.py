"""Reads columns of a cell table, be it an Arrow table or a mapping of arrays, as numpy arrays of one length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["CellTable", "cell_rows", "read_columns"]

CellTable = Any  # a pyarrow.Table, or a mapping of column names to arrays
_KINDS = {"cell": "iu", "parent": "iu", "t": "iu", "image": "iu", "at_border": "b", "gap": "b"}
_TEXT = ("position", "state", "reason", "mass_method")


def read_columns(table: CellTable, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Read `names` from a cell table.

    Raises
    ------
    LivestainError
        A column is missing, of another length than the others, or of a type that it cannot have.
    """
    there = list(table) if isinstance(table, Mapping) else list(table.column_names)
    if missing := [name for name in names if name not in there]:
        raise LivestainError(
            f"The cell table lacks {', '.join(missing)}; it has {', '.join(map(str, there)) or 'no column'}. "
            "Write it with `livestain measure`."
        )
    columns = {name: _checked(name, _as_array(table, name)) for name in names}
    lengths = {name: column.size for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise LivestainError(f"The columns of a cell table have one length, got {lengths}.")
    return columns


def cell_rows(columns: Mapping[str, NDArray[Any]]) -> list[NDArray[np.intp]]:
    """Give, for each cell of each position, its rows in order of time.

    Parameters
    ----------
    columns
        With "position", "cell" and "time_s".

    Raises
    ------
    LivestainError
        A time is not finite.
    """
    position, cell, time_s = columns["position"], columns["cell"], columns["time_s"]
    if bad := int((~np.isfinite(time_s)).sum()):
        raise LivestainError(
            f"time_s is not finite in {bad} of {time_s.size} rows of the cell table; measure the run again."
        )
    if not cell.size:
        return []
    order = np.lexsort((time_s, cell, position))
    new = (position[order][1:] != position[order][:-1]) | (cell[order][1:] != cell[order][:-1])
    return np.split(order, np.flatnonzero(new) + 1)


def _as_array(table: CellTable, name: str) -> NDArray[Any]:
    if isinstance(table, Mapping):
        return np.asarray(table[name])
    column = table.column(name)
    if hasattr(column.type, "value_type"):  # a dictionary of strings
        column = column.cast(column.type.value_type)
    return np.asarray(column.to_numpy())


def _checked(name: str, column: NDArray[Any]) -> NDArray[Any]:
    if column.ndim != 1:
        raise LivestainError(f"Column {name} has one value a row, got an array of shape {column.shape}.")
    if name in _TEXT:
        return column.astype(np.str_)
    if not column.size:
        return column.astype({"iu": np.int64, "b": np.bool_}.get(_KINDS.get(name, ""), np.float64))
    wanted = _KINDS.get(name, "fiu")
    if column.dtype.kind not in wanted:
        raise LivestainError(f"Column {name} cannot be {column.dtype}; measure the run again, or correct the table.")
    return column if name in _KINDS else column.astype(np.float64)
