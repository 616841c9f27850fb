"""Time points come whole, in order, once, and the same while a run goes on as after it."""

import dataclasses
import json

import pytest
import useq
from hypothesis import given, settings
from hypothesis import strategies as st

from livestain._errors import StoreError
from livestain._frame import Job, Place
from livestain._journal import JOURNAL_NAME
from livestain._layout import Channel, Layout
from livestain._lines import header_line, missing_line, stain_line
from livestain.measure.follow import Follower

SEQUENCE = useq.MDASequence(
    channels=[{"config": "BF"}, {"config": "Nuclei", "acquire_every": 2}],
    stage_positions=[(0, 0, 0), (100, 0, 0)],
    time_plan={"interval": 1, "loops": 4},
    axis_order="tpcz",
)
LAYOUT = Layout.of(
    SEQUENCE, height=8, width=8, pixel_size_um=0.325, predicted=[Channel("Nuclei (predicted)", stain=0, output=0)]
)
STAINS = [{"channel": "BF", "planes": 1}]
BF, NUCLEI, PREDICTED = 0, 1, 2
POINTS = [(image, t) for t in range(4) for image in range(2)]


def raw(image, t, c=BF, z=0):
    return {"kind": "raw", "at": [image, t, c, z], "time": f"2026-11-22T12:00:0{t}.000+00:00", "crc32": 0}


def stain(image, t, status="stained"):
    job = Job(0, (Place(image, t, BF, 0),), (Place(image, t, PREDICTED, 0),))
    return stain_line(job, status) | ({"crc32": [0]} if status == "stained" else {})


def frames():
    """The raw lines of the whole sequence, in the order of acquisition."""
    for image, t in POINTS:
        yield raw(image, t)
        if t % 2 == 0:
            yield raw(image, t, NUCLEI)


END = {"kind": "end", "reason": "completed"}


def begin(folder, layout=LAYOUT, stains=STAINS):
    folder.mkdir(exist_ok=True)
    header = header_line(layout, 0.0, {"stains": stains})
    (folder / JOURNAL_NAME).write_text(json.dumps(header) + "\n")
    return folder


def write(folder, lines):
    with (folder / JOURNAL_NAME).open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def read(follower):
    return [(point.image, point.t) for point in follower.read()]


def test_a_time_point_comes_when_its_last_plane_is_there(tmp_path):
    follower = Follower(begin(tmp_path), SEQUENCE)
    assert read(follower) == []
    write(tmp_path, [raw(0, 0), stain(0, 0)])
    assert read(follower) == []  # its real nuclei are still to come
    write(tmp_path, [raw(0, 0, NUCLEI)])
    (point,) = follower.read()
    assert (point.image, point.t) == (0, 0)
    assert {place.c for place in point.there} == {BF, NUCLEI, PREDICTED}
    assert follower.waiting == 0


def test_an_owed_prediction_holds_up_those_after_it(tmp_path):
    follower = Follower(begin(tmp_path), SEQUENCE)
    lines = [raw(0, 0), raw(0, 0, NUCLEI), stain(0, 0, "pending"), raw(1, 0), raw(1, 0, NUCLEI), stain(1, 0)]
    write(tmp_path, lines)
    assert read(follower) == []
    write(tmp_path, [END])
    assert read(follower) == []  # `livestain backfill` can still make it
    assert follower.waiting == 2
    write(tmp_path, [stain(0, 0)])
    assert read(follower) == [(0, 0), (1, 0)]


# What befell a run, and the time points that it has all the same.
BEFELL = {
    "a frame never came": ([raw(0, 0), missing_line(Place(0, 0, NUCLEI, 0), "why"), stain(0, 0)], [(0, 0)]),
    "the input never came": ([missing_line(Place(0, 0, BF, 0), "why"), raw(0, 0, NUCLEI)], [(0, 0)]),
    "it was canceled within a time point": ([raw(0, 0), stain(0, 0), END], [(0, 0)]),
    "canceled, and the model behind": ([raw(0, 0), stain(0, 0, "pending"), END], []),
    "a frame was lost": ([raw(0, 0), raw(0, 0, NUCLEI), {"kind": "lost", "at": [0, 0, BF, 0]}, END], [(0, 0)]),
    "a prediction was lost": ([raw(0, 0), raw(0, 0, NUCLEI), raw(1, 0), stain(0, 0), END], [(0, 0)]),
}


@pytest.mark.parametrize("befell", BEFELL)
def test_what_befalls_a_run(tmp_path, befell):
    lines, expected = BEFELL[befell]
    follower = Follower(begin(tmp_path), SEQUENCE)
    write(tmp_path, lines)
    assert read(follower) == expected


def test_a_lost_prediction_is_waited_for(tmp_path):
    write(begin(tmp_path), [raw(0, 0), stain(0, 0), {"kind": "lost", "at": [0, 0, PREDICTED, 0]}, END])
    follower = Follower(tmp_path, SEQUENCE)
    assert read(follower) == []
    write(tmp_path, [stain(0, 0)])
    assert read(follower) == [(0, 0)]


@settings(max_examples=30)
@given(data=st.data())
def test_live_and_later_give_the_same(tmp_path_factory, data):
    """Predictions come at any time after their frame, and the journal is read at any time."""
    folder = begin(tmp_path_factory.mktemp("run"))
    lines, owed = [], []
    for line in frames():
        lines.append(line)
        if line["at"][2] == BF:
            owed.append(stain(*line["at"][:2]))
        while owed and data.draw(st.booleans()):
            lines.append(owed.pop(data.draw(st.integers(0, len(owed) - 1))))
    lines += owed
    follower, live = Follower(folder, SEQUENCE), []
    while lines:
        n = data.draw(st.integers(1, len(lines)))
        write(folder, lines[:n])
        lines = lines[n:]
        live += read(follower)
    assert live == POINTS == read(Follower(folder, SEQUENCE))
    known = data.draw(st.integers(0, len(POINTS)))
    after = [max([t for i, t in POINTS[:known] if i == image], default=-1) for image in range(2)]
    assert read(Follower(folder, SEQUENCE, after)) == POINTS[known:]


def test_a_stack_waits_for_all_that_can_be_predicted_from_it(tmp_path):
    sequence = useq.MDASequence(
        channels=[{"config": "BF"}, {"config": "Nuclei", "do_stack": False}],
        z_plan={"range": 2, "step": 1},
        time_plan={"interval": 0, "loops": 2},
    )
    layout = Layout.of(
        sequence, height=8, width=8, pixel_size_um=0.3, predicted=[Channel("Nuclei (predicted)", stain=0, output=0)]
    )
    follower = Follower(begin(tmp_path, layout), sequence)
    stained = [
        stain_line(Job(0, (Place(0, 0, BF, z),), (Place(0, 0, PREDICTED, z),)), "stained") | {"crc32": [0]}
        for z in range(3)
    ]
    write(tmp_path, [*(raw(0, 0, BF, z) for z in range(3)), raw(0, 0, NUCLEI, 1), *stained[:2]])
    assert read(follower) == []
    write(tmp_path, stained[2:])
    assert read(follower) == [(0, 0)]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match="not a run folder"):
        Follower(tmp_path, SEQUENCE)


def test_the_time_of_a_time_point_is_that_of_its_first_frame(tmp_path):
    follower = Follower(begin(tmp_path), SEQUENCE)
    write(tmp_path, [raw(0, 3), stain(0, 3)])
    (point,) = follower.read()
    assert point.time_s - follower.first_frame_s == 0
    assert dataclasses.asdict(point)["time_s"] == 1795348803.0
