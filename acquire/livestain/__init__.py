"""Label-free live-cell imaging: fluorescence predicted from bright field while the camera runs.

From a script:

    import livestain

    experiment = livestain.load_experiment("experiment.yaml")
    result = livestain.run_experiment(experiment, experiment.run_folder("growth"))  # or any folder that is not there
    print(result.folder, result.stats.latency["camera_to_disk_ms"].p99)

From a script or a program that owns a core already (`livestain.start` does not wait for the end):

    result = livestain.run(core, sequence, stains=[{"model": "my_model", "channel": "BF"}])

In a notebook:

    run = livestain.open(result.folder)
    run.images  # xarray, read as it is needed
    run.cells  # pandas
"""

from __future__ import annotations

from importlib.metadata import version as _version

from livestain._errors import ExperimentError, LivestainError, ModelError, RigError, StoreError
from livestain._experiment import Experiment, Output, Rig, RigChannel, Stain
from livestain._frame import Frame, Job, Place, Stained
from livestain._latency import Percentiles, RunStats
from livestain._on_core import Running, run, start
from livestain._open import OpenRun
from livestain._open import open as open  # noqa: A004  (as tifffile.open; not in __all__: `*` must not shadow it)
from livestain._reading import load_experiment, load_rig
from livestain._recover import Recovered, backfill, damaged_planes, recover
from livestain._run import Status
from livestain._session import Result, run_experiment
from livestain._stain import OnnxModel, Prediction, StainModel
from livestain._stop import Stop

__version__ = _version("livestain")

__all__ = [
    "Experiment",
    "ExperimentError",
    "Frame",
    "Job",
    "LivestainError",
    "ModelError",
    "OnnxModel",
    "OpenRun",
    "Output",
    "Percentiles",
    "Place",
    "Prediction",
    "Recovered",
    "Result",
    "Rig",
    "RigChannel",
    "RigError",
    "RunStats",
    "Running",
    "Stain",
    "StainModel",
    "Stained",
    "Status",
    "Stop",
    "StoreError",
    "__version__",
    "backfill",
    "damaged_planes",
    "load_experiment",
    "load_rig",
    "recover",
    "run",
    "run_experiment",
    "start",
]
