"""Why numbers of a cell are NaN, by the quantity that they belong to: "dry mass: it is saturated; viability: ..."."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CELL", "MASS", "NUCLEUS", "VIABILITY", "joined", "of_quantity", "told"]

CELL = "cell"  # all of it: not found at this time point
MASS = "dry mass"
NUCLEUS = "nucleus"
VIABILITY = "viability"

_PARTS = re.compile(rf"(?:^|; )({CELL}|{MASS}|{NUCLEUS}|{VIABILITY}): ")


def told(quantity: str, why: str) -> str:
    """Name the quantity that a reason belongs to; "" stays "".

    Examples
    --------
    >>> told(MASS, "the camera is saturated")
    'dry mass: the camera is saturated'
    """
    return f"{quantity}: {why}" if why else ""


def joined(reasons: Iterable[str]) -> str:
    """Join what `told` and `joined` gave, each cause once, in the order in which they came."""
    parts = dict.fromkeys(part for reason in reasons for part in _parts(reason))
    return "; ".join(told(quantity, why) if quantity else why for quantity, why in parts)


def of_quantity(reason: str, *quantities: str) -> str:
    """Give why these quantities are NaN, without their names; "" where the reason says nothing of them."""
    return "; ".join(dict.fromkeys(why for quantity, why in _parts(reason) if quantity in ("", *quantities)))


def _parts(reason: str) -> list[tuple[str, str]]:
    """Take a reason apart; a cause may have semicolons of its own, so only a quantity's name begins a part."""
    words = _PARTS.split(reason)
    parts = list(zip(words[1::2], words[2::2], strict=True))
    return [("", words[0]), *parts] if words[0] else parts  # of an older table
