"""The demo: a day of simulated cells in half a minute, and the pictures it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import useq

from livestain._errors import LivestainError, StoreError
from livestain._experiment import Experiment, Measure, Output, Stain
from livestain._frame import Place
from livestain._images import Images
from livestain._journal import JOURNAL_NAME, read_header
from livestain._lines import layout_from_header
from livestain._picture import draw_panels
from livestain._reading import load_experiment, load_rig
from livestain._shipped import shipped_folder
from livestain.measure.pictures import draw_survival
from livestain.measure.survival import survival_curves
from livestain.measure.table import read_cells
from livestain.simulate import Microscope, Settings
from livestain.simulate._settings import changed

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DEMO_MODEL", "demo_experiment", "demo_picture", "demo_survival", "true_survival"]

DEMO_MODEL = "cells-demo"
INTERVAL_S = 1200.0  # of the sample's time between two time points
_STEPS = ("Phase0", "Phase1", "Phase2", "Phase3")


def demo_experiment(out: Path, *, seconds: float, fps: float, size_px: int, seed: int) -> Experiment:
    """Describe the demo: `fps` time points a second of bright field, stained live, phase steps, and the true nuclei."""
    channels = [
        {"config": "BF", "exposure": 10},
        # In the simulated sample phase is in focus 2 um below the stains.
        *({"config": name, "exposure": 10, "z_offset": -2} for name in _STEPS),
        {"config": "Nuclei", "exposure": 10},
    ]
    sample: dict[str, str | int | float] = {
        "Seed": seed,
        "CellsPerMm2": 1500,
        "DeathRate_per_h": 0.02,
        # All exposures of a time point see the same moment.
        "SecondsPerExposure": INTERVAL_S / len(channels),
        "SceneStep_s": INTERVAL_S,
    }
    rig = load_rig(shipped_folder() / "simulated.yaml")
    camera = [("Camera", "Width", size_px), ("Camera", "Height", size_px)]
    properties: list[Any] = [("Scope", name, value) for name, value in sample.items()]
    sequence = {
        "axis_order": "tpcz",
        "stage_positions": [{"x": 0, "y": 0, "z": 0}],
        "channels": channels,
        "z_plan": {"relative": [0]},
        "time_plan": {"interval": 1 / fps, "loops": max(1, round(seconds * fps))},
    }
    phase = {"method": "steps", "channels": _STEPS, "coherence_um": 18, "sign": -1}
    return Experiment(
        rig=rig.model_copy(update={"properties": properties + camera}),
        sequence=useq.MDASequence.model_validate(sequence),
        stains=(Stain(model=DEMO_MODEL, channel="BF"),),
        measure=Measure.model_validate({"interval_s": INTERVAL_S, "phase": phase}),
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
    channels = [layout.channel(name) for name in ("BF", "Nuclei", "Nuclei (predicted)")]
    for t in reversed(range(images.n_t(0))):
        places = [Place(0, t, c, 0) for c in channels if c is not None]
        if on_disk.issuperset(places):
            bright_field, true, predicted = (images.read(place) for place in places)
            return draw_panels(folder / "demo.png", bright_field, predicted, true, layout.pixel_size_um)
    raise StoreError(f"{folder} has no time point with bright field, true and predicted fluorescence to draw.")


def demo_survival(folder: Path) -> tuple[Path, ...]:
    """Draw the measured survival again, beside that of all simulated cells; nothing where it was not measured."""
    experiment = load_experiment(folder / "experiment.yaml")
    try:
        curves = survival_curves(read_cells(folder))
        truth = {curve.condition: true_survival(experiment) for curve in curves}
        return tuple(draw_survival(folder / f"survival.{kind}", curves, truth=truth) for kind in ("png", "svg"))
    except LivestainError:  # said already, when the run was measured
        return ()


def true_survival(experiment: Experiment) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Let the simulated cells of an experiment live again, without images, and give their survival (Kaplan-Meier 1958).

    Returns
    -------
    time_s, share
        (n,) float64 each: after each death the share of all cells of the sample that still live.
    """
    settings = Settings()
    for device, name, value in experiment.rig.properties:
        if device == "Scope":
            settings = changed(settings, name, value)
    microscope = Microscope(settings)
    for _ in experiment.sequence:
        microscope.let_pass()
    end_s = microscope.time_s
    born, gone, dead = [], [], []
    for cell in microscope.truth().lineage:
        if not cell.died_s <= 0:
            died = cell.died_s <= end_s
            born.append(cell.born_s)
            gone.append(cell.died_s if died else min(cell.ended_s, end_s) if cell.end else end_s)
            dead.append(died)
    born_s, gone_s, is_death = np.array(born), np.array(gone), np.array(dead, bool)
    time_s = np.unique(gone_s[is_death])
    at_risk = ((born_s[:, None] < time_s) & (gone_s[:, None] >= time_s)).sum(axis=0)
    deaths = ((gone_s[:, None] == time_s) & is_death[:, None]).sum(axis=0)
    share = np.cumprod(1 - deaths / at_risk)
    return np.concatenate([[0.0], time_s, [end_s]]), np.concatenate([[1.0], share, share[-1:] if share.size else [1.0]])
