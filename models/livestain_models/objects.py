"""Cells as objects: segmentation of predicted and real stain by the same rule, matched and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage, optimize

from livestain_models._errors import DataError
from livestain_models.score import pearson

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ObjectScores",
    "foreground",
    "match_cells",
    "score_objects",
    "segment",
    "segment_around",
    "segment_map",
    "typical_diameter_um",
]

_SMOOTHING_UM, _SMOOTHING_PX = 0.5, 2.0  # whichever is less: noise is a matter of pixels, small cells one of um
_DISTINCT = 4.0  # noise split by Otsu gives 2.7, an even ramp as well
_SMALLEST_SHARE = 0.15  # of a typical cell's area
_FEWEST_CELLS = 3
_EDGE, _HILL = 0.1, 0.15  # of a relative distance map: where objects end, and what parts two of them
_TIGHT = 1.2  # cells' outlines lie where the root of a membrane stain is so much above Otsu's threshold
_HALFWAY_UM = 8.0  # how far from a nucleus being far weighs as much as the brightest membrane
_LARGEST_HOLE_UM2 = 15.0  # larger ones lie between cells, not in them


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """Cells of the prediction against those of the real stain, in one field.

    Parameters
    ----------
    n_predicted, n_real, n_matched : int
        Cells, and pairs with an IoU of at least 0.5.
    f1 : float
        2 matched / (predicted + real). NaN where neither has a cell: there was nothing to find and nothing was
        invented, and a 1 would let empty fields lift a mean.
    count_error : float
        abs(predicted - real) / real; NaN without a real cell.
    area_error, intensity_error : float
        Median over matched cells of the relative error (absolute) of area and of integrated intensity above
        background; NaN without a match.
    intensity_pearson : float
        Correlation of integrated intensity over matched cells; NaN with fewer than three.
    """

    n_predicted: int
    n_real: int
    n_matched: int
    f1: float
    count_error: float
    area_error: float
    intensity_error: float
    intensity_pearson: float


def foreground(image: np.ndarray, pixel_size_um: float) -> NDArray[np.bool_]:
    """Where a stain is bright: the smoothed square root above Otsu's threshold, or nowhere if nothing stands out.

    The root, above the first percentile, makes shot noise even and lets dim cells pass beside very bright ones. It
    gives the same for a*x + b (a > 0). Something stands out where the medians of bright and dark part are 4 robust
    standard deviations of the dark part from each other.

    Parameters
    ----------
    image : np.ndarray
        (H, W), any number type.
    pixel_size_um : float
        In the sample.

    Returns
    -------
    np.ndarray
        (H, W) bool.

    References
    ----------
    Otsu 1979, doi:10.1109/TSMC.1979.4310076.
    """
    root, threshold = _root(image, pixel_size_um)
    bright: NDArray[np.bool_] = root > threshold
    if not bright.any():
        return bright
    dark = root[~bright]
    centre = float(np.median(dark))
    spread = 1.4826 * float(np.median(np.abs(dark - centre)))
    if float(np.median(root[bright])) - centre < _DISTINCT * spread:
        return np.zeros(image.shape, bool)
    return bright


def _root(image: np.ndarray, pixel_size_um: float) -> tuple[NDArray[np.float64], float]:
    """Give the smoothed square root of a stain, and Otsu's threshold; where all is even, one that nothing exceeds."""
    from skimage.filters import threshold_otsu

    smooth = ndimage.gaussian_filter(image.astype(np.float64), _smoothing_px(pixel_size_um))
    root = np.sqrt(np.clip(smooth - np.percentile(smooth, 1), 0, None))
    even = root.max() == root.min()
    return root, float(root.max() if even else threshold_otsu(root))  # type: ignore[no-untyped-call]


def _smoothing_px(pixel_size_um: float) -> float:
    return min(_SMOOTHING_UM / pixel_size_um, _SMOOTHING_PX)


def typical_diameter_um(image: np.ndarray, pixel_size_um: float) -> float | None:
    """Diameter of the typical cell: twice the median height of the distance map's hills; None without any.

    Hills count by their area, since specks are many but no cells. In clusters every cell has a hill of its own.
    """
    from skimage.feature import peak_local_max

    bright = ndimage.binary_fill_holes(foreground(image, pixel_size_um))
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(bright), _smoothing_px(pixel_size_um))
    inside = bright.astype(np.int32)
    peaks = peak_local_max(depth, 2, labels=inside, exclude_border=False)  # type: ignore[no-untyped-call]
    if not len(peaks):
        return None
    heights = np.sort(depth[tuple(peaks.T)])
    areas = np.cumsum(heights**2)
    return float(2 * heights[np.searchsorted(areas, areas[-1] / 2)] * pixel_size_um)


