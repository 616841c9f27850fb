"""Cells and nuclei of one time point, from predicted or real stains, distance maps or phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from scipy import ndimage

from livestain._errors import ExperimentError
from livestain.measure._foreground import bright_part, phase_part, pooled, shrunk, smoothed, spread_out
from livestain.measure._hills import hills
from livestain.measure._objects import Dropped, NothingFound, Segmentation, described, kept, nothing, touches_edge

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Dropped", "Limits", "Plane", "Segmentation", "segment"]

Labels: TypeAlias = Any  # (Y, X) int32, or fewer, coarse pixels
Inside: TypeAlias = Any  # (Y, X) bool
_EDGE = 0.06  # of a distance map, smoothed by a pixel: where the object ends
_LEAST_TOP = 0.4  # of a distance map: every real object reaches 1, what stays below was not sure to be one
_LEAST_TOP_CUT = 0.2  # where the field cuts an object, its top may lie outside
_ROUGHEST = 0.25  # of a distance map's own height: noise is 0.5 and more, a prediction 0.02
_PART_DISTANCE, _PART_OUTLINE, _PART_PHASE = 0.8, 0.85, 0.94  # hills are one above this share of the lower summit
# Of a predicted stain, 65535 being twice the brightest of training: dust in empty simulated fields reached 3600, the
# membranes of single cells 6400.
_LEAST_STAIN_GREY = 4500
_COARSE_UM = 0.65  # hills and neighbourhoods are found on pixels of about this size
_SMOOTHING_UM = 0.33
_STAIN_SMOOTHING_UM = 0.5
_PHASE_SMOOTHING_UM = 2.4  # grains within a cell are smaller, cells are larger
_HOLE_UM2 = 25.0  # holes up to this are part of the cell around them
_NUCLEUS_EDGE = 0.3  # of the way from dark to stained: a dome is thin at its edge
_FEW = 100  # objects are never too many


@dataclass(frozen=True, slots=True)
class Plane:
    """An image that cells are looked for in.

    Attributes
    ----------
    image
        (Y, X), any number type; a distance map as uint16, where 65535 is 1.
    kind
        "distance": distance to the object's edge over the greatest within it. "stain": predicted fluorescence.
        "image": fluorescence from a camera, which may have hot pixels. "phase": phase or another measure of thickness,
        about even where there is no cell.
    """

    image: NDArray[Any]
    kind: Literal["distance", "stain", "phase", "image"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What can be a cell.

    Attributes
    ----------
    min_nucleus_um2, max_nucleus_um2, min_cell_um2, max_cell_um2
        What is smaller is debris, what is larger a mask that has run away.
    max_share
        Of the field: a larger object is a mask that has run away, whatever its area.
    max_per_mm2
        Objects; more of them are noise.
    reach_um
        How far from its nucleus a cell can reach.
    rim_um
        How far a membrane stain's light reaches beyond the cell, where the stain is cut at half its brightness: half
        the membrane's width, and the blur. 0 for a stain of the whole cell.
    around_nucleus_um
        Where no plane shows the cells, the nucleus grown by this stands for the cell.
    """

    min_nucleus_um2: float = 8.0
    max_nucleus_um2: float = 3_000.0
    min_cell_um2: float = 30.0
    max_cell_um2: float = 20_000.0
    max_share: float = 0.5
    max_per_mm2: float = 20_000.0
    reach_um: float = 30.0
    rim_um: float = 0.65
    around_nucleus_um: float = 3.0


