"""Nuclei, dendrites and axons of neurons from focal planes of phase contrast; columns that training never saw.

    python -m benchmarks.isl FOLDER --planes 3           # phase_contrast_zyx.tif, dapi_yx.tif, map2_yx.tif, nfh_yx.tif
    python -m benchmarks.isl FOLDER --planes 13 --test-left

Trains benchmarks/recipes/isl_*_planes.yaml, exports it and scores the exported graph on the test columns, predicted
from these columns alone as the microscope would. --test-left keeps the left columns for the test in place of the right
ones: with one field, the difference between both says more about the uncertainty than any interval. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.latency import machine
from livestain._stain import OnnxModel
from livestain_models.export import export_checkpoint
from livestain_models.prepared import prepare
from livestain_models.recipe import load_recipe
from livestain_models.report import write_report
from livestain_models.scoring import on_test_part
from livestain_models.train import train

RECIPES = Path(__file__).parent / "recipes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--planes", type=int, choices=(3, 13), default=3)
    parser.add_argument("--test-left", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, help="folder for training, package and report")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp())
    changes: dict[str, object] = {"data.pairs": str(args.data.resolve())}
    if args.steps:
        changes["train.steps"] = args.steps
    if args.test_left:
        changes["data.split.order"] = ["test", "train", "validation"]
    recipe = load_recipe(RECIPES / f"isl_{args.planes}_planes.yaml", changes)
    started = time.perf_counter()
    trained = train(recipe, out / "training", say=print)
    minutes = (time.perf_counter() - started) / 60
    package = export_checkpoint(out / "training", out / "package")
    model = OnnxModel(package, "cpu")
    data = prepare(recipe, print)
    trial = on_test_part(package.contract, recipe, data, lambda planes: model.predict(planes).planes)
    table = trial.table(cells=["DAPI"])
    write_report(out / "report", table, trial.scored(), trial.pixel_size_um, package.contract.outputs)
    print(table.text())
    result = {
        "benchmark": "isl",
        "machine": machine(),
        "planes": args.planes,
        "test_columns": trial.fields[0].name,
        "steps": trained.step,
        "training_min": round(minutes, 1),
        "held_out": {
            row.output: {name: round(found.value, 4) for name, found in row.scores.items()}
            for row in table.rows
            if row.method == "model"
        },
        "input_copied_pearson": {
            row.output: round(row.scores["pearson"].value, 4) for row in table.rows if row.method == "input copied"
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
