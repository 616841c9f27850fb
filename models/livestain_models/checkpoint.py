"""The state of a training on disk: tensors in safetensors, the rest as JSON beside them; nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from livestain_models._errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

__all__ = ["Checkpoint", "load_checkpoint", "load_into", "optimiser_tensors", "restore_optimiser", "save_checkpoint"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was saved.

    Parameters
    ----------
    tensors : dict of str to Tensor
        Named "net.…", "averaged.…", "optimiser.…" and so on.
    facts : dict
        Everything that is not a tensor: recipe, step, scores, scales.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Give the tensors of one part, without its prefix."""
        start = f"{prefix}."
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}


def save_checkpoint(file: Path, parts: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all: the one before it stays until the new one is on disk.

    Parameters
    ----------
    file : Path
        Ends with .safetensors.
    parts : dict of str to dict of str to Tensor
        Tensors by part and name.
    facts : dict
        What JSON knows.

    Raises
    ------
    ModelError
        The disk is full or the folder cannot be written; the checkpoint before it is untouched.
    """
    tensors = {
        f"{part}.{name}": value.detach().cpu().contiguous()
        for part, named in parts.items()
        for name, value in named.items()
    }
    beside = file.with_suffix(".partial")
    try:
        save_file(tensors, beside, metadata={"livestain": json.dumps(facts)})
        beside.chmod(0o644)  # safetensors lets only its owner read
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        beside.replace(file)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        kept = f"; the one before it is whole: {file}" if file.exists() else ""
        raise ModelError(
            f"The checkpoint {file} could not be written: {error}{kept}. Free some space and run the same command "
            "again: training goes on from there."
        ) from error


def load_checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    ModelError
        No such file, or none of livestain's.
    """
    try:
        with safe_open(file, "pt") as opened:
            facts = json.loads((opened.metadata() or {})["livestain"])
            return Checkpoint({name: opened.get_tensor(name) for name in opened.keys()}, facts)  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{file} is no checkpoint of livestain ({error}). Give the folder of a training, or the best.safetensors "
            "in it."
        ) from error


def load_into(module: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    """Fill a network; a missing or surplus tensor is an error.

    Raises
    ------
    ModelError
        The tensors are another network's.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{file} holds another network than its recipe says: {error}") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name the tensors of an optimiser's state by the number of the parameter and their role."""
    state = optimiser.state_dict()["state"]
    return {f"{number}.{role}": value for number, roles in state.items() for role, value in roles.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, role = name.split(".", 1)
        state.setdefault(int(number), {})[role] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
