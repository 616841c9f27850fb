"""`livestain measure | cells | empty-field`: what is measured of a run's cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from livestain._cli_app import INCOMPLETE, INTERRUPTED, Folder, console

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

    Example: livestain measure livestain-runs/2026-11-22-demo
    """
    from livestain._measure_run import measure_run
    from livestain._reading import load_experiment
    from livestain._report import Progress, print_measured
    from livestain._stop import Stop

    chosen = None if settings is None else load_experiment(settings)
    stop = Stop()
    with stop.on_signals(), Progress(console) as progress:
        done = measure_run(
            folder, settings=chosen, again=again, on_progress=progress.measured, stop=lambda: stop.times > 0
        )
    print_measured(console, done)
    if stop.times:
        console.print("stopped; the same command goes on from there", style="yellow")
        raise typer.Exit(INTERRUPTED)
    if not done.finished:
        remedy = f"livestain backfill {folder}, then livestain measure {folder}"
        console.print(f"{done.waiting} time points owe predictions: {remedy}", style="yellow", soft_wrap=True)
        raise typer.Exit(INCOMPLETE)


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
    from livestain.measure.overview import overview_of
    from livestain.measure.products import write_ctc
    from livestain.measure.table import write_anndata, write_csv

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

    take_empty_field(load_experiment(experiment), out, repeats=repeats)
    console.print(f"{out}\nto use it: measure.phase.empty_field: {out}", soft_wrap=True)
