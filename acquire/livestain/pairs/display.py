"""What the terminal shows of collected pairs: troubles as they come up, and a summary for people at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from livestain.cli.terminal import Progress
from livestain.pairs.pair_check import SATURATED
from livestain.pairs.report import NOT_LOOKED_AT, NOT_WHOLE
from livestain.pairs.verdicts import verdict_of

if TYPE_CHECKING:
    from rich.console import Console

    from livestain.pairs.collect import Collected
    from livestain.pairs.pair_check import PairCheck
    from livestain.pairs.plan import PairsPlan
    from livestain.pairs.verdicts import Row

__all__ = ["PairsDisplay", "print_pairs"]

_ROWS_SHOWN_WHOLE = 40


class PairsDisplay(Progress):
    """Shows a collection on a console; each kind of trouble of a stain is told once while it runs."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._told: set[tuple[str, str]] = set()

    def warn(self, sentence: str) -> None:
        """Say what is not ideal."""
        self._console.print(f"warning: {sentence}", style="yellow", soft_wrap=True)

    def checking(self, done: int, total: int) -> None:
        """Show how many positions were looked at."""
        self._show("looking at the pairs", done, total, f"{done} positions looked at")

    def checked(self, check: PairCheck, position: str, plan: PairsPlan) -> None:
        """Tell of a trouble at once, so that the person at the microscope can stop and mend it."""
        verdict, trouble = verdict_of(check, plan)
        if not trouble and check.saturated > SATURATED:
            trouble = f"{check.target} is saturated in {check.saturated:.2%} of the pixels"
        kind = verdict.partition(" by ")[0]
        if trouble and (check.target, kind) not in self._told:
            self._told.add((check.target, kind))
            self._console.print(
                f"warning: {position}: {trouble}. (Ctrl-C ends the run and keeps what there is.)",
                style="yellow",
                soft_wrap=True,
            )


def print_pairs(console: Console, found: Collected) -> None:
    """Print the summary: a row for each position and stain, what they say together, and what to do."""
    report = found.report
    seen = [row for row in report.rows if row.check is not None]
    rows = seen if len(seen) <= _ROWS_SHOWN_WHOLE else [row for row in seen if row.verdict != "fits"]
    if rows:
        console.print(_table(rows))
    if hidden := len(seen) - len(rows):
        console.print(f"and {hidden} more that fit")
    for what in (NOT_WHOLE, NOT_LOOKED_AT):
        if positions := len({row.position for row in report.rows if row.verdict == what}):
            console.print(f"and {positions} {what}, left out")
    console.print()
    for target, (dy, dx) in report.shift_px.items():
        if dy or dx:
            dy_um, dx_um = report.shift_um[target]
            console.print(
                f"{target} lies {_way(dy_um, 'below', 'above')} and {_way(dx_um, 'right of', 'left of')} the "
                f"transmitted light; {abs(dy)} and {abs(dx)} px of that are taken out when the pairs are read.",
                soft_wrap=True,
            )
    for remedy in report.remedies:
        console.print(f"warning: {remedy}", style="yellow", soft_wrap=True)
    _print_outcome(console, found)


def _table(rows: list[Row]) -> Table:
    table = Table("position", "stain", "verdict", "beside by y, x (um)", "strength", "saturated", box=None)
    for column in table.columns[3:]:
        column.justify = "right"
    for row in rows:
        assert row.check is not None  # noqa: S101  (the others are counted)
        style = "red" if row.useless else "" if row.verdict == "fits" else "yellow"
        verdict = row.verdict + (", left out" if row.useless else "")
        table.add_row(row.position, row.target, verdict, *_numbers(row.check), style=style)
    return table


def _numbers(check: PairCheck) -> tuple[str, str, str]:
    saturated = f"{check.saturated:.2%}" if check.saturated > SATURATED else "-"
    found = check.registration
    if found is None or found.verdict in ("unrelated", "cannot tell"):
        return "-", "-" if found is None else f"{found.strength:.1f}", saturated
    dy_um, dx_um = found.shift_um
    return f"{dy_um:+.1f}, {dx_um:+.1f}", f"{found.strength:.1f}", saturated


def _way(distance_um: float, forward: str, back: str) -> str:
    return f"{abs(distance_um):.1f} um {forward if distance_um >= 0 else back}"


def _print_outcome(console: Console, found: Collected) -> None:
    report = found.report
    n_left_out = len(report.left_out)
    left_out = f", {n_left_out} {'is' if n_left_out == 1 else 'are'} left out" if n_left_out else ""
    console.print(
        f"{report.n_good} of {report.n_positions} positions give pairs{left_out}",
        style="yellow" if report.n_good and n_left_out else "red" if n_left_out else "green",
        soft_wrap=True,
    )
    console.print(f"pairs     {found.folder}", soft_wrap=True)
    if any(row.verdict == NOT_LOOKED_AT for row in report.rows):
        console.print(f"look at the rest: livestain collect {found.folder}", style="yellow", soft_wrap=True)
    if report.n_good:
        note = "" if found.recipe_is_new else "  (was there before; left as it is)"
        console.print(f"recipe    {found.recipe}{note}", soft_wrap=True)
        console.print(f"train     livestain models train {found.recipe}", soft_wrap=True)
