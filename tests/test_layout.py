"""Where planes go: every event of a sequence has a place of its own, inside the arrays."""

from __future__ import annotations

from typing import Any

import pytest
import useq
from hypothesis import assume, given
from hypothesis import strategies as st

from livestain._errors import ExperimentError
from livestain._layout import Channel, Layout
from livestain._lines import header_line, layout_from_header


def lay_out(sequence: dict[str, Any], **more: Any) -> Layout:
    return Layout.of(useq.MDASequence.model_validate(sequence), height=8, width=8, pixel_size_um=0.5, **more)


GRID = {"rows": 2, "columns": 2}
positions = st.lists(
    st.sampled_from(
        [
            {"x": 0, "y": 0, "z": 0},
            {"x": 5, "y": 5, "z": 1, "name": "drug"},
            {"x": 1, "y": 0, "z": 0, "sequence": {"grid_plan": GRID}},
            {"x": 2, "y": 0, "z": 0, "sequence": {"z_plan": {"range": 4, "step": 2}}},
        ]
    ),
    max_size=4,
)
channels = st.lists(
    st.fixed_dictionaries(
        {"config": st.sampled_from("ABCD"), "acquire_every": st.integers(1, 3), "do_stack": st.booleans()}
    ),
    max_size=3,
    unique_by=lambda c: c["config"],
)
sequences = st.fixed_dictionaries(
    {"stage_positions": positions, "channels": channels},
    optional={
        "time_plan": st.builds(lambda n: {"interval": 0, "loops": n}, st.integers(1, 5)),
        "z_plan": st.builds(lambda n: {"range": 2 * n, "step": 2}, st.integers(1, 3)),
        "axis_order": st.sampled_from(["tpgcz", "ptgcz", "tpgzc", "pgtcz"]),
    },
)


@given(sequences)
def test_each_event_has_its_own_place_inside_the_arrays(sequence: dict[str, Any]) -> None:
    layout = lay_out(sequence)
    places = [layout.place(event.index) for event in useq.MDASequence.model_validate(sequence)]
    assume(places)  # a sequence of nothing is refused before it is laid out
    assert len(set(places)) == len(places)
    assert layout.n_frames == len(places)
    for place in places:
        assert place.image < len(layout.images)
        assert place.t < (layout.n_t or 1)
        assert place.c < len(layout.channels)
        assert place.z < layout.images[place.image].n_z


@given(sequences)
def test_a_layout_survives_the_journal(sequence: dict[str, Any]) -> None:
    layout = lay_out(sequence)
    back = layout_from_header(header_line(layout, 0, {}))
    assert (back.images, back.channels, back.n_t) == (layout.images, layout.channels, layout.n_t)


def test_a_plate_is_laid_out_by_well_and_field() -> None:
    plate = {
        "plate": "96-well",
        "a1_center_xy": [0, 0],
        "selected_wells": [[0, 1], [0, 2]],
        "well_points_plan": {"rows": 1, "columns": 2},
    }
    layout = lay_out({"stage_positions": plate, "channels": ["BF"]})
    assert [image.path for image in layout.images] == ["A/1/0", "A/1/1", "B/3/0", "B/3/1"]
    assert layout.plate is not None
    assert layout.plate[1:] == (8, 12)


def test_several_cameras_multiply_the_channels() -> None:
    layout = lay_out({"channels": ["BF", "DAPI"]}, cameras=("Left", "Right"))
    assert [c.name for c in layout.channels] == ["BF (Left)", "BF (Right)", "DAPI (Left)", "DAPI (Right)"]
    assert layout.place({"c": 1, "cam": 1}).c == 3


def test_predictions_go_to_the_channels_of_their_stain_in_order_of_outputs() -> None:
    predicted = [Channel("B", stain=0, output=1), Channel("A", stain=0, output=0), Channel("C", stain=1, output=0)]
    layout = lay_out({"channels": ["BF"]}, predicted=predicted)
    at = layout.place({"t": 0, "c": 0})
    assert [place.c for place in layout.targets(0, at)] == [2, 1]
    assert [place.c for place in layout.targets(1, at)] == [3]


def test_intervals_and_steps_become_scales() -> None:
    layout = lay_out({"channels": ["BF"], "time_plan": {"interval": 30, "loops": 3}, "z_plan": {"range": 4, "step": 2}})
    assert (layout.interval_s, layout.images[0].z_step_um) == (30, 2)


@pytest.mark.parametrize(
    ("sequence", "says"),
    [
        ({"channels": [{"config": "BF", "group": "A"}, {"config": "BF", "group": "B"}]}, "stands more than once"),
        (
            {"stage_positions": [{"x": 0, "y": 0, "sequence": {"time_plan": {"interval": 0, "loops": 2}}}]},
            r"stage_positions\[0\].sequence has \['time_plan'\]",
        ),
    ],
)
def test_what_cannot_be_laid_out_is_refused(sequence: dict[str, Any], says: str) -> None:
    with pytest.raises(ExperimentError, match=says):
        lay_out(sequence)


def test_an_autofocus_is_no_frame() -> None:
    plan = {"autofocus_device_name": "Z", "autofocus_motor_offset": 1.0, "axes": ("t",)}
    sequence = useq.MDASequence(channels=["BF"], time_plan={"interval": 0, "loops": 4}, autofocus_plan=plan)
    assert any(isinstance(event.action, useq.HardwareAutofocus) for event in sequence)
    assert lay_out(sequence).n_frames == 4
