"""Adds bfloat16, half precision or 8 bits to a package, and says what they cost: in grey levels and in score."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from livestain_models._some import some_of
from livestain_models.export import decides
from livestain_models.package import load_package
from livestain_models.quantise import to_fp16, to_int8
from livestain_models.scoring import on_test_part
from livestain_models.variants import add_variant, answer_difference, grey_difference, test_input_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from livestain_models.contract import OtherPrecision
    from livestain_models.package import Package
    from livestain_models.prepared import Prepared
    from livestain_models.recipe import Recipe

__all__ = ["add_precision"]

CALIBRATION_FIELDS, CALIBRATION_PX = 16, 512


def add_precision(
    package: Package,
    precision: OtherPrecision,
    recipe: Recipe,
    data: Prepared,
    predictor: Callable[[Package], Callable[[np.ndarray], np.ndarray]],
    say: Callable[[str], None],
) -> Package:
    """Make a variant of a package's network, measure it, and add it.

    Parameters
    ----------
    package : Package
        In any precision: the variant is made of the fp32 weights.
    precision : {"bf16", "fp16", "int8"}
    recipe : Recipe
        What the package was trained from.
    data : Prepared
        The recipe's: its training part calibrates int8, its test part scores.
    predictor : callable
        Package -> a prediction of (P, H, W) uint16 planes, as the microscope runs it.
    say : callable
        Takes a line of progress.

    Returns
    -------
    Package
        With the variant.

    Raises
    ------
    ModelError
        The network cannot be put into this precision, or bf16 was asked for where nothing computes in it. The package
        is as it was.
    """
    package = load_package(package.folder)  # in fp32, whichever was given
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 65536, (1, recipe.data.planes.count, 256, 320), dtype=np.uint16)
    examples = data.examples(recipe.data.planes, package.contract.multiple_px)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / f"weights_{precision}.onnx"
        difference: Callable[[Iterable[np.ndarray]], dict[str, float]]
        if precision == "bf16":
            weights = package.weights
            rounded = replace(package, precision="bf16")  # not in the package before it was seen to run
            difference = partial(answer_difference, _whole(predictor(package)), _whole(predictor(rounded)))
            examples = [test_input_of(package), *examples]
        else:
            if precision == "fp16":
                to_fp16(package.weights, weights)
            else:
                to_int8(package.weights, weights, _calibration(data, recipe, package))
            difference = partial(grey_difference, package.weights, weights)
        parity, of_noise = difference(examples), difference([noise])
        parity["parity_noise_max_grey"] = of_noise["parity_max_grey"]
        package = add_variant(package, precision, weights, parity, {})
    scores = _scores(load_package(package.folder, precision), data, recipe, predictor)
    worst, mean = parity["parity_max_grey"], parity["parity_mean_grey"]
    noisy = of_noise["parity_max_grey"]
    say(
        f"{precision}: on real frames at most {worst:g} grey levels of 65535 from fp32, {mean:.3g} on average; on "
        f"noise at most {noisy:g}"
    )
    return add_variant(package, precision, package.weights, parity, scores)


def _whole(predict: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Let a prediction of planes, (P, H, W), take and give what the graph does, (1, P, H, W)."""
    return lambda planes: predict(planes[0])[None]


def _calibration(data: Prepared, recipe: Recipe, package: Package) -> Iterator[np.ndarray]:
    fields, multiple = data.parts.train, package.contract.multiple_px
    for field in some_of(fields, CALIBRATION_FIELDS):
        rows, columns = (slice(0, min(side, CALIBRATION_PX) // multiple * multiple) for side in field.size_px)
        yield field.input(field.windows(recipe.data.planes)[0], rows, columns)[None]


def _scores(
    package: Package,
    data: Prepared,
    recipe: Recipe,
    predictor: Callable[[Package], Callable[[np.ndarray], np.ndarray]],
) -> dict[str, float]:
    if not data.parts.test:
        return {}
    found = on_test_part(package.contract, recipe, data, predictor(package)).table().flat()
    return {name: float(f"{value:.4g}") for name, value in found.items() if decides(name)}
