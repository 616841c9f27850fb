"""When those who look on may work: while the run rests between frames that come at regular times."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestain._latency import BOUNDARIES
from livestain._lines import iso_time
from livestain._recent import Recent, Rhythm
from livestain.live.rests import rests

AT_S = 1.8e9
FIVE_A_SECOND = Rhythm(AT_S, interval_s=0.2, busy_s=0.02)


@pytest.mark.parametrize(
    ("rhythm", "age_s", "wait_s"),
    [
        (FIVE_A_SECOND, 0.005, 0.025),  # the newest frame is being stained; it may take half as long again as others
        (FIVE_A_SECOND, 0.05, 0),  # it is on disk, and the next is far
        (FIVE_A_SECOND, 0.18, 0.05),  # a picture would not be done before the next
        (FIVE_A_SECOND, 0.405, 0.025),  # two frames later, which the journal was not read for
        (Rhythm(AT_S, 0.05, 0.02), 0.01, 0.02),  # no time for a picture between two frames: as one is on disk
        (Rhythm(AT_S, 0.05, 0.02), 0.04, 0.04),
        (Rhythm(AT_S, 600, 0.05), 300, 0),
        (Rhythm(AT_S, 600, 0.05), 599.97, 0.105),
    ],
)
def test_waits_for_the_rest_between_frames(rhythm: Rhythm, age_s: float, wait_s: float) -> None:
    found = rests(AT_S + age_s, rhythm)
    assert found is not None
    assert found.wait_s == pytest.approx(wait_s, abs=1e-6)


@pytest.mark.parametrize(
    ("rhythm", "age_s"),
    [
        (None, 0.1),
        (FIVE_A_SECOND, 0.7),  # no frame came for too long: the run has ended, or waits
        (FIVE_A_SECOND, -3),  # the clock of another computer
        (Rhythm(AT_S, 2, 0.9), 0.1),  # a slow model: news would come too late
    ],
)
def test_without_a_rhythm_to_go_by_nothing_waits(rhythm: Rhythm | None, age_s: float) -> None:
    assert rests(AT_S + age_s, rhythm) is None


@given(
    interval_s=st.floats(0.02, 100),
    busy_s=st.floats(0.001, 0.25),
    age=st.floats(0, 2.999),
    later=st.integers(0, 3),
)
def test_a_picture_is_begun_when_no_frame_is_on_its_way(
    interval_s: float, busy_s: float, age: float, later: int
) -> None:
    found = rests(age * interval_s, Rhythm(0.0, interval_s, busy_s))
    assert found is not None
    assert 0 <= found.wait_s <= min(interval_s, 0.5)  # news is seen within a second
    began_s = age * interval_s + found.wait_s + later * found.interval_s
    phase_s = math.fmod(began_s + 1e-7, interval_s)
    assert phase_s >= min(busy_s, interval_s) - 1e-6 or phase_s < 1e-6  # 1e-6: where frames leave no time between them


def recent(visits_s: list[float], *, frames: int = 1, apart_s: float = 0.03, stained: bool = True) -> Recent:
    """What the journal of a run leaves: each visit has so many frames, the first of them is stained."""
    found = Recent()
    for t, began_s in enumerate(visits_s):
        late_ms = dict.fromkeys(BOUNDARIES, 20.0 + t)
        stain = {"kind": "stain", "status": "stained", "live": True, "at": [[0, t, 9, 0]], **late_ms}
        for c in range(frames):
            found.add({"kind": "raw", "at": [0, t, c, 0], "time": iso_time(AT_S + began_s + c * apart_s)})
        if stained:
            found.add(stain)
    return found


@pytest.mark.parametrize(("frames", "busy_s"), [(1, 0.034), (4, 0.124)], ids=["one frame", "phase steps"])
def test_a_rhythm_is_of_visits_that_come_regularly(frames: int, busy_s: float) -> None:
    rhythm = recent([0.2 * i for i in range(15)], frames=frames).rhythm()
    assert rhythm is not None
    assert rhythm.newest_s == pytest.approx(AT_S + 2.8, abs=0.002)
    assert (rhythm.interval_s, rhythm.busy_s) == (pytest.approx(0.2, abs=0.002), pytest.approx(busy_s, abs=0.002))


@pytest.mark.parametrize(
    ("visits_s", "stained"),
    [
        ([], True),
        ([0.2 * i for i in range(10)], True),  # too few
        ([10.0 * (i // 3) + 0.5 * (i % 3) for i in range(30)], True),  # now and then three in a row
        ([0.2 * i for i in range(15)], False),
        ([0.0] * 15, True),  # stamps of one burst
    ],
)
def test_without_a_rhythm_there_is_none(visits_s: list[float], stained: bool) -> None:
    assert recent(visits_s, stained=stained).rhythm() is None