def segment(
    nuclei: Plane | None, cells: Plane | None, *, pixel_size_um: float, limits: Limits | None = None
) -> Segmentation:
    """Find nuclei and cells; with both planes every nucleus becomes one cell, grown inside what shows the cells.

    Parameters
    ----------
    nuclei, cells
        What shows them; one may be None.
    pixel_size_um
        In the sample.
    limits
        What can be a cell.

    Returns
    -------
    Segmentation
        Without objects, and with the reason, where nothing stands out or all is noise.

    Raises
    ------
    ExperimentError
        If the pixel size is unknown, there is no plane, or the planes do not fit each other.
    """
    planes = {name: plane for name, plane in (("nuclei", nuclei), ("cells", cells)) if plane is not None}
    shape = _checked(planes, pixel_size_um)
    if bad := next((name for name, plane in planes.items() if not np.isfinite(plane.image).all()), None):
        return nothing(shape, pixel_size_um, f"the plane of the {bad} holds values that are not finite")
    finder = _Finder(shape, pixel_size_um, limits or Limits())
    try:
        return finder.found(nuclei, cells)
    except NothingFound as why:
        return nothing(shape, pixel_size_um, str(why), finder.dropped)


def _checked(planes: dict[str, Plane], pixel_size_um: float) -> tuple[int, int]:
    if not (np.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise ExperimentError(
            f"cells cannot be measured with a pixel size of {pixel_size_um} um. Add ConfigPixelSize and PixelSize_um "
            "lines to the .cfg, or pixel_size_um to the rig."
        )
    shapes = {name: plane.image.shape for name, plane in planes.items()}
    if not shapes or len(set(shapes.values())) > 1 or any(len(s) != 2 or 0 in s for s in shapes.values()):
        raise ExperimentError(
            f"cells are found in planes (Y, X) of one shape, got {shapes or 'none'}. Give a plane that shows the "
            "nuclei, one that shows the cells, or both, of the same field."
        )
    height, width = next(iter(shapes.values()))
    return height, width


class _Finder:
    """The steps of one segmentation, with the scale they share; `NothingFound` ends them early."""

    def __init__(self, shape: tuple[int, int], pixel_size_um: float, limits: Limits) -> None:
        self._shape, self._px, self._limits = shape, pixel_size_um, limits
        self._step = max(1, round(_COARSE_UM / pixel_size_um))
        self.dropped: list[Dropped] = []

    def found(self, nuclei: Plane | None, cells: Plane | None) -> Segmentation:
        if nuclei is not None and cells is not None:
            return self.cells_of_nuclei(nuclei, cells)
        if nuclei is not None:
            return self.nuclei_alone(nuclei)
        assert cells is not None  # noqa: S101  (checked: there is one of them)
        return self.cells_alone(cells)

    def cells_alone(self, plane: Plane) -> Segmentation:
        bodies, inside = self._bodies(plane, None)
        cells = self._cells(self._spread(bodies, inside), 0)
        none = np.zeros(self._shape, np.int32)
        return described(cells, none, self._px, self.dropped, without_nucleus="no plane shows the nuclei")

    def nuclei_alone(self, plane: Plane) -> Segmentation:
        return self._grown(self._nuclei(plane), "no plane shows the cells")

    def cells_of_nuclei(self, nuclei: Plane, plane: Plane) -> Segmentation:
        try:
            kernels = self._nuclei(nuclei)
        except NothingFound:
            kernels = np.zeros(self._shape, np.int32)  # the cells may show all the same
        try:
            bodies, inside = self._bodies(plane, kernels)
        except NothingFound as why:
            if not kernels.any():
                raise
            return self._grown(kernels, str(why))
        cells = self._spread(self._shared(bodies, kernels), inside)
        cells = self._cells(np.where(kernels > 0, kernels, cells), int(kernels.max()))
        return described(cells, kernels, self._px, self.dropped)

    def _grown(self, nuclei: Labels, why: str) -> Segmentation:
        grow_um = self._limits.around_nucleus_um
        nearest, away_um = self._nearest(pooled(nuclei, self._step))
        ring = np.where(away_um <= grow_um, nearest, 0)
        cells = np.where(nuclei > 0, nuclei, spread_out(ring, self._step, self._shape))
        note = f"{why}: the nucleus grown by {grow_um:g} um stands for the cell"
        return described(cells, nuclei, self._px, self.dropped, without_outline=note)

    def _nuclei(self, plane: Plane) -> Labels:
        limits = (self._limits.min_nucleus_um2, self._limits.max_nucleus_um2)
        found = kept("nucleus", self._kernels(plane), self._limits_px(*limits), self.dropped)
        there = np.bincount(found.ravel()) > 0
        there[0] = False
        if not there.any():
            raise NothingFound("no nucleus in the field")
        return np.where(there, np.cumsum(there), 0).astype(np.int32)[found]  # from 1 without gaps: cells count on

    def _cells(self, labels: Labels, n_with_nucleus: int) -> Labels:
        limits = (self._limits.min_cell_um2, self._limits.max_cell_um2)
        found = kept("cell", labels, self._limits_px(*limits), self.dropped, never_debris=n_with_nucleus)
        n, field_um2 = np.count_nonzero(np.bincount(found.ravel())[1:]), found.size * self._px**2
        if n > max(_FEW, self._limits.max_per_mm2 * field_um2 / 1e6):
            raise NothingFound(
                f"{n} objects in a field of {field_um2:.0f} um2 are more than cells can be "
                f"({self._limits.max_per_mm2:g} a mm2): the plane is noise"
            )
        return found

    def _limits_px(self, low_um2: float, high_um2: float) -> tuple[float, float]:
        share_px = self._limits.max_share * self._shape[0] * self._shape[1]
        return low_um2 / self._px**2, min(high_um2 / self._px**2, share_px)

    # ------------------------------------------------------------------ what a plane shows

    def _kernels(self, plane: Plane) -> Labels:
        if plane.kind == "distance":
            return self._spread(*self._of_distances(plane.image))
        inside = self._stained(plane, _STAIN_SMOOTHING_UM, _NUCLEUS_EDGE)
        if inside is None:
            raise NothingFound("nothing stands out in the plane of the nuclei")
        inside = np.asarray(ndimage.binary_fill_holes(inside))
        return self._spread(_parted_by_outline(pooled(inside, self._step)), inside)

    def _bodies(self, plane: Plane, nuclei: Labels | None) -> tuple[Labels, Inside]:
        """Give what shows the cells: coarse labels that hold a nucleus each, or several that part them; the mask."""
        if plane.kind == "distance":
            return self._of_distances(plane.image)
        if plane.kind == "phase":
            inside, height = self._thick(plane.image)
        else:
            inside, height = self._stained(plane, _SMOOTHING_UM, 0.5, self._limits.rim_um), None
        if inside is None:
            raise NothingFound("nothing stands out in the plane of the cells")
        inside = self._without_holes(inside if nuclei is None else inside | (nuclei > 0))
        coarse = pooled(inside, self._step)
        if nuclei is not None and nuclei.any():
            return ndimage.label(coarse)[0], inside
        return _parted_by_outline(coarse) if height is None else hills(height, coarse, _PART_PHASE), inside

    def _of_distances(self, image: NDArray[Any]) -> tuple[Labels, Inside]:
        raw = image.astype(np.float32) * np.float32(1 / 65535)
        smooth = smoothed(raw, max(_SMOOTHING_UM / self._px, 0.5))
        inside: Inside = smooth > _EDGE
        if not inside.any():
            raise NothingFound("the distance map is empty")
        height = smooth[inside]
        if np.abs(raw[inside] - height).mean() > _ROUGHEST * height.mean():
            raise NothingFound("the distance map is noise")
        coarse = pooled(smooth, self._step)
        labels = hills(coarse, pooled(inside, self._step), _PART_DISTANCE)
        tops = np.zeros(int(labels.max()) + 1, np.float32)
        np.maximum.at(tops, labels, coarse)
        least = np.where(touches_edge(labels, tops.size - 1), _LEAST_TOP_CUT, _LEAST_TOP)
        return np.where((tops >= least)[labels], labels, 0), inside

    def _stained(self, plane: Plane, smoothing_um: float, share: float, rim_um: float = 0.0) -> Inside | None:
        image = ndimage.median_filter(plane.image, 3) if plane.kind == "image" else plane.image
        smooth = smoothed(image, max(smoothing_um / self._px, 0.7))
        inside = bright_part(smooth, share)
        if inside is None or (plane.kind == "stain" and np.median(smooth[inside]) < _LEAST_STAIN_GREY):
            return None
        return shrunk(inside, round(rim_um / self._px))

    def _thick(self, image: NDArray[Any]) -> tuple[Inside | None, NDArray[np.float32]]:
        smooth = smoothed(image, max(_SMOOTHING_UM / self._px, 1.0))
        inside, level = phase_part(smooth)
        wide = smoothed(smooth[:: self._step, :: self._step], max(_PHASE_SMOOTHING_UM / (self._px * self._step), 0.5))
        return inside, np.maximum(wide - np.float32(level), 0)

    def _without_holes(self, inside: Inside) -> Inside:
        outside, _ = ndimage.label(~inside)
        small = np.bincount(outside.ravel()) * self._px**2 <= _HOLE_UM2
        small[0] = False
        return np.asarray(inside | small[outside])

    def _spread(self, coarse: Labels, inside: Inside) -> Labels:
        return np.where(inside, spread_out(coarse, self._step, self._shape), 0).astype(np.int32, copy=False)

    # ------------------------------------------------------------------ which cell is whose

    def _nearest(self, seeds: Labels) -> tuple[Labels, NDArray[np.float32]]:
        """Give each coarse pixel's nearest seed and how far it is, in um."""
        y, x = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
        rows, columns = np.ogrid[: seeds.shape[0], : seeds.shape[1]]
        away_px = np.hypot((y - rows).astype(np.float32), (x - columns).astype(np.float32))
        return seeds[y, x], away_px * np.float32(self._px * self._step)

    def _shared(self, bodies: Labels, nuclei: Labels) -> Labels:
        """Give the cells, coarse: those with a nucleus under its number, those without after them."""
        seeds = pooled(nuclei, self._step)
        n, n_bodies = int(nuclei.max()), int(bodies.max())
        if n == 0:
            return bodies
        body_of = _fullest(seeds, bodies, n, n_bodies)
        bodies = np.where(seeds > 0, body_of[seeds], bodies)
        holds = np.bincount(body_of[1:], minlength=max(n_bodies, int(body_of.max())) + 1)
        only = np.zeros(holds.size, np.int64)
        only[body_of[1:]] = np.arange(1, n + 1)
        near, away_um = self._nearest(seeds)
        owner = np.where(holds[bodies] == 1, only[bodies], np.where(body_of[near] == bodies, near, 0))
        owner = np.where((bodies > 0) & (away_um <= self._limits.reach_um), owner, 0)
        without = (bodies > 0) & (holds[bodies] == 0)
        owner = np.where(without, bodies + n, owner)
        pieces, _ = ndimage.label((owner == 0) & (bodies > 0))  # too far from every nucleus of their body
        return np.where(pieces > 0, pieces + (n + int(bodies.max())), owner)


def _parted_by_outline(inside: Inside) -> Labels:
    """Part what touches at its waists."""
    depth = np.asarray(ndimage.distance_transform_edt(inside), np.float32)
    return hills(smoothed(depth, 1.0), inside, _PART_OUTLINE)


def _fullest(nuclei: Labels, bodies: Labels, n: int, n_bodies: int) -> NDArray[np.int64]:
    """Give the body that most of each nucleus lies in; one that lies in none is a body of its own."""
    here = nuclei > 0
    pairs, counts = np.unique(nuclei[here].astype(np.int64) * (n_bodies + 1) + bodies[here], return_counts=True)
    nucleus, body = np.divmod(pairs, n_bodies + 1)
    order = np.argsort(np.where(body > 0, counts, 0), kind="stable")  # the last one written is the largest
    body_of = np.zeros(n + 1, np.int64)
    body_of[nucleus[order]] = body[order]
    alone = np.flatnonzero(body_of[1:] == 0) + 1
    body_of[alone] = n_bodies + 1 + np.arange(alone.size)
    return body_of
