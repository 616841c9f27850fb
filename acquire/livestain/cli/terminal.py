"""What the terminal shows: progress while it runs, the latency table when it has run."""

from __future__ import annotations

import contextlib
import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from livestain._latency import BOUNDARIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from livestain._latency import Percentiles, RunStats
    from livestain._measure_run import Measured
    from livestain._prepare import Prepared
    from livestain._run import Status

__all__ = ["OwnConsole", "Progress", "described", "print_measured", "print_stats"]


class OwnConsole(Console):
    """A console that may be gone: a closed terminal, `| head`, a full disk behind `>`. A run must not end for it.

    No markup: a path may hold [brackets].
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Fall silent, where rich would exit."""
        self.quiet = True

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, if there is anyone to print for."""
        with contextlib.suppress(OSError):
            super().print(*objects, **options)


class Progress:
    """A progress bar on a terminal; one line in five minutes where there is none (a log file)."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("preparing", total=None, text="")
        self._next_line_s = 0.0
        self._n_t: int | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def ready(self, prepared: Prepared) -> None:
        """Say what will run."""
        layout, camera = prepared.layout, prepared.camera
        self._n_t = layout.n_t
        frames = f"{layout.n_frames} frames" if layout.n_frames is not None else "frames without end"
        self._console.print(
            f"camera {', '.join(camera.names)}: {camera.width} x {camera.height} px of {camera.pixel_size_um:g} um; "
            f"{frames}, {len(layout.images)} position{'s' * (len(layout.images) != 1)}",
            soft_wrap=True,
        )
        for package, model in zip(prepared.packages, prepared.models, strict=True):
            self._console.print(f"model {package.fingerprint} on {model.provider}", soft_wrap=True)
            for warning in package.contract.warnings:
                self._console.print(f"  {warning}", style="yellow", markup=False, soft_wrap=True)

    def update(self, status: Status) -> None:
        """Show how the run stands."""
        finishing = status.phase == "finishing"
        total = status.stained + status.owed if finishing and status.owed else status.expected
        done = status.stained if finishing and status.owed else status.acquired
        what = "staining the rest" if finishing and status.owed else status.phase
        self._show(what, done, total, ", ".join(_how_it_stands(status, self._n_t)))

    def backfilled(self, done: int, total: int) -> None:
        """Show how far backfill is."""
        self._show("backfilling", done, total, f"{done} predictions made")

    def measured(self, done: int) -> None:
        """Show how far the measurement is."""
        self._show("measuring cells", done, None, f"{done} time points measured")

    def _show(self, what: str, done: int, total: int | None, text: str) -> None:
        self._bar.update(self._task, description=what, completed=done, total=total, text=text)
        if not self._console.is_terminal and time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + 300
            self._console.print(f"{what}: {text}", soft_wrap=True)


def _how_it_stands(status: Status, n_t: int | None) -> Iterator[str]:
    of = f"/{n_t}" if n_t is not None else ""
    yield f"time point {status.time_points}{of}"
    yield f"{status.stained} stained" + (f" ({status.owed} owed)" if status.owed else "")
    if math.isfinite(status.frames_per_s):
        yield f"{status.frames_per_s:.3g} frames/s"
    if math.isfinite(status.camera_to_disk_p99_ms):
        yield f"p99 {status.camera_to_disk_p99_ms:.0f} ms"
    if status.waiting_for_disk > 4:  # a few are on their way at any time
        yield f"{status.waiting_for_disk} waiting for the disk"
    if status.next_event_s is not None and status.next_event_s >= 2:
        yield f"next in {timedelta(seconds=round(status.next_event_s))}"
    yield f"{status.disk_free_bytes / 1e9:.0f} GB free"
    if status.phase == "ending":
        yield "asked to end (once more: leave owed predictions to backfill)"


def print_stats(console: Console, stats: RunStats) -> None:
    """Print a run's counts and its latency table."""
    console.print(described(stats), soft_wrap=True)
    table = Table("latency of live frames, ms", "p50", "p95", "p99", "max", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, meaning in BOUNDARIES.items() if stats.stained_live else ():
        table.add_row(meaning, *_numbers(stats.latency[name]))
    table.add_row("frame in the core to raw frame on disk", *_numbers(stats.raw_camera_to_disk_ms))
    console.print(table)


def print_measured(console: Console, measured: Measured) -> None:
    """Say what was measured, and where it is."""
    console.print(f"{measured.time_points} time points measured", soft_wrap=True)
    for file in measured.files:
        console.print(f"  {file}", soft_wrap=True)
    for note in measured.notes:
        console.print(f"  {note}", style="yellow", soft_wrap=True)


def described(stats: RunStats) -> str:
    """Say in one line how a run ended and what there is of it."""
    of = f" of {stats.frames_expected}" if stats.frames_expected is not None else ""
    ended = stats.ended or "going on, or killed"
    line = f"{ended}: {stats.frames_acquired}{of} frames acquired, {stats.frames_missing} missing"
    if stats.frames_stained or stats.frames_pending:
        live = f"{stats.stained_live} live"
        line += f"; {stats.frames_stained} predictions made ({live}), {stats.frames_pending} pending"
    return line


def _numbers(row: Percentiles) -> list[str]:
    return [f"{value:.1f}" if row.n else "-" for value in (row.p50, row.p95, row.p99, row.max)]
