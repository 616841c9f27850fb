"""The contract refuses what a model cannot promise."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from livestain_models.contract import Output, Planes
from tests.model_builders import contract

REFUSED = {
    "no outputs": {"outputs": ()},
    "two outputs of one name": {"outputs": (Output(name="A", meaning="x"), Output(name="A", meaning="y"))},
    "empty id": {"id": ""},
    "id that is no file name": {"id": "../x"},
    "pixel size zero": {"pixel_size_um": 0},
    "pixel size not a number": {"pixel_size_um": float("nan")},
    "negative halo": {"halo_px": -1},
    "multiple zero": {"multiple_px": 0},
    "hash too short": {"weights_sha256": "abc"},
    "unknown field": {"pixelsize": 1.0},
    "other input type": {"input_dtype": "int8"},
    "no limitations": {"limitations": ""},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED.keys())
def test_refused(changes):
    with pytest.raises(ValidationError):
        contract(**changes)


@pytest.mark.parametrize("planes", [{"count": 3}, {"spacing_um": 1.0}, {"count": 0}, {"count": 2, "spacing_um": 0}])
def test_planes_refused(planes):
    with pytest.raises(ValidationError):
        Planes(**planes)


@pytest.mark.parametrize(
    ("pixel_size_um", "accepted"), [(0.5, True), (0.55, True), (0.45, True), (0.551, False), (0.25, False)]
)
def test_pixel_size_tolerance(pixel_size_um, accepted):
    assert contract(pixel_size_um=0.5).accepts_pixel_size(pixel_size_um) is accepted


def test_predicted_channel_says_so():
    assert contract().outputs[0].channel == "Nuclei (predicted)"


def test_a_read_contract_does_not_change():
    with pytest.raises(ValidationError):
        contract().version = "2"


def test_survives_json():
    promise = contract(planes=Planes(count=3, spacing_um=0.5), scores={"pearson": 0.9, "data": "simulated"})
    assert type(promise).model_validate(promise.model_dump(mode="json")) == promise
