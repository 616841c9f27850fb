"""A few of many, without choosing."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["some_of"]

T = TypeVar("T")


def some_of(there: Sequence[T], most: int) -> Sequence[T]:
    """Give at most so many, evenly spread over all."""
    return there[:: max(1, -(-len(there) // most))]
