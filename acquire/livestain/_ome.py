"""The OME-Zarr 0.5 documents of a run: images, plates, names, colours and physical scales."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from yaozarrs import v05

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from livestain._layout import Image, Layout

__all__ = ["groups", "read_interval_s", "read_windows", "write_group"]

Window = tuple[float, float]
_UNKNOWN: Window = (0.0, 65535.0)


def groups(layout: Layout, provenance: Mapping[str, Any], windows: Mapping[int, Window]) -> dict[str, Any]:
    """Give the attributes of every group of a run, by the group's path in the store.

    Parameters
    ----------
    layout
        The images and channels.
    provenance
        What is said of the run and of each predicted channel, kept under the key "livestain".
    windows
        Grey levels between which a channel is shown at first, by channel number; 0 to 65535 where not known.
    """
    documents: dict[str, Any] = {}
    if layout.plate:
        documents |= _plate_groups(layout)
    elif len(layout.images) > 1:
        documents[""] = {"ome": {"version": "0.5", "bioformats2raw.layout": 3}}
        series = v05.Series(series=[image.path for image in layout.images])
        documents["OME"] = {"ome": _plain(series)}
    for image in layout.images:
        attributes = {"ome": _plain(_image(layout, image, windows)), "livestain": dict(provenance)}
        documents[image.path] = attributes
    return documents


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Write one group's zarr.json: whole, synced and in one step, whoever may be reading it."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / "zarr.json.new"
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    for attempt in range(20):
        try:
            fresh.replace(folder / "zarr.json")
        except PermissionError:  # Windows: a reader has the old file open for a moment
            if attempt == 19:
                raise
            time.sleep(0.05)
        else:
            return


def read_interval_s(folder: Path) -> float:
    """Read the time scale back from an image's group."""
    dataset = _read_ome(folder)["multiscales"][0]["datasets"][0]
    return float(dataset["coordinateTransformations"][0]["scale"][0])


def _read_ome(folder: Path) -> dict[str, Any]:
    ome: dict[str, Any] = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]["ome"]
    return ome


def read_windows(folder: Path) -> dict[int, Window]:
    """Read the display ranges back from an image's group."""
    channels = _read_ome(folder)["omero"]["channels"]
    found = {i: (channel["window"]["start"], channel["window"]["end"]) for i, channel in enumerate(channels)}
    return {i: window for i, window in found.items() if window != _UNKNOWN}  # never chosen: choose when planes come


def _image(layout: Layout, image: Image, windows: Mapping[int, Window]) -> v05.Image:
    # What is not known has scale 1 and no unit: then t counts frames, z planes, y and x pixels.
    pixel_um, step_um = layout.pixel_size_um, image.z_step_um
    scale = [layout.interval_s or 1.0, 1.0, step_um or 1.0, pixel_um or 1.0, pixel_um or 1.0]
    axes: list[v05.SpaceAxis | v05.TimeAxis | v05.ChannelAxis | v05.CustomAxis] = [
        v05.TimeAxis(name="t", unit="second") if layout.interval_s else v05.TimeAxis(name="t"),
        v05.ChannelAxis(name="c"),
        *(_space_axis(name, known=bool(known)) for name, known in (("z", step_um), ("y", pixel_um), ("x", pixel_um))),
    ]
    dataset = v05.Dataset(path="0", coordinateTransformations=[v05.ScaleTransformation(scale=scale)])
    return v05.Image(
        multiscales=[v05.Multiscale(name=image.name or None, axes=axes, datasets=[dataset])],
        omero=v05.Omero(channels=[_channel(layout, i, windows) for i in range(len(layout.channels))]),
    )


def _space_axis(name: str, *, known: bool) -> v05.SpaceAxis:
    return v05.SpaceAxis(name=name, unit="micrometer") if known else v05.SpaceAxis(name=name)


def _channel(layout: Layout, number: int, windows: Mapping[int, Window]) -> v05.OmeroChannel:
    start, end = windows.get(number, _UNKNOWN)
    return v05.OmeroChannel(
        label=layout.channels[number].name,
        color=layout.channels[number].color,
        window=v05.OmeroWindow(start=start, end=end, min=0, max=65535),
        active=True,
    )


def _plate_groups(layout: Layout) -> dict[str, Any]:
    assert layout.plate is not None  # noqa: S101  (the caller asked)
    name, n_rows, n_columns = layout.plate
    rows, columns = [_row_name(i) for i in range(n_rows)], [str(i + 1) for i in range(n_columns)]
    fields: dict[tuple[str, str], list[str]] = {}
    for image in layout.images:
        assert image.well is not None  # noqa: S101  (every image of a plate has one)
        row, column, field = image.well
        fields.setdefault((row, column), []).append(str(field))
    plate = v05.PlateDef(
        name=name,
        rows=[v05.Row(name=row) for row in rows],
        columns=[v05.Column(name=column) for column in columns],
        wells=[
            v05.PlateWell(path=f"{row}/{column}", rowIndex=rows.index(row), columnIndex=columns.index(column))
            for row, column in fields
        ],
        field_count=max(len(f) for f in fields.values()),
    )
    documents: dict[str, Any] = {"": {"ome": _plain(v05.Plate(plate=plate))}}
    for (row, column), names in fields.items():
        well = v05.Well(well=v05.WellDef(images=[v05.FieldOfView(path=field) for field in names]))
        documents[row] = {}
        documents[f"{row}/{column}"] = {"ome": _plain(well)}
    return documents


def _row_name(number: int) -> str:
    """Name a plate's row: A to Z, then AA, AB ... as on a plate of 1536 wells."""
    letter = chr(ord("A") + number % 26)
    return letter if number < 26 else _row_name(number // 26 - 1) + letter


def _plain(model: Any) -> dict[str, Any]:
    plain: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return plain
