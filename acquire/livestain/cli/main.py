"""The command line: `livestain demo | run | collect | check | stats | recover | backfill | measure | cells | ...`."""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from livestain._errors import LivestainError
from livestain.cli.cells import cells, empty_field, measure
from livestain.cli.common import INCOMPLETE, INTERRUPTED, Folder, console
from livestain.cli.look import movie, page_beside, report, try_report, view
from livestain.cli.models import app as models
from livestain.cli.terminal import OwnConsole
from livestain.cli.warm import warm

if TYPE_CHECKING:
    from livestain._session import Result

__all__ = ["app", "main"]

Look = Annotated[bool, typer.Option("--view", help="Show the run in the browser while it goes on.")]

app = typer.Typer(
    name="livestain",
    help="Label-free live-cell imaging for Micro-Manager: fluorescence predicted while the camera runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; a `LivestainError` becomes one message and exit status 1."""
    import pymmcore_plus

    # Its own console log would tear the progress display; a run has run.log.
    pymmcore_plus.configure_logging(file=None, log_to_stderr=False)
    logging.getLogger("livestain").addHandler(logging.NullHandler())
    try:
        app()
    except LivestainError as error:
        OwnConsole(stderr=True).print(f"error: {error}", style="red", soft_wrap=True)
        sys.exit(INCOMPLETE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        _leave_a_broken_pipe_in_peace()


def _leave_a_broken_pipe_in_peace() -> None:
    # The interpreter flushes standard output as it ends, and would complain of a reader that is gone.
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(show: bool) -> None:
    if show:
        typer.echo(version("livestain"))
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Label-free live-cell imaging for Micro-Manager: fluorescence predicted while the camera runs."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder that the run folder is made in.")] = Path("livestain-runs"),
    seconds: Annotated[float, typer.Option(min=1, help="Length of the time-lapse.")] = 30,
    fps: Annotated[float, typer.Option(min=0.1, max=50, help="Time points a second, six frames each.")] = 2,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Side of the camera's frame in pixels.")] = 512,
    seed: Annotated[int, typer.Option(help="Seed of the simulated cells.")] = 1,
    *,
    look: Look = False,
) -> None:
    """Run a time-lapse on the simulated microscope: no hardware, no torch, no network.

    A time point is 20 minutes of the cells' time: bright field, stained as it comes, four phase steps for the dry mass,
    and the true nuclei to compare with. Every cell is measured and followed.

    Example: livestain demo --seconds 10
    """
    from livestain._demo import demo_experiment, demo_picture, demo_survival
    from livestain.measure.overview import overview_of

    experiment = demo_experiment(out, seconds=seconds, fps=fps, size_px=size, seed=seed)
    folder = experiment.run_folder("demo")
    with page_beside(folder, wanted=look):
        result = _run(experiment, folder)
        picture = demo_picture(result.folder)
        if result.measured and result.measured.finished:
            demo_survival(result.folder)
            console.print(f"\n{overview_of(result.folder)}", soft_wrap=True)
        try_report(result.folder)
    console.print(f"\npicture   {picture}\nlook on   napari {result.folder / 'images.ome.zarr'}", soft_wrap=True)
    console.print(f"          livestain stats {result.folder}", soft_wrap=True)
    _exit(result)


@app.command()
def run(
    experiment: Annotated[Path, typer.Argument(help="An experiment file.", show_default=False)],
    *,
    look: Look = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program, one object a line.")] = False,
) -> None:
    """Acquire, stain and store an experiment.

    Example: livestain run experiment.yaml
    """
    from livestain._reading import load_experiment

    loaded = load_experiment(experiment)
    folder = loaded.run_folder(experiment.stem)
    if as_json:
        _exit(_run_for_program(loaded, folder), quiet=True)
        return
    with page_beside(folder, wanted=look):
        result = _run(loaded, folder)
        try_report(result.folder)
    _exit(result)


@app.command()
def collect(
    experiment: Annotated[
        Path,
        typer.Argument(help="An experiment file; or a run folder, to look at its pairs again.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder that collects the runs. [default: the experiment's output.folder, or pairs]"),
    ] = None,
) -> None:
    """Acquire pairs of transmitted light and real stain, to train a model from.

    Every position is looked at as soon as it is whole: is there a stain, is it saturated, does it lie on the
    transmitted light? Beside the run folders a first recipe for the training is written.

    Example: livestain collect experiment.yaml --out pairs/
    """
    from livestain._reading import load_experiment
    from livestain.cli.terminal import described
    from livestain.pairs.collect import collect as acquire
    from livestain.pairs.collect import look_again
    from livestain.pairs.display import PairsDisplay, print_pairs

    with PairsDisplay(console) as display:
        if experiment.is_dir():
            found = look_again(experiment, display)
        else:
            loaded = load_experiment(experiment)
            folder = out or (loaded.output.folder if "folder" in loaded.output.model_fields_set else Path("pairs"))
            loaded = loaded.model_copy(update={"output": loaded.output.model_copy(update={"folder": folder})})
            found = acquire(loaded, loaded.run_folder(experiment.stem), display)
    if found.result is not None:
        console.print(f"\n{described(found.result.stats)}", soft_wrap=True)
    print_pairs(console, found)
    if found.result is not None:
        _exit(found.result)
    if found.report.left_out:
        raise typer.Exit(INCOMPLETE)


