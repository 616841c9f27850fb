"""Model packages on disk: BioImage.IO format 0.5 with livestain's contract inside; read, write, verify."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from livestain_models._errors import ModelError
from livestain_models._rdf import describe
from livestain_models.contract import Contract
from livestain_models.runtime import check_signature, open_session

__all__ = ["Package", "load_package", "sha256_of", "verify_package", "write_package", "zoo"]

_ZOO = Path(__file__).parent / "zoo"
_DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml")


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
        The ONNX file.
    """

    folder: Path
    contract: Contract
    weights: Path

    @property
    def fingerprint(self) -> str:
        """One line that names exactly these weights, for journals and channel metadata."""
        return f"{self.contract.id}@{self.contract.version} sha256:{self.contract.weights_sha256[:12]}"


def zoo() -> tuple[str, ...]:
    """Names of the packages that came with livestain."""
    if not _ZOO.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in _ZOO.iterdir() if (entry / _DESCRIPTIONS[0]).is_file()))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_package(source: str | Path) -> Package:
    """Read a package and check that its weights are the ones it describes.

    Parameters
    ----------
    source : str or Path
        A folder with an rdf.yaml, or the name of a package in the shipped zoo.

    Returns
    -------
    Package

    Raises
    ------
    ModelError
        No such package, unreadable YAML, no livestain contract, no ONNX weights, or weights with another
        hash.
    """
    folder = _folder_of(source)
    file, description = _read_description(folder)
    contract = _contract_in(description, file)
    weights = _checked_file(folder, _onnx_entry(description, file), file, "weights.onnx")
    if (got := sha256_of(weights)) != contract.weights_sha256:
        raise ModelError(
            f"{file}: config.livestain.weights_sha256 is {contract.weights_sha256!r}, but {weights.name} has "
            f"{got}. Contract and weights are not of the same export: export the package again."
        )
    return Package(folder, contract, weights)


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
        Its ``weights_sha256`` is set from the file.
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
    (folder / _DESCRIPTIONS[0]).unlink(missing_ok=True)
    if weights_onnx.resolve() != (folder / "weights.onnx").resolve():
        shutil.copyfile(weights_onnx, folder / "weights.onnx")
    np.save(folder / "test_input.npy", test_input)
    np.save(folder / "test_output.npy", test_output)
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
    hashes = {name: sha256_of(folder / name) for name in ("weights.onnx", "test_input.npy", "test_output.npy")}
    contract = contract.model_copy(update={"weights_sha256": hashes["weights.onnx"]})
    rdf = describe(contract, hashes, description=description, licence=licence, authors=authors)
    text = yaml.safe_dump(rdf, sort_keys=False, allow_unicode=True, width=110)
    (folder / _DESCRIPTIONS[0]).write_text(text, encoding="utf-8", newline="\n")
    return load_package(folder)


def verify_package(package: Package, *, tolerance_grey: int = 2) -> None:
    """Run the test input on the CPU and compare with the test output.

    Parameters
    ----------
    package : Package
    tolerance_grey : int
        Largest difference, of 65535 grey levels, that another processor's rounding may bring.

    Raises
    ------
    ModelError
        A test tensor is missing or changed, the graph breaks the contract, or the output does not reproduce.
    """
    package = load_package(package.folder)  # the weights may have changed since
    file, description = _read_description(package.folder)
    given, expected = (
        _load_tensor(_checked_file(package.folder, _test_tensor(description, side, file), file, side))
        for side in ("inputs", "outputs")
    )
    session = open_session(package.weights.read_bytes(), package.fingerprint, "cpu")
    check_signature(session, package.contract, package.fingerprint)
    try:
        (got,) = session.run(None, {session.get_inputs()[0].name: given})
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise ModelError(f"{file}: the graph does not run on its own test input: {error}") from error
    if got.shape != expected.shape:
        raise ModelError(f"{file}: the test output has shape {expected.shape}, the graph makes {got.shape}.")
    worst = float(np.abs(got.astype(np.float64) - expected.astype(np.float64)).max())
    if not worst <= tolerance_grey:
        raise ModelError(
            f"{file}: the test output does not reproduce: it differs by up to {worst:g} grey levels "
            f"(allowed: {tolerance_grey}). The package is damaged or mixes two exports: export it again."
        )


def _folder_of(source: str | Path) -> Path:
    if isinstance(source, str) and source in zoo():
        return _ZOO / source
    folder = Path(source)
    if folder.is_dir():
        return folder
    raise ModelError(
        f"No model package at {str(source)!r}: it is neither a folder nor one of the shipped packages "
        f"({', '.join(zoo()) or 'none'}). Give the folder that holds rdf.yaml."
    )


def _read_description(folder: Path) -> tuple[Path, dict[str, Any]]:
    file = next((folder / name for name in _DESCRIPTIONS if (folder / name).is_file()), None)
    if file is None:
        raise ModelError(f"{folder} is not a model package: it has no {' or '.join(_DESCRIPTIONS)}.")
    try:
        description = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is not valid YAML: {error}. Correct it or fetch the package again.") from error
    if not isinstance(description, dict) or description.get("type") != "model":
        raise ModelError(f"{file} does not describe a model: `type: model` is missing.")
    version = str(description.get("format_version"))
    if not version.startswith("0.5."):
        raise ModelError(f"{file}: format_version {version!r} is not read; convert the package to BioImage.IO 0.5.")
    return file, description


def _contract_in(description: dict[str, Any], file: Path) -> Contract:
    section = _dig(description, "config", "livestain")
    if section is None:
        raise ModelError(
            f"{file} has no livestain contract (config.livestain with pixel size, planes, outputs, ...); "
            "foreign packages are not supported yet."
        )
    try:
        return Contract.model_validate(section)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']} (got {fault['input']!r:.60})"
            for fault in error.errors()
        )
        raise ModelError(f"{file}: config.livestain breaks the contract: {faults}.") from error


def _onnx_entry(description: dict[str, Any], file: Path) -> Any:
    entry = _dig(description, "weights", "onnx")
    if entry is None:
        got = ", ".join(_dig(description, "weights") or {}) or "none"
        raise ModelError(
            f"{file} has no ONNX weights (got: {got}). Other weights are never loaded on the rig, since a "
            "pickle can run code: convert them to ONNX."
        )
    return entry


def _test_tensor(description: dict[str, Any], side: str, file: Path) -> Any:
    tensors = description.get(side)
    entry = _dig(tensors[0], "test_tensor") if isinstance(tensors, list) and len(tensors) == 1 else None
    if entry is None:
        raise ModelError(f"{file}: {side} needs exactly one tensor with a test_tensor.")
    return entry


def _checked_file(folder: Path, entry: Any, file: Path, label: str) -> Path:
    """Resolve a file that the description names: inside the folder, there, with the hash it should have."""
    source = str(_dig(entry, "source"))
    path = folder / source
    if "://" in source or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{file}: {label} points to {source!r}, outside the package; put the file beside rdf.yaml.")
    if not path.is_file():
        raise ModelError(f"{file}: {label} names {source!r}, which is not there. Fetch the whole package again.")
    expected, got = _dig(entry, "sha256"), sha256_of(path)
    if got != expected:
        raise ModelError(
            f"{file}: {source} has sha256 {got}, described is {expected}: the file is damaged or another. "
            "Fetch the package again."
        )
    return path


def _load_tensor(path: Path) -> np.ndarray:
    try:
        tensor = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ModelError(f"{path} is not a plain .npy array: {error}") from error
    return np.asarray(tensor)


def _dig(tree: Any, *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
