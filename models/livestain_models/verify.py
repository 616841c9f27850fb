"""Does a package do what it says on its own test input? The proof, with figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from livestain_models._errors import ModelError
from livestain_models._files import checked_file, dig, load_tensor, read_description
from livestain_models.foreign import faults_in
from livestain_models.package import Package, load_package
from livestain_models.runtime import check_signature, open_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livestain_models.declared import Declared

__all__ = ["Verification", "verify_package"]


@dataclass(frozen=True, slots=True)
class Verification:
    """How well the test output was reproduced.

    Parameters
    ----------
    fingerprint : str
        Which weights.
    max_difference : float
        Largest difference to the package's test output, in `unit`.
    allowed : float
        Largest difference that the package allows at its largest value.
    unit : str
        "grey levels" of 65535, or that of the output of a package made elsewhere.
    mismatched_ppm, allowed_ppm : float
        Pixels beyond the tolerance, in a million.
    warnings : tuple of str
        What the package leaves unsaid.
    """

    fingerprint: str
    max_difference: float
    allowed: float
    unit: str
    mismatched_ppm: float
    allowed_ppm: float
    warnings: tuple[str, ...]


class _Tolerance(BaseModel):
    """The format's own; the defaults are its defaults."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    relative_tolerance: float = Field(default=1e-3, ge=0)
    absolute_tolerance: float = Field(default=1e-3, ge=0)
    mismatched_elements_per_million: float = Field(default=100, ge=0)
    output_ids: tuple[str, ...] = ()
    weights_formats: tuple[str, ...] = ()

    def applies_to(self, output: str) -> bool:
        return (not self.output_ids or output in self.output_ids) and (
            not self.weights_formats or "onnx" in self.weights_formats
        )


def verify_package(
    package: Package, *, tolerance_grey: int = 2, predict: Callable[[np.ndarray], np.ndarray] | None = None
) -> Verification:
    """Run the test input on the CPU and compare with the test output.

    Parameters
    ----------
    package : Package
        Of one's own making or not, in any of its precisions.
    tolerance_grey : int
        Largest difference, of 65535 grey levels, that another processor's rounding may bring to a package of
        our own; a variant may differ by its stated parity more. A package made elsewhere states its own.
    predict : callable, optional
        The prediction of (P, H, W) planes to hold against the test output. bf16 needs one: what runs by itself is
        onnxruntime on the CPU, which does not compute in it.

    Returns
    -------
    Verification
        With the largest difference, what was allowed, and what the package leaves unsaid.

    Raises
    ------
    ModelError
        A test tensor is missing or changed, the graph breaks the contract, or the output does not reproduce.
    ValueError
        bf16 without `predict`.
    """
    package = load_package(package.folder, package.precision)  # the weights may have changed since
    if package.precision == "bf16" and predict is None:
        raise ValueError(f"{package.fingerprint} is not computed by onnxruntime on the CPU: give what predicts in it.")
    file, description = read_description(package.folder)
    given, expected = (_test_tensor(package, file, description, side) for side in ("inputs", "outputs"))
    session = open_session(package.weights.read_bytes(), package.fingerprint, "cpu")
    check_signature(session, package.contract, package.fingerprint, package.declared)
    if package.declared is None:
        got = _run(session, given, file) if predict is None else predict(given[0])[None]
        tolerance = _Tolerance(
            absolute_tolerance=tolerance_grey + _stated_difference(package),
            relative_tolerance=0,
            mismatched_elements_per_million=0,
        )
        return _compared(package, file, got, expected, tolerance, "grey levels")
    got = _predicted(package, package.declared, session, given, file)
    unit = package.contract.outputs[0].unit
    said = "units of its output" if unit == "1" else unit
    return _compared(package, file, got, expected, _tolerance_of(description, file), said)


def _stated_difference(package: Package) -> float:
    """Give the difference to fp32 that a variant states: the test output is that of fp32."""
    stated = [one.parity["parity_max_grey"] for one in package.contract.variants if one.precision == package.precision]
    return stated[0] if stated else 0.0


