"""A field of view: transmitted-light planes and the real stains of the same place, read only where they are sliced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain_models._errors import DataError
from livestain_models.data._pages import Cropped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestain_models.data._pages import Page
    from livestain_models.recipe import PlanesWanted

__all__ = ["Field", "Planes", "Targets"]

Window = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Planes:
    """Planes of one channel in the order of z: (Z, H, W), read when sliced.

    Parameters
    ----------
    pages : tuple of Page
        (H, W) each, all of one shape and type.
    """

    pages: tuple[Page, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, H, W)."""
        height, width = self.pages[0].shape
        return len(self.pages), height, width

    @property
    def dtype(self) -> Any:
        """A numpy dtype."""
        return np.dtype(self.pages[0].dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read along z (int or slice), then rows and columns (slices of step 1), as of a numpy array."""
        z, *window = key if isinstance(key, tuple) else (key,)
        rows, columns, *_ = (*window, slice(None), slice(None))
        if isinstance(z, slice):
            return np.stack([np.asarray(page[rows, columns]) for page in self.pages[z]])
        return np.asarray(self.pages[z][rows, columns])

    def crop(self, rows: slice, columns: slice) -> Planes:
        """Restrict to a part, without reading or copying."""
        return Planes(tuple(_crop(page, rows, columns) for page in self.pages))


@dataclass(frozen=True, slots=True)
class Targets:
    """The stains of a field: (C, Zt, H, W), read when sliced.

    Parameters
    ----------
    stains : tuple of Planes
        (Zt, H, W) each.
    """

    stains: tuple[Planes, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, Zt, H, W)."""
        return (len(self.stains), *self.stains[0].shape)

    @property
    def dtype(self) -> Any:
        """What holds the values of every stain."""
        return np.result_type(*(stain.dtype for stain in self.stains))

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read along c and z (int or slice), then rows and columns (slices of step 1)."""
        c, *rest = key if isinstance(key, tuple) else (key,)
        inner = (*rest, *[slice(None)] * (3 - len(rest)))
        if isinstance(c, slice):
            return np.stack([stain[inner] for stain in self.stains[c]])
        return self.stains[c][inner]

    def crop(self, rows: slice, columns: slice) -> Targets:
        """Restrict to a part, without reading or copying."""
        return Targets(tuple(stain.crop(rows, columns) for stain in self.stains))


@dataclass(frozen=True, slots=True)
class Field:
    """One field of view at one time.

    Parameters
    ----------
    name : str
        Unique within a training's data.
    instrument : str
        Which microscope took it.
    planes : Planes
        (Z, H, W) uint8 or uint16, transmitted light.
    targets : Targets
        (C, Zt, H, W), the stains in the recipe's order; Zt is Z, or 1 where the stain was taken in one plane.
    pixel_size_um : float
        In the sample.
    plane_spacing_um : float or None
        None for a single plane, or where nobody knows.
    labels : Page or None
        (H, W) integers: 0 background, 1 live, 2 injured, 3 dead.
    place : str
        Fields of one place are time points that show the same cells: they must not be torn apart by a split.
        The name, if not given.
    """

    name: str
    instrument: str
    planes: Planes
    targets: Targets
    pixel_size_um: float
    plane_spacing_um: float | None = None
    labels: Page | None = None
    place: str = ""

    def __post_init__(self) -> None:
        if not self.place:
            object.__setattr__(self, "place", self.name)

    @classmethod
    def of_arrays(
        cls, name: str, planes: np.ndarray, targets: np.ndarray, *, pixel_size_um: float, **more: Any
    ) -> Field:
        """Make a field of arrays in memory, (Z, H, W) and (C, Zt, H, W); `more` are further attributes."""
        wrapped = Targets(tuple(Planes(tuple(stain)) for stain in targets))
        more = {"instrument": "unnamed"} | more
        return cls(name=name, planes=Planes(tuple(planes)), targets=wrapped, pixel_size_um=pixel_size_um, **more)

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.planes.shape[1:]

    def windows(self, wanted: PlanesWanted) -> list[Window]:
        """Say which planes make an input: z-indices from low to high, once for each input.

        The middle of a window, the plane that is predicted, is its index (P - 1) // 2, as on the microscope; for
        "centre" it lies on plane Z // 2, where an acquisition takes a channel without a stack.

        Parameters
        ----------
        wanted : PlanesWanted

        Returns
        -------
        list of tuple of int

        Raises
        ------
        DataError
            The stack has too few planes.
        """
        depth, span = self.planes.shape[0], (wanted.count - 1) * wanted.step + 1
        if depth < span:
            raise DataError(
                f"{self.name} has {depth} focal planes, but {wanted.count} in steps of {wanted.step} need {span}. "
                "Lower planes.count or planes.step in the recipe, or leave the field out."
            )
        starts = range(depth - span + 1)
        if wanted.windows == "centre":
            below = (wanted.count - 1) // 2 * wanted.step
            starts = range(min(max(depth // 2 - below, 0), depth - span), depth)[:1]
        return [tuple(range(start, start + span, wanted.step)) for start in starts]

    def input(self, window: Sequence[int], rows: slice, columns: slice) -> np.ndarray:
        """Read the planes of a window: (P, h, w) uint16."""
        found = np.empty((len(window), *_size(self.planes.shape[1:], rows, columns)), np.uint16)
        for plane, z in zip(found, window, strict=True):
            plane[:] = self.planes[z, rows, columns]
        return found

    def target(self, window: Sequence[int], rows: slice, columns: slice) -> np.ndarray:
        """Read the stains in the middle plane of a window, or the only plane: (C, h, w) float32 grey values."""
        z = 0 if self.targets.shape[1] == 1 else window[(len(window) - 1) // 2]
        return self.targets[:, z, rows, columns].astype(np.float32)

    def target_stack(self, window: Sequence[int], rows: slice, columns: slice) -> np.ndarray:
        """Read the stains in each plane of a window: (C, P, h, w) float32 grey values.

        Raises
        ------
        DataError
            The stain was taken in one plane only.
        """
        if self.targets.shape[1] != self.planes.shape[0]:
            raise DataError(
                f"{self.name} has {self.planes.shape[0]} planes of transmitted light and {self.targets.shape[1]} of "
                "the stain; a network that predicts volumes needs the stain in each plane. Take network.kind unet."
            )
        stains = [[stain[z, rows, columns] for z in window] for stain in self.targets.stains]
        return np.asarray(stains, np.float32)

    def labels_of(self, rows: slice, columns: slice) -> np.ndarray | None:
        """Read the class labels: (h, w) int64, or None if there are none."""
        return None if self.labels is None else np.asarray(self.labels[rows, columns]).astype(np.int64)

    def crop(self, rows: slice, columns: slice, name: str | None = None) -> Field:
        """Restrict to a part, without reading or copying; its place stays the whole field's."""
        return replace(
            self,
            name=name or self.name,
            planes=self.planes.crop(rows, columns),
            targets=self.targets.crop(rows, columns),
            labels=None if self.labels is None else _crop(self.labels, rows, columns),
        )


def _crop(page: Page, rows: slice, columns: slice) -> Page:
    top, _, _ = rows.indices(page.shape[0])
    left, _, _ = columns.indices(page.shape[1])
    size = _size(page.shape, rows, columns)
    if isinstance(page, np.ndarray):
        return page[rows, columns]
    if isinstance(page, Cropped):
        return Cropped(page.page, page.top + top, page.left + left, size)
    return Cropped(page, top, left, size)


def _size(shape: Sequence[int], rows: slice, columns: slice) -> tuple[int, int]:
    height, width = (len(range(*part.indices(size))) for part, size in zip((rows, columns), shape, strict=True))
    return height, width
