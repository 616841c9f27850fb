"""Finds pairs in folders of TIFFs, by file patterns such as "bf/{field}.tif"."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from livestain_models._errors import DataError
from livestain_models.data._pages import TiffPage
from livestain_models.data._source import Candidate, LeftOut, Pixels, unknown_pixel_size
from livestain_models.data.fields import Planes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livestain_models.recipe import Data

__all__ = ["find_in_tiffs"]

_FIELD = "{field}"
# Many programs write the resolution of a printer or a screen; a camera's pixel in the sample is never that large.
_LARGEST_UM = 50.0
_UM_OF_RESOLUTION = {2: 25400.0, 3: 10000.0}  # TIFF 6.0: inch, centimetre
_UM_OF_UNIT = {"um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00B5m": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


def find_in_tiffs(folder: Path, data: Data) -> Iterator[Candidate | LeftOut]:
    """Find every field of a folder.

    Raises
    ------
    DataError
        No file matches the input's pattern, or a file that does is no stack of grey images.
    """
    patterns = [target.source for target in data.targets]
    labels = data.classes.labels if data.classes else None
    fields = _fields(folder, data.input)
    if not fields:
        there = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tif*"))
        listed = ", ".join(there[:5]) + (" ..." if len(there) > 5 else "")
        raise DataError(
            f"{folder} is no run folder and no OME-Zarr, and no file in it matches data.input {data.input!r}. "
            + (f"It holds {listed}; write a pattern like bf/{_FIELD}.tif." if there else "It holds no TIFF.")
        )
    for field in fields:
        files = [folder / pattern.replace(_FIELD, field) for pattern in [data.input, *patterns]]
        marked = folder / labels.replace(_FIELD, field) if labels else None
        name = f"{folder.name}/{field}" if field else folder.name
        missing = [path for path in [*files, *([marked] if marked else [])] if not path.is_file()]
        if missing:
            yield LeftOut(name, f"there is no {', no '.join(str(path.relative_to(folder)) for path in missing)}")
            continue
        planes, *stains = map(_planes, files)
        yield Candidate(
            name=name,
            place=name,
            where=", ".join(map(str, files)),
            instrument=None,
            planes=planes,
            stains=tuple(stains),
            labels=_planes(marked).pages[0] if marked else None,
            pixels=_pixels(files[0], data),
            shifts_px={},
        )


def _fields(folder: Path, pattern: str) -> list[str]:
    """Give what stands for {field} in the files there are; one empty name for a pattern without it."""
    if _FIELD not in pattern:
        return [""] if (folder / pattern).is_file() else []
    before, after = pattern.split(_FIELD, 1)
    exact = re.compile(re.escape(before) + "([^/]+)" + re.escape(after).replace(re.escape(_FIELD), r"\1"))
    paths = (path.relative_to(folder).as_posix() for path in folder.glob(pattern.replace(_FIELD, "*")))
    return sorted(match[1] for match in map(exact.fullmatch, paths) if match)


def _planes(file: Path) -> Planes:
    """Wrap the pages of a file, which are focal planes."""
    shape, dtype, axes = _header(str(file))
    if len(shape) not in (2, 3) or axes[-2:] != "YX" or axes[:-2] in ("T", "C", "S"):
        raise DataError(
            f"{file} has the axes {axes} and the shape {shape}. A file must hold one grey image or a stack of focal "
            "planes: write channels, time points and colours as files of their own."
        )
    size = (shape[-2], shape[-1])
    pages = shape[0] if len(shape) == 3 else 1
    return Planes(tuple(TiffPage(str(file), index, size, dtype) for index in range(pages)))


@lru_cache(maxsize=4096)
def _header(file: str) -> tuple[tuple[int, ...], np.dtype, str]:
    try:
        with tifffile.TiffFile(file) as opened:
            series = opened.series[0]
            return tuple(series.shape), np.dtype(series.dtype), str(series.axes)
    except (OSError, ValueError, IndexError, tifffile.TiffFileError) as error:
        raise DataError(f"{file} cannot be read as TIFF: {error}. Write it again, or take it out.") from error


def _pixels(file: Path, data: Data) -> Pixels:
    with tifffile.TiffFile(file) as opened:
        found = _of_ome(opened) or _of_imagej(opened) or _of_resolution(opened)
    size_um, spacing_um = found or (None, None)
    size_um = size_um or data.pixel_size_um
    if size_um is None:
        raise unknown_pixel_size(file)
    return Pixels(size_um, spacing_um or data.plane_spacing_um)


def _of_ome(opened: tifffile.TiffFile) -> tuple[float, float | None] | None:
    text = opened.ome_metadata
    if not text:
        return None
    size = {axis: re.search(rf'PhysicalSize{axis}="([^"]+)"', text) for axis in "XZ"}
    unit = {axis: re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', text) for axis in "XZ"}
    x, z = (
        float(found[1]) * _UM_OF_UNIT.get(named[1] if (named := unit[axis]) else "µm", 0.0)
        if (found := size[axis])
        else 0.0
        for axis in "XZ"
    )
    return (x, z or None) if x > 0 else None


def _of_imagej(opened: tifffile.TiffFile) -> tuple[float, float | None] | None:
    about = opened.imagej_metadata
    if not about or str(about.get("unit")) not in _UM_OF_UNIT:
        return None
    per_pixel = _per_unit(opened)
    factor = _UM_OF_UNIT[str(about["unit"])]
    spacing = about.get("spacing")
    return (factor / per_pixel, float(spacing) * factor if spacing else None) if per_pixel else None


def _of_resolution(opened: tifffile.TiffFile) -> tuple[float, float | None] | None:
    tag = opened.pages[0].tags.get("ResolutionUnit")
    factor = _UM_OF_RESOLUTION.get(int(tag.value), 0.0) if tag else 0.0
    per_pixel = _per_unit(opened)
    return (factor / per_pixel, None) if per_pixel and 0 < factor / per_pixel < _LARGEST_UM else None


def _per_unit(opened: tifffile.TiffFile) -> float:
    """Pixels to the unit, 0 if nobody says."""
    tag = opened.pages[0].tags.get("XResolution")
    if tag is None:
        return 0.0
    pixels, units = tag.value
    return float(pixels) / units if units else 0.0
