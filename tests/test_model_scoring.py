"""Scores of an exported package, through the prediction that the microscope runs; and what other precisions cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from livestain._stain import OnnxModel
from livestain_models._errors import DataError, ModelError
from livestain_models.export import export_checkpoint, with_scores
from livestain_models.heads import STAIN_RANGE
from livestain_models.package import load_package
from livestain_models.precisions import add_precision
from livestain_models.prepared import prepare
from livestain_models.recipe import Recipe, load_recipe
from livestain_models.score_fields import score_fields
from livestain_models.scoring import fitted, on_all, on_test_part
from livestain_models.train import train
from livestain_models.verify import verify_package
from tests.training_pairs import PIXEL_SIZE_UM, write_pairs, write_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livestain_models.package import Package
    from livestain_models.score_fields import Scored

pytestmark = pytest.mark.usefixtures("one_thread")

TARGETS = [
    {"name": "Nuclei", "channel": "nuclei/{field}.tif", "distance_map": True},
    {"name": "Membrane", "channel": "membrane/{field}.tif", "distance_map": True},
]


@dataclass(frozen=True)
class Made:
    """A package that was trained and exported, and its recipe."""

    package: Package
    recipe: Recipe

    def scored(self, *, whole: bool = False) -> list[Scored]:
        contract, predict = self.package.contract, predictor(self.package)
        if whole:
            return list(on_all(contract, self.recipe, predict, quiet).scored())
        return list(on_test_part(contract, self.recipe, prepare(self.recipe, quiet), predict).scored())


def quiet(_: str) -> None: ...


def predictor(package: Package) -> Callable[[np.ndarray], np.ndarray]:
    """The microscope's own prediction, as the command line gives it to the scores."""
    model = OnnxModel(package, "auto" if package.precision == "bf16" else "cpu", threads=1)
    return lambda planes: model.predict(planes).planes


def made(folder: Path, **changes: Any) -> Made:
    pairs = write_pairs(folder / "pairs", 7, planes=3)
    recipe = load_recipe(write_recipe(pairs, **({"train__steps": 60, "train__validate_every": 30} | changes)))
    train(recipe, folder / "training", device="cpu")
    return Made(export_checkpoint(folder / "training", folder / "package"), recipe)


