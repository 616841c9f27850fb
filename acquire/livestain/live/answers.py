"""What the page is told of a run: its layout, planes as grey pictures, cells and their histories. No web in here."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError
from livestain.live.cells import CellRows
from livestain.live.curves import curves_of, plain_list
from livestain.live.shown import auto_window, averaged, to_8bit
from livestain.measure.products import conditions_of
from livestain.measure.table import with_masses

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa
    from numpy.typing import NDArray

    from livestain._frame import Place
    from livestain.live.run_folder import RunFolder

__all__ = ["Answers", "NotThereError", "Region"]

_KEPT_PLANES = 8  # last read, for a change of contrast and for a second page: little memory beside the run
_KEPT_BYTES = 64 << 20
_HISTOGRAM_BINS = 64
_BETWEEN = 5  # time points within which a mother's last and her daughters' first are


class NotThereError(LivestainError):
    """The page asks for something that the run does not have (yet)."""


@dataclass(frozen=True, slots=True)
class Region:
    """The part of a plane that is asked for, in pixels of the camera, and by what factor it is averaged down."""

    y: int
    x: int
    height: int
    width: int
    factor: int


class Answers:
    """Answers the page's questions from the run folder; any thread may ask.

    Parameters
    ----------
    run
        The folder; the measurements beside it are read too, where there are any.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.cells = CellRows(run.path)
        self._kept: OrderedDict[Place, NDArray[np.uint16]] = OrderedDict()
        self._lock = threading.Lock()

    def refresh(self) -> bool:
        """Read the journal and the tables on; True if something is new."""
        new = self.run.refresh()
        return self.cells.refresh() or new

    @property
    def notes(self) -> list[str]:
        """What is missing or damaged, as sentences."""
        return [*self.run.notes, *self.cells.notes]

    # ------------------------------------------------------------------ the run

    def run_json(self) -> dict[str, Any]:
        """Say what the run is: all that does not change while it goes on."""
        layout, header = self.run.layout, self.run.header
        names = self.run.position_names
        return {
            "name": self.run.name,
            "started": None if self.run.started is None else self.run.started.isoformat(),
            "height": layout.height,
            "width": layout.width,
            "pixel_size_um": layout.pixel_size_um or None,
            "interval_s": self._interval_s() or layout.interval_s or None,
            "n_t": layout.n_t,
            "plate": None if layout.plate is None else list(layout.plate),
            "images": [
                {"name": name or image.name, "n_z": image.n_z, "z_step_um": image.z_step_um, "well": image.well}
                for name, image in zip(names, layout.images, strict=True)
            ],
            "channels": self._channels_json(),
            "models": [f"{s['model']} on {s['channel']}" for s in header.get("stains", ())],
            "groups": self._groupings(),
            "measured": self.cells.summary().num_rows > 0,
            "notes": self.notes,
        }

    def _channels_json(self) -> list[dict[str, Any]]:
        layout, stains = self.run.layout, self.run.header.get("stains", ())
        kinds: dict[Any, str] = {
            (i, j): o["kind"] for i, stain in enumerate(stains) for j, o in enumerate(stain.get("outputs", ()))
        }
        stained = {stain["channel"] for stain in stains}
        first = next((c.name for c in layout.channels if c.name in stained), layout.channels[0].name)
        meanings = {p.get("channel"): p for p in self.run.header.get("provenance", {}).get("predicted", ())}
        found = []
        for channel in layout.channels:
            kind = kinds.get((channel.stain, channel.output), "stain") if channel.predicted else "camera"
            model = meanings.get(channel.name, {})
            found.append(
                {
                    "name": channel.name,
                    "color": channel.color,
                    "kind": kind,
                    "shown": channel.name == first or kind == "stain",
                    "about": ", ".join(str(model[key]) for key in ("model", "version", "meaning") if key in model),
                }
            )
        return found

    def windows_json(self, image: int) -> dict[int, tuple[float, float]]:
        """Give the display windows that the run chose, by channel."""
        return self.run.windows(self._image(image))

    def times_json(self, image: int, since: int) -> list[float | None]:
        """Give when each time point from `since` on was, seconds since the first frame, of the sample's time."""
        times = self.run.time_s(self._image(image))
        if interval_s := self._interval_s():
            times = np.arange(times.size, dtype=np.float64) * interval_s
        return [round(s, 2) if s == s else None for s in times[since:].tolist()]

    def _interval_s(self) -> float | None:
        """Give the interval of the sample's time, where it is not the computer's (a recording, a simulation)."""
        measure = self.run.experiment.measure if self.run.experiment else None
        return measure.interval_s if measure else None

    # ------------------------------------------------------------------ pictures

    def picture(self, place: Place, region: Region, window: tuple[float, float]) -> NDArray[np.uint8]:
        """Give a part of a plane as grey levels from 0 to 255.

        Raises
        ------
        NotThereError
            If the plane is not on disk, or the layout has no such place.
        """
        return to_8bit(averaged(_crop(self._plane(place), region), region.factor), window)

    def levels_json(self, place: Place) -> dict[str, Any]:
        """Give the window that shows a plane well, and how often its grey levels are."""
        plane = self._plane(place)
        low, high = auto_window(plane)
        top = max(float(plane.max()), high) + 1
        counts, _ = np.histogram(plane[::2, ::2], _HISTOGRAM_BINS, (0, top))
        return {"low": low, "high": high, "top": top, "counts": counts.tolist()}

    def labels(self, image: int, t: int, region: Region) -> NDArray[np.unsignedinteger]:
        """Give the cells' ids of a part of an image, every `factor`-th pixel.

        Raises
        ------
        NotThereError
            If that time point was not measured (yet).
        """
        if not self._is_measured(self._image(image), t):
            raise NotThereError(f"The cells of time point {t} have not been measured.")
        found = self.run.labels("cells", image, t)
        if found is None:
            raise NotThereError(f"There is no label image of time point {t}.")
        middle = region.factor // 2
        cropped = _crop(found, region)
        y, x = (min(middle, n - 1) for n in cropped.shape)
        thinned = cropped[y :: region.factor, x :: region.factor]
        return thinned.astype(np.uint16) if int(thinned.max()) < 1 << 16 else thinned  # half of it to send

    def _plane(self, place: Place) -> NDArray[np.uint16]:
        self._image(place.image)
        n_c, n_z = len(self.run.layout.channels), self.run.layout.images[place.image].n_z
        if not (0 <= place.c < n_c and 0 <= place.z < n_z and place.t >= 0):
            raise NotThereError(f"The run has no plane {place}: it has {n_c} channels and {n_z} z.")
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        plane = self.run.plane(place)
        if plane is None:
            raise NotThereError(f"There is no picture at {place}.")
        with self._lock:
            self._kept[place] = plane
            while len(self._kept) > min(_KEPT_PLANES, max(1, _KEPT_BYTES // plane.nbytes)):
                self._kept.popitem(last=False)
        return plane

    def _image(self, image: int) -> int:
        if not 0 <= image < len(self.run.layout.images):
            raise NotThereError(f"The run has {len(self.run.layout.images)} positions, and no number {image}.")
        return image

    # ------------------------------------------------------------------ cells

    def measured_t(self) -> dict[int, int]:
        """Give the last time point whose cells are measured, by image."""
        summary = self.cells.summary()
        images, t = (summary.column(name).to_numpy() for name in ("image", "t"))
        return {int(i): int(t[images == i].max()) for i in np.unique(images)}

    def n_rows(self) -> int:
        """Give how many time points are measured, of all positions together."""
        return int(self.cells.summary().num_rows)

    def _is_measured(self, image: int, t: int) -> bool:
        return 0 <= t <= self.measured_t().get(image, -1)

    def cells_json(self, image: int, t: int) -> dict[str, Any]:
        """Give the cells of one time point: id, place in um, state, mass; and the summary of them."""
        rows, unit = with_masses(self.cells.at(self._image(image), t))
        summary = self.cells.summary()
        chosen = (summary.column("image").to_numpy() == image) & (summary.column("t").to_numpy() == t)
        at = np.flatnonzero(chosen)
        return {
            "t": t,
            "unit": unit,
            "columns": _plain_rows(rows, ("cell", "x_um", "y_um", "state", "dry_mass_pg", "gap")),
            "summary": _plain_row(summary, int(at[-1])) if at.size else None,
        }

    def history_json(self, image: int, t: int, cell: int) -> dict[str, Any]:
        """Give all that is known of the cell that has this id at a time point.

        Raises
        ------
        NotThereError
            If there is no such cell.
        """
        names = ("t", "time_s", "dry_mass_pg", "dry_mass_sd_pg", "area_um2", "state", "at_border", "gap", "reason")
        read = (*names, "parent", "relative_dry_mass", "relative_dry_mass_sd")
        rows = self.cells.history(self._image(image), cell, t, read)
        if rows is None:
            raise NotThereError(f"There is no measured cell {cell} at time point {t}.")
        first, last, parent = (int(rows.column(n)[i].as_py()) for n, i in (("t", 0), ("t", -1), ("parent", 0)))
        mother = self._seen(image, parent, range(first - 1, first - 1 - _BETWEEN, -1)) if parent else None
        found = (self._seen(image, c, range(last + 1, last + 1 + _BETWEEN)) for c in self.cells.children(image, cell))
        daughters = [daughter for daughter in found if daughter]
        rows, unit = with_masses(rows)
        columns = _plain_rows(rows, names)
        every = -(-rows.num_rows // 2000)
        return {
            "cell": cell,
            "unit": unit,
            "mother": mother,
            "daughters": daughters,
            "columns": {name: values[::every] for name, values in columns.items()},
        }

    def _seen(self, image: int, cell: int, times: Iterable[int]) -> dict[str, int] | None:
        """Find a relative at one of the time points where it should be."""
        for t in times:
            if t >= 0 and (self.cells.at(image, t).column("cell").to_numpy() == cell).any():
                return {"cell": cell, "t": t}
        return None

    def curves_json(self, by: str) -> dict[str, Any]:
        """Give the curves by "position" or "condition"."""
        groupings = self._groupings()
        if by not in groupings:
            raise NotThereError(f"Curves are by {' or '.join(groupings)}, not by {by[:20]}.")
        return curves_of(self.cells.summary(), groupings[by])

    def _groupings(self) -> dict[str, dict[str, list[int]]]:
        names = self.run.position_names
        found = {"position": {name or "the field": [i] for i, name in enumerate(names)}}
        wells = conditions_of(self.run.layout)
        if wells and len(set(wells.values())) < len(names):
            grouped: dict[str, list[int]] = {}
            for i, name in enumerate(names):
                grouped.setdefault(wells[name], []).append(i)
            found["condition"] = grouped
        return found


def _crop(plane: NDArray[Any], region: Region) -> NDArray[Any]:
    height, width = plane.shape
    y, x = min(max(region.y, 0), height - 1), min(max(region.x, 0), width - 1)
    return plane[y : y + max(1, region.height), x : x + max(1, region.width)]


def _plain_rows(rows: pa.Table, names: tuple[str, ...]) -> dict[str, list[Any]]:
    found = {}
    for name in names:
        values = rows.column(name).to_pylist() if name in ("state", "reason", "gap", "at_border") else None
        found[name] = plain_list(rows.column(name).to_numpy(zero_copy_only=False)) if values is None else values
    return found


def _plain_row(table: pa.Table, row: int) -> dict[str, Any]:
    found = {name: table.column(name)[row].as_py() for name in table.column_names}
    return {name: None if value != value else value for name, value in found.items()}
