"""`livestain check`: faults of an experiment, a rig file or a run folder, before they cost anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import yaozarrs
from rich.filesize import decimal

from livestain._errors import RigError, StoreError
from livestain._images import IMAGES_NAME
from livestain._prepare import Prepared, free_bytes, prepare
from livestain._reading import load_experiment, load_rig
from livestain._recover import damaged_planes, read_stats
from livestain._store import refuse_existing
from livestain._yaml import read_yaml
from livestain.cli.terminal import described
from livestain.rigfile import check_rig_file, read_rig_file

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from livestain._experiment import Experiment
    from livestain._layout import Layout

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
    if "config" in read_yaml(path).data:  # a rig's file, not an experiment's
        return check_rig(load_rig(path).config, console)
    experiment = load_experiment(path)
    findings = check_rig_file(read_rig_file(experiment.rig.config))
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings:
        console.print(f"{experiment.rig.config}: {finding}", style="yellow", soft_wrap=True)
    if errors:
        raise RigError(
            f"{experiment.rig.config} has {_count(len(errors), 'error')}; mend them before the rig is loaded."
        )
    folder = experiment.run_folder(path.stem)
    with prepare(experiment) as ready:
        for line in _describe(experiment, folder, ready):
            console.print(line, soft_wrap=True)
    try:
        refuse_existing(folder)
    except StoreError as error:  # last: what else there is to say is said
        console.print(f"error      {error}", style="red", soft_wrap=True)
        return False
    return True


def _describe(experiment: Experiment, folder: Path, ready: Prepared) -> list[str]:
    layout, camera = ready.layout, ready.camera
    lines = [
        f"camera     {', '.join(camera.names)}: {camera.width} x {camera.height} px, {camera.bits} bit, "
        + (f"{camera.pixel_size_um:g} um per pixel" if camera.pixel_size_um else "no pixel size"),
        f"images     {len(layout.images)} x (t {layout.n_t or 'without end'}, c {len(layout.channels)}, "
        f"z {max(image.n_z for image in layout.images)}, y {layout.height}, x {layout.width}) uint16",
        f"channels   {', '.join(channel.name for channel in layout.channels)}",
    ]
    for stain, package, model in zip(experiment.stains, ready.packages, ready.models, strict=True):
        # A grey that a camera of any depth gives, so that a model for 8 bits takes it too.
        timing = model.predict(_grey(package.contract.planes.count, layout.height, layout.width, camera.bits))
        lines.append(
            f"stain      {package.fingerprint} on {stain.channel}, {model.provider}: {timing.host_to_host_ms:.0f} ms "
            f"a frame, so at most {1000 / max(timing.host_to_host_ms, 1e-3):.0f} frames/s live"
        )
        lines += [f"warning    {package.contract.id}: {warning}" for warning in package.contract.warnings]
    if layout.interval_s and layout.n_frames and layout.n_t:
        lines.append(f"rate       {layout.n_frames / layout.n_t / layout.interval_s:.3g} frames/s on average")
        exposed_s = _exposed_s(experiment, layout)
        if exposed_s > layout.interval_s:
            lines.append(
                f"warning    the exposures of one time point take {exposed_s:.3g} s, more than the interval of "
                f"{layout.interval_s:g} s: time points will come later than asked"
            )
    for name in {stain.channel for stain in experiment.stains}:
        known = experiment.rig.channels.get(name)
        if known is None or known.contrast is None:
            lines.append(
                f"note       the rig does not say what contrast {name} has, so the model's could not be held against "
                f"it: say so under rig.channels, e.g. {name}: {{contrast: phase contrast}}"
            )
    lines.append(f"writes     {folder}")
    free = free_bytes(folder)
    if layout.bytes_at_most is not None:
        lines.append(f"size       at most {decimal(layout.bytes_at_most)} (before compression); {decimal(free)} free")
        if layout.bytes_at_most > free:
            lines.append("warning    the drive may not hold it: free some space or choose another output.folder")
    return lines


def _exposed_s(experiment: Experiment, layout: Layout) -> float:
    planes = [
        (channel, image.n_z if channel.do_stack else 1)
        for channel in experiment.sequence.channels
        for image in layout.images
    ]
    return sum((channel.exposure or 0) / 1000 / channel.acquire_every * n for channel, n in planes)


def _grey(planes: int, height: int, width: int, bits: int) -> np.ndarray:
    return np.full((planes, height, width), min(8000, (1 << bits) - 1), np.uint16)


def check_run(folder: Path, console: Console) -> bool:
    """Read every plane of a run and hold it against its checksum; True if all is there and as it was written."""
    stats = read_stats(folder)
    damaged = damaged_planes(folder)
    for place in damaged:
        console.print(f"damaged: {place} is missing or not as it was written", style="red", soft_wrap=True)
    faults = _metadata_faults(folder)
    for fault in faults:
        console.print(fault, style="red", soft_wrap=True)
    if damaged or faults:
        console.print(f"to mend what can be mended: livestain recover {folder}", soft_wrap=True)
    console.print(described(stats), soft_wrap=True)
    console.print(
        f"{folder}: {stats.frames_acquired} frames and {stats.frames_stained} predictions journalled, "
        f"{_count(len(damaged), 'plane')} damaged, {_count(stats.frames_pending, 'prediction')} owed",
        markup=False,
        soft_wrap=True,
    )
    return not damaged and not faults and not stats.frames_pending


def _metadata_faults(folder: Path) -> list[str]:
    """Validate the store against OME-Zarr 0.5."""
    try:
        yaozarrs.validate_zarr_store(str(folder.resolve() / IMAGES_NAME))
    except Exception as error:  # noqa: BLE001  (yaozarrs and what it reads with raise errors of many kinds)
        return [f"the images are no valid OME-Zarr: {str(error).strip()}"]
    return []


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
