"""One quick fit of phase to planes at supposed heights: how well it fits tells whether the heights are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestain._errors import ExperimentError
from livestain.phase.supported import Iterations, SupportedPhase

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from livestain.phase.supported import Supported
    from livestain.phase.transfer import BrightField

__all__ = ["quick_fit"]

_ITERATIONS = Iterations(60, 60, 0.0)


def quick_fit(
    optics: BrightField,
    z_um: Sequence[float],
    planes: NDArray[np.generic],
    labels: NDArray[np.generic],
    *,
    margin_um: float,
    dark_counts: float,
) -> Supported:
    """Fit with 60 steps and without an uncertainty; `residual` is NaN where there is no fit at all, then with a reason.

    Parameters
    ----------
    optics, z_um, planes, labels, margin_um, dark_counts
        As for `SupportedPhase`.

    Raises
    ------
    ExperimentError
        As `SupportedPhase` does; or the planes are not (P, Y, X).
    """
    if planes.ndim != 3:
        raise ExperimentError(f"planes are {planes.shape}; give (plane, height, width), one field through focus.")
    shape = (planes.shape[1], planes.shape[2])
    measure = SupportedPhase(
        optics, z_um, shape, margin_um=margin_um, dark_counts=dark_counts, iterations=_ITERATIONS, repeats=0
    )
    return measure(planes, labels)
