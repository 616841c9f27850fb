"""`livestain check`: faults of an experiment, a rig file or a run folder, before they cost anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.filesize import decimal

from livestain._errors import RigError, StoreError
from livestain._prepare import Prepared, free_bytes, prepare
from livestain._reading import load_experiment
from livestain._recover import damaged_planes, read_stats
from livestain.rigfile import check_rig_file, read_rig_file

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from livestain._experiment import Experiment

__all__ = ["check_experiment", "check_rig", "check_run"]


def check_rig(path: Path, console: Console) -> bool:
    """Read a .cfg file for faults, without its devices; True if there is no error."""
    findings = check_rig_file(read_rig_file(path))
    for finding in findings:
        style = "red" if finding.severity == "error" else "yellow"
        console.print(f"{path}: {finding}", style=style, soft_wrap=True)
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    console.print(f"{path}: {_count(errors, 'error')}, {_count(warnings, 'warning')}", soft_wrap=True)
    return not errors


def check_experiment(path: Path, console: Console) -> bool:
    """Load an experiment's rig and models, hold them against each other, say what a run would write."""
    experiment = load_experiment(path)
    findings = check_rig_file(read_rig_file(experiment.rig.config))
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings:
        console.print(f"{experiment.rig.config}: {finding}", style="yellow", soft_wrap=True)
    if errors:
        raise RigError(
            f"{experiment.rig.config} has {_count(len(errors), 'error')}; mend them before the rig is loaded."
        )
    with prepare(experiment) as ready:
        for line in _describe(experiment, path, ready):
            console.print(line, soft_wrap=True)
    return True


def _describe(experiment: Experiment, path: Path, ready: Prepared) -> list[str]:
    layout, camera = ready.layout, ready.camera
    folder = experiment.run_folder(path.stem)
    if folder.exists():
        raise StoreError(f"{folder} exists already, and a run is never overwritten. Give output.name another value.")
    lines = [
        f"camera     {', '.join(camera.names)}: {camera.width} x {camera.height} px, {camera.bits} bit, "
        + (f"{camera.pixel_size_um:g} um per pixel" if camera.pixel_size_um else "no pixel size"),
        f"images     {len(layout.images)} x (t {layout.n_t or 'without end'}, c {len(layout.channels)}, "
        f"z {max(image.n_z for image in layout.images)}, y {layout.height}, x {layout.width}) uint16",
        f"channels   {', '.join(channel.name for channel in layout.channels)}",
    ]
    for stain, package, model in zip(experiment.stains, ready.packages, ready.models, strict=True):
        timing = model.predict(_grey(package.contract.planes.count, layout.height, layout.width))
        lines.append(
            f"stain      {package.fingerprint} on {stain.channel}, {model.provider}: {timing.host_to_host_ms:.0f} ms "
            f"a frame, so at most {1000 / max(timing.host_to_host_ms, 1e-3):.0f} frames/s live"
        )
    if layout.interval_s and layout.n_frames and layout.n_t:
        lines.append(f"rate       {layout.n_frames / layout.n_t / layout.interval_s:.3g} frames/s on average")
    for name in {stain.channel for stain in experiment.stains}:
        known = experiment.rig.channels.get(name)
        if known is None or known.contrast is None:
            lines.append(
                f"note       the rig does not say what contrast {name} is, so the model's could not be held against "
                f"it: add channels: {{{name}: {{contrast: bright field}}}} to the rig"
            )
    lines.append(f"writes     {folder}")
    free = free_bytes(folder)
    if layout.bytes_at_most is not None:
        lines.append(f"size       at most {decimal(layout.bytes_at_most)} (before compression); {decimal(free)} free")
        if layout.bytes_at_most > free:
            lines.append("warning    the drive may not hold it: free some space or choose another output.folder")
    return lines


def _grey(planes: int, height: int, width: int) -> np.ndarray:
    return np.full((planes, height, width), 8000, np.uint16)


def check_run(folder: Path, console: Console) -> bool:
    """Read every plane of a run and hold it against its checksum; True if all are as they were written."""
    stats = read_stats(folder)
    damaged = damaged_planes(folder)
    for place in damaged:
        console.print(f"damaged: {place} is not as it was written", style="red", soft_wrap=True)
    console.print(
        f"{folder}: {stats.frames_acquired} frames and {stats.frames_stained} predictions journalled, "
        f"{_count(len(damaged), 'plane')} damaged, {stats.frames_pending} predictions owed",
        markup=False,
        soft_wrap=True,
    )
    return not damaged


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