def _run(experiment: Any, folder: Path) -> Result:
    from livestain._session import run_experiment
    from livestain.cli.terminal import Progress, print_measured, print_stats

    with Progress(console) as progress:
        result = run_experiment(
            experiment, folder, on_ready=progress.ready, on_progress=progress.update, on_measured=progress.measured
        )
    console.print(f"\n{result.folder}", soft_wrap=True)
    print_stats(console, result.stats)
    if result.measured:
        print_measured(console, result.measured)
    return result


def _run_for_program(experiment: Any, folder: Path) -> Result:
    from livestain._session import run_experiment
    from livestain.cli.json_lines import JsonLines

    lines = JsonLines()
    result = run_experiment(
        experiment, folder, on_ready=lines.ready, on_progress=lines.update, on_measured=lines.measured
    )
    lines.ended(result)
    return result


def _exit(result: Result, *, quiet: bool = False) -> None:
    """Say what is not whole and how to mend it, unless `quiet`; exit with a status a script can use."""
    if not quiet:
        _say_what_is_not_whole(result)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not result.complete:
        raise typer.Exit(INCOMPLETE)


def _say_what_is_not_whole(result: Result) -> None:
    for trouble in result.troubles:
        console.print(f"warning: {trouble}", style="yellow", soft_wrap=True)
    if missing := result.stats.frames_missing:
        verb = "frame never came" if missing == 1 else "frames never came"
        reasons = result.folder / "frames.jsonl"
        console.print(f"{missing} {verb} from the camera; the reasons are in {reasons}.", style="red", soft_wrap=True)
    if owed := result.stats.frames_pending:
        verb = "prediction is" if owed == 1 else "predictions are"
        remedy = f"To make them: livestain backfill {result.folder}"
        console.print(f"{owed} {verb} still owed. {remedy}", style="yellow", soft_wrap=True)


@app.command()
def check(
    path: Annotated[
        Path, typer.Argument(help="An experiment file, a rig's .cfg, or a run folder.", show_default=False)
    ],
) -> None:
    """Find faults before the microscope does.

    An experiment is loaded with its rig and held against its models; a .cfg file is only read, so no vendor's
    driver is needed; of a run folder every plane is read and held against its checksum.

    Example: livestain check experiment.yaml
    """
    from livestain._check import check_experiment, check_rig, check_run

    if path.is_dir():
        sound = check_run(path, console)
    elif path.suffix.lower() == ".cfg":
        sound = check_rig(path, console)
    else:
        sound = check_experiment(path, console)
    if not sound:
        raise typer.Exit(INCOMPLETE)


@app.command()
def stats(folder: Folder, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Count a run's frames and show its latency, also while it runs.

    Example: livestain stats livestain-runs/2026-11-22-demo --json
    """
    from livestain._recover import read_stats
    from livestain.cli.terminal import print_stats

    found = read_stats(folder)
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        print_stats(console, found)


@app.command()
def recover(folder: Folder) -> None:
    """Mend a run folder after a crash, a kill or a loss of power.

    Example: livestain recover livestain-runs/2026-11-22-demo
    """
    from livestain._recover import recover as mend

    done = mend(folder)
    if done.torn_bytes:
        console.print(f"cut off a torn journal line of {done.torn_bytes} bytes")
    if done.adopted:
        console.print(f"journalled {done.adopted} frames that were on disk already")
    console.print(f"{done.frames} frames are on disk and whole, predictions owed: {done.owed}", soft_wrap=True)
    for place in done.damaged:
        console.print(f"lost: {place} is missing or not as it was written; the journal says so now", style="red")
    if done.owed:
        console.print(f"to make what is owed: livestain backfill {folder}", soft_wrap=True)
    if done.damaged:
        raise typer.Exit(INCOMPLETE)


@app.command()
def backfill(
    folder: Folder,
    provider: Annotated[str | None, typer.Option(help="Where to run: auto, cpu, openvino, cuda or tensorrt.")] = None,
) -> None:
    """Make the predictions that a run still owes, from its raw frames.

    Example: livestain backfill livestain-runs/2026-11-22-demo
    """
    from livestain._recover import backfill as fill
    from livestain.cli.terminal import Progress, print_stats

    with Progress(console) as progress:
        found = fill(folder, provider=provider, on_progress=progress.backfilled)
    print_stats(console, found)


for command in (warm, view, report, movie, measure, cells, empty_field):
    app.command(command.__name__.replace("_", "-"))(command)
app.add_typer(models)
