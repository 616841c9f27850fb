"""Opens a run folder in napari: channels, label images and tracks as layers, named, coloured, in um and seconds.

napari finds `get_reader` by napari.yaml; nothing of napari is imported. A position of several is opened by the folder
of its image, such as RUN/images.ome.zarr/2; RUN itself opens the first.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError
from livestain._frame import Place
from livestain._images import IMAGES_NAME
from livestain._journal import JOURNAL_NAME
from livestain.live.first_channels import shown_first
from livestain.live.plane_stack import PlaneStack
from livestain.live.run_folder import RunFolder
from livestain.live.shown import auto_window, rgb_of
from livestain.live.times import interval_s
from livestain.measure._rows import iter_batches
from livestain.measure.labels import LABEL_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["get_reader"]

Layer = tuple[Any, dict[str, Any], str]  # data, arguments, kind: napari's LayerData
Paths = str | Path | list[str] | list[Path]

_MOST_WINDOW_PLANES = 3  # read to choose a contrast where the run has chosen none


def get_reader(path: Paths) -> Callable[[Paths], list[Layer]] | None:
    """Give the function that reads `path`, or None where that is no run folder: napari then asks other readers."""
    return _read if _find_run(path) else None


def _read(path: Paths) -> list[Layer]:
    """Give the layers of one position, planes being read as they are looked at.

    Raises
    ------
    StoreError
        If the journal cannot be read.
    """
    found = _find_run(path)
    if found is None:
        raise LivestainError(f"{path} is not the folder of a livestain run: it has no {JOURNAL_NAME}.")
    folder, image_path = found
    run = RunFolder(folder)
    paths = [image.path for image in run.layout.images]
    if image_path and image_path not in paths:
        raise LivestainError(f"{folder} has no image {image_path}. It has: {', '.join(paths)}.")
    image = paths.index(image_path) if image_path else 0
    if not run.n_t(image):
        raise LivestainError(f"{path} has no pictures so far.")
    for sentence in (*run.notes, *_about_positions(run, image)):
        warnings.warn(f"livestain: {sentence}", stacklevel=2)  # napari shows it
    return [*_channels(run, image), *_labels(run, image), *_tracks(run, image)]


def _find_run(path: Paths) -> tuple[Path, str] | None:
    """Give the run folder that `path` is or lies in, and the path of an image within its store ("" for the first)."""
    if isinstance(path, list):
        if len(path) != 1:
            return None
        path = path[0]
    whole = Path(path).absolute()
    if whole.name == JOURNAL_NAME:
        whole = whole.parent
    if (whole / JOURNAL_NAME).is_file():
        return whole, ""
    root = next((folder for folder in (whole, *whole.parents) if folder.name == IMAGES_NAME), None)
    if root is None or not (root.parent / JOURNAL_NAME).is_file():
        return None
    inside = whole.relative_to(root)
    if whole == root:
        return root.parent, ""
    is_image = (whole / "0" / "zarr.json").is_file() and "labels" not in inside.parts
    return (root.parent, inside.as_posix()) if is_image else None


def _about_positions(run: RunFolder, image: int) -> list[str]:
    others = len(run.position_names) - 1
    if not others:
        return []
    example = run.path / IMAGES_NAME / run.layout.images[1 if image == 0 else 0].path
    what = "1 more position" if others == 1 else f"{others} more positions"
    return [f"this is position {run.position_names[image]}. {run.name} has {what}: open {example}, for example."]


def _channels(run: RunFolder, image: int) -> list[Layer]:
    windows, first = run.windows(image), shown_first(run.header, run.layout.channels)
    layers: list[Layer] = []
    for c, channel in enumerate(run.layout.channels):
        low, high = windows.get(c) or _window(run, image, c)
        arguments = {
            "contrast_limits": (low, high),
            "colormap": "gray" if rgb_of(channel.color) == (255, 255, 255) else f"#{channel.color.lower()}",
            "blending": "additive",
            "visible": c in first,
            "rgb": False,
            "multiscale": False,
            "metadata": {"livestain": {"run": str(run.path), "predicted": channel.predicted}},
        }
        stack = _stack(run, image, np.uint16, _plane_of(run, image, c))
        layers.append((stack, _common(run, image, channel.name) | arguments, "image"))
    return layers


def _labels(run: RunFolder, image: int) -> list[Layer]:
    layers: list[Layer] = []
    for name in LABEL_NAMES:
        if run.labels(name, image, 0) is None:
            continue
        stack = _stack(run, image, np.uint32, _labels_of(run, image, name))
        arguments = {"opacity": 0.35, "visible": False, "multiscale": False}
        layers.append((stack, _common(run, image, name) | arguments, "labels"))
    return layers


def _tracks(run: RunFolder, image: int) -> list[Layer]:
    """Give the tracks, a row a cell and time point: cell, t, z of a stack, y, x in pixels; and the mothers as graph."""
    pixel_um = run.layout.pixel_size_um
    names = ("cell", "t", "y_um", "x_um", "parent")
    try:
        batches = [batch for batch in iter_batches(run.path, "cells") if batch.num_rows]
    except LivestainError:  # the run was not measured
        return []
    rows = {
        name: np.concatenate([_column(b, name)[_column(b, "image") == image] for b in batches] or [np.empty(0)])
        for name in names
    }
    if not rows["cell"].size or pixel_um <= 0:
        return []
    order = np.lexsort((rows["t"], rows["cell"]))
    cell, t, y_um, x_um, parent = (rows[name][order] for name in names)
    middle = [np.full(cell.size, run.layout.images[image].n_z // 2)] if run.layout.images[image].n_z > 1 else []
    data = np.column_stack([cell, t, *middle, y_um / pixel_um, x_um / pixel_um]).astype(np.float64)
    born = (parent > 0) & np.isin(parent, cell)
    graph = {int(daughter): [int(mother)] for daughter, mother in zip(cell[born], parent[born], strict=True)}
    arguments = {"graph": graph, "tail_length": 12, "tail_width": 2, "blending": "translucent"}
    return [(data, _common(run, image, "tracks") | arguments, "tracks")]


def _column(batch: Any, name: str) -> NDArray[Any]:
    column: NDArray[Any] = batch.column(name).to_numpy()
    return column


def _common(run: RunFolder, image: int, name: str) -> dict[str, Any]:
    """Give what all layers share; what is not known is in pixels, each 1."""
    here, position = run.layout.images[image], run.position_names[image]
    pixel_um, time = run.layout.pixel_size_um, interval_s(run, image)
    known = [("second", time if math.isfinite(time) else None)]
    known += [("micrometer", here.z_step_um)] if here.n_z > 1 else []
    known += [("micrometer", pixel_um)] * 2
    return {
        "name": f"{position}: {name}" if position else name,
        "scale": tuple(size or 1.0 for _, size in known),
        "units": tuple(unit if size else "pixel" for unit, size in known),
        "axis_labels": ("t", "z", "y", "x") if here.n_z > 1 else ("t", "y", "x"),
    }


def _stack(run: RunFolder, image: int, dtype: Any, read: Callable[[int, int], NDArray[Any] | None]) -> PlaneStack:
    layout, n_z = run.layout, run.layout.images[image].n_z
    planes = (run.n_t(image), n_z) if n_z > 1 else (run.n_t(image),)
    return PlaneStack((*planes, layout.height, layout.width), dtype, read)


def _plane_of(run: RunFolder, image: int, c: int) -> Callable[..., NDArray[Any] | None]:
    return lambda t, z=0: run.plane(Place(image, t, c, z))


def _labels_of(run: RunFolder, image: int, name: str) -> Callable[..., NDArray[Any] | None]:
    return lambda t, _z=0: run.labels(name, image, t)  # one for all focal planes


def _window(run: RunFolder, image: int, c: int) -> tuple[float, float]:
    there = np.argwhere(run.there(image)[:, c])
    chosen = there[:: -(-len(there) // _MOST_WINDOW_PLANES) or 1]
    planes = [plane for t, z in chosen if (plane := run.plane(Place(image, int(t), c, int(z)))) is not None]
    return auto_window(*planes) if planes else (0.0, 65535.0)
