"""Phase of one field for the cells in it, whichever way the rig makes it: steps, defocus, or as an image."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import ndimage

from livestain._errors import RigError
from livestain.phase.coherence import Coherence, estimate_coherence
from livestain.phase.empty_field import EmptyField
from livestain.phase.focus import find_focus
from livestain.phase.halo import recover
from livestain.phase.sign import find_sign
from livestain.phase.slim import Slim, check_steps
from livestain.phase.supported import SupportedPhase
from livestain.phase.transfer import BrightField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from livestain._experiment import Optics, PhaseFromSteps, PhaseGiven

__all__ = [
    "RELATIVE_RAD_PER_GREY",
    "FieldPhase",
    "PhaseFromFrames",
    "PhaseMaker",
    "PhaseOfImage",
    "PhaseOfSteps",
]

RELATIVE_RAD_PER_GREY = 1 / 65535  # what stands for the scale that a relative phase lacks: too little to seem wrapped
_MARGIN_UM = 0.9  # by which masks are widened: a mask that is too tight leaves phase outside
_TRIES = 3  # fields that may say which way z counts and where focus is, before it is called unknown


@dataclass(frozen=True, slots=True, eq=False)
class FieldPhase:
    """The phase of one field.

    Attributes
    ----------
    phase_rad
        (Y, X) float32, NaN where it could not be measured.
    zones
        (Y, X) int32: the cells' labels, widened to hold all of their phase.
    errors_rad, strangers
        As in `livestain.phase.halo.Recovered`; None without.
    sum_sd_rad
        label -> standard deviation of the sum of phase in its zone, where the method knows it.
    reasons
        label -> why this cell has no phase; the key 0 stands for the whole field.
    """

    phase_rad: NDArray[np.float32]
    zones: NDArray[np.int32]
    errors_rad: NDArray[np.float32] | None = None
    strangers: NDArray[np.bool_] | None = None
    sum_sd_rad: dict[int, float] | None = None
    reasons: dict[int, str] = field(default_factory=dict)


class PhaseMaker(Protocol):
    """Makes phase of the planes of one field.

    What it learns of the rig on its way (coherence, focus, the sign of z) is its state, so that a measurement that is
    resumed goes on with the same numbers.
    """

    method: str

    def __call__(self, planes: NDArray[np.unsignedinteger], cells: NDArray[np.int32]) -> FieldPhase:
        """Make the phase of (P, Y, X) planes with the labels (Y, X) of the cells in them."""

    def state(self) -> dict[str, Any]:
        """Give what was learned, fit for JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what was learned."""


class PhaseOfSteps:
    """Phase from four steps, free of halo.

    Parameters
    ----------
    steps
        What the experiment says of them.
    optics
        Of the rig.
    pixel_size_um
        In the sample.

    Raises
    ------
    StoreError
        The calibration cannot be read.
    """

    method = "phase steps"

    def __init__(self, steps: PhaseFromSteps, optics: Optics, pixel_size_um: float) -> None:
        self._sign, self._pixel_size_um = steps.sign, pixel_size_um
        self._empty = None if steps.empty_field is None else EmptyField.load(steps.empty_field)
        self._dark_counts = optics.dark_counts
        given = steps.coherence_um
        self._coherence = None if given is None else Coherence(given, 0.0, 1.0)
        self._checked = False

    def __call__(self, planes: NDArray[np.unsignedinteger], cells: NDArray[np.int32]) -> FieldPhase:
        """Make the phase of (4, Y, X) planes."""
        zones = _widened(cells, _MARGIN_UM / self._pixel_size_um)
        inside = zones > 0
        try:
            empty = self._empty or self._estimated(planes, ~inside)
            if not self._checked and inside.any():
                if trouble := check_steps(planes, empty, inside, sign=self._sign):
                    return _nothing(zones, trouble)
                self._checked = True
            signal = Slim(empty, sign=self._sign).signal(planes, ~inside)
        except RigError as error:  # of this field: too few pixels without cells, a lamp that is off
            return _nothing(zones, str(error))
        if self._coherence is None:
            found = estimate_coherence(signal, inside, pixel_size_um=self._pixel_size_um)
            if found.reason:
                return _nothing(zones, f"the coherence radius could not be told: {found.reason}")
            self._coherence = found
        free = recover(
            signal,
            inside,
            pixel_size_um=self._pixel_size_um,
            coherence_um=self._coherence.um,
            coherence_sd_um=self._coherence.sd_um,
        )
        reasons = {0: free.reason} if free.reason else {}
        return FieldPhase(free.phase_rad, zones, free.errors_rad, free.strangers, None, reasons)

    def _estimated(self, planes: NDArray[np.unsignedinteger], free: NDArray[np.bool_]) -> EmptyField:
        assert self._dark_counts is not None  # noqa: S101  (`check_phase` has seen to it)
        return EmptyField.estimated(planes, free, dark_counts=self._dark_counts)

    def state(self) -> dict[str, Any]:
        """Give the coherence radius that was found."""
        return {"checked": self._checked, "coherence": self._coherence and asdict(self._coherence)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it up."""
        self._checked = state["checked"]
        self._coherence = Coherence(**state["coherence"]) if state["coherence"] else None


