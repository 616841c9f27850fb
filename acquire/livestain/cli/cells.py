"""`livestain measure | cells | empty-field`: what is measured of a run's cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from livestain._errors import ExperimentError, LivestainError
from livestain.cli.common import INCOMPLETE, INTERRUPTED, Folder, console
from livestain.cli.terminal import OwnConsole

if TYPE_CHECKING:
    from livestain._experiment import Experiment

__all__ = ["cells", "empty_field", "measure"]


def measure(
    folder: Folder,
    settings: Annotated[
        Path | None,
        typer.Option(help="An experiment file whose measure section and optics to take instead."),
    ] = None,
    *,
    again: Annotated[bool, typer.Option("--again", help="Begin anew.")] = False,
) -> None:
    """Measure the cells of a run from disk: mass, growth, viability, lineage; goes on where it was stopped.

    A run that is measured to its end is left as it is, unless --again or --settings is given.

    Example: livestain measure livestain-runs/2026-11-22-demo
    """
    from livestain._measure_run import measure_run
    from livestain._standing import standing_of
    from livestain._stop import Stop
    from livestain.cli.terminal import Progress, print_measured

    chosen = None if settings is None else _with_measure_section(settings)
    stop = Stop()
    with stop.on_signals(), Progress(console) as progress:
        done = measure_run(
            folder, settings=chosen, again=again, on_progress=progress.measured, stop=lambda: stop.times > 0
        )
    if done.already:
        console.print(f"{folder} is measured to its end already, so nothing was done. What there is:", soft_wrap=True)
    print_measured(console, done)
    if done.already:
        console.print(f"To measure it anew: livestain measure {folder} --again", soft_wrap=True)
    if not done.finished:
        said = "stopped and " if done.stopped else ""
        console.print(f"{said}{standing_of(folder, over=True)}", style="yellow", soft_wrap=True)
        raise typer.Exit(INTERRUPTED if done.stopped else INCOMPLETE)


def _with_measure_section(path: Path) -> Experiment:
    from livestain._reading import load_experiment

    chosen = load_experiment(path)
    if chosen.measure is None:
        raise ExperimentError(
            f"{path} has no measure section, so it says nothing that a run could be measured by. Write one: "
            "docs/cells.md says how."
        )
    return chosen


def cells(
    folder: Folder,
    csv: Annotated[Path | None, typer.Option(help="Write every cell at every time point as CSV.")] = None,
    summary_csv: Annotated[Path | None, typer.Option(help="Write one row a position and time point as CSV.")] = None,
    anndata: Annotated[Path | None, typer.Option(help="Write AnnData (.h5ad).")] = None,
    ctc: Annotated[Path | None, typer.Option(help="Write Cell Tracking Challenge files into this folder.")] = None,
) -> None:
    """Say what was measured of a run's cells; or write the tables for other programs.

    Example: livestain cells livestain-runs/2026-11-22-demo --csv cells.csv
    """
    from livestain._standing import standing_of
    from livestain.measure.overview import overview_of
    from livestain.measure.products import write_ctc
    from livestain.measure.table import write_anndata, write_csv

    standing = standing_of(folder)
    if csv:
        write_csv(folder, csv)
    if summary_csv:
        write_csv(folder, summary_csv, "summary")
    if anndata:
        write_anndata(folder, anndata)
    written = [*(path for path in (csv, summary_csv, anndata) if path), *(write_ctc(folder, ctc) if ctc else ())]
    for path in written:
        console.print(str(path), soft_wrap=True)
    if not written:
        console.print(overview_of(folder), soft_wrap=True)
    if not standing.finished:
        OwnConsole(stderr=True).print(f"The measurement is {standing}", style="yellow", soft_wrap=True)


def empty_field(
    experiment: Annotated[Path, typer.Argument(help="An experiment with phase steps.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The calibration to write.")] = Path("empty_field.npz"),
    repeats: Annotated[int, typer.Option(min=1, help="Sets of frames to average.")] = 8,
) -> None:
    """Take the light of an empty field, which phase from steps is measured against.

    Move the stage to a place without cells first, or put in a dish with medium only.

    Example: livestain empty-field experiment.yaml --out empty_field.npz
    """
    from livestain._empty_field import take_empty_field
    from livestain._reading import load_experiment

    if not out.parent.is_dir():  # before a frame is taken
        raise LivestainError(f"cannot write {out}: there is no folder {out.parent}. Make it first, or name another.")
    take_empty_field(load_experiment(experiment), out, repeats=repeats)
    console.print(f"{out}\nto use it: measure.phase.empty_field: {out}", soft_wrap=True)
