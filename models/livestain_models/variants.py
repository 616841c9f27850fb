"""Other precisions of a package's network: how far they are from fp32, and how they are added to the package."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from livestain_models._errors import ModelError
from livestain_models._files import dig, load_tensor, read_description, sha256_of
from livestain_models._onnx_file import refuse_weights_outside
from livestain_models.card import with_variants
from livestain_models.contract import Variant
from livestain_models.package import Package, load_package
from livestain_models.runtime import check_signature, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from livestain_models.contract import OtherPrecision

__all__ = ["add_variant", "answer_difference", "grey_difference", "test_input_of"]


def grey_difference(reference: Path, other: Path, inputs: Iterable[np.ndarray]) -> dict[str, float]:
    """Compare two graphs of one network on the CPU.

    Parameters
    ----------
    reference, other : Path
        ONNX files with the same input and output.
    inputs : iterable of np.ndarray
        (1, P, H, W) uint16; real frames and noise, never constant ones.

    Returns
    -------
    dict of str to float
        ``parity_max_grey`` and ``parity_mean_grey``: differences in grey levels of 65535.

    Raises
    ------
    ModelError
        A graph cannot be opened or run, or there was no input.
    """
    ours, theirs = (partial(_answer, open_session(file.read_bytes(), str(file), "cpu")) for file in (reference, other))
    return answer_difference(ours, theirs, inputs)


def answer_difference(
    reference: Callable[[np.ndarray], np.ndarray],
    other: Callable[[np.ndarray], np.ndarray],
    inputs: Iterable[np.ndarray],
) -> dict[str, float]:
    """Compare what two ways of running one network make of the same input.

    Parameters
    ----------
    reference, other : callable
        Each takes an input and gives stains in grey levels, both of the same shape.
    inputs : iterable of np.ndarray
        As for :func:`grey_difference`, which says what is returned and raised.
    """
    worst, means = 0.0, []
    for planes in inputs:
        ours, theirs = (run(planes).astype(np.float64) for run in (reference, other))
        difference = np.abs(ours - theirs)
        worst = max(worst, float(difference.max()))
        means.append(float(difference.mean()))
    if not means:
        raise ModelError("no input was given to compare two precisions on; give real frames and noise.")
    return {"parity_max_grey": worst, "parity_mean_grey": float(np.mean(means))}


def add_variant(
    package: Package,
    precision: OtherPrecision,
    weights: Path,
    parity: Mapping[str, float],
    scores: Mapping[str, float | str],
) -> Package:
    """Add another precision to a package on disk; one that is there already is replaced.

    The description is written last and at once, so that a package is never without one; what lies between is a
    package whose hashes do not fit, which is refused.

    Parameters
    ----------
    package : Package
        One of our own.
    precision : {"bf16", "fp16", "int8"}
    weights : Path
        The ONNX file; it is copied. For bf16 it is the package's own, which stays where it is.
    parity : dict of str to float
        From :func:`grey_difference`, over held-out frames and noise; the package's test input is added here. For bf16,
        in which onnxruntime does not compute on a CPU, it is in it already.
    scores : dict of str to float or str
        Held-out scores of this precision.

    Returns
    -------
    Package
        In that precision, as :func:`livestain_models.package.load_package` reads it back.

    Raises
    ------
    ModelError
        The package was made elsewhere, or the graph breaks its contract.
    """
    package = load_package(package.folder)  # in fp32, whichever was given
    if package.declared is not None:
        raise ModelError(f"{package.fingerprint} was made elsewhere; precisions are added to livestain's own packages.")
    content = weights.read_bytes()
    refuse_weights_outside(content, str(weights))
    check_signature(open_session(content, str(weights), "cpu"), package.contract, str(weights))
    own = grey_difference(package.weights, weights, [test_input_of(package)])
    name = package.weights.name if precision == "bf16" else f"weights-{precision}.onnx"
    variant = Variant(
        precision=precision,
        file=name,
        sha256=sha256_of(weights),
        parity={**parity, "parity_max_grey": max(own["parity_max_grey"], parity.get("parity_max_grey", 0.0))},
        scores=dict(scores),
    )
    others = tuple(one for one in package.contract.variants if one.precision != precision)
    contract = package.contract.model_copy(
        update={"variants": tuple(sorted((*others, variant), key=lambda one: one.precision))}
    )
    if weights.resolve() != (package.folder / name).resolve():
        shutil.copyfile(weights, package.folder / name)
    card = package.folder / "README.md"
    if card.is_file():
        _write(card, with_variants(card.read_text(encoding="utf-8"), contract))
    file, description = read_description(package.folder)
    description["config"]["livestain"] = contract.model_dump(mode="json")
    _write(file, yaml.safe_dump(description, sort_keys=False, allow_unicode=True, width=110))
    return load_package(package.folder, precision)


def test_input_of(package: Package) -> np.ndarray:
    """Load the input that a package proves itself on, (1, P, H, W)."""
    _, description = read_description(package.folder)
    return load_tensor(package.folder / str(dig(description["inputs"][0], "test_tensor", "source")))


def _answer(session: Any, planes: np.ndarray) -> np.ndarray:
    try:
        (got,) = session.run(None, {session.get_inputs()[0].name: planes})
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise ModelError(f"a graph does not run on a {planes.shape} input: {error}") from error
    return np.asarray(got)


def _write(file: Path, text: str) -> None:
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(text, encoding="utf-8", newline="\n")
    fresh.replace(file)
