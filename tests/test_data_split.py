"""Train, validation and test: disjoint, complete, and nothing that shows the same cells on both sides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestain_models._errors import DataError
from livestain_models.data import Field, split_fields
from livestain_models.recipe import Split


def field(name, instrument="a", width=640, place=""):
    # The grey value is the column, so that a strip tells where it was cut.
    plane = np.broadcast_to(np.arange(width, dtype=np.uint16), (32, width))
    return Field.of_arrays(name, plane[None], plane[None, None], pixel_size_um=1, instrument=instrument, place=place)


def names(fields):
    return [item.name for item in fields]


def parts_of(parts):
    return [parts.train, parts.validation, parts.test]


@given(
    count=st.integers(3, 30),
    validation=st.sampled_from([0.1, 0.25, 0.4]),
    test=st.sampled_from([0.0, 0.2, 0.3]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_by_field(count, validation, test, seed, data):
    fields = [field(f"run/{number}", width=16) for number in range(count)]
    split = Split(validation=validation, test=test, seed=seed)
    parts = parts_of(split_fields(fields, split))
    assert sorted(names(sum(parts, ()))) == sorted(names(fields))
    assert [bool(part) for part in parts] == [True, True, test > 0]
    shuffled = data.draw(st.permutations(fields))
    assert [names(part) for part in parts_of(split_fields(shuffled, split))] == [names(part) for part in parts]


@given(
    groups=st.lists(st.integers(0, 5), min_size=6, max_size=30),
    seed=st.integers(0, 9),
    by=st.sampled_from(["instrument", "field"]),
)
def test_instruments_and_time_series_stay_together(groups, seed, by):
    groups = [*groups, 0, 1, 2]
    fields = [
        field(f"f{i}/t{i}", f"scope{g}" if by == "instrument" else "a", 16, f"place{g}") for i, g in enumerate(groups)
    ]
    parts = parts_of(split_fields(fields, Split(by=by, seed=seed)))
    owners = [{item.instrument if by == "instrument" else item.place for item in part} for part in parts]
    assert sum(map(len, owners)) == len(set(groups))
    assert sum(map(len, parts)) == len(fields)


@given(
    width=st.integers(240, 1500),  # a tenth, rounded to the grid either way, still is a strip of 16 px
    validation=st.sampled_from([0.0, 0.1, 0.2]),
    test=st.sampled_from([0.0, 0.1, 0.33]),
    order=st.permutations(["train", "validation", "test"]),
)
def test_columns(width, validation, test, order):
    parts = parts_of(
        split_fields([field("a", width=width)], Split(by="columns", validation=validation, test=test, order=order))
    )
    assert [len(part) for part in parts] == [1, validation > 0, test > 0]
    columns = [strip.planes[0][0] for part in parts for strip in part]
    assert sorted(np.concatenate(columns)) == list(range(width))  # complete, and no column twice
    assert all(part[0] % 16 == 0 for part in columns)
    in_order = [parts[("train", "validation", "test").index(name)] for name in order]
    starts = [part[0].planes[0][0, 0] for part in in_order if part]
    assert starts == sorted(starts)
    for strip in sum(parts, ()):
        np.testing.assert_array_equal(strip.planes[0], strip.targets[0, 0])


def test_names():
    fields = [field(name, width=16) for name in ("train-1/0", "train-1/1", "held-out-1/0", "held-out-2/0")]
    parts = split_fields(fields, Split(validation=("train-1/1",), test=("held-out-*",)))
    assert [names(part) for part in parts_of(parts)] == [["train-1/0"], ["train-1/1"], ["held-out-1/0", "held-out-2/0"]]


@pytest.mark.parametrize(
    ("count", "split", "message"),
    [
        (2, {}, "leaves no field for train: there are 2 in all .*split by columns"),
        (1, {}, "leaves no field for test|leaves no field for train"),
        (4, {"test": ("x*",)}, r"data.split.test names 'x\*', which matches no field. There are f0, f1, f2, f3"),
        (4, {"test": ("f1",), "validation": ("f*",)}, "f1 is named by validation and by test"),
        (4, {"test": ("f*",), "validation": 0.0}, "leaves no field for train"),
        (4, {"by": "instrument"}, "leaves no instrument for"),
        (1, {"by": "columns", "test": 0.01}, "1% of the 640 columns of f0 leave none for test"),
    ],
)
def test_what_is_refused(count, split, message):
    with pytest.raises(DataError, match=message):
        split_fields([field(f"f{number}") for number in range(count)], Split(**split))
