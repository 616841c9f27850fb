"""Phase of one field for the cells in it, whichever way the rig makes it: steps, defocus, or as an image."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import ndimage

from livestain._errors import ExperimentError, RigError
from livestain.phase._saturated import saturated
from livestain.phase._step_sums import light_of_steps
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
    from pathlib import Path

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
_SURELY_WORSE = 2.0  # residual of the wrong way to count z, at its best focus: 10 to 40 times in trials
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
    shape
        (H, W) of the camera's frames.

    Raises
    ------
    StoreError
        The calibration cannot be read.
    ExperimentError
        It is of frames of another size.
    """

    method = "phase steps"

    def __init__(self, steps: PhaseFromSteps, optics: Optics, pixel_size_um: float, shape: tuple[int, int]) -> None:
        self._names, self._sign, self._pixel_size_um = steps.channels, steps.sign, pixel_size_um
        self._empty = None if steps.empty_field is None else _calibration(steps.empty_field, shape)
        dark_counts = self._empty.dark_counts if self._empty else optics.dark_counts
        assert dark_counts is not None  # noqa: S101  (`check_phase` has seen to it)
        self._dark_counts = dark_counts
        given = steps.coherence_um
        self._coherence = None if given is None else Coherence(given, 0.0, 1.0)
        self._checked = False

    def __call__(self, planes: NDArray[np.unsignedinteger], cells: NDArray[np.int32]) -> FieldPhase:
        """Make the phase of (4, Y, X) planes."""
        zones = _widened(cells, _MARGIN_UM / self._pixel_size_um)
        inside = zones > 0
        light = light_of_steps(planes, inside, dark_counts=self._dark_counts, names=self._names)
        if light.trouble:
            return _nothing(zones, light.trouble)
        try:
            empty = self._empty or EmptyField.estimated(planes, ~inside, dark_counts=self._dark_counts)
            if not self._checked and inside.any():
                if trouble := check_steps(planes, empty, inside, sign=self._sign):
                    return _nothing(zones, trouble)
                self._checked = True
            signal = Slim(empty, sign=self._sign).signal(planes, ~inside, light.factors)
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
        if 0 in found.reasons:
            return _nothing(cells, found.reasons[0])
        return FieldPhase(found.phase_rad, found.zones, sum_sd_rad=found.sum_sd_rad, reasons=found.reasons)

    def _knows_z(self, planes: NDArray[np.unsignedinteger], cells: NDArray[np.int32]) -> bool:
        """Find out which way z counts, and where focus is unless that was given."""
        if self._sign and self._offset_um is not None:
            return True
        if self._tries == _TRIES:
            return False
        z_um = [z + (self._offset_um or 0.0) for z in self._z_um]
        way = find_sign(self._light, z_um, planes, cells, dark_counts=self._dark_counts)
        if math.isnan(way.as_given):  # of this field: a plane is dark, the field full of cells
            self._why = f"the phase of this field cannot be told: {way.reason}"
            return False
        self._tries += 1
        if self._offset_um is not None:
            self._sign = way.sign
            self._why = f"which way z counts could not be told: {way.reason}"
            return bool(way.sign)
        return self._finds_focus(way.sign, planes, cells)

    def _finds_focus(self, sign: int, planes: NDArray[np.unsignedinteger], cells: NDArray[np.int32]) -> bool:
        """Find focus; and with it which way z counts, where that is not plain while focus may be off."""
        found = {
            way: find_focus(self._light, [way * z for z in self._z_um], planes, cells, dark_counts=self._dark_counts)
            for way in ([sign] if sign else [1, -1])
        }
        way, focus = min(found.items(), key=lambda one: one[1].residual)
        worst = max(one.residual for one in found.values())
        if not sign and not worst > _SURELY_WORSE * focus.residual:
            self._why = f"which way z counts could not be told: both fit about as well ({focus.residual:.2g} of the "
            self._why += f"contrast and {worst:.2g} of it stay unexplained)"
            return False
        if focus.reason:
            self._why = f"the focus of bright field could not be told: {focus.reason}"
            return False
        self._sign, self._offset_um = way, focus.offset_um
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
        zones = _widened(cells, self._margin_px)
        inside = zones > 0
        if planes[0].min() == planes[0].max():
            return _nothing(zones, "the phase image is the same everywhere: the instrument gave none")
        if inside.any() and not inside.all() and np.median(phase[inside]) < np.median(phase[~inside]):
            return _nothing(zones, "cells have less phase than what surrounds them: the phase image is upside down")
        full = saturated(planes)
        if full is None:
            return FieldPhase(phase, zones)
        phase[full] = np.nan
        return FieldPhase(
            phase, zones, reasons={0: "the phase image is at its highest grey level there: it was cut off"}
        )

    def state(self) -> dict[str, Any]:
        """Nothing is learned."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing was learned."""


def _calibration(path: Path, shape: tuple[int, int]) -> EmptyField:
    empty = EmptyField.load(path)
    if empty.light_counts.shape != shape:
        (height, width), (rows, cols) = empty.light_counts.shape, shape
        raise ExperimentError(
            f"measure.phase.empty_field: {path} is of frames of {width} x {height} px, and this camera gives "
            f"{cols} x {rows}. Take it again with the camera settings of the run: livestain empty-field."
        )
    return empty


def _nothing(zones: NDArray[np.int32], reason: str) -> FieldPhase:
    return FieldPhase(np.full(zones.shape, np.nan, np.float32), zones, reasons={0: reason})


def _widened(labels: NDArray[np.int32], by_px: float) -> NDArray[np.int32]:
    """Give labels that reach `by_px` further, each new pixel to its nearest label."""
    away, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    return np.where(away <= by_px, labels[tuple(nearest)], 0).astype(np.int32)
