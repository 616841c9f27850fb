"""Trains the packages that are shipped, each from its shipped recipe, on pairs of the simulated microscope.

    python -m livestain_models.demo_pairs pairs/
    python -m livestain_models.demo_pairs --volumes volumes/
    python -m livestain_models.train_zoo pairs/ volumes/ trainings/

The livestain command does the work, as it would for anyone; this only says what is what. Runs with other seeds, that
is other cells, are kept for the scores. About an hour on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from livestain_models._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

ZOO = Path(__file__).parent / "zoo"
# Package -> recipe and steps.
PACKAGES = {
    "nuclei-demo": ("nuclei", 2200),
    "nuclei-fast": ("fast", 5000),
    "nuclei-planes": ("planes", 600),
    "nuclei-volume": ("volume", 400),
    "nuclei-membrane": ("stains", 800),
    "nuclei-gan": ("gan", 600),
    "nuclei-lupi": ("lupi", 600),
    "nuclei-error-bars": ("error_bars", 700),
    "viability-demo": ("viability", 1000),
    "cells-demo": ("cells", 3600),
}
LIMITS = "never saw a real cell, what it draws on real images means nothing"


def settings(name: str) -> list[str]:
    """Say how a package's training differs from its recipe."""
    recipe, steps = PACKAGES[name]
    limitations = LIMITS
    if recipe in ("viability", "cells"):
        limitations += (
            "; the published patent application US 2022/0383986 concerns the classification of cells' viability by a "
            "network from phase images with focal and Dice loss, take advice before you use such a model commercially"
        )
    if recipe == "gan":
        limitations += "; a network trained against a discriminator draws texture that looks real, there or not"
    return [
        f"id={name}",
        "version=0.2.0",
        "training_data=livestain's simulated microscope, no real images",
        "intended_use=livestain's demo and tests on the simulated microscope",
        f'limitations="{limitations}"',
        'data.split={by: field, validation: ["train-10[1-4]/0"], test: ["held-out-*"]}',
        "data.check_registration=false",  # collect looked at every pair
        f"train.steps={steps}",
        "train.batch=4",
        # Small ones where nothing but the kind of model is to be shown: all of them travel with the wheel.
        *(() if name in ("nuclei-demo", "nuclei-fast", "viability-demo", "cells-demo") else ("network.base=8",)),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, export and score what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("volumes", type=Path)
    parser.add_argument("trainings", type=Path)
    parser.add_argument("packages", nargs="*", help=f"some of {', '.join(PACKAGES)}")
    args = parser.parse_args(arguments)
    livestain = shutil.which("livestain", path=str(Path(sys.executable).parent)) or shutil.which("livestain")
    if livestain is None:
        raise DataError('The livestain command is not installed; run: pip install "livestain[cpu,train]"')
    for name in args.packages or PACKAGES:
        recipe = PACKAGES[name][0]
        data, out = (args.volumes if recipe == "volume" else args.pairs), args.trainings / name
        chosen = [argument for setting in settings(name) for argument in ("--set", setting)]
        train = ["train", recipe, "--data", str(data / "*-*"), "--out", str(out), *chosen]
        export = ["export", str(out), "--out", str(ZOO / name)]
        for command in (train, export):
            subprocess.run([livestain, "models", *command], check=True)  # noqa: S603 - our own command


if __name__ == "__main__":
    main()
