"""How a run's channels are shown before anybody has chosen: which of them, and those whose contrast is settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from livestain._layout import Channel

__all__ = ["settled_windows", "shown_first"]

_STAIN = "stain"
_WHOLE = (0.0, 65535.0)


def shown_first(header: Mapping[str, Any], channels: Sequence[Channel]) -> list[int]:
    """Give the numbers of the camera's first channel and of the predicted stains.

    A model's distance maps and class probabilities are made for the measurement, and are left out. `header` is the
    journal's.
    """
    kinds = _kinds(header, channels)
    camera = [i for i, channel in enumerate(channels) if not channel.predicted][:1]
    return camera + [i for i, kind in kinds.items() if kind == _STAIN]


def settled_windows(header: Mapping[str, Any], channels: Sequence[Channel]) -> dict[int, tuple[float, float]]:
    """Give, by channel number, the windows that no picture decides: of distances and probabilities, from 0 to 1.

    Stretched to what the first pictures hold, a map without a dead cell would show its noise as dead cells.
    """
    return {i: _WHOLE for i, kind in _kinds(header, channels).items() if kind != _STAIN}


def _kinds(header: Mapping[str, Any], channels: Sequence[Channel]) -> dict[int, str]:
    """Say what the model's output is of each predicted channel; a stain where an older run does not tell."""
    stains = header.get("stains", ())
    known: dict[tuple[int | None, int | None], str] = {
        (i, j): output.get("kind", _STAIN)
        for i, stain in enumerate(stains)
        for j, output in enumerate(stain.get("outputs", ()))
    }
    return {
        i: known.get((channel.stain, channel.output), _STAIN) for i, channel in enumerate(channels) if channel.predicted
    }
