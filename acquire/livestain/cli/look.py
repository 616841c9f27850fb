"""`livestain view | report | movie`: what a run looks like."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated

import typer

from livestain.cli.common import Folder, console

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["movie", "page_beside", "report", "try_report", "view"]


def view(
    folder: Folder,
    host: Annotated[str, typer.Option(help="Address to listen on; any but 127.0.0.1 asks for a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    *,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Look at a run in the browser, while it goes on or after it; Ctrl-C ends the page, never the run.

    Example: livestain view livestain-runs/2026-11-22-demo
    """
    from livestain.live.serve import serve

    serve(folder, host=host, port=port, browser=browser, on_address=lambda at: console.print(at, soft_wrap=True))


@contextmanager
def page_beside(folder: Path, *, wanted: bool) -> Iterator[None]:
    """Show the page of a run that is about to begin, in a process of its own, until the run's command ends."""
    if not wanted:
        yield
        return
    from livestain.live.beside import ViewProcess

    with ViewProcess(folder, lambda at: console.print(f"look on   {at}", soft_wrap=True)):
        yield
    console.print(f"to look again: livestain view {folder}", soft_wrap=True)


def report(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="The HTML file. [default: RUN/report.html]")] = None,
) -> None:
    """Write a run's report: one HTML file to print and mail, and its figures as SVG and PNG.

    Example: livestain report livestain-runs/2026-11-22-demo
    """
    from livestain.live.report import make_report

    console.print(str(make_report(folder, out)), soft_wrap=True)


def try_report(folder: Path) -> None:
    """Write the report of a run that has just ended; the run is whole without it, so a failure is only said."""
    from livestain.live.report import make_report

    try:
        console.print(f"report    {make_report(folder)}", soft_wrap=True)
    except Exception as error:  # noqa: BLE001  (whatever a plot may raise must not spoil a run's exit)
        remedy = f"To make it later: livestain report {folder}"
        console.print(f"warning: no report: {error} {remedy}", style="yellow", soft_wrap=True)


def movie(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="The .mp4 or .gif to write. [default: RUN/movie.mp4]")] = None,
    position: Annotated[str | None, typer.Option(help="Its name. [default: the first]")] = None,
    channels: Annotated[
        str, typer.Option(help='Names with commas between: "BF,Nuclei (predicted)". [default: BF and the stains]')
    ] = "",
    fps: Annotated[float, typer.Option(help="Pictures a second.")] = 10,
    every: Annotated[int, typer.Option(help="Show every so many-th time point.")] = 1,
    width: Annotated[int | None, typer.Option(help="In pixels. [default: the camera's, at most 1920; GIF 640]")] = None,
    *,
    outlines: Annotated[bool, typer.Option("--outlines", help="Draw the outlines of the cells.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Make a movie of a position, with scale bar and time; MP4 for slides and browsers, or GIF.

    Example: livestain movie livestain-runs/2026-11-22-demo --out talk.mp4 --outlines
    """
    from livestain.live.movie import make_movie
    from livestain.live.run_folder import RunFolder

    made = make_movie(
        RunFolder(folder),
        out or folder / "movie.mp4",
        position=position,
        channels=[name.strip() for name in channels.split(",") if name.strip()],
        fps=fps,
        every=every,
        outlined=outlines,
        width_px=width,
        overwrite=overwrite,
    )
    for note in made.notes:
        console.print(note, soft_wrap=True)
    console.print(f"{made.path}: {made.n_pictures} pictures", soft_wrap=True)