class PhaseFromFrames:
    """Phase from focal planes of bright field, inside the cells' masks.

    Parameters
    ----------
    optics
        Of the rig, with both apertures and what the camera gives without light.
    z_um
        (P,) of each plane, in the order of the planes, from the place that the sequence calls 0.
    pixel_size_um
        In the sample.
    """

    method = "defocus, mask-supported"

    def __init__(self, optics: Optics, z_um: Sequence[float], pixel_size_um: float) -> None:
        assert optics.objective_na is not None  # noqa: S101  (`check_phase` has seen to all three)
        assert optics.condenser_na is not None  # noqa: S101
        assert optics.dark_counts is not None  # noqa: S101
        self._light = BrightField(
            optics.wavelength_um, optics.objective_na, optics.condenser_na, pixel_size_um, optics.medium_index
        )
        self._z_um = tuple(z_um)
        self._dark_counts = optics.dark_counts
        self._offset_um = optics.focus_offset_um
        self._sign = 0
        self._tries = 0
        self._why = ""
        self._measure: SupportedPhase | None = None

    def __call__(self, planes: NDArray[np.unsignedinteger], cells: NDArray[np.int32]) -> FieldPhase:
        """Make the phase of (P, Y, X) planes."""
        if not cells.any():
            return _nothing(cells, "there is no cell in the field")
        if not self._knows_z(planes, cells):
            return _nothing(cells, self._why)
        if self._measure is None:
            assert self._offset_um is not None  # noqa: S101  (that is what knowing z is)
            z_um = [self._sign * z + self._offset_um for z in self._z_um]
            self._measure = SupportedPhase(self._light, z_um, cells.shape, dark_counts=self._dark_counts)
        found = self._measure(planes, cells)
        return FieldPhase(found.phase_rad, found.zones, sum_sd_rad=found.sum_sd_rad, reasons=found.reasons)

    def _knows_z(self, planes: NDArray[np.unsignedinteger], cells: NDArray[np.int32]) -> bool:
        """Find out which way z counts, and where focus is unless that was given."""
        if self._sign and self._offset_um is not None:
            return True
        if self._tries == _TRIES:
            return False
        self._tries += 1
        given_um = self._offset_um or 0.0
        way = find_sign(self._light, [z + given_um for z in self._z_um], planes, cells, dark_counts=self._dark_counts)
        if not way.sign:
            self._why = f"which way z counts could not be told: {way.reason}"
            return False
        if self._offset_um is None:
            z_um = [way.sign * z for z in self._z_um]
            focus = find_focus(self._light, z_um, planes, cells, dark_counts=self._dark_counts)
            if focus.reason:
                self._why = f"the focus of bright field could not be told: {focus.reason}"
                return False
            self._offset_um = focus.offset_um
        self._sign = way.sign
        return True

    def state(self) -> dict[str, Any]:
        """Give which way z counts and where focus was found."""
        return {"sign": self._sign, "offset_um": self._offset_um, "tries": self._tries, "why": self._why}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it up."""
        self._sign, self._offset_um = state["sign"], state["offset_um"]
        self._tries, self._why = state["tries"], state["why"]


class PhaseOfImage:
    """Phase that the rig delivers; relative where nobody says how many rad a grey level is."""

    method = "given"

    def __init__(self, given: PhaseGiven, pixel_size_um: float) -> None:
        self._zero, self._scale = given.zero_grey, given.rad_per_grey
        self._margin_px = _MARGIN_UM / pixel_size_um

    def __call__(self, planes: NDArray[np.unsignedinteger], cells: NDArray[np.int32]) -> FieldPhase:
        """Make the phase of one plane, (1, Y, X)."""
        scale = RELATIVE_RAD_PER_GREY if self._scale is None else self._scale
        phase = (planes[0].astype(np.float32) - np.float32(self._zero)) * np.float32(scale)
        return FieldPhase(phase, _widened(cells, self._margin_px))

    def state(self) -> dict[str, Any]:
        """Nothing is learned."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing was learned."""


def _nothing(zones: NDArray[np.int32], reason: str) -> FieldPhase:
    return FieldPhase(np.full(zones.shape, np.nan, np.float32), zones, reasons={0: reason})


def _widened(labels: NDArray[np.int32], by_px: float) -> NDArray[np.int32]:
    """Give labels that reach `by_px` further, each new pixel to its nearest label."""
    away, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    return np.where(away <= by_px, labels[tuple(nearest)], 0).astype(np.int32)
