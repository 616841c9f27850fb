"""From the sample's maps to the light on the sensor: bright field, spatial light interference, fluorescence.

Bright field is the partially coherent image of a weak object (Streibl 1985; Sheppard and Mao 1989):
I = 1 - 2 Im T * phase - 2 Re T * absorption in frequency space, with

    T(q) = 1/|S| * integral over the condenser disc S of P(s) P(s + q) exp(i (w(s + q) - w(s))) ds
    w(s) = 2 pi z sqrt(1/wavelength^2 - |s|^2)          (angular spectrum, dry objective)

Fluorescence uses the same integral with the whole pupil as the source, which is the defocused incoherent OTF
(Hopkins 1955). Spatial light interference (Wang 2011) is not weak: |U0 exp(i shift) + U1|^2 of the full field.
With the stage z above focus, the light imaged is that at -z, seen from the sample.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Transfer = NDArray[np.float32] | NDArray[np.complex64]

__all__ = ["ABSORPTION_PER_RAD", "Optics", "weak_object_transfer"]

ABSORPTION_PER_RAD = 0.012
COHERENCE_UM = 18.0  # radius over which the undiffracted light of the annular illumination is one wave
DARKEST = 0.02
KEPT = 24  # transfer functions kept, enough for a z stack that is cycled through


def weak_object_transfer(
    q_per_um: NDArray[np.float64], z_um: float, wavelength_um: float, objective_na: float, source_na: float
) -> NDArray[np.complex128]:
    """Return T at the radial frequencies `q_per_um` (n,): real part for absorption, imaginary for phase.

    T(0) is 1 at every focus; beyond (objective_na + source_na) / wavelength it is 0.
    """
    limit = objective_na / wavelength_um
    rings, spokes = 40, 33
    radius = source_na / wavelength_um * np.sqrt((np.arange(rings) + 0.5) / rings)
    angle = np.linspace(0, np.pi, spokes)
    weight = np.full(spokes, 1.0)
    weight[[0, -1]] = 0.5
    sx = (radius[:, None] * np.cos(angle)).ravel()
    sy2 = (radius[:, None] * np.sin(angle)).ravel() ** 2
    weights = np.tile(weight, rings) / (weight.sum() * rings)
    shifted = (sx[:, None] + q_per_um[None, :]) ** 2 + sy2[:, None]
    inverse2 = 1 / wavelength_um**2
    w_shifted = np.sqrt(np.maximum(inverse2 - shifted, 0))
    w_source = np.sqrt(inverse2 - sx**2 - sy2)[:, None]
    wave = np.exp(2j * np.pi * z_um * (w_shifted - w_source)) * (shifted <= limit**2)
    return np.asarray(weights @ wave)


@dataclass(frozen=True, slots=True)
class _Key:
    kind: str
    z_um: float
    wavelength_um: float


class Optics:
    """Images maps of one shape; transfer functions are kept for each focus.

    Parameters
    ----------
    shape
        (height, width) of the maps.
    pixel_size_um
        Edge of a pixel in the sample.
    objective_na, condenser_na
        Numerical apertures; their ratio is the coherence of bright field.
    wavelength_um
        Of the transmitted light.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        objective_na: float,
        condenser_na: float,
        wavelength_um: float,
    ) -> None:
        self._shape, self._na, self._condenser_na = shape, objective_na, condenser_na
        self._wavelength_um = wavelength_um
        qy = fft.fftfreq(shape[0], pixel_size_um)
        qx = fft.rfftfreq(shape[1], pixel_size_um)
        self._qy, self._qx = qy.astype(np.float32), qx.astype(np.float32)
        self._q = np.hypot(qy[:, None], qx[None, :]).astype(np.float32)
        self._pixel_size_um = pixel_size_um
        self._kept: OrderedDict[_Key, Transfer] = OrderedDict()

    def spectrum(self, image: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Return the half-plane spectrum (height, width // 2 + 1) complex64 of a real map."""
        return np.asarray(fft.rfft2(image, workers=2))

    def bright_field(
        self, spectrum: NDArray[np.complex64], z_um: float, shift_px: tuple[float, float] = (0.0, 0.0)
    ) -> NDArray[np.float32]:
        """Return intensity relative to the background, from the spectrum of the phase map (rad)."""

        def build() -> Transfer:
            transfer = self._radial(-z_um, self._wavelength_um, self._condenser_na)
            return self._spread(-2 * (transfer.imag + ABSORPTION_PER_RAD * transfer.real))

        transfer = self._keep(_Key("bright field", z_um, self._wavelength_um), build)
        image = self._back(spectrum * transfer, shift_px)
        image += np.float32(1)
        return np.maximum(image, np.float32(DARKEST), out=image)

    def fluorescence(
        self,
        spectrum: NDArray[np.complex64],
        z_um: float,
        wavelength_um: float,
        shift_px: tuple[float, float] = (0.0, 0.0),
    ) -> NDArray[np.float32]:
        """Return the blurred density of a stain, from the spectrum of its map."""

        def build() -> Transfer:
            return self._spread(self._radial(z_um, wavelength_um, self._na).real)

        transfer = self._keep(_Key("fluorescence", z_um, wavelength_um), build)
        image = self._back(spectrum * transfer, shift_px)
        return np.maximum(image, np.float32(0), out=image)

    def interference(
        self, phase_rad: NDArray[np.float32], z_um: float, slm_rad: float, shift_px: tuple[float, float]
    ) -> NDArray[np.float32]:
        """Return the intensity with the undiffracted light delayed by `slm_rad`, relative to the background."""
        field = np.exp((1j - ABSORPTION_PER_RAD) * phase_rad).astype(np.complex64)
        spectrum = fft.fft2(field, workers=2)
        spectrum *= self._ramp(self._shape[1], shift_px)

        def build_pupil() -> Transfer:
            q2 = self._full_q2()
            wave = -2 * np.pi * z_um * np.sqrt(np.maximum(1 / self._wavelength_um**2 - q2, 0))
            wave += 2 * np.pi * z_um / self._wavelength_um
            return np.asarray(np.exp(1j * wave) * (q2 <= (self._na / self._wavelength_um) ** 2), np.complex64)

        def build_undiffracted() -> Transfer:
            return np.exp(-2 * (np.pi * COHERENCE_UM) ** 2 * self._full_q2()).astype(np.float32)

        pupil = self._keep(_Key("pupil", z_um, self._wavelength_um), build_pupil)
        undiffracted = self._keep(_Key("undiffracted", 0.0, self._wavelength_um), build_undiffracted)
        # U0 exp(i s) + U1 = U + (exp(i s) - 1) U0, with both parts seen through the same defocused pupil
        step = np.complex64(np.exp(1j * slm_rad) - 1)
        wave = fft.ifft2(spectrum * pupil * (1 + step * undiffracted), workers=2, overwrite_x=True)
        return np.asarray(wave.real**2 + wave.imag**2, np.float32)

    # ------------------------------------------------------------------ inside

    def _radial(self, z_um: float, wavelength_um: float, source_na: float) -> NDArray[np.complex128]:
        limit = (self._na + source_na) / wavelength_um
        self._samples = np.linspace(0, limit, 320)
        return weak_object_transfer(self._samples, z_um, wavelength_um, self._na, source_na)

    def _spread(self, profile: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return a radial profile on the half plane of frequencies; 0 beyond its end."""
        spread = np.interp(self._q.ravel(), self._samples, profile, right=0.0)
        return spread.reshape(self._q.shape).astype(np.float32)

    def _full_q2(self) -> NDArray[np.float64]:
        qx = fft.fftfreq(self._shape[1], self._pixel_size_um)
        return np.asarray(self._qy[:, None].astype(np.float64) ** 2 + qx[None, :] ** 2)

    def _back(self, spectrum: NDArray[np.complex64], shift_px: tuple[float, float]) -> NDArray[np.float32]:
        if shift_px != (0.0, 0.0):
            spectrum = spectrum * self._ramp(self._shape[1], shift_px)[:, : spectrum.shape[1]]
        return np.asarray(fft.irfft2(spectrum, s=self._shape, workers=2, overwrite_x=True))

    def _ramp(self, width: int, shift_px: tuple[float, float]) -> NDArray[np.complex64]:
        """Return the factor that moves an image down and right by fractions of a pixel."""
        rows = np.exp(-2j * np.pi * shift_px[0] * fft.fftfreq(self._shape[0]))
        cols = np.exp(-2j * np.pi * shift_px[1] * fft.fftfreq(width))
        return np.asarray(rows[:, None] * cols[None, :], np.complex64)

    def _keep(self, key: _Key, build: Callable[[], Transfer]) -> Transfer:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = self._kept[key] = build()
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return made
