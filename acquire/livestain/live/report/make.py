"""Makes the report of a run from its folder; nothing in the folder is changed but the report itself."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livestain._errors import LivestainError, StoreError
from livestain.live.health import health
from livestain.live.report.cards import cards_of
from livestain.live.report.cells import cells_of
from livestain.live.report.choice import evenly
from livestain.live.report.described import (
    completeness_of,
    ending_of,
    facts_of,
    software_of,
    times_of,
)
from livestain.live.report.latency import latency_of
from livestain.live.report.panels import MOST_POSITIONS, draw_pictures
from livestain.live.report.sheet import need_matplotlib
from livestain.live.report.told import read_told
from livestain.live.report.words import moment, moment_utc
from livestain.live.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestain.live.health import Warn

__all__ = ["REPORT_NAME", "make_report"]

REPORT_NAME = "report.html"
_FIGURES = "report"


def make_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run: one HTML file that needs nothing else, and its figures as files.

    The same folder gives the same report, whenever it is made. It is made of whatever is there: a run that goes on, was
    killed, has no frame or was not measured has a report that says so.

    Parameters
    ----------
    folder
        The run folder.
    out
        The HTML file; RUN/report.html if not given. Its figures (SVG and PNG) go into a folder beside it, which is
        replaced: RUN/report, or the file's name without suffix and "-figures".

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    LivestainError
        The folder is no run, `out` cannot be written, or a package that reports need is not installed.
    """
    need_matplotlib()
    template = _template()
    run = RunFolder(folder)
    page = run.path / REPORT_NAME if out is None else Path(out).absolute()
    figures = run.path / _FIGURES if out is None else page.with_name(f"{page.stem}-figures")
    try:
        fresh = _fresh_folder(figures)
        html = template.render(_content(run, fresh, figures.name))
        _replace(fresh, figures)
        new = page.with_name(page.name + ".new")
        new.write_text(html, encoding="utf-8", newline="\n")
        new.replace(page)
    except OSError as error:
        raise StoreError(
            f"cannot write the report {page}: {error.strerror or error}. Choose another place: livestain report "
            f"{folder} --out FILE.html"
        ) from error
    return page


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise LivestainError(
            'A report needs jinja2, which is not installed. Install it: pip install "livestain[cells]".'
        ) from error
    # Every name in it was written by somebody else: escaped, all of them.
    here = files("livestain.live.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["style"] = (here / "report.css").read_text(encoding="utf-8")
    return environment.from_string((here / "report.html.j2").read_text(encoding="utf-8"))


def _content(run: RunFolder, figures: Path, figures_name: str) -> dict[str, Any]:
    told, stats = read_told(run), run.stats()
    well = health(run)
    shown = evenly(len(run.layout.images), MOST_POSITIONS)
    cells = cells_of(run, figures, shown)
    pictures = draw_pictures(run, figures, shown)
    return {
        "name": run.name,
        "state": well.state,
        "ending": ending_of(run, well.state),
        "times": times_of(told),
        "facts_rows": facts_of(run, told),
        "complete": completeness_of(run, stats, told, well.state, cells.measured),
        "pictures": pictures,
        "cells": cells,
        "wants_cells": bool(run.experiment and run.experiment.measure),
        "latency": latency_of(figures, stats, told),
        "cards": cards_of(run, told),
        "warnings": _warnings(well.warnings),
        "notes": run.notes,
        "software": software_of(run),
        "figures": figures_name,
        "folder": str(run.path),
    }


def _warnings(warnings: Sequence[Warn]) -> list[tuple[str, str, str]]:
    """Give local time, UTC and the text of each warning."""
    from datetime import datetime

    found = []
    for warn in warnings:
        time = datetime.fromisoformat(warn.time) if warn.time else None
        found.append((moment(time) if time else "", moment_utc(time) if time else "time not known", warn.text))
    return found


def _fresh_folder(figures: Path) -> Path:
    """Make an empty folder beside the one with the figures of an earlier report, which stays until these are whole."""
    if figures.exists() and not (figures.is_dir() and _is_ours(figures)):
        raise StoreError(
            f"{figures} is there and holds other things than a report's figures; it was left as it is. Choose another "
            "name: --out FILE.html"
        )
    fresh = figures.with_name(figures.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    return fresh


def _is_ours(folder: Path) -> bool:
    return all(entry.is_file() and entry.suffix in (".svg", ".png") for entry in folder.iterdir())


def _replace(fresh: Path, figures: Path) -> None:
    shutil.rmtree(figures, ignore_errors=True)
    fresh.replace(figures)
