"""Tracks as GEFF, the graph exchange format of the tracking tools (geff 1.x): written row by row, straight to Zarr.

A node is a cell at a time point, an edge joins a cell to itself at the next one and a mother to her daughters. The
format is a Zarr v2 group: nodes/ids, nodes/props/NAME/values, edges/ids, and metadata under the attribute "geff"
(https://liveimagetrackingtools.org/geff). The `geff` library is not needed: it reads the result in the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from livestain._errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Rows = Mapping[str, NDArray[Any]] | NDArray[np.void]


__all__ = ["GeffWriter"]

VERSION = "1.1"
CHUNK = 65_536  # rows a chunk; at most this many wait in memory
LONGEST_STEP = 3  # time points: the tracker bridges two missing ones
PROPERTIES = {"t": "int64", "y": "float64", "x": "float64", "track_id": "uint64", "gap": "bool"}
MEANINGS = {
    "t": "time point",
    "y": "within the field, from the centre of pixel 0",
    "x": "within the field, from the centre of pixel 0",
    "track_id": "the cell's number, the same as in the table of cells and in the label images",
    "gap": "interpolated: not found at this time point, but before and after it",
}


class GeffWriter:
    """Writes the tracks of one position to a new GEFF; memory does not grow with the run.

    Parameters
    ----------
    path
        The folder to create, usually named `*.geff`.

    Raises
    ------
    StoreError
        The folder exists already.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise StoreError(f"{path} exists already; remove it or choose another name for the tracks.")
        self._group = zarr.open_group(path, mode="w-", zarr_format=2)
        self._nodes = _Column(self._group, "nodes/ids", "uint64")
        self._edges = _Column(self._group, "edges/ids", "uint64", width=2)
        self._props = {
            name: _Column(self._group, f"nodes/props/{name}/values", PROPERTIES[name]) for name in PROPERTIES
        }
        self._group.require_group("edges/props")
        self._last: dict[int, tuple[int, int]] = {}  # the last node of every cell seen lately, and its time point
        self._next = 0
        self._range: dict[str, list[float]] = {}

    def add(self, t: int, rows: Rows) -> None:
        """Append one time point; they come in order.

        Parameters
        ----------
        t
            Its index.
        rows
            Columns of one length by name: cell, parent, y_um, x_um, gap; `Finished.cells` has them, and so has the
            table of cells.
        """
        nodes = np.arange(self._next, self._next + len(rows["cell"]), dtype=np.uint64)
        # An edge may skip time points that are missing altogether; what was not seen for longer is over.
        self._last = {cell: (node, seen) for cell, (node, seen) in self._last.items() if seen >= t - LONGEST_STEP}
        cells, parents = rows["cell"].tolist(), rows["parent"].tolist()
        sources = [self._last.get(cell) or self._last.get(parent) for cell, parent in zip(cells, parents, strict=True)]
        edges = [(source[0], node) for source, node in zip(sources, nodes.tolist(), strict=True) if source]
        columns = {"t": np.full(len(nodes), t), "y": rows["y_um"], "x": rows["x_um"],
                   "track_id": rows["cell"], "gap": rows["gap"]}  # fmt: skip
        for name, values in columns.items():
            self._props[name].add(values)
        self._nodes.add(nodes)
        self._edges.add(np.array(edges, np.uint64).reshape(-1, 2))
        self._last.update((cell, (node, t)) for cell, node in zip(cells, nodes.tolist(), strict=True))
        self._next += len(nodes)
        for name in ("t", "y", "x") if len(nodes) else ():
            low, high = float(columns[name].min()), float(columns[name].max())
            known = self._range.setdefault(name, [low, high])
            known[:] = [min(known[0], low), max(known[1], high)]

    def close(self) -> None:
        """Write what waits in memory, and the metadata that makes the folder a GEFF."""
        for column in (self._nodes, self._edges, *self._props.values()):
            column.flush()
        self._group.attrs["geff"] = self._metadata()

    def _metadata(self) -> dict[str, Any]:
        def axis(name: str, kind: str, unit: str) -> dict[str, Any]:
            low, high = self._range.get(name, [None, None])
            return {"name": name, "type": kind, "unit": unit, "min": low, "max": high}

        return {
            "geff_version": VERSION,
            "directed": True,
            "axes": [axis("t", "time", "frame"), axis("y", "space", "micrometer"), axis("x", "space", "micrometer")],
            "node_props_metadata": {
                name: {"identifier": name, "dtype": dtype, "description": MEANINGS[name]}
                for name, dtype in PROPERTIES.items()
            },
            "edge_props_metadata": {},
            "track_node_props": {"tracklet": "track_id"},
        }


class _Column:
    """A Zarr array that grows by whole chunks."""

    def __init__(self, group: zarr.Group, name: str, dtype: str, width: int = 0) -> None:
        shape, chunks = ((0, width), (CHUNK, width)) if width else ((0,), (CHUNK,))
        self._array = group.create_array(name, shape=shape, chunks=chunks, dtype=dtype)
        self._waiting: list[NDArray[Any]] = []

    def add(self, rows: NDArray[Any]) -> None:
        """Append rows; they are written once a chunk is full."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write all rows that wait."""
        if self._waiting:
            rows = np.concatenate(self._waiting)
            self._array.append(rows.astype(self._array.dtype))
            self._waiting = []
