"""The files of a package: found beside their description, never outside it, with the hash they should have."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain_models._errors import ModelError
from livestain_models._format_0_4 import as_0_5
from livestain_models._safe_yaml import read_stranger_yaml

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["checked_file", "dig", "load_tensor", "read_description", "sha256_of"]

_DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")
_ENDINGS = ("*rdf*.yaml", "*bioimageio*.yaml")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_description(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Read the description in a folder; one of format 0.4 is brought to the form of 0.5.

    Returns
    -------
    tuple
        Its file, and what it holds.

    Raises
    ------
    ModelError
        There is none, or several, or it is not one of a model in a format that is read.
    """
    file = _description_in(folder)
    description = read_stranger_yaml(file)
    if not isinstance(description, dict) or description.get("type") != "model":
        raise ModelError(f"{file} does not describe a model: `type: model` is missing.")
    version = str(description.get("format_version"))
    if version.startswith("0.4."):
        return file, as_0_5(description, file)
    if not version.startswith("0.5."):
        raise ModelError(f"{file}: format_version {version!r} is not read; convert the package to BioImage.IO 0.5.")
    return file, description


def _description_in(folder: Path) -> Path:
    for name in _DESCRIPTIONS:
        if (folder / name).is_file():
            return folder / name
    found = sorted({file for ending in _ENDINGS for file in folder.glob(ending)})
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise ModelError(f"{folder} holds several descriptions ({names}); name the one to use {_DESCRIPTIONS[0]}.")
    raise ModelError(f"{folder} is not a model package: it has no {' or '.join(_DESCRIPTIONS[:2])}.")


def checked_file(folder: Path, entry: Any, file: Path, label: str, *, hash_needed: bool = True) -> Path:
    """Resolve a file that the description names.

    Parameters
    ----------
    folder : Path
        Of the package.
    entry : object
        ``{source: ..., sha256: ...}``, as it was written.
    file : Path
        The description, for errors.
    label : str
        What the file is, for errors.
    hash_needed : bool
        Whether an entry without a hash is refused.

    Returns
    -------
    Path
        Inside the folder, there, and with the hash it should have.

    Raises
    ------
    ModelError
        It is not.
    """
    source = str(dig(entry, "source"))
    path = folder / source
    if "://" in source or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{file}: {label} points to {source!r}, outside the package; put the file beside {file.name}.")
    if not path.is_file():
        raise ModelError(f"{file}: {label} names {source!r}, which is not there. Fetch the whole package again.")
    expected, got = dig(entry, "sha256"), sha256_of(path)
    if got != expected and (hash_needed or expected is not None):
        raise ModelError(
            f"{file}: {source} has sha256 {got}, described is {expected}: the file is damaged or another. "
            "Fetch the package again."
        )
    return path


def load_tensor(path: Path) -> np.ndarray:
    """Read a .npy file; never a pickle, and never more memory than the file has bytes.

    Raises
    ------
    ModelError
        It is no plain array.
    """
    try:
        # Mapped first: a header may claim any shape, and only the file's size proves it.
        tensor = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(tensor)
    except (ValueError, OSError, EOFError, TypeError, AttributeError, SyntaxError, OverflowError) as error:
        raise ModelError(f"{path} is not a plain .npy array: {error}. Fetch the package again.") from error


def dig(tree: Any, *keys: str) -> Any:
    """Follow keys through nested dicts; None where the way ends."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
