"""What to do at the microscope about pairs that are not good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestain.pairs.pair_check import SATURATED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from livestain.pairs.plan import PairsPlan
    from livestain.pairs.verdicts import Common, Row

__all__ = ["remedies"]


def remedies(rows: Sequence[Row], common: Mapping[str, Common], plan: PairsPlan) -> list[str]:
    """Say what to do, once for each stain and kind of trouble."""
    said: list[str] = []
    for target, found in common.items():
        mine = [row for row in rows if row.target == target]
        kinds = [row.verdict.partition(" by ")[0] for row in mine]
        if not found.agreed:
            said.append(
                f"{target}: the positions do not agree on a shift, so it is not the filter cube's. Cells or stage move "
                f"between {plan.input} and {target}: let the stage settle, put c behind p and g in axis_order, and "
                "take the channels quickly one after the other."
            )
        said += [text for kind, text in _by_kind(target, plan).items() if kind in kinds]
        if (cannot := kinds.count("cannot tell")) > 0:
            said.append(
                f"{target}: at {cannot} of {len(mine)} positions too little is seen to tell whether it lies on "
                f"{plan.input}. They are kept. Look at one, and at the focus of {plan.input}."
            )
    return said


def _by_kind(target: str, plan: PairsPlan) -> dict[str, str]:
    exposure = f"{plan.exposure_ms[target]:g} ms"
    less = f"lower its exposure ({exposure}) or the light by half, then look again"
    return {
        "empty": (
            f"{target} is empty where there is nothing above the camera's noise. No cells there: choose other "
            f"positions. Cells but no stain: raise its exposure ({exposure}); see that the dye is in and that light, "
            "filter and shutter belong to the channel's preset."
        ),
        "saturated": f"{target} is saturated: {less}. What is saturated has lost its brightness for good.",
        "saturated in part": (
            f"{target} is at the camera's maximum in more than {SATURATED:.1%} of the pixels of some positions. They "
            f"are kept, but {less}."
        ),
        "input saturated": (
            f"{plan.input} is saturated: lower its exposure ({plan.exposure_ms[plan.input]:g} ms) or the lamp until "
            "the background is at about half of the camera's range."
        ),
        "scaled": (
            f"{target} has another magnification than {plan.input}: the same objective, binning, camera and "
            "intermediate lens for both? Such pairs cannot be used."
        ),
        "unrelated": (
            f"{target} and {plan.input} do not show the same: did the preset switch the light, did the stage stand "
            "still, are both in focus? Look at such a position before you go on."
        ),
        "beside": (
            f"{target} lies elsewhere at some positions than at the others: cells moved, or the stage or focus drive "
            "drifted between the channels. Let the stage settle and take the channels quickly one after the other."
        ),
    }