def _test_tensor(package: Package, file: Path, description: dict[str, Any], side: str) -> np.ndarray:
    tensors = description.get(side)
    entry = dig(tensors[0], "test_tensor") if isinstance(tensors, list) and len(tensors) == 1 else None
    if entry is None:
        raise ModelError(f"{file}: {side} needs exactly one tensor with a test_tensor.")
    tensor = load_tensor(checked_file(package.folder, entry, file, side, hash_needed=package.declared is None))
    if tensor.dtype.kind not in "fiub":
        raise ModelError(
            f"{file}: the test tensor of {side} holds {tensor.dtype}, not numbers. Fetch the package again."
        )
    return tensor


def _run(session: Any, given: np.ndarray, file: Path) -> np.ndarray:
    try:
        (got,) = session.run(None, {session.get_inputs()[0].name: given})
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise ModelError(f"{file}: the graph does not run on its own test input: {error}") from error
    return np.asarray(got)


def _predicted(package: Package, declared: Declared, session: Any, given: np.ndarray, file: Path) -> np.ndarray:
    """Take a test input the way of a frame, sample by sample."""
    count, stains = package.contract.planes.count, len(package.contract.outputs)
    layout = declared.input_layout
    if given.ndim != len(layout.axes):
        raise ModelError(
            f"{file}: the test input has shape {given.shape}, described are the axes {', '.join(layout.axes)}."
        )
    predicted, outputs = [], declared.output_layout
    for sample in _samples(given, layout.axes):
        planes = layout.view(sample)
        height, width = planes.shape[1:]
        as_described = layout.shape(count, height, width) == sample.shape
        if not (as_described and declared.rows.allows(height) and declared.columns.allows(width)):
            raise ModelError(
                f"{file}: the test input has shape {given.shape}, which is not one that the description allows "
                f"(axes {', '.join(layout.axes)}). Correct the sizes, or fetch the package again."
            )
        raw = _run(session, layout.tensor(declared.prepare(planes)), file)
        if raw.shape != outputs.shape(stains, height, width):
            raise ModelError(f"{file}: the graph makes {raw.shape} of {sample.shape}, which is not what is described.")
        predicted.append(outputs.tensor(declared.predicted(outputs.view(raw), planes)))
    return np.concatenate(predicted, outputs.axes.index("batch")) if "batch" in outputs.axes else predicted[0]


def _samples(given: np.ndarray, axes: tuple[str, ...]) -> list[np.ndarray]:
    if "batch" not in axes:
        return [given]
    at = axes.index("batch")
    return np.split(given, max(given.shape[at], 1), at)


def _tolerance_of(description: dict[str, Any], file: Path) -> _Tolerance:
    stated = dig(description, "config", "bioimageio", "reproducibility_tolerance") or []
    output = str(dig(description["outputs"][0], "id") or "output")
    try:
        tolerances = [_Tolerance.model_validate(one) for one in stated]
    except (ValidationError, TypeError) as error:
        said = faults_in(error) if isinstance(error, ValidationError) else str(error)
        raise ModelError(f"{file}: config.bioimageio.reproducibility_tolerance: {said}.") from error
    return next((one for one in tolerances if one.applies_to(output)), _Tolerance())


def _compared(
    package: Package, file: Path, got: np.ndarray, expected: np.ndarray, tolerance: _Tolerance, unit: str
) -> Verification:
    if got.shape != expected.shape:
        raise ModelError(f"{file}: the test output has shape {expected.shape}, the graph makes {got.shape}.")
    wanted = np.abs(expected.astype(np.float64))
    difference = np.abs(got.astype(np.float64) - expected)
    allowed = tolerance.absolute_tolerance + tolerance.relative_tolerance * wanted
    # Written so that NaN counts as beyond it.
    beyond_ppm = 1e6 * float(np.count_nonzero(~(difference <= allowed))) / max(difference.size, 1)
    worst, most = float(difference.max(initial=0)), float(allowed.max(initial=tolerance.absolute_tolerance))
    if beyond_ppm > tolerance.mismatched_elements_per_million:
        raise ModelError(
            f"{file}: the test output does not reproduce: it differs by up to {worst:g} {unit} "
            f"(allowed: {most:g}), {beyond_ppm:.0f} of a million pixels by too much. The package is damaged or "
            "mixes two exports: fetch or export it again."
        )
    return Verification(
        package.fingerprint,
        worst,
        most,
        unit,
        beyond_ppm,
        tolerance.mismatched_elements_per_million,
        package.contract.warnings,
    )
