"""The root of every error meant for a person, and the model side's own: what, the value, the remedy."""

from __future__ import annotations

__all__ = ["DataError", "LivestainError", "ModelError", "OutOfMemory", "RecipeError"]


class LivestainError(Exception):
    """Base of every error meant for the user; its text is a complete message, the cause is chained."""


class ModelError(LivestainError):
    """A model package is broken, breaks its contract, or cannot run where it was asked to."""


class OutOfMemory(ModelError):  # noqa: N818  (what it is, as MemoryError is taken)
    """A frame or tile needs more memory than the device has left."""


class DataError(LivestainError):
    """Training or test images are missing, broken, or do not fit each other."""


class RecipeError(LivestainError):
    """A recipe asks for something that there is not, or that does not fit together."""
