"""The demo: a time-lapse on the simulated microscope, and the picture it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import useq

from livestain._errors import StoreError
from livestain._experiment import Experiment, Output, Stain, load_rig
from livestain._picture import draw_panels
from livestain._shipped import shipped_folder
from livestain._store import IMAGES_NAME

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DEMO_MODEL", "demo_experiment", "demo_picture"]

DEMO_MODEL = "nuclei-demo"
_TRUE_EVERY = 25  # frames from one true fluorescence image to the next


def demo_experiment(out: Path, *, seconds: float, fps: float, size_px: int, seed: int) -> Experiment:
    """Describe the demo: bright field at `fps`, stained live, with true nuclear fluorescence now and then."""
    rig = load_rig(shipped_folder() / "simulated.yaml")
    camera = [("Scope", "Seed", seed), ("Camera", "Width", size_px), ("Camera", "Height", size_px)]
    return Experiment(
        rig=rig.model_copy(update={"properties": camera}),
        sequence=useq.MDASequence(
            channels=[
                useq.Channel(config="BF", exposure=10),
                useq.Channel(config="Nuclei", exposure=10, acquire_every=_TRUE_EVERY),
            ],
            time_plan=useq.TIntervalLoops(interval=1 / fps, loops=max(1, round(seconds * fps))),
        ),
        stains=(Stain(model=DEMO_MODEL, channel="BF"),),
        output=Output(folder=out),
    )


def demo_picture(folder: Path) -> Path:
    """Draw bright field, predicted and true fluorescence and their overlay at the last time point with all three.

    Returns
    -------
    Path
        The PNG, in the run folder.

    Raises
    ------
    StoreError
        If the run has no time point with all three.
    """
    import zarr

    group = zarr.open_group(folder / IMAGES_NAME, mode="r")
    planes = group["0"]
    ome = group.attrs["ome"]
    pixel_size_um = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"][-1]
    for t in range(planes.shape[0] - 1, -1, -1):
        if t % _TRUE_EVERY == 0:
            bright_field, true, predicted = (planes[t, c, 0] for c in range(3))
            if bright_field.any() and true.any() and predicted.any():
                return draw_panels(folder / "demo.png", bright_field, predicted, true, pixel_size_um)
    raise StoreError(f"{folder} has no time point with bright field, true and predicted fluorescence to draw.")
