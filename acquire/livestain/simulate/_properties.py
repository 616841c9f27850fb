"""Reads what a person or a .cfg line gave as a property value; a bad one is named with its remedy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from livestain._errors import RigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["parse_choice", "parse_float", "parse_int"]


def parse_float(name: str, value: object, low: float, high: float) -> float:
    """Return `value` as a float within [low, high].

    Raises
    ------
    RigError
        The value is not a finite number or lies outside the limits.
    """
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise RigError(f"{name} was set to {value!r}; give a number from {low:g} to {high:g}.")
    return number


def parse_int(name: str, value: object, low: int, high: int) -> int:
    """Return `value` as an integer within [low, high]; "512" and "512.0" are both 512.

    Raises
    ------
    RigError
        The value is not a whole number or lies outside the limits.
    """
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not low <= number <= high or number != int(number):
        raise RigError(f"{name} was set to {value!r}; give a whole number from {low} to {high}.")
    return int(number)


def parse_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return `value` as one of `choices`.

    Raises
    ------
    RigError
        The value is none of them.
    """
    if str(value) not in choices:
        raise RigError(f"{name} was set to {value!r}; give one of {', '.join(choices)}.")
    return str(value)
