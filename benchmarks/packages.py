"""Packages to measure with: shipped ones with precisions that they lack, and networks of any number of planes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import livestain_models
from livestain._stain import OnnxModel
from livestain.simulate import Microscope, Settings
from livestain_models.contract import Planes
from livestain_models.package import load_package, write_package
from livestain_models.quantise import to_fp16, to_int8
from livestain_models.variants import add_variant, answer_difference, grey_difference, test_input_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from livestain_models.package import Package

_SEEDS, _SIDE_PX = (1, 2, 3), 256


def frames(count: int, size_px: int, seed: int) -> np.ndarray:
    """Take simulated bright field, (count, H, W), 1 um from plane to plane."""
    microscope = Microscope(Settings(seed=seed, seconds_per_exposure=0))
    microscope.set_sensor(size_px, size_px)
    taken = []
    for number in range(count):
        microscope.bench.z_um = number - (count - 1) / 2
        taken.append(microscope.expose(10))
    return np.stack(taken)


def with_precisions(source: str, folder: Path, *precisions: Any) -> Package:
    """Copy a package into a folder and add to it the precisions that it lacks.

    Three fields of 256 px calibrate and compare: enough to run as fast as a real one, not to be relied on.
    """
    shutil.copytree(load_package(source).folder, folder)
    package = load_package(folder)
    for precision in precisions:
        if precision not in package.contract.precisions:
            _add(package, precision, folder.with_name(f"{folder.name}-{precision}.onnx"))
    return load_package(folder)


def untrained(folder: Path, planes: int, spacing_um: float = 1.0) -> Package:
    """Write a package of the default network for a stack, with random weights: its time does not depend on them."""
    import torch

    from livestain_models.deployed import Deployed, build_network
    from livestain_models.export import export_onnx
    from livestain_models.heads import heads_of
    from livestain_models.normalise import local_contrast
    from livestain_models.recipe import load_recipe

    recipe = load_recipe(Path(livestain_models.__file__).parent / "recipes" / "planes.yaml")
    heads = heads_of(recipe)
    torch.manual_seed(0)
    network = build_network(recipe.network, planes, heads.channels)
    model = Deployed(network, local_contrast(recipe.network, 10.0), heads, planes).eval()
    contract = load_package("nuclei-planes").contract.model_copy(
        update={
            "id": f"untrained-{planes}-planes",
            "planes": Planes(count=planes, spacing_um=spacing_um),
            "outputs": heads.outputs(),
            "multiple_px": model.multiple_px,
            "halo_px": model.halo_px,
            "scores": {},
        }
    )
    weights = folder.with_name(f"{folder.name}.onnx")
    export_onnx(model, contract, weights)
    given = frames(planes, _SIDE_PX, _SEEDS[0])[None]
    with torch.no_grad():
        answer = model(torch.from_numpy(given)).numpy()
    return write_package(folder, contract, weights, given, answer, description="Untrained.", card="Untrained.")


def _add(package: Package, precision: Any, weights: Path) -> None:
    seen = [frames(package.contract.planes.count, _SIDE_PX, seed)[None] for seed in _SEEDS]
    if precision == "bf16":
        weights = package.weights
        ways = _answers(package, "cpu"), _answers(replace(package, precision="bf16"), "openvino")
        parity = answer_difference(*ways, [test_input_of(package), *seen])
    else:
        if precision == "int8":
            to_int8(package.weights, weights, seen)
        else:
            to_fp16(package.weights, weights)
        parity = grey_difference(package.weights, weights, seen)
    add_variant(package, precision, weights, parity, {})


def _answers(package: Package, provider: str) -> Callable[[np.ndarray], np.ndarray]:
    model = OnnxModel(package, provider)
    return lambda planes: model.predict(planes[0]).planes[None]
