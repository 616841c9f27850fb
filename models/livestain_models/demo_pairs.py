"""Acquires the pairs that the shipped models were trained on: has livestain collect them on the simulated microscope.

    python -m livestain_models.demo_pairs pairs/
    python -m livestain_models.demo_pairs --volumes volumes/

One run a seed, nine fields each: bright field at five focal planes and three real stains in focus; with --volumes
fewer fields, with the nuclei in every plane. Density and share of dying cells differ from seed to seed, and the
sample's clock stands still while it is imaged. The livestain command acquires, as it would on a real rig: this only
writes its input.
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

from livestain_models._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["experiment", "main"]

TRAIN_SEEDS, HELD_OUT_SEEDS = range(101, 113), range(201, 204)
VOLUME_SEEDS = (101, 102, 103, 104, 201)


def experiment(seed: int, *, volumes: bool = False) -> dict[str, Any]:
    """Describe one run as livestain's experiment file has it.

    Parameters
    ----------
    seed : int
        Of the sample; decides its density and share of dying cells too.
    volumes : bool
        Nuclei in every plane, at four positions.
    """
    rng = np.random.default_rng(seed)
    sample = {
        "Seed": seed,
        "SecondsPerExposure": 0,
        "CellsPerMm2": round(float(rng.uniform(1200, 3300))),
        "DeadAtStart": round(float(rng.uniform(0.02, 0.1)), 3),
        "Start_h": round(float(rng.uniform(0.5, 2.5)), 2),
        "DeathRate_per_h": round(float(rng.uniform(0.05, 0.25)), 3),
    }
    grid = (-90, 90) if volumes else (-180, 0, 180)
    stains = ("Nuclei",) if volumes else ("Nuclei", "Membrane", "Dead")
    return {
        "rig": {
            "config": "simulated.cfg",
            "instrument": "simulated microscope",
            "channels": {"BF": {"contrast": "bright field"}},
            "properties": [["Scope", key, value] for key, value in sample.items()],
        },
        "sequence": {
            "axis_order": "tpcz",
            "stage_positions": [{"x": x, "y": y, "z": 0} for x in grid for y in grid],
            "z_plan": {"range": 6, "step": 1.5},
            "channels": [
                {"config": "BF", "exposure": 10},
                *({"config": stain, "exposure": 20, "do_stack": volumes} for stain in stains),
            ],
        },
        "output": {"name": f"{'train' if seed < HELD_OUT_SEEDS[0] else 'held-out'}-{seed}"},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write and run the experiments that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--volumes", action="store_true")
    args = parser.parse_args(arguments)
    livestain = shutil.which("livestain", path=str(Path(sys.executable).parent)) or shutil.which("livestain")
    if livestain is None:
        raise DataError('The livestain command is not installed; run: pip install "livestain[cpu]"')
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in VOLUME_SEEDS if args.volumes else (*TRAIN_SEEDS, *HELD_OUT_SEEDS):
        described = experiment(seed, volumes=args.volumes)
        if (args.out / described["output"]["name"]).exists():
            continue
        file = args.out / f"{described['output']['name']}.yaml"
        file.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
        collect = [livestain, "collect", str(file), "--out", str(args.out)]
        subprocess.run(collect, check=True)  # noqa: S603 - our own command


if __name__ == "__main__":
    main()
