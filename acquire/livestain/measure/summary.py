"""The summary of a run: one row a position and time point, from the finished rows of its cells."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from livestain._errors import LivestainError
from livestain.measure._rows import RowStream
from livestain.measure.deaths import viable_fraction
from livestain.measure.reasons import CELL, MASS, of_quantity
from livestain.measure.table import SCHEMA_VERSION, STATES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SUMMARY_SCHEMA", "SummaryTable", "summarised"]

_MOST_REASONS = 5

SUMMARY_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in [
            ("position", pa.string()),
            ("image", pa.int32()),
            ("t", pa.int32()),
            ("time_s", pa.float64()),
            ("cells", pa.int32()),  # gaps among them: a cell that was not seen for a moment is there
            ("gaps", pa.int32()),
            ("live", pa.int32()),
            ("injured", pa.int32()),
            ("dead", pa.int32()),
            ("unknown", pa.int32()),  # no state
            ("viability", pa.float64()),  # share not dead of all whose state is known, by belief
            ("viability_low", pa.float64()),  # Wilson's interval, 95 %
            ("viability_high", pa.float64()),
            ("total_dry_mass_pg", pa.float64()),  # of all masses known, parts of cells at the border among them
            ("total_dry_mass_sd_pg", pa.float64()),
            ("median_dry_mass_pg", pa.float64()),  # of cells that are whole: none at the border
            ("median_dry_mass_sd_pg", pa.float64()),
            ("cells_at_border", pa.int32()),
            ("cells_without_mass", pa.int32()),
            ("why_without_mass", pa.string()),
            ("reason", pa.string()),  # why there is no cell at all
        ]
    ]
)


class SummaryTable(RowStream):
    """Appends rows to RUN/summary.arrow, as `CellTable` does to cells.arrow."""

    def __init__(self, folder: Path, provenance: Mapping[str, Any] | None = None, *, sync: bool = False) -> None:
        super().__init__(
            folder, "summary", SUMMARY_SCHEMA, {"version": SCHEMA_VERSION, **(provenance or {})}, sync=sync
        )


def summarised(
    rows: Mapping[str, Any],
    *,
    position: str | None = None,
    image: int | None = None,
    t: int | None = None,
    time_s: float | None = None,
    reason: str = "",
) -> dict[str, list[Any]]:
    """Summarise the rows of one time point of one position.

    Parameters
    ----------
    rows
        Columns of the cell table.
    position, image, t, time_s
        Which time point; needed where it has no rows, else those of the first row.
    reason
        Why there are no rows.

    Returns
    -------
    dict
        One row of the summary, column by column. The error of the total takes the cells' errors for independent; that
        of the median is 1.2533 standard errors of the mean of the masses, their spread and not their own errors.

    Raises
    ------
    LivestainError
        If it is not known which time point it is.
    """
    n = len(rows["cell"])
    which = {"position": position, "image": image, "t": t, "time_s": time_s}
    which = {name: given if given is not None or n == 0 else rows[name][0] for name, given in which.items()}
    if unknown := [name for name, value in which.items() if value is None]:
        raise LivestainError(f"a time point without cells can be summarised only with its {', '.join(unknown)} given.")
    mass, sd = (np.asarray(rows[name], float) for name in ("dry_mass_pg", "dry_mass_sd_pg"))
    border, gap = (np.asarray(rows[name], bool) for name in ("at_border", "gap"))
    found = {
        **which,
        "cells": n,
        "gaps": int(gap.sum()),
        **_states(rows["state"], rows["dead_belief"]),
        **_masses(mass, sd, border),
        "cells_at_border": int(border.sum()),
        "cells_without_mass": int(np.isnan(mass).sum()),
        "why_without_mass": _reasons(rows["reason"], np.isnan(mass)),
        "reason": reason,
    }
    return {name: [value] for name, value in found.items()}


def _states(states: Any, dead_belief: Any) -> dict[str, Any]:
    count = Counter(str(state) for state in states)
    viable = viable_fraction([str(state) for state in states], dead_belief)
    return {
        **{state: count[state] for state in STATES},
        "unknown": viable.n_unknown,
        "viability": viable.fraction,
        "viability_low": viable.low,
        "viability_high": viable.high,
    }


def _masses(mass: NDArray[np.float64], sd: NDArray[np.float64], border: NDArray[np.bool_]) -> dict[str, float]:
    known = ~np.isnan(mass)
    whole = mass[known & ~border]
    many = whole.size > 1
    return {
        "total_dry_mass_pg": float(mass[known].sum()) if known.any() else math.nan,
        "total_dry_mass_sd_pg": float(np.sqrt((sd[known] ** 2).sum())) if known.any() else math.nan,
        "median_dry_mass_pg": float(np.median(whole)) if whole.size else math.nan,
        "median_dry_mass_sd_pg": 1.2533 * float(whole.std(ddof=1)) / math.sqrt(whole.size) if many else math.nan,
    }


def _reasons(reasons: Any, where: NDArray[np.bool_]) -> str:
    count = Counter(of_quantity(str(reason), CELL, MASS) for reason, here in zip(reasons, where, strict=True) if here)
    told = [f"{reason or 'no reason given'} ({times})" for reason, times in count.most_common(_MOST_REASONS)]
    return "; ".join(told + (["others"] if len(count) > _MOST_REASONS else []))
