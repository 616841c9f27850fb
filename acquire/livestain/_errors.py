"""The errors livestain raises for a person to read: what happened, the value that was got, the remedy."""

from __future__ import annotations

from livestain_models._errors import LivestainError, ModelError, OutOfMemory

__all__ = ["ExperimentError", "LivestainError", "ModelError", "OutOfMemory", "RigError", "StoreError"]


class ExperimentError(LivestainError):
    """The experiment file asks for something that cannot be: a typo, a missing channel, a bad path."""


class RigError(LivestainError):
    """The rig's configuration is wrong, or its hardware did not do what it was told."""


class StoreError(LivestainError):
    """The run folder cannot be created, written or read."""
