"""Label-free live-cell imaging: fluorescence predicted from bright field while the camera runs.

From a script:

    import livestain

    experiment = livestain.load_experiment("experiment.yaml")
    result = livestain.run_experiment(experiment, experiment.run_folder("growth"))  # or any folder that is not there
    print(result.folder, result.stats.latency["camera_to_disk_ms"].p99)
"""

from __future__ import annotations

from importlib.metadata import version as _version

from livestain._errors import ExperimentError, LivestainError, ModelError, RigError, StoreError
from livestain._experiment import Experiment, Output, Rig, RigChannel, Stain
from livestain._frame import Frame, Job, Place, Stained
from livestain._latency import Percentiles, RunStats
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
    "run_experiment",
]
