"""Writes run folders as a run would have left them, in a moment: discs for cells, known to the pixel."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._frame import Frame, Job, Place, Stained
from livestain._layout import Channel, Image, Layout
from livestain._lines import iso_time
from livestain._store import Store
from livestain.measure.labels import LabelImages
from livestain.measure.summary import SummaryTable, summarised
from livestain.measure.table import CellTable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CHANNELS = (Channel("BF"), Channel("Nuclei (predicted)", "00BFFF", stain=0, output=0))
_STAIN = {"model": "discs", "channel": "BF", "planes": 1, "outputs": [{"name": "Nuclei", "kind": "stain"}]}
_HEADER = {"stains": [_STAIN], "provenance": {"software": {}, "predicted": []}}


@dataclass
class Written:
    """A run folder that grows as it is told.

    Every image holds `side` x `side` discs, numbered from 1, row by row; cell 2 ends after `divides_at` and has the
    daughters 101 and 102 in its place. Disc n's grey level is 1000 n + t.
    """

    folder: Path
    images: tuple[Image, ...] = (Image("", "", 1),)
    size_px: int = 64
    side: int = 2
    interval_s: float = 600.0
    divides_at: int = 3
    pixel_size_um: float = 0.5
    plate: tuple[str, int, int] | None = None
    n_t: int | None = None
    t: int = 0
    began_s: float = field(default_factory=lambda: time.time() - 3600)

    def __post_init__(self) -> None:
        size = self.size_px
        self.layout = Layout(
            self.images, CHANNELS, self.n_t, 1, size, size, self.pixel_size_um, self.interval_s, None, self.plate, {}
        )
        self.store = Store.create(self.folder, self.layout, _HEADER, sync=False)
        self.labels = LabelImages(self.folder, self.layout, sync=False)
        self.cells, self.summary = CellTable(self.folder), SummaryTable(self.folder)

    def grow(self, n: int = 1, *, stained: bool = True, measured: bool = True) -> Written:
        """Add time points to every image."""
        for _ in range(n):
            for image in range(len(self.images)):
                self._write(image, stained=stained)
                if measured:
                    self._measure(image)
            self.t += 1
        return self

    def grow_fast(self, n: int) -> Written:
        """Add many time points to the only image: all in the journal and the tables, every hundredth on disk too."""
        lines: list[dict[str, Any]] = []
        for t in range(self.t, self.t + n):
            self.t = t
            if t % 100 == 0 or t == n - 1:
                self._write(0, stained=True)
                ids = self.ids()
                self.labels.write(0, t, ids, ids)
            else:
                at = {"time": iso_time(self.began_s + t * self.interval_s), "camera_to_disk_ms": 9.0, "crc32": 0}
                stain = dict.fromkeys(("net_ms", "host_to_host_ms", "camera_to_screen_ms", "camera_to_disk_ms"), 9.0)
                lines.append({"kind": "raw", "at": [0, t, 0, 0], **at})
                more = {"at": [[0, t, 1, 0]], "from": [[0, t, 0, 0]], "crc32": [0], "live": True, **stain}
                lines.append({"kind": "stain", "status": "stained", "stain": 0, **more})
            if len(lines) > 1000 or t == n - 1:
                self.store.note(lines)
                lines = []
            rows = self._rows(0, self.ids())
            self.cells.append(rows)
            self.summary.append(summarised(rows))
        self.t += 1
        return self

    def ids(self) -> NDArray[np.uint32]:
        """The cells' ids at the present time point, (Y, X)."""
        pitch = self.size_px // self.side
        y, x = np.mgrid[: self.size_px, : self.size_px]
        disc = (y % pitch - pitch / 2) ** 2 + (x % pitch - pitch / 2) ** 2 < (0.35 * pitch) ** 2
        ids = (y // pitch) * self.side + x // pitch + 1
        inside = np.where(disc & (y // pitch < self.side) & (x // pitch < self.side), ids, 0).astype(np.uint32)
        if self.t > self.divides_at:
            inside[inside == 2] = np.where((x % pitch < pitch / 2)[inside == 2], 101, 102)
        return inside

    def plane(self) -> NDArray[np.uint16]:
        return (self.ids() * 1000 + self.t).astype(np.uint16)

    def end(self, reason: str = "completed") -> Path:
        self.cells.close()
        self.summary.close()
        self.store.close(reason)
        return self.folder

    def _write(self, image: int, *, stained: bool) -> None:
        now_s, now_ns = self.began_s + self.t * self.interval_s, time.perf_counter_ns()
        for z in range(self.images[image].n_z):
            frame = Frame(Place(image, self.t, 0, z), self.plane() + np.uint16(z), now_ns, now_s)
            job = Job(0, (frame.place,), (Place(image, self.t, 1, z),), (frame,))
            done = Stained(job, self.plane()[None], "CPUExecutionProvider", 3.0, 4.0, now_ns + 5_000_000)
            self.store.commit([frame, done] if stained else [frame])

    def _measure(self, image: int) -> None:
        ids = self.ids()
        self.labels.write(image, self.t, ids, ids)
        rows = self._rows(image, ids)
        self.cells.append(rows)
        self.summary.append(summarised(rows))

    def _rows(self, image: int, ids: NDArray[np.uint32]) -> dict[str, Any]:
        cells = np.unique(ids[ids > 0]).astype(np.int64)
        n, nan, um = cells.size, np.full(cells.size, np.nan), self.pixel_size_um
        centre = np.array([np.argwhere(ids == cell).mean(axis=0) for cell in cells]) * um
        mass = 100.0 + cells + self.t
        return {
            "position": [self.layout.position_names[image]] * n,
            "image": np.full(n, image, np.int32),
            "t": np.full(n, self.t, np.int32),
            "time_s": np.full(n, self.t * self.interval_s),
            "cell": cells,
            "parent": np.where(cells > 100, 2, 0).astype(np.int64),
            "y_um": centre[:, 0],
            "x_um": centre[:, 1],
            "area_um2": np.array([(ids == cell).sum() for cell in cells]) * um**2,
            **dict.fromkeys(("nucleus_area_um2", "relative_dry_mass", "relative_dry_mass_sd", "alpha_ml_per_g"), nan),
            **dict.fromkeys(("nucleus_projected_dry_mass_pg", "cytoplasm_projected_dry_mass_pg", "wavelength_um"), nan),
            "dry_mass_pg": mass,
            "dry_mass_sd_pg": np.full(n, 2.0),
            "mass_method": ["discs"] * n,
            "live": np.full(n, 1.0),
            "injured": np.zeros(n),
            "dead": np.zeros(n),
            "state": np.where(cells == 3, "dead", "live"),
            "dead_belief": np.where(cells == 3, 1.0, 0.0),
            "at_border": np.zeros(n, bool),
            "gap": np.zeros(n, bool),
            "reason": [""] * n,
        }
