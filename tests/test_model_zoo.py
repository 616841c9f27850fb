"""The shipped models: whatever is in the zoo reproduces, says its limits, and still fits the shipped microscope."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.ndimage import mean

from livestain._stain import OnnxModel
from livestain.simulate import Microscope, Settings
from livestain_models.objects import match_cells, segment_map
from livestain_models.package import load_package, zoo
from livestain_models.score import pearson
from livestain_models.train_zoo import PACKAGES
from livestain_models.verify import verify_package

if TYPE_CHECKING:
    from livestain_models.contract import Contract
    from livestain_models.package import Package

PATENT = "US 2022/0383986"


def microscope(seed: int, **sample: float) -> Microscope:
    return Microscope(Settings(seed=seed, seconds_per_exposure=0, **sample))  # type: ignore[arg-type]


def stack(scope: Microscope, package: Package, middle_um: float = 0.0) -> np.ndarray:
    """The planes that a package asks for, (P, H, W)."""
    planes = package.contract.planes
    scope.bench.channel = "BF"
    taken = []
    for number in range(planes.count):
        scope.bench.z_um = middle_um + (number - (planes.count - 1) / 2) * (planes.spacing_um or 0.0)
        taken.append(scope.expose(10))
    scope.bench.z_um = 0.0
    return np.stack(taken)


def f1(found: np.ndarray, real: np.ndarray) -> float:
    return 2 * len(match_cells(found, real)) / sum(np.count_nonzero(np.unique(labels)) for labels in (found, real))


def real(scope: Microscope, stain: str) -> np.ndarray:
    scope.bench.channel, scope.bench.z_um = stain, 0.0
    return scope.expose(10)


def has_classes(package: Package) -> bool:
    return "class" in {output.kind for output in package.contract.outputs}


def own_class(contract: Contract, score: str) -> str:
    """The name of a class score: plain where there is nothing but classes."""
    return score if contract.outputs[0].kind == "class" else f"viability_{score}"


def test_only_packages_that_the_zoo_training_makes_are_shipped() -> None:
    assert set(zoo()) <= set(PACKAGES)
    assert "nuclei-demo" in zoo()


@pytest.mark.parametrize("name", zoo())
def test_a_shipped_package_reproduces_and_leaves_nothing_unsaid(name: str) -> None:
    package = load_package(name)
    found = verify_package(package)
    assert found.max_difference <= 2
    assert found.warnings == ()
    assert package.contract.id == name
    assert package.weights.stat().st_size < 4e6


@pytest.mark.parametrize("name", zoo())
def test_the_card_says_what_it_is_worth_and_where_it_ends(name: str) -> None:
    contract = load_package(name).contract
    card = (load_package(name).folder / "README.md").read_text(encoding="utf-8")
    assert "simulated microscope, no real images" in contract.training_data
    assert "never saw a real cell" in contract.limitations
    assert f"- Limits: {contract.limitations}" in card
    assert "On images held out from training" in card
    assert contract.scores["fields"] >= 3
    assert contract.scores["parity_max_grey"] <= 4
    for score, value in contract.scores.items():
        assert f"| {score} | {value:.4g} |" in card


@pytest.mark.parametrize("name", zoo())
def test_a_shipped_package_beats_what_understands_nothing(name: str) -> None:
    contract = load_package(name).contract
    kinds = {output.kind for output in contract.outputs}
    for number, output in enumerate(contract.outputs):
        if output.kind in ("stain", "distance"):
            own = "" if number == 0 else output.name.lower().replace(" ", "_") + "_"
            assert contract.scores[f"{own}pearson"] > contract.scores[f"{own}input_copied_pearson"], output.name
            assert contract.scores[f"{own}pearson_low"] <= contract.scores[f"{own}pearson"]
    if "class" in kinds:
        assert contract.scores[own_class(contract, "cells_balanced_accuracy")] > 0.4  # a third by chance
    if "deviation" in kinds:
        assert any(score.endswith("coverage_1sd") for score in contract.scores)


@pytest.mark.parametrize("name", [name for name in zoo() if has_classes(load_package(name))])
def test_a_viability_model_names_the_patent_application(name: str) -> None:
    package = load_package(name)
    assert PATENT in package.contract.limitations
    assert PATENT in (package.folder / "README.md").read_text(encoding="utf-8")


def test_the_zoo_training_names_it_too() -> None:
    from livestain_models.train_zoo import settings

    said = {name: " ".join(settings(name)) for name in PACKAGES}
    assert {name for name, text in said.items() if PATENT in text} == {"viability-demo", "cells-demo"}


@pytest.mark.parametrize(("seed", "z_um"), [(901, 0.0), (902, 1.0), (903, -1.0)])
def test_nuclei_of_a_sample_never_seen(seed: int, z_um: float) -> None:
    scope, shipped = microscope(seed), load_package("nuclei-demo")
    assert shipped.contract.accepts_pixel_size(scope.settings.pixel_size_um)
    predicted = OnnxModel(shipped).predict(stack(scope, shipped, z_um)).planes[0]
    assert pearson(predicted, real(scope, "Nuclei")) >= 0.9


@pytest.mark.parametrize("name", [name for name in zoo() if name != "nuclei-demo"])
def test_stains_of_a_sample_never_seen(name: str) -> None:
    scope, shipped = microscope(904), load_package(name)
    planes = stack(scope, shipped)
    predicted = OnnxModel(shipped).predict(planes).planes
    middle = planes[(len(planes) - 1) // 2]
    for number, output in enumerate(shipped.contract.outputs):
        assert predicted[number].std() > 0, output.name
        if output.kind == "stain":
            truth = real(scope, output.name)
            assert pearson(predicted[number], truth) > abs(pearson(middle, truth)) + 0.05, output.name
    if {output.kind for output in shipped.contract.outputs} == {"class"}:
        nuclei = real(scope, "Nuclei")
        assert pearson(predicted.max(axis=0), nuclei) > 0.5  # it finds the nuclei, of whatever class


def test_cells_and_their_states_of_a_sample_never_seen() -> None:
    scope, shipped = microscope(905, death_rate_per_h=0.15, start_h=2.0), load_package("cells-demo")
    scale = [(output.full_scale or 1.0) / 65535 for output in shipped.contract.outputs]
    grey = OnnxModel(shipped).predict(stack(scope, shipped)).planes
    found = {o.name: plane * s for o, plane, s in zip(shipped.contract.outputs, grey, scale, strict=True)}
    truth = scope.truth()
    nuclei, cells = (segment_map(found[f"{name} distance"], 0.325) for name in ("Nuclei", "Cells"))
    assert f1(nuclei, truth.nucleus_labels.astype(np.int32)) > 0.9
    assert f1(cells, truth.cell_labels.astype(np.int32)) > 0.85
    states = np.stack([mean(found[name], nuclei, range(1, nuclei.max() + 1)) for name in ("Live", "Injured", "Dead")])
    dead = np.mean(truth.cells["state"] == "dead")
    assert 0.05 < dead < 0.5
    assert np.mean(states.argmax(axis=0) == 2) == pytest.approx(dead, abs=0.06)
