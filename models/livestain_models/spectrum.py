"""Down to which detail a prediction follows the real image: Fourier ring correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from livestain_models._errors import DataError
from livestain_models.score import checked_pair

__all__ = ["RingCorrelation", "ring_correlation"]

_THRESHOLD = 1 / 7


@dataclass(frozen=True, slots=True)
class RingCorrelation:
    """Correlation of two images, frequency by frequency.

    Parameters
    ----------
    frequency_per_um : np.ndarray
        (R,) float64, centres of the rings from the coarsest to the camera's Nyquist frequency.
    correlation : np.ndarray
        (R,) float64 in [-1, 1]; 0 for a ring that is empty in one image.
    """

    frequency_per_um: np.ndarray
    correlation: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over the rings up to Nyquist, each ring counting the same."""
        return float(self.correlation.mean())

    @property
    def cutoff_per_um(self) -> float:
        """Where the curve first falls below 1/7, in 1/um, between rings by a straight line.

        0 if it starts below: nothing agrees. The last ring's frequency if it never falls so far.
        """
        below = np.flatnonzero(self.correlation < _THRESHOLD)
        if not below.size:
            return float(self.frequency_per_um[-1])
        last = int(below[0])
        if last == 0:
            return 0.0
        (f0, f1), (c0, c1) = self.frequency_per_um[last - 1 : last + 1], self.correlation[last - 1 : last + 1]
        return float(f0 + (f1 - f0) * (c0 - _THRESHOLD) / (c0 - c1))


def ring_correlation(predicted: np.ndarray, real: np.ndarray, pixel_size_um: float) -> RingCorrelation:
    """Correlate the spectra of two images ring by ring.

    FRC(f) = Re sum(A conj(B)) / sqrt(sum |A|^2 sum |B|^2) over the coefficients with a spatial frequency around f.
    Means are taken off and a Hann window laid over both images first, so that their borders do not correlate. Unlike
    in measuring a microscope's resolution, only one of the two images is noisy: 1/7 is a convention here, the same
    for all models.

    Parameters
    ----------
    predicted, real : np.ndarray
        (H, W) of at least 16 x 16 px.
    pixel_size_um : float
        In the sample.

    Raises
    ------
    DataError
        The images are too small, or do not fit each other.

    References
    ----------
    Saxton and Baumeister 1982, doi:10.1111/j.1365-2818.1982.tb00405.x; the threshold 1/7: Nieuwenhuizen et al.
    2013, doi:10.1038/nmeth.2448.
    """
    a, b = checked_pair(predicted, real)
    if min(a.shape) < 16:
        raise DataError(f"Fourier ring correlation needs at least 16 x 16 px, got {a.shape}. Score a larger field.")
    window = np.outer(np.hanning(a.shape[0]), np.hanning(a.shape[1]))
    # Of one grey value, nothing but rounding errors would be left: those must not correlate.
    spectrum_a, spectrum_b = (
        fft.fft2((image - image.mean()) * window) * float(image.max() > image.min()) for image in (a, b)
    )
    frequency = np.hypot(fft.fftfreq(a.shape[0])[:, None], fft.fftfreq(a.shape[1])[None, :])  # cycles per px
    rings = min(a.shape) // 4  # two coefficients wide: a thinner ring holds too few of them to be steady
    ring = np.floor(frequency * 2 * rings).astype(int)
    inside = (ring < rings) & (frequency > 0)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring[inside], values[inside], minlength=rings)

    cross = total((spectrum_a * spectrum_b.conj()).real)
    norm = np.sqrt(total(np.abs(spectrum_a) ** 2) * total(np.abs(spectrum_b) ** 2))
    correlation = np.divide(cross, norm, out=np.zeros(rings), where=norm > 0)
    centres = (np.arange(rings) + 0.5) / (2 * rings * pixel_size_um)
    return RingCorrelation(centres, np.clip(correlation, -1, 1))
