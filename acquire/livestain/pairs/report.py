"""What all pairs of a run say together: the filter cubes' shifts, and which positions are of no use and why."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from livestain._errors import StoreError
from livestain.pairs.remedies import remedies
from livestain.pairs.verdicts import Row, common_of, verdict_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from livestain._layout import Image, Layout
    from livestain.pairs.pair_check import PairCheck
    from livestain.pairs.plan import PairsPlan
    from livestain.pairs.verdicts import Shift

__all__ = [
    "NOT_LOOKED_AT",
    "NOT_WHOLE",
    "PAIRS_NAME",
    "PairsReport",
    "judge",
    "position_name",
    "write_pairs",
]

PAIRS_NAME = "pairs.json"
NOT_WHOLE, NOT_LOOKED_AT = "not whole", "not looked at"  # verdicts on a position that has no check


@dataclass(frozen=True, slots=True)
class PairsReport:
    """What a run's pairs are worth.

    Attributes
    ----------
    rows
        A row for each position and stain.
    shift_um
        By stain, how far it lies beside the input at the positions that agree: (dy, dx).
    shift_px
        The same in whole pixels; a reader takes it out.
    left_out
        By image path, why a position is of no use.
    remedies
        What to do about it, as sentences.
    n_positions
        How many there should be.
    """

    rows: tuple[Row, ...]
    shift_um: Mapping[str, Shift]
    shift_px: Mapping[str, tuple[int, int]]
    left_out: Mapping[str, str]
    remedies: tuple[str, ...]
    n_positions: int

    @property
    def n_good(self) -> int:
        """How many positions give pairs."""
        return self.n_positions - len(self.left_out)


def judge(checks: Sequence[PairCheck], plan: PairsPlan, layout: Layout, *, unseen: str = NOT_WHOLE) -> PairsReport:
    """Bring the checks of all positions together.

    A stain's shift is the median over the positions that tell one, if more than half of them lie within the tolerance
    of it: then it is the filter cube's, and the same everywhere. What disagrees with it is the stage's or the cells'.

    Parameters
    ----------
    checks
        Of the positions that are whole.
    plan, layout
        What was to be taken.
    unseen
        What is said of a position that has no check.
    """
    common = {target: common_of([c for c in checks if c.target == target]) for target in plan.targets}
    seen = {(check.image, check.target): check for check in checks}
    rows = []
    for number, image in enumerate(layout.images):
        for target in plan.targets:
            check = seen.get((number, target))
            if check is None:
                rows.append(Row(position_name(image), target, unseen, None, unseen))
            else:
                verdict, useless = verdict_of(check, plan, common[target])
                rows.append(Row(position_name(image), target, verdict, check, useless))
    per_image = [rows[i : i + len(plan.targets)] for i in range(0, len(rows), len(plan.targets))]
    left_out = {
        image.path: "; ".join(dict.fromkeys(row.useless for row in mine if row.useless))
        for image, mine in zip(layout.images, per_image, strict=True)
        if any(row.useless for row in mine)
    }
    shift_um = {target: found.shift_um for target, found in common.items()}
    return PairsReport(
        rows=tuple(rows),
        shift_um=shift_um,
        shift_px={target: _whole_px(shift, layout.pixel_size_um) for target, shift in shift_um.items()},
        left_out=left_out,
        remedies=tuple(remedies(rows, common, plan)),
        n_positions=len(layout.images),
    )


def _whole_px(shift_um: Shift, pixel_size_um: float) -> tuple[int, int]:
    return round(shift_um[0] / pixel_size_um), round(shift_um[1] / pixel_size_um)


def position_name(image: Image) -> str:
    """Give what a person calls a position."""
    return image.name or image.path or "-"


def write_pairs(folder: Path, plan: PairsPlan, report: PairsReport, instrument: str | None) -> Path:
    """Write what a reader of the pairs needs to know beside the images; whole or not at all.

    Raises
    ------
    StoreError
        If the drive refuses.
    """
    document: dict[str, Any] = {
        **({"instrument": instrument} if instrument else {}),
        "input": plan.input,
        "targets": list(plan.targets),
        "shift_px": {target: list(shift) for target, shift in report.shift_px.items()},
        "left_out": dict(report.left_out),
    }
    path = folder / PAIRS_NAME
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}. Make room, then: livestain collect {folder}"
        ) from error
    return path
