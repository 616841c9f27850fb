"""Reads the pairs that a recipe names, and looks at each image once before anything is trained."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from livestain_models._errors import DataError
from livestain_models.data._checks import Unusable, check_candidate
from livestain_models.data._ome_zarr import IMAGES, find_in_zarr, is_zarr
from livestain_models.data._source import LeftOut
from livestain_models.data._tiffs import find_in_tiffs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from livestain_models.data._source import Candidate
    from livestain_models.data.fields import Field
    from livestain_models.recipe import Data, Source

__all__ = ["Found", "read_fields"]

_PIXELS_MAY_DIFFER = 0.1


@dataclass(frozen=True, slots=True)
class Found:
    """What the sources of a recipe hold.

    Parameters
    ----------
    fields : tuple of Field
        To train and score on, in the order of the sources.
    left_out : tuple of LeftOut
        Pairs that are not used, each with the reason.
    """

    fields: tuple[Field, ...]
    left_out: tuple[LeftOut, ...]


def read_fields(data: Data) -> Found:
    """Find all fields, and check each: types, shapes, values, and whether stain and input lie on each other.

    Every image is read once, one field at a time.

    Parameters
    ----------
    data : Data
        Of a recipe, with paths that are absolute or relative to the working folder.

    Returns
    -------
    Found

    Raises
    ------
    DataError
        Nothing at a path, a channel that is not there, images that are broken or do not fit each other, pixel sizes
        that differ, two fields of one name, or no usable field.
    """
    fields: list[Field] = []
    left_out: list[LeftOut] = []
    names: dict[str, str] = {}
    for source in data.pairs:
        for found in _candidates(source, data):
            if isinstance(found, LeftOut):
                left_out.append(found)
                continue
            if names.setdefault(found.name, found.where) != found.where or found.name in _names(fields, left_out):
                raise DataError(
                    f"Two fields have the name {found.name}: {names[found.name]} and {found.where}. Rename a folder, "
                    "or take one of the paths out of data.pairs."
                )
            try:
                fields.append(check_candidate(found, source.instrument, data))
            except Unusable as unusable:
                left_out.append(LeftOut(found.name, str(unusable)))
    _refuse_nothing(fields, left_out)
    _refuse_other_pixels(fields)
    return Found(tuple(fields), tuple(left_out))


def _names(fields: Sequence[Field], left_out: Sequence[LeftOut]) -> set[str]:
    return {field.name for field in fields} | {item.name for item in left_out}


def _candidates(source: Source, data: Data) -> Iterator[Candidate | LeftOut]:
    for folder in _folders(source.path):
        if (folder / IMAGES).is_dir() or is_zarr(folder):
            yield from find_in_zarr(folder, data)
        elif next(folder.iterdir(), None) is None:
            raise DataError(f"{folder} is empty. Give a run folder, an OME-Zarr, or a folder of TIFFs.")
        else:
            yield from find_in_tiffs(folder, data)


def _folders(pattern: str) -> list[Path]:
    found = sorted(Path(path) for path in glob.glob(pattern, recursive=True)) if "*" in pattern else [Path(pattern)]  # noqa: PTH207 - the pattern may be absolute
    # A pattern may also match what was made beside the pairs: trainings and packages are none.
    folders = [path for path in found if path.is_dir() and not ("*" in pattern and _is_made(path))]
    if not folders:
        what = "is a file" if any(path.exists() for path in found) else "matches nothing"
        raise DataError(
            f"data.pairs: {pattern} {what}. Give a run folder, an OME-Zarr, or a folder of TIFFs; relative paths start "
            "at the recipe's folder."
        )
    return folders


def _is_made(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("rdf.yaml", "bioimageio.yaml", "fields.json"))


def _refuse_nothing(fields: Sequence[Field], left_out: Sequence[LeftOut]) -> None:
    if fields:
        return
    shown = "\n".join(f"  {item.name}: {item.reason}" for item in left_out[:20])
    more = f"\n  and {len(left_out) - 20} more" if len(left_out) > 20 else ""
    raise DataError(f"No usable pair is left; {len(left_out)} were left out:\n{shown}{more}")


def _refuse_other_pixels(fields: Sequence[Field]) -> None:
    small, large = (pick(fields, key=lambda field: field.pixel_size_um) for pick in (min, max))
    if large.pixel_size_um > small.pixel_size_um * (1 + _PIXELS_MAY_DIFFER):
        raise DataError(
            f"Pixel sizes differ: {small.name} has {small.pixel_size_um:g} um, {large.name} has "
            f"{large.pixel_size_um:g} um. One model learns one pixel size (within {_PIXELS_MAY_DIFFER:.0%}): resample "
            "the images, or train a model for each."
        )