@pytest.fixture(scope="module")
def barred(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two stains, with distance maps and error bars of both."""
    folder = tmp_path_factory.mktemp("barred")
    return made(folder, mode="error bars", data__targets=TARGETS, data__split={"validation": 0.2, "test": 0.3})


CELLS = {
    "data__targets": [
        {"name": "Dead", "channel": "nuclei/{field}.tif", "shown": False},
        TARGETS[0],
        TARGETS[1] | {"distance_map": {"name": "Cells", "seeds": "Nuclei"}},
    ],
    "data__classes": {"all_cells": "Nuclei", "dead_cells": "Dead"},
}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two stains, distance maps of nuclei and of cells, and classes by a dye that is not shown."""
    return made(tmp_path_factory.mktemp("beside"), train__steps=20, train__validate_every=20, **CELLS)


@pytest.fixture(scope="module")
def classed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Viability from labels."""
    return made(tmp_path_factory.mktemp("classed"), mode="viability", data__classes={"labels": "classes/{field}.tif"})


def test_predictions_stand_beside_what_is_real_in_the_outputs_order(barred: Made) -> None:
    scored = barred.scored()
    outputs = barred.package.contract.outputs
    assert [output.kind for output in outputs] == [*["stain"] * 2, *["deviation"] * 2, *["distance"] * 2]
    data = prepare(barred.recipe, quiet)
    assert [one.name for one in scored] == [field.name for field in data.parts.test]
    for one, field in zip(scored, data.parts.test, strict=True):
        assert one.input.shape == (1, 96, 96)
        assert one.predicted.shape == one.real.shape == (6, 96, 96)
        everything = field.target((0,), slice(None), slice(None)).astype(float)
        for number in (0, 1):
            assert np.corrcoef(one.real[number].ravel(), everything[number].ravel())[0, 1] == pytest.approx(1)
            assert 0.7 < np.percentile(one.real[number], 99.9) < 1.4  # network units
        assert not one.real[2:4].any()  # there is no real deviation
        np.testing.assert_allclose(one.real[4:], everything[2:])  # distance maps are the third and fourth target
        assert one.real[4].max() == one.real[5].max() == 1
        assert (one.predicted >= 0).all()
        assert one.predicted.max() <= STAIN_RANGE
        assert one.classes is None


def test_the_table_scores_each_output_by_its_kind(barred: Made) -> None:
    table = score_fields(barred.scored(), PIXEL_SIZE_UM, barred.package.contract.outputs)
    assert set(table.outputs) == {output.name for output in barred.package.contract.outputs}
    flat = table.flat()
    assert flat["pearson"] > 0.4 > flat["mean_pearson"]
    assert flat["membrane_pearson"] > flat["membrane_mean_pearson"] == 0
    assert 0 <= flat["nuclei_deviation_coverage_1sd"] <= 1
    assert -1 <= flat["nuclei_distance_pearson"] <= 1
    assert len(table.fields) == 2


def test_scores_go_into_contract_and_card(barred: Made) -> None:
    table = score_fields(barred.scored(), PIXEL_SIZE_UM, barred.package.contract.outputs)
    before = barred.package.contract.scores
    finished = with_scores(barred.package, table, barred.recipe)
    scores = finished.contract.scores
    assert before.items() <= scores.items()  # parity and validation stay
    flat = table.flat()
    for name in ("fields", "pearson", "input_copied_pearson", "membrane_pearson", "nuclei_deviation_coverage_1sd"):
        assert scores[name] == pytest.approx(flat[name], rel=1e-3)
    assert not any(name.startswith("ceiling_") or name == "psnr" for name in scores)
    card = (finished.folder / "README.md").read_text()
    assert table.markdown().strip() in card
    assert f"| pearson | {scores['pearson']:.4g} |" in card
    assert finished.contract.weights_sha256 == barred.package.contract.weights_sha256
    assert verify_package(finished).warnings == ()


def test_other_precisions_are_added_with_their_own_scores(barred: Made) -> None:
    said: list[str] = []
    package, data = barred.package, prepare(barred.recipe, quiet)
    for precision in ("fp16", "int8"):
        package = add_precision(package, precision, barred.recipe, data, predictor, said.append)
    contract = load_package(barred.package.folder).contract
    assert contract.precisions == ("fp32", "fp16", "int8")
    in_fp32 = score_fields(barred.scored(), PIXEL_SIZE_UM, contract.outputs).flat()
    for variant, worst in zip(contract.variants, (0.01, 0.1), strict=True):
        assert variant.scores["pearson"] == pytest.approx(in_fp32["pearson"], abs=worst)
        assert variant.scores["pearson"] != in_fp32["pearson"]
        assert variant.parity["parity_max_grey"] > 0
        content = (barred.package.folder / variant.file).read_bytes()
        # Made of the fp32 weights, not of the precision that was added before it.
        assert (b"QuantizeLinear" in content) == (variant.precision == "int8")
        assert (b"_fp16" in content) == (variant.precision == "fp16")
        assert verify_package(load_package(barred.package.folder, variant.precision)).max_difference >= 0
    assert [line.split(":")[0] for line in said] == ["fp16", "int8"]
    card = (barred.package.folder / "README.md").read_text()
    assert "## int8" in card
    assert "pearson difference_to_fp32" in card


@pytest.mark.usefixtures("computes_in_bf16")
def test_bf16_is_measured_where_it_runs_and_needs_no_file_of_its_own(barred: Made) -> None:
    before = sorted(file.name for file in barred.package.folder.iterdir())
    said: list[str] = []
    data = prepare(barred.recipe, quiet)
    package = add_precision(barred.package, "bf16", barred.recipe, data, predictor, said.append)
    assert (package.precision, package.weights.name) == ("bf16", "weights.onnx")
    assert " bf16 sha256:" in package.fingerprint
    assert sorted(file.name for file in barred.package.folder.iterdir()) == before
    variant = next(one for one in package.contract.variants if one.precision == "bf16")
    in_fp32 = score_fields(barred.scored(), PIXEL_SIZE_UM, package.contract.outputs).flat()
    assert variant.scores["pearson"] == pytest.approx(in_fp32["pearson"], abs=0.01)
    assert variant.scores["pearson"] != in_fp32["pearson"]
    assert variant.parity["parity_max_grey"] > variant.parity["parity_mean_grey"] > 0
    assert said[0].startswith("bf16: on real frames at most")
    found = verify_package(package, predict=predictor(package))
    assert 0 < found.max_difference <= found.allowed
    with pytest.raises(ValueError, match="not computed by onnxruntime on the CPU"):
        verify_package(package)


def test_a_package_is_as_it_was_where_bf16_cannot_be_measured(barred: Made) -> None:
    def older_processor(package: Package) -> Callable[[np.ndarray], np.ndarray]:
        if package.precision == "bf16":
            raise ModelError("this processor does not compute in bf16")
        return predictor(package)

    description = (barred.package.folder / "rdf.yaml").read_bytes()
    with pytest.raises(ModelError, match="does not compute in bf16"):
        add_precision(barred.package, "bf16", barred.recipe, prepare(barred.recipe, quiet), older_processor, quiet)
    assert (barred.package.folder / "rdf.yaml").read_bytes() == description


def test_all_of_new_data_is_scaled_by_itself(barred: Made) -> None:
    scored = barred.scored(whole=True)
    assert len(scored) == 7
    assert all(np.percentile(one.real[0], 99.9) > 0.5 for one in scored)


def test_classes_stand_beside_their_labels(classed: Made) -> None:
    (one,) = classed.scored()
    assert [output.kind for output in classed.package.contract.outputs] == ["class"] * 3
    assert one.predicted.shape == (3, 96, 96)
    assert one.predicted.sum(axis=0).max() <= 1 + 1e-3
    assert one.classes is not None
    assert set(np.unique(one.classes)) <= {0, 1, 2, 3}
    assert one.cells["Viability"].max() >= 2
    np.testing.assert_array_equal(one.cells["Viability"] > 0, one.classes > 0)
    flat = score_fields([one], PIXEL_SIZE_UM, classed.package.contract.outputs).flat()
    assert all(0 <= flat[f"{kind}_balanced_accuracy"] <= 1 for kind in ("pixels", "cells"))
    finished = with_scores(
        classed.package, score_fields([one], PIXEL_SIZE_UM, classed.package.contract.outputs), classed.recipe
    )
    assert {"pixels_balanced_accuracy", "cells_f1_live"} <= finished.contract.scores.keys()


def test_classes_stand_beside_stains_and_whole_cells(beside: Made) -> None:
    outputs = beside.package.contract.outputs
    names = ["Nuclei", "Membrane", "Nuclei distance", "Cells distance", "Live", "Injured", "Dead"]
    assert [output.name for output in outputs] == names
    assert [output.of for output in outputs] == [None, None, "Nuclei", "Membrane", None, None, None]
    one = beside.scored()[0]
    everything = prepare(beside.recipe, quiet).parts.test[0].target((0,), slice(None), slice(None))
    np.testing.assert_allclose(one.real[2:4], everything[2:4])
    assert not one.real[4:].any()
    assert one.classes is not None
    assert set(np.unique(one.classes)) == {0, 3}  # the "dead" dye is that of all cells
    flat = score_fields([one], PIXEL_SIZE_UM, outputs).flat()
    assert {"nuclei_distance_f1", "cells_distance_f1", "viability_cells_f1_dead"} <= flat.keys()
    assert sum(flat[f"viability_cells_dead_as_{seen}"] for seen in ("missed", "live", "injured", "dead")) == 1
    assert "viability_cells_live_as_dead" not in flat  # no live cell, no share


def test_other_recipes_fit_a_package_of_stains_and_classes(beside: Made, tmp_path: Path) -> None:
    pairs, contract = write_pairs(tmp_path / "pairs"), beside.package.contract
    classes = load_recipe(write_recipe(pairs, **(CELLS | {"mode": "viability"})))
    assert fitted(classes, contract).data.targets == fitted(beside.recipe, contract).data.targets
    assert [target.name for target in fitted(classes, contract).data.targets] == ["Nuclei", "Membrane", "Dead"]
    unsaid = {"data__targets": [*CELLS["data__targets"][:2], TARGETS[1]]}
    with pytest.raises(DataError, match=r"distance map of Cells.*does not say how to find them in Membrane"):
        fitted(load_recipe(write_recipe(pairs, **(CELLS | unsaid))), contract)


def test_every_window_of_a_stack_is_an_input_of_its_own(barred: Made) -> None:
    data = barred.recipe.data
    windows = data.planes.model_copy(update={"windows": "all"})
    recipe = barred.recipe.model_copy(update={"data": data.model_copy(update={"planes": windows})})
    scored = Made(barred.package, recipe).scored()
    assert [one.name.split()[-1] for one in scored] == ["z0", "z1", "z2"] * 2
    assert len({one.place for one in scored}) == 2


def test_a_recipe_that_keeps_nothing_for_the_test(tmp_path: Path, barred: Made) -> None:
    split = {"validation": ["*/f0"], "test": []}
    recipe = load_recipe(write_recipe(write_pairs(tmp_path / "pairs"), data__split=split))
    with pytest.raises(DataError, match=r"no field for the test.*data\.split\.test"):
        on_test_part(barred.package.contract, recipe, prepare(recipe, quiet), predictor(barred.package))