def segment(image: np.ndarray, pixel_size_um: float, diameter_um: float | None = None) -> NDArray[np.int32]:
    """Find cells in a stain: foreground, then touching cells parted along the waist of their distance map.

    Parameters
    ----------
    image : np.ndarray
        (H, W), any number type.
    pixel_size_um : float
        In the sample.
    diameter_um : float, optional
        Of a typical cell; without it, the image's own. Pieces below 15 % of its area are dropped.

    Returns
    -------
    np.ndarray
        (H, W) int32; 0 is background, cells from 1 without gaps.

    References
    ----------
    Watershed on the distance map: Vincent and Soille 1991, doi:10.1109/34.87344.
    """
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    bright = ndimage.binary_fill_holes(foreground(image, pixel_size_um))
    diameter_um = diameter_um or typical_diameter_um(image, pixel_size_um)
    if diameter_um is None or not bright.any():
        return np.zeros(image.shape, np.int32)
    diameter_px = diameter_um / pixel_size_um
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(bright), max(diameter_px / 16, 0.5))
    pieces, _ = ndimage.label(bright)
    apart_px = max(1, round(diameter_px / 4))
    peaks = peak_local_max(depth, apart_px, labels=pieces, exclude_border=False)  # type: ignore[no-untyped-call]
    markers = np.zeros(image.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-depth, markers, mask=bright)  # type: ignore[no-untyped-call]
    return _without_specks(labels, _SMALLEST_SHARE * np.pi / 4 * diameter_px**2)


def segment_around(seeds: np.ndarray, image: np.ndarray, pixel_size_um: float) -> NDArray[np.int32]:
    """Find whole cells in a membrane stain, one around each nucleus; they meet where it is bright, or half-way.

    Parameters
    ----------
    seeds : np.ndarray
        (H, W) integer labels of nuclei, 0 is background.
    image : np.ndarray
        (H, W), any number type: a stain of membranes or of whole cells.
    pixel_size_um : float
        In the sample.

    Returns
    -------
    np.ndarray
        (H, W) int32, each cell with its nucleus' number.

    References
    ----------
    Seeded watershed: Meyer and Beucher 1990, doi:10.1016/1047-3203(90)90014-M.
    """
    from skimage.segmentation import watershed

    smooth = ndimage.gaussian_filter(image.astype(np.float64), _smoothing_px(pixel_size_um))
    dark, bright = np.percentile(smooth, [1, 99])
    away_um = ndimage.distance_transform_edt(seeds == 0) * pixel_size_um
    height = (smooth - dark) / max(bright - dark, 1e-12) + away_um / _HALFWAY_UM
    # Where nuclei are there are cells, so it is not asked whether the stain stands out: in a full dish it hardly does.
    root, threshold = _root(image, pixel_size_um)
    inside = (root > _TIGHT * threshold) | (seeds > 0)
    holes, _ = ndimage.label(~inside)
    small = np.bincount(holes.ravel()) * pixel_size_um**2 < _LARGEST_HOLE_UM2
    small[0] = False
    found = watershed(height, seeds, mask=inside | small[holes])  # type: ignore[no-untyped-call]
    return np.asarray(found, np.int32)


def segment_map(distance: np.ndarray, pixel_size_um: float) -> NDArray[np.int32]:
    """Find objects in a relative distance map: each of its hills is one, up to the valleys between them.

    Parameters
    ----------
    distance : np.ndarray
        (H, W) float, 1 in the middle of objects, or what a network makes of it, and 0 outside.
    pixel_size_um : float
        In the sample.

    Returns
    -------
    np.ndarray
        (H, W) int32; 0 is background, objects from 1 without gaps.

    References
    ----------
    Maxima of a given height: Soille 2004, Morphological Image Analysis, section 6.3.4.
    """
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    smooth = ndimage.gaussian_filter(distance.astype(np.float64), _smoothing_px(pixel_size_um))
    inside = smooth > _EDGE
    seeds, _ = ndimage.label(h_maxima(smooth, _HILL) * inside)  # type: ignore[no-untyped-call]
    return np.asarray(watershed(-smooth, seeds, mask=inside), np.int32)  # type: ignore[no-untyped-call]


