"""Every shipped recipe the whole way: pairs from the simulated microscope, training, package, and a run that stains."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
import yaozarrs

from livestain_models.demo_pairs import experiment
from livestain_models.package import load_package
from livestain_models.verify import verify_package
from tests.test_cli import livestain
from tests.test_cli_models import SHIPPED, models
from tests.test_run import acquire

if TYPE_CHECKING:
    from pathlib import Path

    from livestain_models.contract import Contract

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("one_thread")]

SIDE_PX = 192
SMALL = [["Camera", "Width", SIDE_PX], ["Camera", "Height", SIDE_PX]]
# Cells that die fast, so that a few small fields hold live, injured and dead ones.
DYING = [["Scope", key, value] for key, value in {"Start_h": 2, "DeathRate_per_h": 0.25, "DeadAtStart": 0.15}.items()]
STEPS = 30
QUICK: dict[str, Any] = {
    "train.steps": STEPS,
    "train.validate_every": 10,
    "train.patch_px": 64,
    "train.batch": 2,
    "train.warm_up": 3,
    "network.base": 8,
}
PREDICTED = {
    "nuclei": ["Nuclei", "Nuclei distance"],
    "fast": ["Nuclei"],
    "planes": ["Nuclei"],
    "volume": ["Nuclei"],
    "stains": ["Nuclei", "Membrane"],
    "gan": ["Nuclei"],
    "lupi": ["Nuclei"],
    "error_bars": ["Nuclei", "Nuclei deviation"],
    "viability": ["Live", "Injured", "Dead"],
    "cells": ["Nuclei", "Membrane", "Nuclei distance", "Cells distance", "Live", "Injured", "Dead"],
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Small pairs as `livestain collect` leaves them: with stains in focus, and (True) with nuclei in every plane."""
    folder = tmp_path_factory.mktemp("collected")
    return {
        volumes: collected(folder / ("volumes" if volumes else "pairs"), volumes=volumes) for volumes in (False, True)
    }


def collected(out: Path, *, volumes: bool) -> Path:
    out.mkdir()
    described = experiment(seed=101, volumes=volumes)
    described["rig"]["properties"] += [*DYING, *SMALL]
    described["sequence"]["stage_positions"] = [{"x": x, "y": y, "z": 0} for x in (-150, 0, 150) for y in (-80, 80)]
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump(described))
    said = livestain("collect", file, "--out", out, folder=out.parent)
    assert "6 of 6 positions give pairs" in said
    return out


def trained(recipe: str, pairs: Path, out: Path, **changes: Any) -> list[float]:
    """Train a shipped recipe by its name; give the loss of every step."""
    chosen = [part for key, value in (QUICK | changes).items() for part in ("--set", f"{key}={value}")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("livestain_models.train.LOG_EVERY", 1)
        # As a person would name them; the first recipe, which lies beside the runs, must not be in the way.
        models("train", recipe, "--data", f"{pairs}/*", "--out", out, "--device", "cpu", *chosen)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    against = ("step", "rate", "judge", "adversarial")  # a discriminator that learns makes these rise
    return [sum(value for name, value in line.items() if name not in against) for line in lines if "rate" in line]


def sequence(contract: Contract) -> dict[str, Any]:
    """Acquire the planes that a model asks for, twice."""
    planes = contract.planes
    asked: dict[str, Any] = {"channels": [{"config": "BF", "exposure": 10}], "time_plan": {"interval": 0, "loops": 2}}
    if planes.spacing_um is not None:
        asked["z_plan"] = {"range": (planes.count - 1) * planes.spacing_um, "step": planes.spacing_um}
    return asked


def test_every_shipped_recipe_is_tested() -> None:
    assert {*PREDICTED, "large"} == set(SHIPPED)


@pytest.mark.parametrize("recipe", PREDICTED)
def test_from_pairs_to_stained_frames(recipe: str, pairs: dict[bool, Path], tmp_path: Path) -> None:
    losses = trained(recipe, pairs[recipe == "volume"], tmp_path / "training")
    assert len(losses) == STEPS
    assert np.mean(losses[-8:]) < 0.95 * np.mean(losses[:4]), losses

    said = models("export", tmp_path / "training", "--out", tmp_path / "package")
    assert "Scored on" in said
    package = load_package(tmp_path / "package")
    assert verify_package(package).max_difference <= 2
    assert [output.name for output in package.contract.outputs] == PREDICTED[recipe]
    assert package.contract.pixel_size_um == 0.325

    rig = experiment(seed=201)["rig"]
    rig["properties"] += [*DYING, *SMALL]
    file = tmp_path / "live.yaml"
    described = {
        "rig": rig,
        "sequence": sequence(package.contract),
        "stains": [{"model": str(package.folder), "channel": "BF"}],
        "output": {"folder": str(tmp_path / "runs"), "name": "live"},
    }
    file.write_text(yaml.safe_dump(described))
    result, run = acquire(file)
    assert result.complete, result
    assert not result.troubles
    channels = yaozarrs.open_group(run.images).ome_metadata().omero.channels
    assert [channel.label for channel in channels] == ["BF", *(f"{name} (predicted)" for name in PREDICTED[recipe])]
    array, middle = run.array()[:], (package.contract.planes.count - 1) // 2
    assert array.shape == (2, len(channels), package.contract.planes.count, SIDE_PX, SIDE_PX)
    for t in range(2):
        for number, name in enumerate(PREDICTED[recipe], start=1):
            assert array[t, number, middle].std() > 0, f"{name} is constant at t={t}"


def test_the_large_recipe_trains_and_is_exported(pairs: dict[bool, Path], tmp_path: Path) -> None:
    losses = trained("large", pairs[False], tmp_path / "training", **{"train.steps": 4, "train.validate_every": 4})
    assert np.isfinite(losses).all()
    assert len(losses) == 4
    models("export", tmp_path / "training", "--out", tmp_path / "package", "--no-score")
    package = load_package(tmp_path / "package")
    assert verify_package(package).max_difference <= 2
    assert package.contract.multiple_px == 32
    assert package.contract.halo_px is not None
