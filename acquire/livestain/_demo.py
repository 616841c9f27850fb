"""The demo: a time-lapse on the simulated microscope, and the picture it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import useq

from livestain._errors import StoreError
from livestain._experiment import Experiment, Output, Stain
from livestain._frame import Place
from livestain._images import Images
from livestain._journal import JOURNAL_NAME, read_header
from livestain._lines import layout_from_header
from livestain._picture import draw_panels
from livestain._reading import load_rig
from livestain._shipped import shipped_folder

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DEMO_MODEL", "demo_experiment", "demo_picture"]

DEMO_MODEL = "nuclei-demo"
_TRUE_EVERY = 25  # frames from one true fluorescence image to the next


def demo_experiment(out: Path, *, seconds: float, fps: float, size_px: int, seed: int) -> Experiment:
    """Describe the demo: bright field at `fps`, stained live, with true nuclear fluorescence now and then."""
    rig = load_rig(shipped_folder() / "simulated.yaml")
    camera = [("Scope", "Seed", seed), ("Camera", "Width", size_px), ("Camera", "Height", size_px)]
    sequence = {
        "channels": [
            {"config": "BF", "exposure": 10},
            {"config": "Nuclei", "exposure": 10, "acquire_every": _TRUE_EVERY},
        ],
        "time_plan": {"interval": 1 / fps, "loops": max(1, round(seconds * fps))},
    }
    return Experiment(
        rig=rig.model_copy(update={"properties": camera}),
        sequence=useq.MDASequence.model_validate(sequence),
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
    layout = layout_from_header(read_header(folder / JOURNAL_NAME))
    images = Images(folder, layout)
    on_disk = set(images.places())
    for t in reversed(range(images.n_t(0))):
        bright_field, true, predicted = (Place(0, t, c, 0) for c in range(3))
        if on_disk >= {bright_field, true, predicted}:
            planes = [images.read(place) for place in (bright_field, predicted, true)]
            return draw_panels(folder / "demo.png", planes[0], planes[1], planes[2], layout.pixel_size_um)
    raise StoreError(f"{folder} has no time point with bright field, true and predicted fluorescence to draw.")
