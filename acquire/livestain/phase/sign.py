"""Which way a stage counts: cells have more phase than the medium, and only one sign of z makes them so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from livestain.phase._quick import quick_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from livestain.phase.transfer import BrightField

__all__ = ["Sign", "find_sign"]

LEAST_SURENESS = 0.3


@dataclass(frozen=True, slots=True)
class Sign:
    """Which way z counts.

    Attributes
    ----------
    sign
        1 if z counts along the light as given, -1 if against it, 0 if that cannot be told.
    sureness
        0 (both signs fit alike) to 1 (only one does): (worse - better) / (worse + better) of the two residuals.
    as_given, reversed
        Residual of the fit with z as given and with z negated; NaN where there is none.
    reason
        Why it is unsure, or "".
    """

    sign: int
    sureness: float
    as_given: float
    reversed: float
    reason: str = ""

    def __str__(self) -> str:
        if not self.sign:
            return f"Which way z counts could not be told: {self.reason}."
        way = "along the light, as given" if self.sign > 0 else "against the light: use -z"
        return f"z counts {way} (sureness {self.sureness:.2f})."


def find_sign(
    optics: BrightField,
    z_um: Sequence[float],
    planes: NDArray[np.generic],
    labels: NDArray[np.generic],
    *,
    margin_um: float = 1.3,
    dark_counts: float = 0.0,
) -> Sign:
    """Tell from one field with cells whether z counts along the light, by fitting phase with both signs.

    The fits differ because phase must be positive and within the cells: with the wrong sign cells would be dents.

    Parameters
    ----------
    optics, z_um, planes, labels, margin_um, dark_counts
        As for `SupportedPhase`. `z_um` may be off focus by a micrometre or two.

    Raises
    ------
    ExperimentError
        As `SupportedPhase` does.
    """
    residuals = []
    for sign in (1.0, -1.0):
        heights_um = [sign * z for z in z_um]
        found = quick_fit(optics, heights_um, planes, labels, margin_um=margin_um, dark_counts=dark_counts)
        if np.isnan(found.residual):  # no fit at all; a bad one has its residual
            return Sign(0, 0.0, np.nan, np.nan, found.reasons[0])
        residuals.append(found.residual)
    given, other = (max(r, 1e-9) for r in residuals)
    sureness = abs(given - other) / (given + other)
    if sureness < LEAST_SURENESS:
        reason = f"both signs fit about as well (residuals {given:.3g} as given, {other:.3g} reversed)"
        return Sign(0, sureness, given, other, reason)
    return Sign(1 if given < other else -1, sureness, given, other)
