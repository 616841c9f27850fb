"""Grey values of a stain to network units and back: 0 is the background, 1 the bright end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from livestain_models._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestain_models.data.fields import Field

__all__ = ["Scale", "Scales", "measure_scales", "to_units"]

_EVERY_PX = 4
BLACK_PERCENT, WHITE_PERCENT = 10.0, 99.9


@dataclass(frozen=True, slots=True)
class Scale:
    """Of one stain on one instrument: units = (grey - black) / reference.

    Parameters
    ----------
    black : float
        Grey value of the background.
    reference : float
        Grey levels from the background to the bright end.
    """

    black: float
    reference: float

    def units(self, grey: np.ndarray) -> np.ndarray:
        """Turn grey values into network units, float32 of the same shape."""
        return (np.asarray(grey, np.float32) - np.float32(self.black)) / np.float32(self.reference)


Scales = dict[str, tuple[Scale, ...]]
"""By instrument: a scale for each target, in their order."""


def measure_scales(fields: Sequence[Field], targets: Sequence[str]) -> Scales:
    """Measure black and reference of each stain on each instrument.

    Exposure and camera differ between instruments, so that grey values mean different things; the 10th and the
    99.9th percentile of every fourth pixel either way, over all fields of an instrument, make them alike.

    Parameters
    ----------
    fields : sequence of Field
        To learn from: what is kept for the score must not be measured.
    targets : sequence of str
        Names of the stains, for the message.

    Returns
    -------
    dict
        By instrument.

    Raises
    ------
    DataError
        A stain hardly differs from its background anywhere.
    """
    scales: Scales = {}
    for instrument in sorted({field.instrument for field in fields}):
        mine = [field for field in fields if field.instrument == instrument]
        scales[instrument] = tuple(_measure(mine, number, name) for number, name in enumerate(targets))
    return scales


def to_units(grey: np.ndarray, scales: Sequence[Scale]) -> np.ndarray:
    """Turn grey values of all stains, (C, ...), into network units, float32."""
    return np.stack([scale.units(stain) for stain, scale in zip(grey, scales, strict=True)])


def _measure(fields: Sequence[Field], number: int, name: str) -> Scale:
    planes = (page for field in fields for page in field.targets.stains[number].pages)
    sample = np.concatenate([np.asarray(page[:, :])[::_EVERY_PX, ::_EVERY_PX].ravel() for page in planes])
    black, white = (float(grey) for grey in np.percentile(sample, [BLACK_PERCENT, WHITE_PERCENT]))
    if white - black <= 1e-6 * max(abs(white), abs(black)):
        raise DataError(
            f"The stain {name} of {fields[0].instrument} is dark: {BLACK_PERCENT:g} % of its pixels are at or below "
            f"{black:g}, and so are {WHITE_PERCENT:g} %. There is nothing to learn; check the channel's name and "
            "exposure, or take the target out of the recipe."
        )
    return Scale(black, white - black)
