"""What a reader finds in a source, before it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from livestain_models._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from livestain_models.data._pages import Page
    from livestain_models.data.fields import Planes

__all__ = ["Candidate", "LeftOut", "Pixels", "missing_channel", "unknown_pixel_size"]


@dataclass(frozen=True, slots=True)
class Pixels:
    """Sizes in the sample that the data know of."""

    size_um: float
    spacing_um: float | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A field as it lies on disk.

    Parameters
    ----------
    name, place, where : str
        The field, the place it shows, and the file or group that messages name.
    instrument : str or None
        The data's own word.
    planes : Planes
        (Z, H, W), transmitted light.
    stains : tuple of Planes
        (Z', H, W) each, as stored: planes that were never written are still there.
    labels : Page or None
    pixels : Pixels
    shifts_px : mapping
        By channel as acquired: rows and columns by which the stain lies below and to the right of the input, as
        `collect` found.
    """

    name: str
    place: str
    where: str
    instrument: str | None
    planes: Planes
    stains: tuple[Planes, ...]
    labels: Page | None
    pixels: Pixels
    shifts_px: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A pair that is not learned from, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def missing_channel(where: object, name: str, there: Sequence[str]) -> DataError:
    """Say which channel is not there, and which are."""
    return DataError(
        f"{where}: there is no channel {name!r}; it has {', '.join(there) or 'none with a name'}. Name one of these "
        "in data.input, data.targets[].channel or data.classes.labels."
    )


def unknown_pixel_size(where: object) -> DataError:
    """Say that nobody told the pixel size."""
    return DataError(
        f"{where} does not say how large its pixels are. Write data.pixel_size_um (micrometres in the sample) into "
        "the recipe."
    )
