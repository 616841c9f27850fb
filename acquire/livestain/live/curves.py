"""The curves of a run as a page draws them: one a position or condition, thinned where points are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.measure.deaths import wilson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["QUANTITIES", "curves_of"]

QUANTITIES = (
    "cells",
    "total_dry_mass_pg",
    "total_dry_mass_sd_pg",
    "median_dry_mass_pg",
    "median_dry_mass_sd_pg",
    "viability",
    "viability_low",
    "viability_high",
)
_MOST_POINTS = 1000  # of one curve: more than its drawing has columns
_MOST_IN_ALL = 6000  # of all curves of one quantity: what a phone draws without a pause

Columns = dict[str, "NDArray[Any]"]


def curves_of(summary: pa.Table, groups: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Give the curves of groups of images.

    Parameters
    ----------
    summary
        Rows of `livestain.measure.summary.SUMMARY_SCHEMA`.
    groups
        By a group's name, the numbers of its images: one, or the fields of a well.

    Returns
    -------
    dict
        "every": every how many time points there is one in the curves; "rows" of the summary; "curves": for each group
        "name", "fields", "t", "time_s" and the `QUANTITIES`, as JSON has them (None for NaN). Of several fields
        cells and masses are sums, viability is that of all their cells with Wilson's interval (1927, JASA 22:209), the
        median mass is the mean of the fields' medians; time points that are not whole yet are left out.
    """
    columns = _columns(summary)
    most = max(50, min(_MOST_POINTS, _MOST_IN_ALL // max(1, len(groups))))
    by_image = _by_image(columns["image"])
    longest = max((by_image[i].size for images in groups.values() for i in images if i in by_image), default=0)
    every = 1
    while longest > most * every:
        every *= 2
    curves = []
    for name, images in groups.items():
        rows = [by_image.get(i, np.empty(0, np.intp)) for i in images]
        picked = _single(columns, rows[0]) if len(rows) == 1 else _pooled(columns, rows)
        curves.append({"name": name, "fields": len(images), **_plain(picked, every)})
    return {"every": every, "rows": summary.num_rows, "curves": curves}


def _columns(summary: pa.Table) -> Columns:
    names = ("image", "t", "time_s", "unknown", *QUANTITIES)
    return {name: summary.column(name).to_numpy(zero_copy_only=False) for name in names}


def _by_image(images: NDArray[Any]) -> dict[int, NDArray[np.intp]]:
    order = np.argsort(images, kind="stable")
    numbers, starts = np.unique(images[order], return_index=True)
    return {int(n): rows for n, rows in zip(numbers, np.split(order, starts[1:]), strict=True)} if numbers.size else {}


def _single(columns: Columns, rows: NDArray[np.intp]) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


def _pooled(columns: Columns, rows: Sequence[NDArray[np.intp]]) -> Columns:
    """Take the fields together at the time points that all of them have."""
    shared = columns["t"][rows[0]]
    for more in rows[1:]:
        shared = np.intersect1d(shared, columns["t"][more])
    # (field, time point) rows; each field's time points are in order, each once
    at = np.array([r[np.searchsorted(columns["t"][r], shared)] for r in rows], np.intp).reshape(len(rows), -1)
    of = {name: values[at] for name, values in columns.items()}
    known = of["cells"] - of["unknown"]
    n = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(known > 0, known * of["viability"], 0).sum(axis=0) / n
    low, high = wilson(share, n)
    return {
        "t": shared,
        "time_s": of["time_s"].mean(axis=0),
        "cells": of["cells"].sum(axis=0),
        "total_dry_mass_pg": of["total_dry_mass_pg"].sum(axis=0),
        "total_dry_mass_sd_pg": np.sqrt((of["total_dry_mass_sd_pg"] ** 2).sum(axis=0)),
        "median_dry_mass_pg": of["median_dry_mass_pg"].mean(axis=0),
        "median_dry_mass_sd_pg": np.sqrt((of["median_dry_mass_sd_pg"] ** 2).sum(axis=0)) / len(rows),
        "viability": share,
        "viability_low": low,
        "viability_high": high,
    }


def _plain(columns: Columns, every: int) -> dict[str, list[Any]]:
    """Give every so many points, the newest among them, as JSON has them."""
    n = columns["t"].size
    keep = np.arange(0, n, every)
    if n and keep[-1] != n - 1:
        keep = np.append(keep, n - 1)
    return {name: plain_list(columns[name][keep]) for name in ("t", "time_s", *QUANTITIES)}


def plain_list(values: NDArray[Any]) -> list[Any]:
    """Give numbers to five digits, as many as a drawing shows; None for NaN."""
    if values.dtype.kind in "iu":
        found: list[Any] = values.tolist()
        return found
    return [float(f"{v:.5g}") if v == v else None for v in values.tolist()]
