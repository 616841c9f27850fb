"""Leave one instrument out: what a model is worth on a microscope that it has never seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from livestain_models._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["InstrumentRow", "instrument_table", "leave_one_instrument_out"]


class _OfInstrument(Protocol):
    @property
    def instrument(self) -> str: ...


F = TypeVar("F", bound=_OfInstrument)


@dataclass(frozen=True, slots=True)
class InstrumentRow:
    """One instrument, held out.

    Parameters
    ----------
    instrument : str
        Its name.
    n_fields, n_tested : int
        Its fields, and those of them that were scored, the same for both models.
    held_out : tuple of float
        Scores of models trained on the other instruments only, one a seed.
    within : tuple of float
        Scores of models that also saw this instrument's other fields; empty where it has only one field.
    """

    instrument: str
    n_fields: int
    n_tested: int
    held_out: tuple[float, ...]
    within: tuple[float, ...]


def leave_one_instrument_out(
    train_and_score: Callable[[Sequence[F], Sequence[F], int], float], fields: Sequence[F], seeds: Sequence[int] = (0,)
) -> tuple[InstrumentRow, ...]:
    """Train without each instrument in turn, and with it.

    Of the instrument's fields every second one is for the test of both models; the others join the second model's
    training. Fields of one place (the attribute `place`, where there is one) stay together.

    Parameters
    ----------
    train_and_score : callable
        (fields to train on, fields to test on, seed) -> score.
    fields : sequence
        With an attribute `instrument`.
    seeds : sequence of int
        Trainings of each kind.

    Raises
    ------
    DataError
        Fewer than two instruments.
    """
    names = sorted({one.instrument for one in fields})
    if len(names) < 2:
        raise DataError(
            f"To leave one instrument out takes two, got {names or 'none'}. Name them (data.pairs: instrument)."
        )
    rows = []
    for name in names:
        others = [one for one in fields if one.instrument != name]
        own = [one for one in fields if one.instrument == name]
        places = list(dict.fromkeys(getattr(one, "place", id(one)) for one in own))
        tested_places = set(places[::2])
        tested = [one for one in own if getattr(one, "place", id(one)) in tested_places]
        seen = [one for one in own if getattr(one, "place", id(one)) not in tested_places]
        held_out = tuple(train_and_score(others, tested, seed) for seed in seeds)
        within = tuple(train_and_score([*others, *seen], tested, seed) for seed in seeds if seen)
        rows.append(InstrumentRow(name, len(own), len(tested), held_out, within))
    return tuple(rows)


def instrument_table(rows: Sequence[InstrumentRow], score_name: str = "Pearson r") -> str:
    """Write the rows as markdown, means over seeds with their lowest and greatest."""
    head = [
        "instrument",
        "fields (tested)",
        f"{score_name}, never seen",
        f"{score_name}, seen in training",
        "difference",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join([" --- ", *[" ---: "] * 4]) + "|"]
    for row in rows:
        difference = f"{np.mean(row.held_out) - np.mean(row.within):+.3f}" if row.within else "-"
        cells = [
            row.instrument,
            f"{row.n_fields} ({row.n_tested})",
            _mean_text(row.held_out),
            _mean_text(row.within),
            difference,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if any(not row.within for row in rows):
        lines += ["", 'An instrument with one field has none left to train on: no score "seen in training".']
    return "\n".join(lines) + "\n"


def _mean_text(scores: Sequence[float]) -> str:
    if not scores:
        return "-"
    if len(scores) == 1:
        return f"{scores[0]:.3f}"
    return f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"
