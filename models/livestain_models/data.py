"""Pairs of transmitted-light planes and real fluorescence, from the run folders that livestain writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from livestain_models._errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Pair", "pixel_size_um", "read_pairs"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One field, seen without and with the stain.

    Parameters
    ----------
    planes : np.ndarray
        (1, H, W) uint16, grey values of the camera.
    target : np.ndarray
        (H, W) uint16, grey values of the fluorescence channel in the middle plane.
    name : str
        Run, image, time point and plane it came from.
    """

    planes: np.ndarray
    target: np.ndarray
    name: str


def read_pairs(run: Path, source: str, target: str) -> Iterator[Pair]:
    """Read every pair of a run: each plane of the source channel with the target's middle plane.

    Split data by run or field, never by patch: neighbouring patches share cells.

    Parameters
    ----------
    run : Path
        A run folder, which holds images.ome.zarr.
    source, target : str
        Channel names as acquired, e.g. "BF" and "Nuclei".

    Yields
    ------
    Pair
        In the order of image, time and plane; planes that were never written are left out.

    Raises
    ------
    ModelError
        No readable store, or no channel of that name.
    """
    for path, image in _images(run):
        channels = _channels(image)
        for name in (source, target):
            if name not in channels:
                raise ModelError(f"{run}: there is no channel {name!r}; it has {', '.join(channels)}.")
        array: Any = image["0"]
        for t in range(array.shape[0]):
            stack = np.asarray(array[t, channels.index(source)])
            stained = np.asarray(array[t, channels.index(target), array.shape[2] // 2])
            for z, plane in enumerate(stack):
                if plane.any() and stained.any():
                    yield Pair(plane[None], stained, f"{run.name}/{path or 'image'} t{t} z{z}")


def pixel_size_um(run: Path) -> float:
    """Pixel size in the sample that a run was acquired at, in micrometres."""
    _, image = next(_images(run))
    (scale,) = (
        transform["scale"]
        for transform in _ome(image)["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        if transform["type"] == "scale"
    )
    return float(scale[-1])


def _images(run: Path) -> Iterator[tuple[str, zarr.Group]]:
    store = run / "images.ome.zarr"
    try:
        root = zarr.open_group(store, mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise ModelError(f"{run} is no run folder: {store} does not open as OME-Zarr ({error}).") from error
    images = list(_images_below("", root))
    if not images:
        raise ModelError(f"{store} holds no image.")
    yield from images


def _images_below(path: str, group: zarr.Group) -> Iterator[tuple[str, zarr.Group]]:
    """Find the images of a group: itself, one for each position, or those in the wells of a plate."""
    if "multiscales" in _ome(group):
        yield path, group
        return
    for name, child in sorted(group.groups(), key=lambda item: (len(item[0]), item[0])):
        yield from _images_below(f"{path}/{name}".lstrip("/"), child)


def _ome(group: Any) -> dict[str, Any]:
    ome = group.attrs.asdict().get("ome")
    return ome if isinstance(ome, dict) else {}


def _channels(image: zarr.Group) -> list[str]:
    return [channel["label"] for channel in _ome(image).get("omero", {}).get("channels", [])]
