"""How well a prediction matches the real stain, beside baselines that understand nothing of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["nrmse", "pearson", "score_table", "ssim"]


def pearson(predicted: np.ndarray, real: np.ndarray) -> float:
    """Pearson correlation over all pixels of a field; 0 where one of the two is constant."""
    a = predicted.astype(np.float64) - predicted.mean(dtype=np.float64)
    b = real.astype(np.float64) - real.mean(dtype=np.float64)
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def ssim(predicted: np.ndarray, real: np.ndarray) -> float:
    """Structural similarity over a field; range: that of the real image, window: Gaussian of sigma 1.5 px.

    References
    ----------
    Wang et al. 2004, doi:10.1109/TIP.2003.819861, with its constants 0.01 and 0.03.
    """
    a, b = predicted.astype(np.float64), real.astype(np.float64)
    span = float(b.max() - b.min()) or 1.0
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2

    def local_mean(image: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.gaussian_filter(image, 1.5, truncate=3.5))

    mean_a, mean_b = local_mean(a), local_mean(b)
    var_a, var_b = local_mean(a * a) - mean_a**2, local_mean(b * b) - mean_b**2
    cov = local_mean(a * b) - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return float((similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def nrmse(predicted: np.ndarray, real: np.ndarray) -> float:
    """Root mean square error over the real image's standard deviation; 1 is what the mean alone reaches."""
    difference = predicted.astype(np.float64) - real.astype(np.float64)
    spread = float(real.std(dtype=np.float64)) or 1.0
    return float(np.sqrt((difference**2).mean())) / spread


def score_table(
    inputs: Sequence[np.ndarray], predicted: Sequence[np.ndarray], real: Sequence[np.ndarray]
) -> dict[str, float]:
    """Score images, and beside them a copy of the input and the mean of the real image.

    Parameters
    ----------
    inputs, predicted, real : sequence of np.ndarray
        One (H, W) image each, in the same unit for `predicted` and `real`.

    Returns
    -------
    dict of str to float
        Means over images: ``pearson``, ``ssim`` and ``nrmse`` of the prediction, the worst image's
        ``pearson_worst``, and the same for the ``copied_input`` (after the line a*x+b that fits best, so
        the inverted copy counts too) and the ``mean``.
    """
    rows: dict[str, list[float]] = {}
    for given, guess, truth in zip(inputs, predicted, real, strict=True):
        copied = np.poly1d(np.polyfit(given.ravel().astype(np.float64), truth.ravel(), 1))(given)
        mean = np.full(truth.shape, truth.mean(dtype=np.float64))
        for prefix, image in (("", guess), ("copied_input_", copied), ("mean_", mean)):
            for measure in (pearson, ssim, nrmse):
                rows.setdefault(prefix + measure.__name__, []).append(measure(image, truth))
    means = {name: float(np.mean(values)) for name, values in rows.items()}
    return means | {"pearson_worst": min(rows["pearson"]), "images": float(len(real))}
