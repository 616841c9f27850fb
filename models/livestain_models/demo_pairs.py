"""Acquires the demo model's training pairs: writes experiments for the simulated microscope and runs them.

    python -m livestain_models.demo_pairs pairs/

One run a seed: nine fields in bright field at three focal planes, and their nuclear fluorescence in focus. The
sample's clock stands still within a run, so that both show the same moment. Density and share of dead cells differ
from seed to seed. The livestain command acquires, as it would on a real rig: this package only writes its input.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from livestain_models._errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["experiment", "main"]

TRAIN_SEEDS, HELD_OUT_SEEDS = range(101, 113), range(201, 204)


def experiment(seed: int, out: Path, name: str) -> dict[str, Any]:
    """Describe one run as livestain's experiment file has it.

    Parameters
    ----------
    seed : int
        Of the sample; decides its density and share of dead cells too.
    out : Path
        Folder in which the run folder is made.
    name : str
        Of the run folder.
    """
    rng = np.random.default_rng(seed)
    sample = {
        "Seed": seed,
        "SecondsPerExposure": 0,
        "CellsPerMm2": round(float(rng.uniform(1200, 3300))),
        "DeadAtStart": round(float(rng.uniform(0.02, 0.15)), 3),
    }
    places = [(x, y) for y in (-180, 0, 180) for x in (-180, 0, 180)]
    return {
        "rig": {"config": "simulated.cfg", "properties": [["Scope", key, value] for key, value in sample.items()]},
        "sequence": {
            "axis_order": "tpcz",
            "stage_positions": [{"x": x, "y": y, "z": 0} for x, y in places],
            "z_plan": {"range": 3, "step": 1.5},
            "channels": [
                {"config": "BF", "exposure": 10},
                {"config": "Nuclei", "exposure": 20, "do_stack": False},
            ],
        },
        "output": {"folder": str(out.resolve()), "name": name},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write and run the experiments that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args(arguments).out
    livestain = shutil.which("livestain", path=str(Path(sys.executable).parent)) or shutil.which("livestain")
    if livestain is None:
        raise ModelError('The livestain command is not installed; run: pip install "livestain[cpu]"')
    out.mkdir(parents=True, exist_ok=True)
    runs = [(seed, f"train-{seed}") for seed in TRAIN_SEEDS] + [(seed, f"held-out-{seed}") for seed in HELD_OUT_SEEDS]
    for seed, name in runs:
        if (out / name).exists():
            continue
        file = out / f"{name}.yaml"
        file.write_text(yaml.safe_dump(experiment(seed, out, name), sort_keys=False), encoding="utf-8")
        subprocess.run([livestain, "run", str(file)], check=True)  # noqa: S603 - our own command


if __name__ == "__main__":
    main()
