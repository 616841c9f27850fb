"""Which fields are learned from, which choose the best step, and which are kept for the score."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

import numpy as np

from livestain_models._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestain_models.data.fields import Field
    from livestain_models.recipe import Split

__all__ = ["Parts", "split_fields"]

GRID_PX = 16  # strips start on it, so that the normalisation's grid lies as in the whole field
Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Parts:
    """The three parts; no cell is in two of them.

    Parameters
    ----------
    train, validation, test : tuple of Field
        In the order of their names.
    """

    train: tuple[Field, ...]
    validation: tuple[Field, ...]
    test: tuple[Field, ...]


def split_fields(fields: Sequence[Field], split: Split) -> Parts:
    """Split fields as a recipe says.

    Time points of one place stay together, whatever is split by: they show the same cells. The draw depends on the
    names and the seed, not on the order of the fields.

    Parameters
    ----------
    fields : sequence of Field
    split : Split

    Returns
    -------
    Parts
        A part whose share is 0 is empty.

    Raises
    ------
    DataError
        Too few fields, instruments or columns, a name that matches nothing, or one part's names match another's.
    """
    if split.by == "columns":
        return _by_columns(fields, split)
    groups = sorted({_group(field, split) for field in fields})
    part_of = _assign(groups, split)
    return _collect((part_of[_group(field, split)], field) for field in fields)


def _group(field: Field, split: Split) -> str:
    return field.instrument if split.by == "instrument" else field.place


def _collect(assigned: object) -> Parts:
    found: dict[str, list[Field]] = {"train": [], "validation": [], "test": []}
    for part, field in assigned:  # type: ignore[attr-defined]
        found[part].append(field)
    return Parts(**{part: tuple(sorted(members, key=lambda field: field.name)) for part, members in found.items()})


def _assign(groups: Sequence[str], split: Split) -> dict[str, Part]:
    """Give each group its part: first what is named, then the shares from the rest."""
    what = "instrument" if split.by == "instrument" else "field"
    wanted: dict[Part, float | tuple[str, ...]] = {"validation": split.validation, "test": split.test}
    part_of: dict[str, Part] = {}
    for part, names in wanted.items():
        for pattern in names if isinstance(names, tuple) else ():
            for group in _matching(pattern, groups, part, what):
                if part_of.setdefault(group, part) != part:
                    raise DataError(
                        f"data.split: the {what} {group} is named by validation and by test. Name it in one of them."
                    )
    rest = [group for group in groups if group not in part_of]
    # The draw depends on names and seed alone.
    drawn = [rest[index] for index in np.random.default_rng(split.seed).permutation(len(rest))]
    for part, share in wanted.items():
        if isinstance(share, float) and share > 0:
            count = max(1, round(share * len(groups)))
            part_of |= dict.fromkeys(drawn[:count], part)
            _refuse_empty(drawn[:count], part, groups, what)
            drawn = drawn[count:]
    _refuse_empty(drawn, "train", groups, what)
    return part_of | dict.fromkeys(drawn, "train")


def _matching(pattern: str, groups: Sequence[str], part: Part, what: str) -> list[str]:
    found = [group for group in groups if fnmatchcase(group, pattern)]
    if not found:
        raise DataError(
            f"data.split.{part} names {pattern!r}, which matches no {what}. There are {_some(groups)}; "
            "* stands for any part of a name."
        )
    return found


def _refuse_empty(members: Sequence[str], part: Part, groups: Sequence[str], what: str) -> None:
    if not members:
        raise DataError(
            f"data.split leaves no {what} for {part}: there are {len(groups)} in all ({_some(groups)}). Give more "
            "data, or ask for smaller parts; for data of one or two fields, split by columns."
        )


def _by_columns(fields: Sequence[Field], split: Split) -> Parts:
    return _collect((part, strip) for field in fields for part, strip in _strips(field, split))


def _strips(field: Field, split: Split) -> list[tuple[Part, Field]]:
    """Cut a field into vertical strips from left to right, without overlap."""
    assert isinstance(split.validation, float)  # noqa: S101 - the recipe allows no names with columns
    assert isinstance(split.test, float)  # noqa: S101
    width = field.size_px[1]
    shares = {"validation": split.validation, "test": split.test}
    shares["train"] = 1.0 - sum(shares.values())
    strips: list[tuple[Part, Field]] = []
    share, left = 0.0, 0
    for part in split.order:
        share += shares[part]
        right = width if share > 1 - 1e-9 else min(round(share * width / GRID_PX) * GRID_PX, width)
        if right - left < GRID_PX and shares[part] > 0:
            raise DataError(
                f"data.split: {shares[part]:.0%} of the {width} columns of {field.name} leave none for {part}: strips "
                f"start at multiples of {GRID_PX} px. Ask for a larger share, or split by field."
            )
        if right > left and shares[part] > 0:
            strips.append((part, field.crop(slice(None), slice(left, right), f"{field.name}[{left}:{right}]")))
            left = right
    return strips


def _some(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
