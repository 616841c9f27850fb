"""When a run rests: between frames that come at regular times, who looks on may work and cost it nothing.

A picture is read by the page's server and drawn by a browser in a few tens of milliseconds on all cores there are.
Begun while a frame is stained and written, that makes the frame late; begun when the frame is on disk, it is over
before the next one comes. So the server answers while the run rests, and tells the pages when that is, which ask and
draw then: their own clocks would have them do it at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from livestain._recent import Rhythm

__all__ = ["Rests", "rests"]

_DRAWS_S = 0.08  # a picture: asked for, read, added up, painted
_LATE = 1.5  # times the longest of the newest frames: one that takes longer still must not be met as well
_LONGEST_BUSY_S = 0.25  # a frame that takes longer is not waited for: news is to be seen within a second
_MISSED = 3  # frames in a row that did not come: the rhythm is lost, or the run has ended


@dataclass(frozen=True, slots=True)
class Rests:
    """When a run rests, as seen at one moment.

    Attributes
    ----------
    since_s
        Since the last rest began.
    room_s
        After the beginning of a rest, how long a picture may still be begun in it; 0 where frames follow one another
        too closely, and the least harm is done just when one is on disk.
    interval_s
        From the beginning of one rest to that of the next.
    """

    since_s: float
    room_s: float
    interval_s: float

    @property
    def wait_s(self) -> float:
        """How long to wait for a moment at which a picture may be begun."""
        return 0.0 if self.since_s <= self.room_s else self.interval_s - self.since_s


def rests(now_s: float, rhythm: Rhythm | None) -> Rests | None:
    """Say when a run rests.

    Parameters
    ----------
    now_s
        Seconds since the epoch.
    rhythm
        Of the newest frames; None where they do not come regularly.

    Returns
    -------
    Rests or None
        None where there is nothing to go by, or nothing to wait for: the frames are irregular, too slow, or at an end.
    """
    if rhythm is None or rhythm.busy_s > _LONGEST_BUSY_S:
        return None
    age_s = now_s - rhythm.newest_s
    if not 0 <= age_s < _MISSED * rhythm.interval_s:  # before it: the clock of another computer
        return None
    busy_s = min(_LATE * rhythm.busy_s, rhythm.interval_s)
    since_s = (age_s - busy_s) % rhythm.interval_s
    return Rests(since_s, max(0.0, rhythm.interval_s - busy_s - _DRAWS_S), rhythm.interval_s)
