"""Model packages on disk: BioImage.IO format 0.5 with livestain's contract inside; read, write, verify."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from pydantic import ValidationError

from livestain_models._errors import ModelError
from livestain_models._files import checked_file, dig, load_tensor, read_description, sha256_of
from livestain_models._onnx_file import refuse_weights_outside
from livestain_models._rdf import describe
from livestain_models.contract import Contract
from livestain_models.foreign import faults_in, read_foreign

if TYPE_CHECKING:
    from livestain_models.contract import Precision
    from livestain_models.declared import Declared

__all__ = ["Package", "load_package", "sha256_of", "write_package", "zoo"]

_ZOO = Path(__file__).parent / "zoo"
_DESCRIPTION = "rdf.yaml"


@dataclass(frozen=True, slots=True)
class Package:
    """A model package that was read and whose files are the ones its description names.

    Parameters
    ----------
    folder : Path
        Where rdf.yaml lies.
    contract : Contract
        What the model promises.
    weights : Path
        The ONNX file that runs.
    precision : {"fp32", "bf16", "fp16", "int8"}
        Of these weights; "bf16" are those of fp32, computed in bfloat16.
    declared : Declared or None
        What a package made elsewhere wants done to frames; None for our own, whose graphs do all of it.
    """

    folder: Path
    contract: Contract
    weights: Path
    precision: Precision = "fp32"
    declared: Declared | None = None

    @property
    def fingerprint(self) -> str:
        """One line that names exactly these weights, for journals and channel metadata."""
        precision = "" if self.precision == "fp32" else f" {self.precision}"
        return f"{self.contract.id}@{self.contract.version}{precision} sha256:{self.contract.weights_sha256[:12]}"


def zoo() -> tuple[str, ...]:
    """Names of the packages that came with livestain."""
    if not _ZOO.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in _ZOO.iterdir() if (entry / _DESCRIPTION).is_file()))


def load_package(source: str | Path, precision: Precision = "fp32") -> Package:
    """Read a package and check that its weights are the ones it describes.

    Parameters
    ----------
    source : str or Path
        A folder with an rdf.yaml or bioimageio.yaml, or the name of a package in the shipped zoo.
    precision : {"fp32", "bf16", "fp16", "int8"}
        Which of the package's precisions.

    Returns
    -------
    Package
        Its contract's ``weights_sha256`` is that of the weights that were asked for.

    Raises
    ------
    ModelError
        No such package or precision, unreadable YAML, a broken contract, a package made elsewhere that asks
        for what the rig cannot do, no ONNX weights, weights with another hash or with parts in other files.
    """
    folder = _folder_of(source)
    file, description = read_description(folder)
    section = dig(description, "config", "livestain")
    entry = _onnx_entry(description, file)
    weights = checked_file(folder, entry, file, "weights.onnx", hash_needed=section is not None)
    refuse_weights_outside(weights.read_bytes(), str(weights))
    if section is None:
        package = _foreign(folder, file, description, weights, unhashed=dig(entry, "sha256") is None)
    else:
        package = _ours(folder, file, section, weights)
    return package if precision == "fp32" else _in_precision(package, precision)


def _ours(folder: Path, file: Path, section: Any, weights: Path) -> Package:
    try:
        contract = Contract.model_validate(section)
    except ValidationError as error:
        raise ModelError(f"{file}: config.livestain breaks the contract: {faults_in(error)}.") from error
    if (got := sha256_of(weights)) != contract.weights_sha256:
        raise ModelError(
            f"{file}: config.livestain.weights_sha256 is {contract.weights_sha256!r}, but {weights.name} has "
            f"{got}. Contract and weights are not of the same export: export the package again."
        )
    for variant in contract.variants:
        other = checked_file(folder, {"source": variant.file, "sha256": variant.sha256}, file, variant.precision)
        refuse_weights_outside(other.read_bytes(), str(other))
    return Package(folder, contract, weights)


def _foreign(folder: Path, file: Path, description: dict[str, Any], weights: Path, *, unhashed: bool) -> Package:
    outputs = description.get("outputs")
    test = dig(outputs[0], "test_tensor") if isinstance(outputs, list) and outputs else None
    expected = load_tensor(checked_file(folder, test, file, "outputs", hash_needed=False)) if test else None
    model = read_foreign(description, file, sha256_of(weights), expected)
    contract = model.contract
    if unhashed:
        note = "it names no sha256 of its weights, so a damaged download would not be noticed"
        contract = contract.model_copy(update={"notes": (*contract.notes, note)})
    return Package(folder, contract, weights, declared=model.declared)


def _in_precision(package: Package, precision: Precision) -> Package:
    contract = package.contract
    variant = next((one for one in contract.variants if one.precision == precision), None)
    if variant is None:
        raise ModelError(
            f"{contract.id} has no {precision}; it has: {', '.join(contract.precisions)}. Write "
            f"precision: fp32, or add that precision to the package."
        )
    contract = contract.model_copy(update={"weights_sha256": variant.sha256})
    return Package(package.folder, contract, package.folder / variant.file, precision)


def write_package(
    folder: Path,
    contract: Contract,
    weights_onnx: Path,
    test_input: np.ndarray,
    test_output: np.ndarray,
    *,
    description: str,
    card: str,
    licence: str = "BSD-3-Clause",
    authors: tuple[str, ...] = ("livestain developers",),
) -> Package:
    """Write a package; rdf.yaml comes last, so that a half-written folder is not taken for one.

    Parameters
    ----------
    folder : Path
        Where it goes; a package that is already there is replaced.
    contract : Contract
        Its ``weights_sha256`` is set from the file; other precisions are added to the finished package by
        :func:`livestain_models.variants.add_variant`.
    weights_onnx : Path
        The exported graph, all weights inside.
    test_input : np.ndarray
        (1, P, H, W), the dtype of the graph's input.
    test_output : np.ndarray
        (1, C, H, W) uint16, what the graph makes of it.
    description, card : str
        One sentence, and the README.md that people read before they trust it.
    licence : str
        SPDX identifier.
    authors : tuple of str
        Who made it.

    Returns
    -------
    Package
        As :func:`load_package` reads it back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _DESCRIPTION).unlink(missing_ok=True)
    for stale in folder.glob("weights-*.onnx"):  # other precisions of what was here before
        if stale.resolve() != weights_onnx.resolve():
            stale.unlink()
    if weights_onnx.resolve() != (folder / "weights.onnx").resolve():
        shutil.copyfile(weights_onnx, folder / "weights.onnx")
    np.save(folder / "test_input.npy", test_input)
    np.save(folder / "test_output.npy", test_output)
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
    hashes = {name: sha256_of(folder / name) for name in ("weights.onnx", "test_input.npy", "test_output.npy")}
    contract = contract.model_copy(update={"weights_sha256": hashes["weights.onnx"], "variants": ()})
    rdf = describe(contract, hashes, description=description, licence=licence, authors=authors)
    text = yaml.safe_dump(rdf, sort_keys=False, allow_unicode=True, width=110)
    (folder / _DESCRIPTION).write_text(text, encoding="utf-8", newline="\n")
    return load_package(folder)


def _folder_of(source: str | Path) -> Path:
    if isinstance(source, str) and source in zoo():
        return _ZOO / source
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.suffix == ".zip" and folder.is_file():
        raise ModelError(f"{folder} is a packed package. Unpack it into a folder of its own and give that folder.")
    raise ModelError(
        f"No model package at {str(source)!r}: it is neither a folder nor one of the shipped packages "
        f"({', '.join(zoo()) or 'none'}). Give the folder that holds rdf.yaml."
    )


def _onnx_entry(description: dict[str, Any], file: Path) -> Any:
    entry = dig(description, "weights", "onnx")
    if entry is None:
        got = ", ".join(map(str, dig(description, "weights") or {})) or "none"
        raise ModelError(
            f"{file} has no ONNX weights (got: {got}). Other weights are never loaded on the rig, since a "
            "pickle can run code: convert them to ONNX."
        )
    return entry
