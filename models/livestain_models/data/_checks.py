"""Looks at every image of a field once: what is broken is refused, what is empty or misplaced is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from livestain_models._errors import DataError
from livestain_models.data.fields import Field, Planes, Targets
from livestain_models.data.registration import register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestain_models.data._source import Candidate
    from livestain_models.recipe import Data

__all__ = ["Unusable", "check_candidate"]


class Unusable(Exception):  # noqa: N818 - not an error: a reason to leave a pair out
    """Why a pair is left out; no error for the user as long as other pairs remain."""


def check_candidate(found: Candidate, instrument: str | None, data: Data) -> Field:
    """Make a field of what was found.

    Parameters
    ----------
    found : Candidate
    instrument : str or None
        The recipe's word, which goes before the data's.
    data : Data

    Returns
    -------
    Field

    Raises
    ------
    Unusable
        The pair is to be left out: never written, constant, or its channels do not lie on each other.
    DataError
        Shapes or types that cannot be learned from.
    """
    _check_shapes(found)
    _check_types(found, data)
    planes = found.planes[:]  # (Z, H, W): the one reading of each image
    _check_written(planes, data.input)
    kept = []
    for target, stain in zip(data.targets, found.stains, strict=True):
        kept.append(_written_planes(stain, stain[:], planes.shape[0], target.name, found))
    if len({len(stain.pages) for stain in kept}) > 1:  # one stain in a plane, another in all: the middle one of all
        kept = [Planes((stain.pages[len(stain.pages) // 2],)) for stain in kept]
    if found.labels is not None:
        _check_labels(np.asarray(found.labels[:, :]))
    field = Field(
        name=found.name,
        place=found.place,
        instrument=instrument or found.instrument or "unnamed",
        planes=found.planes,
        targets=Targets(tuple(kept)),
        labels=found.labels,
        pixel_size_um=found.pixels.size_um,
        plane_spacing_um=found.pixels.spacing_um if len(planes) > 1 else None,
    )
    field = _shift(field, [found.shifts_px.get(target.source, (0, 0)) for target in data.targets])
    if data.check_registration:
        _check_registration(field, data)
    return field


def _check_shapes(found: Candidate) -> None:
    labels = [Planes((found.labels,))] if found.labels is not None else []
    for stain in [*found.stains, *labels]:
        if stain.shape[1:] != found.planes.shape[1:]:
            raise DataError(
                f"Input and stain differ in size: (H, W) = {found.planes.shape[1:]} and {stain.shape[1:]} in "
                f"{found.where}. Crop or resample them to the same pixels, or take the pair out."
            )
    for stain in found.stains:
        if stain.shape[0] not in (1, found.planes.shape[0]):
            raise DataError(
                f"The input has {found.planes.shape[0]} planes and a stain {stain.shape[0]} in {found.where}. A stain "
                "must have one plane, or as many as the input."
            )


def _check_types(found: Candidate, data: Data) -> None:
    if found.planes.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{data.input} of {found.where} is {found.planes.dtype}; cameras give uint8 or uint16, and so will the "
            "microscope. Give the raw images."
        )
    for target, stain in zip(data.targets, found.stains, strict=True):
        if stain.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            raise DataError(
                f"{target.source} of {found.where} is {stain.dtype}; a stain must be uint8, uint16 or floating "
                "point. Convert it."
            )
    if found.labels is not None and found.labels.dtype.kind not in "ui":
        raise DataError(f"The labels of {found.where} are {found.labels.dtype}; they must be integers, 0 to 3.")


def _check_written(planes: np.ndarray, channel: str) -> None:
    for z, plane in enumerate(planes):
        low, high = plane.min(), plane.max()
        if low == high:
            which = f"plane {z} of {channel}" if len(planes) > 1 else channel
            raise Unusable(f"{which} was never written" if high == 0 else f"{which} is constant at {high}")


def _written_planes(stain: Planes, grey: np.ndarray, n_z: int, name: str, found: Candidate) -> Planes:
    """Keep the planes of a stain that were taken: all, or the middle one of a stack."""
    if grey.dtype.kind == "f" and not np.isfinite(grey).all():
        raise DataError(
            f"{name} of {found.where} holds {np.count_nonzero(~np.isfinite(grey))} pixels that are NaN or infinite. "
            "Repair the image, or take the pair out."
        )
    written = [z for z, plane in enumerate(grey) if plane.any()]
    if not written:
        raise Unusable(f"{name} was never written")
    for z in written:
        if grey[z].min() == grey[z].max():
            raise Unusable(f"{name} is constant at {grey[z, 0, 0]}")
    if len(written) == len(grey):
        return stain
    if len(written) == 1 and written[0] in (n_z // 2, (n_z - 1) // 2):
        return Planes((stain.pages[written[0]],))
    raise Unusable(f"{name} was written in the planes {written} of {n_z} only")


def _check_labels(labels: np.ndarray) -> None:
    if labels.min() < 0 or labels.max() > 3:
        raise Unusable(f"labels go from {labels.min()} to {labels.max()}; they must be 0 to 3")
    if not labels.any():
        raise Unusable("no pixel is labelled")


def _shift(field: Field, shifts: Sequence[tuple[int, int]]) -> Field:
    """Cut input and stains to the area they share, each stain moved back by its whole pixels."""
    if all(shift == (0, 0) for shift in shifts):
        return field
    spans = []
    for axis, size in enumerate(field.size_px):
        start = max(0, *(-shift[axis] for shift in shifts))
        stop = size - max(0, *(shift[axis] for shift in shifts))
        if stop <= start:
            raise Unusable(f"the stain lies {[shift[axis] for shift in shifts]} px off, more than the field's {size}")
        spans.append((start, stop))
    (top, bottom), (left, right) = spans
    moved = field.crop(slice(top, bottom), slice(left, right))
    stains = tuple(
        stain.crop(slice(top + dy, bottom + dy), slice(left + dx, right + dx))
        for stain, (dy, dx) in zip(field.targets.stains, shifts, strict=True)
    )
    return Field(
        name=field.name,
        place=field.place,
        instrument=field.instrument,
        planes=moved.planes,
        targets=Targets(stains),
        labels=moved.labels,
        pixel_size_um=field.pixel_size_um,
        plane_spacing_um=field.plane_spacing_um,
    )


def _check_registration(field: Field, data: Data) -> None:
    planes = field.planes[:]
    for target, stain in zip(data.targets, field.targets.stains, strict=True):
        middle = stain[len(stain.pages) // 2]
        found = register(planes, middle, field.pixel_size_um, data.tolerance_um)
        if found.verdict in ("shifted", "scaled", "unrelated"):
            raise Unusable(f"{target.name}: {found}")
