"""Finds pairs in OME-Zarr 0.4 and 0.5: run folders of livestain, single images, collections, plates."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from livestain_models._errors import DataError
from livestain_models.data._pages import ZarrPage
from livestain_models.data._source import Candidate, LeftOut, Pixels, missing_channel, unknown_pixel_size
from livestain_models.data.fields import Planes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livestain_models.recipe import Data

__all__ = ["COLLECTED", "IMAGES", "find_in_zarr", "is_zarr"]

IMAGES = "images.ome.zarr"  # of a run folder
COLLECTED = "pairs.json"  # what `livestain collect` leaves beside it
_UM = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6, "angstrom": 1e-4}
_AXES = ("t", "c", "z", "y", "x")


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return (folder / "zarr.json").is_file() or (folder / ".zgroup").is_file()


def find_in_zarr(folder: Path, data: Data) -> Iterator[Candidate | LeftOut]:
    """Find every field of a run folder or an OME-Zarr: each time point of each image.

    Raises
    ------
    DataError
        Not readable, no image, or a channel that is not there.
    """
    store = folder / IMAGES if (folder / IMAGES).is_dir() else folder
    collected = _read_collected(folder / COLLECTED)
    images = list(_images_below("", _open(store)))
    if not images:
        raise DataError(f"{store} holds no image (no group in it has multiscales). Give a run folder or an OME-Zarr.")
    for path, image in images:
        reason = collected.get("left_out", {}).get(path)
        if reason is not None:
            yield LeftOut(_named(folder.name, path), str(reason))
        else:
            yield from _fields_of(folder, store / path, path, image, data, collected)


def _fields_of(
    folder: Path, group: Path, path: str, image: zarr.Group, data: Data, collected: dict[str, Any]
) -> Iterator[Candidate]:
    where, place = f"{folder}{':' + path if path else ''}", _named(folder.name, path)
    multiscale = _ome(image)["multiscales"][0]
    dataset = multiscale["datasets"][0]
    array: Any = image[dataset["path"]]
    stored = str(group / dataset["path"])
    axes = [axis if isinstance(axis, str) else axis["name"] for axis in multiscale.get("axes", _AXES)]
    if len(axes) != array.ndim or axes[-2:] != ["y", "x"] or not set(axes) <= set(_AXES):
        raise DataError(
            f"{where} has the axes {axes} for an array of shape {array.shape}; only t, c, z, y, x are read."
        )
    channels = _channels(image, array.shape[axes.index("c")] if "c" in axes else 1)
    names = [data.input, *(target.source for target in data.targets)]
    labels = data.classes.labels if data.classes else None
    for name in [*names, *([labels] if labels else [])]:
        if name not in channels:
            raise missing_channel(where, name, channels)
    pixels = _pixels(where, multiscale, dataset, axes, data)
    n_t = array.shape[axes.index("t")] if "t" in axes else 1
    for t in range(n_t):
        planes, *stains = (_planes(stored, array, axes, t, channels.index(name)) for name in names)
        marked = _planes(stored, array, axes, t, channels.index(labels)) if labels else None
        yield Candidate(
            name=place if n_t == 1 else f"{place}/t{t}",
            place=place,
            where=f"{where} t {t}",
            instrument=collected.get("instrument"),
            planes=planes,
            stains=tuple(stains),
            labels=None if marked is None else marked.pages[len(marked.pages) // 2],
            pixels=pixels,
            shifts_px={name: (int(y), int(x)) for name, (y, x) in collected.get("shift_px", {}).items()},
        )


def _planes(stored: str, array: Any, axes: list[str], t: int, c: int) -> Planes:
    fixed = {"t": t, "c": c}
    return Planes(
        tuple(
            ZarrPage(
                stored,
                tuple((fixed | {"z": z})[axis] for axis in axes[:-2]),
                array.shape[-2:],
                np.dtype(array.dtype),
                array.chunks[-2:],
            )
            for z in range(array.shape[axes.index("z")] if "z" in axes else 1)
        )
    )


def _pixels(where: str, multiscale: dict[str, Any], dataset: dict[str, Any], axes: list[str], data: Data) -> Pixels:
    """Multiply the scales of the dataset and of the whole image; a scale of 1 without a unit means unknown."""
    scale = np.ones(len(axes))
    for transform in [
        *dataset.get("coordinateTransformations", []),
        *multiscale.get("coordinateTransformations", []),
    ]:
        if transform.get("type") == "scale":
            scale = scale * np.asarray(transform["scale"], float)
    units = {axis["name"]: axis.get("unit") for axis in multiscale.get("axes", []) if isinstance(axis, dict)}
    size = {axis: _um(where, value, units.get(axis)) for axis, value in zip(axes, scale, strict=True) if axis in "zyx"}
    x_um, y_um = size["x"], size["y"]
    if x_um is not None and y_um is not None and not math.isclose(x_um, y_um, rel_tol=0.01):
        raise DataError(f"{where} has pixels of {y_um:g} x {x_um:g} um; resample it to square ones.")
    found = x_um or data.pixel_size_um
    if found is None:
        raise unknown_pixel_size(where)
    return Pixels(found, size.get("z") or data.plane_spacing_um)


def _um(where: str, value: float, unit: str | None) -> float | None:
    if unit is None:
        return None if value == 1.0 else float(value)
    if unit not in _UM:
        raise DataError(f"{where} gives its scale in {unit!r}; known are {', '.join(_UM)}.")
    return float(value) * _UM[unit]


def _open(store: Path) -> zarr.Group:
    try:
        return zarr.open_group(store, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{store} does not open as OME-Zarr ({error}). Give a run folder or an OME-Zarr.") from error


def _images_below(path: str, group: zarr.Group) -> Iterator[tuple[str, zarr.Group]]:
    """Find the images of a group: itself, one for each position, or those in the wells of a plate."""
    if "multiscales" in _ome(group):
        yield path, group
        return
    for name, child in sorted(group.groups(), key=lambda item: (len(item[0]), item[0])):
        yield from _images_below(f"{path}/{name}".lstrip("/"), child)


def _ome(group: Any) -> dict[str, Any]:
    """Give the OME metadata: below "ome" since 0.5, bare in 0.4."""
    attributes: dict[str, Any] = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def _channels(image: zarr.Group, count: int) -> list[str]:
    """Give the channels' labels; their numbers where they have none."""
    written = _ome(image).get("omero", {}).get("channels", [])
    return [str(channel.get("label", number)) for number, channel in enumerate(written)] or list(map(str, range(count)))


def _read_collected(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}. Collect the pairs again, or delete it.") from error
    if not isinstance(found, dict):
        raise DataError(f"{file} holds no mapping. Collect the pairs again, or delete it.")
    return found


def _named(run: str, path: str) -> str:
    return f"{run}/{path}" if path else run
