"""The processes that train together: one, or as many as torchrun started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from livestain_models._errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ranks"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process among those that train together; as a context it joins and leaves them.

    Parameters
    ----------
    rank, world : int
        Its number, and how many there are.
    device : torch.device
        Where it computes.
    """

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls, device: str, batch: int) -> Self:
        """Find out what torchrun says of this process.

        Parameters
        ----------
        device : str
            "auto" takes a GPU where there is one.
        batch : int
            Patches a step, to be shared evenly.

        Raises
        ------
        RecipeError
            The device is not there, or the batch cannot be shared.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if batch % world:
            raise RecipeError(
                f"train.batch {batch} cannot be shared by {world} processes; make it a multiple of {world}."
            )
        if device == "auto":
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
        try:
            chosen = torch.device(device)
            torch.zeros(1, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise RecipeError(f"The device {device!r} cannot be used: {error}. Take cpu or auto.") from error
        return cls(int(os.environ.get("RANK", "0")), world, chosen)

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    def __enter__(self) -> Self:
        """Meet the others."""
        if self.world > 1:
            distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Part from them."""
        if self.world > 1:
            if kind is None:  # after an error the others may never come
                distributed.barrier()  # one that leaves early takes the others' connections with it
            distributed.destroy_process_group()

    def shared(self, module: Any) -> Any:
        """Wrap a module so that its gradients are averaged over all; None stays None."""
        if self.world == 1 or module is None:
            return module
        # Each process keeps BatchNorm statistics of its own patches; they are measured anew before export.
        return DistributedDataParallel(module, forward_sync_buffers=False)

    def any(self, *, flag: bool) -> bool:
        """Whether any of them says so."""
        if self.world == 1:
            return flag
        votes = torch.tensor([int(flag)], device=self.device)
        distributed.all_reduce(votes, distributed.ReduceOp.MAX)
        return bool(votes.item())

    def from_first(self, make: Callable[[], _T]) -> _T:
        """Have the first process make something, and give it to all."""
        if self.world == 1:
            return make()
        found: list[Any] = [make() if self.first else None]
        distributed.broadcast_object_list(found)
        made: _T = found[0]
        return made
