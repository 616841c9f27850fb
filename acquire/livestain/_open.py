"""Opens a run folder in a notebook: images as xarray, cells as pandas, while the run goes on or after it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError, StoreError
from livestain._images import IMAGES_NAME
from livestain.live.run_folder import RunFolder
from livestain.measure._rows import read_rows
from livestain.measure.histories import CENSORED, DEATH, DIVISION, cell_histories
from livestain.measure.labels import LABEL_NAMES
from livestain.measure.phase_images import PHASE_NAME
from livestain.measure.table import provenance_of, read_cells

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    import pyarrow as pa
    import xarray as xr

__all__ = ["OpenRun", "open"]

_ENDS = {CENSORED: "", DEATH: "death", DIVISION: "division"}


def open(run: str | Path) -> OpenRun:  # noqa: A001  (it is read as `livestain.open`)
    """Open a run folder to work on it in a notebook.

        run = livestain.open("2026-11-23-growth")
        run.images.sel(c="Nuclei (predicted)").isel(t=-1, z=0).plot()
        run.cells.groupby("time_s").dry_mass_pg.median().plot()

    Nothing in the folder is changed. While a run goes on each question is answered as of now.

    Raises
    ------
    StoreError
        If the folder is no run.
    """
    return OpenRun(Path(run))


class OpenRun:
    """A run folder, to be read. Made by `livestain.open`.

    What is said of one image holds for a run of one position; with several positions `images`, `labels` and `phase` are
    dictionaries of the same by the position's name: `run.images["A1"]`.

    Attributes
    ----------
    folder
        Where it lies.
    positions
        The positions' names, as the tables have them; a single position without a name is "" here, and "Position 0" in
        the tables.
    """

    def __init__(self, folder: Path) -> None:
        self._run = RunFolder(folder)
        self.folder = self._run.path
        self.positions = self._run.position_names

    def __repr__(self) -> str:
        self._run.refresh()
        layout, n = self._run.layout, len(self.positions)
        n_t = max(self._run.n_t(image) for image in range(n))
        size = f"{layout.height} x {layout.width} px"
        size += f" of {layout.pixel_size_um:g} \u00b5m" if layout.pixel_size_um else ""
        counts = [_count(n, "position"), _count(n_t, "time point"), _count(len(layout.channels), "channel"), size]
        return f"<livestain run {self._run.name}: {', '.join(counts)}; {self._run.ended or 'going on, or killed'}>"

    @property
    def images(self) -> xr.DataArray | dict[str, xr.DataArray]:
        """Grey levels (t, c, z, y, x) uint16, read plane by plane where they are needed.

        Coordinates: t in seconds since the run's first frame, as measured, NaN where a time point has no frame; c the
        channels' names, with `predicted`, and for a predicted channel the `model` and its `weights_sha256`; z, y and x
        in um from the centre of the first plane and pixel, or in planes and pixels where that is not known. `on_disk`
        (t, c, z) tells grey levels from the zeros of planes that are missing, or not predicted so far.

        Time point n of the tables is `isel(t=n)`; their time_s follows measure.interval_s where the experiment has it.

        Raises
        ------
        LivestainError
            If the extra `analysis` is not installed.
        StoreError
            If an array cannot be opened.
        """
        made: xr.DataArray | dict[str, xr.DataArray] = self._each(self._image)
        return made

    @property
    def labels(self) -> xr.Dataset | dict[str, xr.Dataset]:
        """Label images `cells` and `nuclei` (t, y, x) uint32; the value is the cell's number in `run.cells`, 0 none.

        They end with the last time point that is in `run.summary`.

        Raises
        ------
        LivestainError
            If the extra `analysis` is not installed.
        StoreError
            If the run was not measured.
        """
        last = self._last_measured()
        made: xr.Dataset | dict[str, xr.Dataset] = self._each(lambda image: self._labels(image, last[image] + 1))
        return made

    @property
    def phase(self) -> xr.DataArray | dict[str, xr.DataArray]:
        """Phase (t, y, x) float32 in rad, NaN where it could not be measured, if the measurement made it of images.

        Raises
        ------
        LivestainError
            If the extra `analysis` is not installed.
        StoreError
            If the run has no phase images.
        """
        if not (self.folder / PHASE_NAME).is_dir():
            raise StoreError(
                f"{self.folder} has no {PHASE_NAME}. It is made where measure.phase of the experiment is `steps` or "
                f"`defocus`, by `livestain measure {self.folder}`."
            )
        made: xr.DataArray | dict[str, xr.DataArray] = self._each(self._phase)
        return made

    @property
    def cells(self) -> pd.DataFrame:
        """One row a cell and time point; units are in the columns' names, `reason` says why a value is NaN.

        `attrs["livestain"]` says how they were measured.

        Raises
        ------
        LivestainError
            If the extra `analysis` is not installed.
        StoreError
            If the run was not measured.
        """
        return _frame(read_cells(self.folder))

    @property
    def summary(self) -> pd.DataFrame:
        """One row a position and time point: counts, viability with its interval, masses.

        Raises
        ------
        LivestainError
            If the extra `analysis` is not installed.
        StoreError
            If the run was not measured.
        """
        return _frame(read_rows(self.folder, "summary"))

    @property
    def tracks(self) -> pd.DataFrame:
        """One row a cell: its parent and the first of its family, when it was seen alive, and how that ended.

        `end` is "division", "death", or empty where the cell left the field, was lost, or the run ended; `end_s` is
        half-way between the frames that enclose it.

        Raises
        ------
        LivestainError
            If the extra `analysis` is not installed.
        StoreError
            If the run was not measured.
        """
        pandas = _needed("pandas")
        histories = cell_histories(read_cells(self.folder), states_needed=False)
        names = ("position", "cell", "parent", "root", "first_s", "last_s", "end_s")
        columns: dict[str, Any] = {name: [getattr(history, name) for history in histories] for name in names}
        columns["end"] = [_ENDS[history.end] for history in histories]
        return pandas.DataFrame(columns)

    # ------------------------------------------------------------------ one position

    def _each(self, make: Callable[[int], Any]) -> Any:
        self._run.refresh()
        made = [make(image) for image in range(len(self.positions))]
        return made[0] if len(made) == 1 else dict(zip(self.positions, made, strict=True))

    def _image(self, image: int) -> Any:
        there = self._run.there(image)
        array = self._array(IMAGES_NAME, image, "0", there.shape[0])
        channels = self._run.layout.channels
        models = {one["channel"]: one for one in self._run.header["provenance"].get("predicted", ())}
        known = [models.get(channel.name, {}) for channel in channels]
        coordinates = self._coordinates(image, array.shape[0]) | {
            "c": [channel.name for channel in channels],
            "z": self._z(image),
            "predicted": ("c", [channel.predicted for channel in channels]),
            "model": ("c", [f"{one['model']} {one['version']}" if one else "" for one in known]),
            "weights_sha256": ("c", [one.get("weights_sha256", "") for one in known]),
            "on_disk": (("t", "c", "z"), there[: array.shape[0]]),
        }
        attributes = self._attributes(image) | {"units": "grey level"}
        return _needed("xarray").DataArray(array, coordinates, tuple("tczyx"), "intensity", attributes)

    def _labels(self, image: int, n_t: int) -> Any:
        arrays = {name: self._array(IMAGES_NAME, image, f"labels/{name}/0", n_t)[:, 0] for name in LABEL_NAMES}
        n_t = min(array.shape[0] for array in arrays.values())
        planes = {name: (tuple("tyx"), array[:n_t], {"units": "cell number"}) for name, array in arrays.items()}
        return _needed("xarray").Dataset(planes, self._coordinates(image, n_t), self._attributes(image))

    def _phase(self, image: int) -> Any:
        array = self._array(PHASE_NAME, image, "0", self._run.n_t(image))[:, 0, 0]
        attributes = self._attributes(image) | {"units": "rad"}
        coordinates = self._coordinates(image, array.shape[0])
        return _needed("xarray").DataArray(array, coordinates, tuple("tyx"), "phase", attributes)

    def _array(self, store: str, image: int, path: str, n_t: int) -> Any:
        """Open an array as dask, a chunk a plane, up to the last time point that has one: it grows ahead of them."""
        dask, zarr = _needed("dask.array"), import_module("zarr")
        where = self.folder / store / self._run.layout.images[image].path / path
        try:
            found = zarr.open_array(where, mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(
                f"{where} cannot be opened: {error}. `livestain check {self.folder}` says what is damaged, "
                f"`livestain recover {self.folder}` restores what it can."
            ) from error
        chunks = (1,) * (found.ndim - 2) + tuple(found.shape[-2:])
        return dask.from_array(found, chunks=chunks, name=False)[:n_t]

    def _coordinates(self, image: int, n_t: int) -> dict[str, Any]:
        layout, pixel_um = self._run.layout, self._run.layout.pixel_size_um
        time_s = self._run.time_s(image)[:n_t]
        time_s = np.append(time_s, np.full(n_t - time_s.size, np.nan))
        sizes = {"y": layout.height, "x": layout.width}
        return {"t": ("t", time_s, {"units": "s", "long_name": "time since the run's first frame"})} | {
            axis: _axis(axis, n, pixel_um, "px") for axis, n in sizes.items()
        }

    def _z(self, image: int) -> Any:
        place = self._run.layout.images[image]
        return _axis("z", place.n_z, place.z_step_um if place.n_z > 1 else None, "plane")

    def _attributes(self, image: int) -> dict[str, str]:
        started = self._run.started
        return {
            "run": self._run.name,
            "position": self.positions[image],
            "started": started.isoformat() if started else "",
        }

    def _last_measured(self) -> list[int]:
        """Give the last time point of each image that is final; label images beyond it are not all written."""
        summary = read_rows(self.folder, "summary")
        image, t = (np.asarray(summary.column(name).to_numpy()) for name in ("image", "t"))
        return [int(t[image == number].max(initial=-1)) for number in range(len(self.positions))]


def _axis(name: str, n: int, step_um: float | None, otherwise: str) -> tuple[str, Any, dict[str, str]]:
    return name, np.arange(n) * (step_um or 1.0), {"units": "um" if step_um else otherwise}


def _frame(table: pa.Table) -> pd.DataFrame:
    _needed("pandas")
    frame = table.to_pandas(strings_to_categorical=True)
    frame.attrs["livestain"] = provenance_of(table.schema)
    return frame


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise LivestainError(
            f"To open a run here needs a package that is not installed ({error.name}). Install it: "
            'pip install "livestain[analysis]".'
        ) from error


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
