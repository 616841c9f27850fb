"""What all commands share: the console, exit states, how a run folder is given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from livestain.cli.terminal import OwnConsole

__all__ = ["INCOMPLETE", "INTERRUPTED", "Folder", "console"]

console = OwnConsole()

INCOMPLETE = 1  # something is missing or went wrong; the message says what and what to run
INTERRUPTED = 130  # Ctrl-C, by the shells' convention

Folder = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]
