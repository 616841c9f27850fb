"""What a segmentation found: objects with places and areas, and what was left out and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Dropped", "NothingFound", "Segmentation", "described", "kept", "nothing", "touches_edge"]

_MOST_TOLD = 100  # of what was dropped, the largest: a noisy mask has thousands of specks
_BARE = 0.2  # a cell that shows less than this share of its nucleus' area around it shows nothing


class NothingFound(Exception):  # noqa: N818  (an outcome, told to the user as a sentence in the result)
    """There is nothing to find in a plane; the text says why."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something that was found and is no cell: debris, or a mask that has run away."""

    what: Literal["cell", "nucleus"]
    y_px: float
    x_px: float
    area_px: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The objects of one plane. Object i has the number i + 1 in both label images.

    Attributes
    ----------
    cells, nuclei
        (Y, X) int32; 0 is background. A nucleus lies inside its cell.
    pixel_size_um
        In the sample.
    y_px, x_px
        (N,) float64, the cell's centre of area; the centre of the first pixel is 0.
    nucleus_y_px, nucleus_x_px
        (N,) float64, NaN without a nucleus.
    area_px, nucleus_area_px
        (N,) int64, of the labels; 0 without a nucleus.
    at_border
        (N,) bool: the cell touches the edge of the field, so its area and mass are those of a part.
    outlined
        (N,) bool: the cell's outline was seen. Where it was not, the label is a stand-in and has no area to report.
    reasons
        For each object what could not be seen of it; "" for a cell with a nucleus and an outline.
    dropped, n_dropped
        What was left out: the largest of it, and how many there were.
    reason
        Why there is no object; "" if there are some.
    """

    cells: NDArray[np.int32]
    nuclei: NDArray[np.int32]
    pixel_size_um: float
    y_px: NDArray[np.float64]
    x_px: NDArray[np.float64]
    nucleus_y_px: NDArray[np.float64]
    nucleus_x_px: NDArray[np.float64]
    area_px: NDArray[np.int64]
    nucleus_area_px: NDArray[np.int64]
    at_border: NDArray[np.bool_]
    outlined: NDArray[np.bool_]
    reasons: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    n_dropped: int
    reason: str

    def __len__(self) -> int:
        return len(self.reasons)

    @property
    def area_um2(self) -> NDArray[np.float64]:
        """Area of each cell, (N,); NaN where its outline was not seen."""
        return np.where(self.outlined, self.area_px * self.pixel_size_um**2, np.nan)

    @property
    def nucleus_area_um2(self) -> NDArray[np.float64]:
        """Area of each nucleus, (N,); NaN without one."""
        return np.where(self.nucleus_area_px > 0, self.nucleus_area_px * self.pixel_size_um**2, np.nan)


def kept(
    what: Literal["cell", "nucleus"],
    labels: NDArray[np.int32],
    limits_px: tuple[float, float],
    dropped: list[Dropped],
    *,
    never_debris: int = 0,
) -> NDArray[np.int32]:
    """Take out what is too small or too large, and note it in `dropped`.

    Parameters
    ----------
    what
        What the labels are.
    labels
        (Y, X) int32.
    limits_px
        Smallest and largest area.
    dropped
        Is added to.
    never_debris
        Labels up to this one may be as small as they like.

    Returns
    -------
    np.ndarray
        The labels that stay, unchanged.
    """
    area = np.bincount(labels.ravel())
    area[0] = 0
    low, high = limits_px
    giant = area > high
    debris = (area > 0) & (area < low)
    debris[: never_debris + 1] = False
    out = np.flatnonzero(giant | debris)
    if out.size == 0:
        return labels
    y, x = _centres(labels, area)
    for i in out[np.argsort(-area[out], kind="stable")].tolist():
        size = f"{int(area[i])} px"
        reason = (
            f"{size} is more than a {what} can have ({high:.0f} px): the mask has run away"
            if giant[i]
            else f"{size} is less than a {what} has ({low:.0f} px): debris"
        )
        dropped.append(Dropped(what, float(y[i]), float(x[i]), int(area[i]), reason))
    return np.where((giant | debris)[labels], np.int32(0), labels)


def nothing(
    shape: tuple[int, int], pixel_size_um: float, reason: str, dropped: list[Dropped] | None = None
) -> Segmentation:
    """Describe a field without a cell; `reason` may be added to by the largest thing that was left out."""
    left_out = _largest(dropped or [])
    if left_out and left_out[0].area_px > 1:
        reason = f"{reason}; the largest thing left out: {left_out[0].reason}"
    none, empty = np.zeros(shape, np.int32), np.zeros(0)
    count, flag = np.zeros(0, np.int64), np.zeros(0, bool)
    places = (empty, empty, empty, empty)
    return Segmentation(
        none, none, pixel_size_um, *places, count, count, flag, flag, (), left_out, len(dropped or []), reason
    )


def described(
    cells: NDArray[Any],
    nuclei: NDArray[Any],
    pixel_size_um: float,
    dropped: list[Dropped],
    *,
    without_nucleus: str = "no nucleus was found in it",
    without_outline: str = "",
) -> Segmentation:
    """Give the cells new numbers and measure where and how large they are.

    Parameters
    ----------
    cells, nuclei
        (Y, X) labels; a nucleus has its cell's.
    pixel_size_um
        In the sample.
    dropped
        What was left out.
    without_nucleus
        What is said of a cell that has none.
    without_outline
        What is said of all cells if their outlines are stand-ins; "" if they were seen.

    Raises
    ------
    NothingFound
        If there is no cell.
    """
    cells, nuclei, area, nucleus_area = _numbered(cells, nuclei)
    n = area.size - 1
    if n == 0:
        raise NothingFound("nothing in the field is a cell")
    (y, x), (nucleus_y, nucleus_x) = _centres(cells, area), _centres(nuclei, nucleus_area)
    has_nucleus = nucleus_area > 0
    seen = ~has_nucleus | (area - nucleus_area > _BARE * nucleus_area)
    if without_outline:
        seen[:] = False
    nothing_around = without_outline or "nothing shows the cell around the nucleus"
    reasons = [
        "; ".join([*([] if seen[i] else [nothing_around]), *([] if has_nucleus[i] else [without_nucleus])])
        for i in range(1, n + 1)
    ]
    return Segmentation(
        cells=cells,
        nuclei=nuclei,
        pixel_size_um=pixel_size_um,
        y_px=y[1:],
        x_px=x[1:],
        nucleus_y_px=nucleus_y[1:],
        nucleus_x_px=nucleus_x[1:],
        area_px=area[1:],
        nucleus_area_px=nucleus_area[1:],
        at_border=touches_edge(cells, n)[1:],
        outlined=seen[1:],
        reasons=tuple(reasons),
        dropped=_largest(dropped),
        n_dropped=len(dropped),
        reason="",
    )


def _numbered(
    cells: NDArray[Any], nuclei: NDArray[Any]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Give both label images with numbers from 1 without gaps, and the areas by number, background's as 0."""
    counts = np.bincount(cells.ravel())
    there = counts > 0
    there[0] = False
    n = int(there.sum())
    nuclei = np.where(cells > 0, nuclei, 0)
    if n < there.size - 1:
        names = np.where(there, np.cumsum(there), 0).astype(np.int32)
        cells, nuclei = names[cells], names[nuclei]
    area = np.concatenate([[0], counts[there]]).astype(np.int64)
    nucleus_area = np.bincount(nuclei.ravel(), minlength=n + 1)
    nucleus_area[0] = 0
    return cells.astype(np.int32, copy=False), nuclei.astype(np.int32, copy=False), area, nucleus_area


def _largest(dropped: list[Dropped]) -> tuple[Dropped, ...]:
    return tuple(sorted(dropped, key=lambda one: -one.area_px)[:_MOST_TOLD])


def _centres(labels: NDArray[Any], area: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the centre of area of each label, NaN where there is none of it."""
    here = np.flatnonzero(labels)
    at = labels.ravel()[here]
    rows, columns = np.divmod(here, labels.shape[1])
    size = np.where(area > 0, area, np.nan)
    y, x = (np.bincount(at, weights=place, minlength=area.size) / size for place in (rows, columns))
    return y, x


def touches_edge(labels: NDArray[Any], n: int) -> NDArray[np.bool_]:
    """Say for the labels from 0 to `n` which have a pixel at the edge of the field."""
    touches = np.zeros(n + 1, bool)
    for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touches[line] = True
    return touches
