"""The shipped model still fits the shipped microscope: change one, and the other is to be made again."""

from __future__ import annotations

import pytest

from livestain._stain import OnnxModel
from livestain.simulate import Microscope, Settings
from livestain_models.package import load_package
from livestain_models.score import pearson


@pytest.mark.parametrize(("seed", "z_um"), [(901, 0.0), (902, 1.0), (903, -1.0)])
def test_nuclei_of_a_sample_never_seen(seed, z_um):
    microscope = Microscope(Settings(seed=seed, seconds_per_exposure=0))
    microscope.bench.z_um = z_um
    bright = microscope.expose(10)
    microscope.bench.channel, microscope.bench.z_um = "Nuclei", 0.0
    real = microscope.expose(10)
    shipped = load_package("nuclei-demo")
    assert shipped.contract.accepts_pixel_size(microscope.settings.pixel_size_um)
    predicted = OnnxModel(shipped).predict(bright[None]).planes[0]
    assert pearson(predicted, real) >= 0.9
