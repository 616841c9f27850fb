"""What is said of one stain at one position, and what all positions say together of one stain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from livestain.pairs.pair_check import SATURATED, TOLERANCE_UM, USELESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestain.pairs.pair_check import PairCheck
    from livestain.pairs.plan import PairsPlan

__all__ = ["Common", "Row", "Shift", "common_of", "verdict_of"]

Shift = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One stain at one position, as the summary shows it.

    Attributes
    ----------
    position
        Its name.
    target
        The stain's channel.
    verdict
        In a few words.
    check
        What was seen; None where the position is not whole.
    useless
        Why the position is left out because of this stain, as a sentence; "" if it is not.
    """

    position: str
    target: str
    verdict: str
    check: PairCheck | None
    useless: str = ""


@dataclass(frozen=True, slots=True)
class Common:
    """What the positions say together of one stain.

    Attributes
    ----------
    shift_um
        Where it lies beside the input, (dy, dx); zero if they do not agree.
    agreed
        Whether more than half of them lie within the tolerance of that.
    """

    shift_um: Shift = (0.0, 0.0)
    agreed: bool = True


def common_of(checks: Sequence[PairCheck]) -> Common:
    """Bring the shifts of one stain at all positions together.

    It is their median, if more than half of the positions that tell one lie within the tolerance of it.
    """
    told = [
        check.registration.shift_um
        for check in checks
        if check.registration is not None
        and check.registration.verdict in ("matches", "shifted")
        and max(check.saturated, check.input_saturated) <= USELESS
    ]
    if not told:
        return Common()
    middle = np.median(told, axis=0)
    agree = [shift for shift in told if np.hypot(*(np.asarray(shift) - middle)) <= TOLERANCE_UM]
    if len(agree) <= len(told) / 2:
        return Common(agreed=False)
    dy, dx = (float(value) for value in np.median(agree, axis=0))
    return Common((dy, dx))


def verdict_of(check: PairCheck, plan: PairsPlan, common: Common | None = None) -> tuple[str, str]:
    """Give the verdict in a few words, and why the position is of no use ("" if it is of use).

    `common` is what all positions say together; None as long as nobody knows.
    """
    target = check.target
    if check.empty:
        return "empty", f"{target} is empty"
    if check.saturated > USELESS:
        return "saturated", f"{target} is saturated in {check.saturated:.1%} of the pixels"
    if check.input_saturated > USELESS:
        return "input saturated", f"{plan.input} is saturated in {check.input_saturated:.1%} of the pixels"
    found = check.registration
    assert found is not None  # noqa: S101  (it is empty otherwise)
    if found.verdict == "scaled":
        return f"scaled by {found.scale:.3g}", f"{target} is magnified {found.scale:.3g} times against {plan.input}"
    if found.verdict == "unrelated":
        return "unrelated", f"{target} does not show what {plan.input} shows"
    if found.verdict == "cannot tell":
        return "cannot tell", ""
    beside_um = 0.0 if common is None else float(np.hypot(*np.subtract(found.shift_um, common.shift_um)))
    if beside_um > TOLERANCE_UM and common is not None:
        where = "where it lies at the other positions" if common.agreed else plan.input
        return "beside" if common.agreed else "shifted", f"{target} lies {beside_um:.1f} um beside {where}"
    return ("saturated in part" if check.saturated > SATURATED else "fits"), ""
