"""The simulated microscope: one sample, one light path, one sensor, shared by the devices of one core."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from livestain._errors import RigError
from livestain.simulate._bench import Bench
from livestain.simulate._cells import STATES, Birth, Population
from livestain.simulate._optics import Optics
from livestain.simulate._scene import WAVELENGTH_UM, Field, Kind, Painter
from livestain.simulate._sensor import READ_NOISE, Sensor
from livestain.simulate._settings import Settings, changed
from livestain.simulate._shape import NUCLEUS_SHARE

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CELL_TABLE", "CHANNELS", "Microscope", "Truth"]

CHANNELS = ("BF", "Nuclei", "Membrane", "Dead", "Phase")

# stain -> (emission wavelength um, counts per ms where its density is 1, background counts per ms)
STAINS: dict[str, tuple[Kind, float, float, float]] = {
    "Nuclei": ("nuclei", 0.46, 260.0, 9.0),
    "Membrane": ("membrane", 0.60, 220.0, 11.0),
    "Dead": ("dead", 0.64, 300.0, 7.0),
}
LAMP_PER_MS = 1200.0
PHASE_LAMP = 0.35  # interference is up to nine times brighter than the background; this leaves it headroom
MARGIN_UM = 11.0  # light from this far outside the field is blurred into it

CELL_TABLE = np.dtype(
    [
        ("id", "i4"),
        ("parent", "i4"),
        ("x_um", "f8"),
        ("y_um", "f8"),
        ("radius_um", "f8"),
        ("dry_mass_pg", "f8"),
        ("nucleus_mass_pg", "f8"),
        ("state", "U8"),
        ("stain_uptake", "f8"),
        ("cycle_phase", "f8"),
        ("age_s", "f8"),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is really there, as the latest exposure saw it, at the present stage position.

    Attributes
    ----------
    time_s
        Sample time of the scene.
    cells
        Structured array (`CELL_TABLE`), one row for each cell with a pixel in the field. Positions are stage
        coordinates; `state` is "alive", "injured" or "dead".
    population
        The same for every cell of the sample, in the world's own coordinates.
    cell_labels, nucleus_labels
        (height, width) uint16; the value is the cell's id, 0 is background. Ids last as long as a cell does.
    lineage
        Every cell that ever lived, in order of id.
    """

    time_s: float
    cells: NDArray[np.void]
    population: NDArray[np.void]
    cell_labels: NDArray[np.uint16]
    nucleus_labels: NDArray[np.uint16]
    lineage: tuple[Birth, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """What is built from the settings at the first exposure."""

    population: Population
    painter: Painter
    optics: Optics
    sensor: Sensor
    world_px: int
    padded: tuple[int, int]


class Microscope:
    """A sample under a microscope; thread-safe.

    The field follows the stage: its centre is the stage position (x to the right, y down), and a cell at x_um is
    in column (x_um - stage x) / pixel size + width / 2. The sample is periodic with `world_um` (or more, where
    the field needs it).
    """

    def __init__(self, settings: Settings | None = None, bench: Bench | None = None) -> None:
        self.bench = bench or Bench()
        self._settings = settings or Settings()
        self._lock = threading.RLock()
        self._sample: _Sample | None = None
        self._restart()

    # ------------------------------------------------------------------ settings

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def set(self, name: str, value: object) -> None:
        """Set the property `name` (see `PROPERTIES`); most start a new sample.

        Raises
        ------
        RigError
            The value cannot be.
        """
        with self._lock:
            self._take(changed(self._settings, name, value))

    def set_sensor(self, height: int, width: int) -> None:
        """Set the camera's size in pixels; starts a new sample."""
        with self._lock:
            self._take(replace(self._settings, height=height, width=width))

    def _take(self, new: Settings) -> None:
        if new == self._settings:
            return
        gentle = {"seconds_per_exposure", "scene_step_s", "speed", "death_rate_per_h", "focus_um"}
        gentle |= {"bright_field_offset_um"}
        differs = {name for name in new.__slots__ if getattr(new, name) != getattr(self._settings, name)}
        self._settings = new
        if differs <= gentle:
            self._pictures.clear()
            if self._sample is not None:
                self._sample.population.update_settings(new)
        else:
            self._restart()

    def _restart(self) -> None:
        self._sample = None
        self._exposures = 0
        self._sample_time_s = 3600 * self._settings.start_h
        self._clock_start_s: float | None = None
        self._maps: dict[tuple[Kind, Field, float], NDArray[np.float32]] = {}
        self._spectra: dict[tuple[Kind, Field, float], NDArray[np.complex64]] = {}
        self._pictures: dict[object, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    # ------------------------------------------------------------------ exposing

    @property
    def time_s(self) -> float:
        """Sample time of the scene that the latest exposure saw."""
        sample = self._sample
        return 0.0 if sample is None else sample.population.time_s

    def expose(self, exposure_ms: float, roi: tuple[int, int, int, int] | None = None) -> NDArray[np.uint16]:
        """Take one image and let the sample's clock go on.

        Parameters
        ----------
        exposure_ms
            Light gathered is proportional to it; this call does not wait for it.
        roi
            x, y, width, height on the sensor; the whole sensor without.

        Returns
        -------
        image
            (height, width) uint16.
        """
        with self._lock:
            sample = self._built()
            self._tick(sample)
            electrons, noise = self._expected(sample, exposure_ms)
            if roi is not None:
                x, y, width, height = roi
                cut = (slice(y, y + height), slice(x, x + width))
                electrons, noise = electrons[cut], noise[cut]
            image = sample.sensor.counts(electrons, noise, self._exposures)
            self._exposures += 1
            return image

    def let_pass(self) -> None:
        """Let the sample's clock go on as an exposure would, and take no image."""
        with self._lock:
            self._tick(self._built())
            self._exposures += 1

    def expected(self, exposure_ms: float) -> NDArray[np.float32]:
        """Return the noise-free electrons (height, width) of an exposure now; the clock stands still."""
        with self._lock:
            return self._expected(self._built(), exposure_ms)[0].copy()

    def truth(self) -> Truth:
        """Return what is really there; changes nothing."""
        with self._lock:
            sample, s = self._built(), self._settings
            field, _ = self._field(sample, (s.height, s.width))
            labels, nuclei = sample.painter.labels(sample.population, field)
            if len(sample.population.lineage) > np.iinfo(np.uint16).max:
                raise RigError(
                    f"The sample has had {len(sample.population.lineage)} cells, more than 16-bit labels can name; "
                    "use a smaller WorldSize_um or a shorter run."
                )
            table = _table(sample.population.cells)
            here = table[np.isin(table["id"], np.unique(labels))]
            edge_um = sample.population.edge_um
            for name, centre in (("x_um", self.bench.x_um), ("y_um", self.bench.y_um)):
                here[name] = centre + (here[name] - centre + edge_um / 2) % edge_um - edge_um / 2
            lineage = tuple(sample.population.lineage.values())
            return Truth(sample.population.time_s, here, table, labels, nuclei, lineage)

    # ------------------------------------------------------------------ inside

    def _built(self) -> _Sample:
        with self._lock:
            if self._sample is None:
                self._sample = _build(self._settings)
            return self._sample

    def _tick(self, sample: _Sample) -> None:
        """Bring the sample to the time of this exposure, where a new scene is due."""
        s = self._settings
        if s.clock == "frames":
            now_s = self._sample_time_s
            self._sample_time_s += s.seconds_per_exposure
        else:
            wall_s = time.monotonic()
            if self._clock_start_s is None:
                self._clock_start_s = wall_s
            now_s = 3600 * s.start_h + (wall_s - self._clock_start_s) * s.speed
        late_s = now_s - sample.population.time_s
        if late_s > 0 and late_s >= s.scene_step_s * (1 - 1e-9):
            sample.population.advance(late_s)
            self._maps.clear()
            self._spectra.clear()
            self._pictures.clear()

    def _field(self, sample: _Sample, shape: tuple[int, int]) -> tuple[Field, tuple[float, float]]:
        """Return the window at the stage position, and the part of a pixel by which its content is moved."""
        px = self._settings.pixel_size_um
        row, col = self.bench.y_um / px, self.bench.x_um / px
        whole_row, whole_col = math.floor(row + 0.5), math.floor(col + 0.5)
        rest = (round(whole_row - row, 6), round(whole_col - col, 6))
        world = sample.world_px
        return Field(whole_row % world, whole_col % world, *shape), rest

    def _expected(self, sample: _Sample, exposure_ms: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        b = self.bench
        key = (b.x_um, b.y_um, b.z_um, b.channel, b.slm_level, b.light_on, exposure_ms)
        if key not in self._pictures:
            if len(self._pictures) >= 8:
                self._pictures.clear()
            electrons = self._light(sample) * np.float32(exposure_ms)
            self._pictures[key] = electrons, np.sqrt(electrons + np.float32(READ_NOISE**2))
        return self._pictures[key]

    def _light(self, sample: _Sample) -> NDArray[np.float32]:
        """Return expected electrons per ms on the sensor (height, width)."""
        b, s = self.bench, self._settings
        if not b.light_on:
            return np.zeros((s.height, s.width), np.float32)
        field, rest = self._field(sample, sample.padded)
        z_um = round(b.z_um - s.focus_um, 3)
        if b.channel in STAINS:
            kind, wavelength_um, gain, background = STAINS[b.channel]
            image = sample.optics.fluorescence(self._spectrum(sample, kind, field), z_um, wavelength_um, rest)
            light = self._cut(image) * np.float32(gain) + np.float32(background)
            return np.asarray(light * sample.sensor.excitation, np.float32)
        z_um = round(z_um + s.bright_field_offset_um, 3)
        if b.channel == "Phase" or b.slm_level > 0:
            phase = self._map(sample, "phase", field)
            image = sample.optics.interference(phase, z_um, 2 * math.pi * b.slm_level / 256, rest)
        else:
            image = sample.optics.bright_field(self._spectrum(sample, "phase", field), z_um, rest)
        lamp_per_ms = LAMP_PER_MS * (PHASE_LAMP if b.channel == "Phase" else 1)
        return np.asarray(self._cut(image) * np.float32(lamp_per_ms) * sample.sensor.lamp, np.float32)

    def _map(self, sample: _Sample, kind: Kind, field: Field) -> NDArray[np.float32]:
        key = (kind, field, sample.population.time_s)
        if key not in self._maps:
            if len(self._maps) >= 4:
                self._maps.clear()
            self._maps[key] = sample.painter.paint(sample.population, field, kind)
        return self._maps[key]

    def _spectrum(self, sample: _Sample, kind: Kind, field: Field) -> NDArray[np.complex64]:
        key = (kind, field, sample.population.time_s)
        if key not in self._spectra:
            if len(self._spectra) >= 4:
                self._spectra.clear()
            self._spectra[key] = sample.optics.spectrum(self._map(sample, kind, field))
        return self._spectra[key]

    def _cut(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the sensor's part of a padded image; both have their centre at size // 2."""
        s = self._settings
        top = image.shape[0] // 2 - s.height // 2
        left = image.shape[1] // 2 - s.width // 2
        return image[top : top + s.height, left : left + s.width]


def _build(s: Settings) -> _Sample:
    margin = 2 * math.ceil(MARGIN_UM / s.pixel_size_um)
    padded = (fft.next_fast_len(s.height + margin, real=True), fft.next_fast_len(s.width + margin, real=True))
    world_px = math.ceil(max(s.world_um / s.pixel_size_um, 1.25 * max(padded) + 100))
    population = Population(s, world_px * s.pixel_size_um)
    painter = Painter(s.seed, s.pixel_size_um, world_px)
    optics = Optics(padded, s.pixel_size_um, s.objective_na, s.condenser_na, WAVELENGTH_UM)
    return _Sample(population, painter, optics, Sensor(s.height, s.width, s.seed), world_px, padded)


def _table(cells: NDArray[np.void]) -> NDArray[np.void]:
    table = np.zeros(len(cells), CELL_TABLE)
    for name in ("id", "parent", "x_um", "y_um", "radius_um", "age_s"):
        table[name] = cells[name]
    table["dry_mass_pg"] = cells["mass_pg"]
    table["nucleus_mass_pg"] = NUCLEUS_SHARE * cells["mass_pg"]
    table["state"] = np.array(STATES)[cells["state"]]
    table["stain_uptake"] = cells["stained"]
    table["cycle_phase"] = cells["phase"]
    return table