def _without_specks(labels: np.ndarray, smallest_px: float) -> NDArray[np.int32]:
    sizes = np.bincount(labels.ravel())
    keep = sizes >= max(smallest_px, 1)
    keep[0] = False
    names = np.zeros(len(sizes), np.int32)
    names[keep] = np.arange(1, keep.sum() + 1)
    return np.asarray(names[labels])


def match_cells(predicted: np.ndarray, real: np.ndarray, iou: float = 0.5) -> NDArray[np.int64]:
    """Match cells one to one so that as many as possible overlap by at least `iou`, then as well as possible.

    Parameters
    ----------
    predicted, real : np.ndarray
        (H, W) integer labels, 0 is background; numbers may have gaps.
    iou : float
        Intersection over union, above 0.

    Returns
    -------
    np.ndarray
        (M, 2) int64, the labels of each pair.

    Raises
    ------
    DataError
        The masks' shapes differ, or they are no labels.
    """
    if predicted.shape != real.shape or not all(mask.dtype.kind in "iub" for mask in (predicted, real)):
        raise DataError(
            f"Cells are matched between label masks of one shape, got {predicted.dtype} {predicted.shape} and "
            f"{real.dtype} {real.shape}."
        )
    names_p, p = np.unique(predicted, return_inverse=True)
    names_r, r = np.unique(real, return_inverse=True)
    shared = np.zeros((names_p.size, names_r.size))
    np.add.at(shared, (p.ravel(), r.ravel()), 1)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    overlap = overlap[names_p != 0][:, names_r != 0]
    names_p, names_r = names_p[names_p != 0], names_r[names_r != 0]
    good = overlap >= iou
    # One more match outweighs any gain of overlap.
    rows, columns = optimize.linear_sum_assignment(
        np.where(good, 1 + overlap / (1 + min(good.shape)), 0), maximize=True
    )
    kept = good[rows, columns]
    return np.stack([names_p[rows[kept]], names_r[columns[kept]]], axis=1).astype(np.int64)


def score_objects(
    predicted: np.ndarray,
    real: np.ndarray,
    pixel_size_um: float,
    *,
    diameter_um: float | None = None,
    predicted_cells: np.ndarray | None = None,
    real_cells: np.ndarray | None = None,
) -> ObjectScores:
    """Segment both images by the same rule (or take the masks given) and compare their cells.

    Parameters
    ----------
    predicted, real : np.ndarray
        (H, W) in the same unit.
    pixel_size_um : float
        In the sample.
    diameter_um : float, optional
        Of a typical cell; without it, the real image's own serves for both.
    predicted_cells, real_cells : np.ndarray, optional
        (H, W) labels that replace a segmentation.
    """
    diameter_um = diameter_um or typical_diameter_um(real, pixel_size_um)
    ours = segment(predicted, pixel_size_um, diameter_um) if predicted_cells is None else predicted_cells
    theirs = segment(real, pixel_size_um, diameter_um) if real_cells is None else real_cells
    pairs = match_cells(ours, theirs)
    n_ours, n_theirs = (int(np.unique(mask[mask != 0]).size) for mask in (ours, theirs))
    areas = _sums(np.ones(real.shape), ours, pairs[:, 0]), _sums(np.ones(real.shape), theirs, pairs[:, 1])
    light = _light(predicted, ours, pairs[:, 0]), _light(real, theirs, pairs[:, 1])
    nan = float("nan")
    return ObjectScores(
        n_ours,
        n_theirs,
        len(pairs),
        2 * len(pairs) / (n_ours + n_theirs) if n_ours + n_theirs else nan,
        abs(n_ours - n_theirs) / n_theirs if n_theirs else nan,
        _median_error(*areas),
        _median_error(*light),
        pearson(light[0][None], light[1][None]) if len(pairs) >= _FEWEST_CELLS else nan,
    )


def _light(image: np.ndarray, labels: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Integrate intensity above the median of what is no cell."""
    outside = image[labels == 0]
    background = float(np.median(outside)) if outside.size else 0.0
    return _sums(image - background, labels, cells)


def _sums(image: np.ndarray, labels: np.ndarray, cells: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.sum_labels(image.astype(np.float64), labels, cells), np.float64).reshape(len(cells))


def _median_error(predicted: np.ndarray, real: np.ndarray) -> float:
    known = real != 0
    return float(np.median(np.abs(predicted - real)[known] / np.abs(real)[known])) if known.any() else float("nan")
