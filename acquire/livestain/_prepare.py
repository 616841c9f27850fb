"""Everything that happens before the first frame: rig, models, contracts, layout. `run` and `check` share it."""

from __future__ import annotations

import logging
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livestain._contracts import check_contracts, check_sequence, lay_out
from livestain._errors import OutOfMemory
from livestain._rig import Camera, camera_of, camera_through, close_core, open_core
from livestain._stain import OnnxModel
from livestain.measure.measuring import check_measure
from livestain_models.package import Package, load_package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pymmcore_plus import CMMCorePlus
    from useq import MDASequence

    from livestain._experiment import Experiment, Stain
    from livestain._layout import Layout
    from livestain._stain import StainModel

__all__ = ["Prepared", "free_bytes", "open_model", "prepare"]

log = logging.getLogger("livestain")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A rig that is loaded, models that are warm, and where everything will go."""

    core: CMMCorePlus
    camera: Camera
    packages: tuple[Package, ...]
    models: tuple[StainModel, ...]
    sequence: MDASequence
    layout: Layout


@contextmanager
def prepare(experiment: Experiment, core: CMMCorePlus | None = None) -> Iterator[Prepared]:
    """Load the rig, hold contracts against it, warm the models; let all go at the end.

    A `core` that is given is taken as it is, and left loaded.

    Raises
    ------
    LivestainError
        At the first thing that is wrong, before a frame is taken.
    """
    packages = tuple(load_package(stain.model, stain.precision) for stain in experiment.stains)  # cheap, so first
    with ExitStack() as owned:
        if core is None:
            core = open_core(experiment.rig)
            owned.callback(close_core, core)
        camera_of(core, experiment.rig)
        check_sequence(core, experiment.sequence)
        camera = camera_through(core, experiment)
        check_contracts(experiment, [package.contract for package in packages], camera)
        sequence, layout = lay_out(experiment, [package.contract for package in packages], camera)
        if experiment.measure is not None:
            check_measure(experiment, layout, [o for package in packages for o in package.contract.outputs])
        models: list[StainModel] = []
        for stain, package in zip(experiment.stains, packages, strict=True):
            models.append(open_model(stain, package, camera.height, camera.width))
            owned.callback(models[-1].close)
        yield Prepared(core, camera, packages, tuple(models), sequence, layout)


def open_model(stain: Stain, package: Package, height: int, width: int, provider: str | None = None) -> StainModel:
    """Open a stain's model, on its own provider or on the one given, and warm it up for the camera's frames."""
    asked = provider or stain.provider
    model = OnnxModel(package, asked, threads=stain.threads, max_tile_px=stain.max_tile_px)
    try:
        model.warm_up(height, width)
    except OutOfMemory as error:
        model.close()
        if asked != "auto" or model.provider == "CPUExecutionProvider":
            raise
        log.warning("provider auto: %s The processor takes over.", error)
        return open_model(stain, package, height, width, "cpu")
    return model


def free_bytes(folder: Path) -> int:
    """Give the free space of the drive that a folder, which need not exist yet, is on."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    return shutil.disk_usage(there).free if there.exists() else 0
