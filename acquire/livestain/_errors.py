"""The errors livestain raises for a person to read: what happened, the value that was got, the remedy."""

from __future__ import annotations

__all__ = [
    "ExperimentError",
    "LivestainError",
    "ModelError",
    "RigError",
    "StoreError",
]


class LivestainError(Exception):
    """Base of every error meant for the user; its text is a complete message, the cause is chained."""


class ExperimentError(LivestainError):
    """The experiment file asks for something that cannot be: a typo, a missing channel, a bad path."""


class RigError(LivestainError):
    """The rig's configuration is wrong, or its hardware did not do what it was told."""


class ModelError(LivestainError):
    """A model package is broken, breaks its contract, or cannot run where it was asked to."""


class StoreError(LivestainError):
    """The run folder cannot be created, written or read."""
