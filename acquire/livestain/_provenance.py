"""Where a run's numbers come from: models, weights, providers, software."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from livestain._reading import absolute_model

if TYPE_CHECKING:
    from livestain._experiment import Experiment
    from livestain._prepare import Prepared

__all__ = ["provenance_of", "software_versions", "stains_header"]

_SOFTWARE = (
    "livestain",
    "pymmcore-plus",
    "useq-schema",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorstore",
    "numpy",
)


def stains_header(experiment: Experiment, ready: Prepared) -> list[dict[str, Any]]:
    """Say in the journal what `livestain backfill` and `livestain measure` have to know of each stain."""
    return [
        stain.model_dump(mode="json")
        | {"model": absolute_model(stain.model)}
        | {"planes": package.contract.planes.count, "weights_sha256": package.contract.weights_sha256}
        | {"outputs": [{"name": output.name, "kind": output.kind} for output in package.contract.outputs]}
        | {"confusion": {key: value for key, value in package.contract.scores.items() if "_as_" in key}}
        for stain, package in zip(experiment.stains, ready.packages, strict=True)
    ]


def provenance_of(experiment: Experiment, ready: Prepared) -> dict[str, Any]:
    """Say where each predicted channel comes from, and which software made the run."""
    predicted = [
        {
            "channel": channel.name,
            "model": ready.packages[channel.stain].contract.id,
            "version": ready.packages[channel.stain].contract.version,
            "precision": ready.packages[channel.stain].precision,
            "weights_sha256": ready.packages[channel.stain].contract.weights_sha256,
            "warnings": list(ready.packages[channel.stain].contract.warnings),
            "meaning": ready.packages[channel.stain].contract.outputs[channel.output or 0].meaning,
            "normalisation": ready.packages[channel.stain].contract.normalisation,
            "provider": ready.models[channel.stain].provider,
            "from_channel": experiment.stains[channel.stain].channel,
        }
        for channel in ready.layout.channels
        if channel.stain is not None
    ]
    return {"predicted": predicted, "software": software_versions()}


def software_versions() -> dict[str, str]:
    """Give the versions of everything that shapes a run's data."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in _SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
