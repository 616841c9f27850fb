"""How a run's channels are shown before anybody has chosen: which of them, and those whose contrast is settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from livestain.live.run_folder import RunFolder

__all__ = ["settled_windows", "shown_first"]

_STAIN = "stain"
_WHOLE = (0.0, 65535.0)


def shown_first(run: RunFolder) -> list[int]:
    """Give the numbers of the camera's first channel and of the predicted stains.

    A model's distance maps and class probabilities are made for the measurement, and are left out.
    """
    kinds = _kinds(run)
    camera = [i for i, channel in enumerate(run.layout.channels) if not channel.predicted][:1]
    return camera + [i for i, kind in kinds.items() if kind == _STAIN]


def settled_windows(run: RunFolder) -> dict[int, tuple[float, float]]:
    """Give, by channel number, the windows that no picture decides: of distances and probabilities, from 0 to 1.

    Stretched to what the first pictures hold, a map without a dead cell would show its noise as dead cells.
    """
    return {i: _WHOLE for i, kind in _kinds(run).items() if kind != _STAIN}


def _kinds(run: RunFolder) -> dict[int, str]:
    """Say what the model's output is of each predicted channel; a stain where an older run does not tell."""
    stains = run.header.get("stains", ())
    known: dict[tuple[int | None, int | None], str] = {
        (i, j): output.get("kind", _STAIN)
        for i, stain in enumerate(stains)
        for j, output in enumerate(stain.get("outputs", ()))
    }
    return {
        i: known.get((channel.stain, channel.output), _STAIN)
        for i, channel in enumerate(run.layout.channels)
        if channel.predicted
    }
