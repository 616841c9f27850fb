"""Says counts, times and lengths the way a person writes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = ["UNKNOWN", "counted", "length_of_time", "listed", "moment", "moment_utc", "number"]

UNKNOWN = "not known"
_DAY_S, _HOUR_S, _MINUTE_S = 86400, 3600, 60


def counted(n: int, what: str, plural: str | None = None) -> str:
    """Write "1 frame", "1,234 frames"."""
    return f"{n:,} {what if n == 1 else plural or what + 's'}"


def length_of_time(seconds: float) -> str:
    """Write a duration in its two largest units: "3 d 4 h", "12 min 5 s", "0.5 s"."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < _MINUTE_S:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for large, small, names in ((_DAY_S, _HOUR_S, "d h"), (_HOUR_S, _MINUTE_S, "h min"), (_MINUTE_S, 1, "min s")):
        if whole >= large:
            one, other = names.split()
            rest = (whole % large) // small
            return f"{whole // large} {one} {rest} {other}" if rest else f"{whole // large} {one}"
    return f"{whole} s"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Write the first names with commas, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def moment(time: datetime) -> str:
    """Write a time as the clock on the wall of this computer shows it, with its offset from UTC."""
    local = time.astimezone()
    offset = local.strftime("%z")
    return f"{local:%A}, {local.day} {local:%B %Y, %H:%M:%S} (UTC{offset[:3]}:{offset[3:5]})"


def moment_utc(time: datetime) -> str:
    """Write an aware UTC time to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def number(value: float, digits: int = 3) -> str:
    """Write a number to some significant digits; an unknown one as a dash."""
    return f"{value:.{digits}g}" if math.isfinite(value) else "\u2013"
