"""DNA of single cells from bright field: total DNA cell by cell, and the phase of the cell cycle told from it.

    python -m benchmarks.jurkat FOLDER            # montages *_brightfield.tif and *_dna.tif of 40 x 40 px cells

In the files a montage holds cells of one phase, so that a network could tell a cell's phase from its neighbours. So the
cells are dealt anew first, phases mixed at random: three montages whose columns 1 to 18 are to learn from, 19 and 20 to
choose the best step, 21 to 30 for the test. Then benchmarks/recipes/jurkat_dna.yaml is trained and exported, the test
columns are predicted as the microscope would, and each cell is summed. The phase (G1, S, G2) is told by a linear
discriminant over five features of the cell's DNA image, learned on the training columns: once of the prediction, once
of the real stain (what could be reached), once of bright field alone. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.latency import machine
from livestain._stain import OnnxModel
from livestain_models.export import export_checkpoint
from livestain_models.recipe import load_recipe
from livestain_models.score import pearson
from livestain_models.train import train

CELL_PX = 40
PHASES = ("g1", "s_phase", "g2")
RECIPE = Path(__file__).parent / "recipes" / "jurkat_dna.yaml"
TRAIN_COLUMNS, TEST_COLUMNS = slice(0, 18), slice(20, 30)


def cells(image: np.ndarray) -> np.ndarray:
    """Cut a montage into its cells, (30, 30, 40, 40) by row and column."""
    rows, columns = (size // CELL_PX for size in image.shape)
    return image.reshape(rows, CELL_PX, columns, CELL_PX).swapaxes(1, 2)


def features(stack: np.ndarray) -> np.ndarray:
    """Describe each of (N, 40, 40) images: total, spread, peak, area above half the peak, and how compact it is."""
    flat = stack.reshape(len(stack), -1).astype(np.float64)
    flat -= np.median(np.concatenate([stack[:, 0], stack[:, -1]], axis=1), axis=1)[:, None]  # the cell's surroundings
    peak = np.percentile(flat, 99, axis=1)
    area = (flat > 0.5 * peak[:, None]).sum(axis=1)
    y, x = (axis.ravel() - (CELL_PX - 1) / 2 for axis in np.mgrid[:CELL_PX, :CELL_PX])
    mass = np.clip(flat, 0, None) + 1e-9
    radius = np.sqrt((mass * (y**2 + x**2)).sum(axis=1) / mass.sum(axis=1))
    return np.stack([flat.sum(axis=1), flat.std(axis=1), peak, area, radius], axis=1)


def told(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> dict[str, object]:
    """Tell the phase by Fisher's linear discriminant with equal priors; balanced accuracy and confusion."""
    means = np.stack([train_x[train_y == k].mean(axis=0) for k in range(len(PHASES))])
    within = sum(np.cov(train_x[train_y == k].T) for k in range(len(PHASES))) / len(PHASES)
    inverse = np.linalg.inv(within + 1e-9 * np.trace(within) * np.eye(len(within)))
    score = test_x @ inverse @ means.T - 0.5 * np.einsum("ki,ij,kj->k", means, inverse, means)
    guess = score.argmax(axis=1)
    confusion = [[int(((test_y == t) & (guess == g)).sum()) for g in range(len(PHASES))] for t in range(len(PHASES))]
    recalls = [row[k] / max(sum(row), 1) for k, row in enumerate(confusion)]
    return {"balanced_accuracy": round(float(np.mean(recalls)), 4), "confusion": confusion}


def real_cells(bright: np.ndarray, dna: np.ndarray) -> np.ndarray:
    """Leave out unused slots: stripes of repeated edge pixels, and slots without a cell."""
    striped = (np.diff(bright.astype(int), axis=-1) == 0).all(axis=(-1, -2))
    striped |= (np.diff(bright.astype(int), axis=-2) == 0).all(axis=(-1, -2))
    return ~striped & (bright.std(axis=(-1, -2)) > 15) & (dna.max(axis=(-1, -2)) > 150)


def deal(data: Path, out: Path, seed: int = 0) -> list[np.ndarray]:
    """Write mixed montages, and give the phase of each of their cells, (30, 30) each."""
    rng = np.random.default_rng(seed)
    kinds = ("brightfield", "dna")
    read = {kind: [cells(tifffile.imread(data / f"{phase}_{kind}.tif")) for phase in PHASES] for kind in kinds}
    rows, columns = read["dna"][0].shape[:2]
    dealt = {kind: [np.empty_like(montage) for montage in read[kind]] for kind in kinds}
    phases = [np.empty((rows, columns), np.int64) for _ in PHASES]
    for column in range(columns):  # within a column, so that every part of the split keeps its own cells
        order = rng.permutation(rows * len(PHASES))
        for place, taken in enumerate(order):
            (montage, row), (phase, source) = divmod(place, rows), divmod(int(taken), rows)
            phases[montage][row, column] = phase
            for kind in kinds:
                dealt[kind][montage][row, column] = read[kind][phase][source, column]
    out.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        for number, montage in enumerate(dealt[kind]):
            joined = montage.swapaxes(1, 2).reshape(rows * CELL_PX, columns * CELL_PX)
            tifffile.imwrite(out / f"mixed{number}_{kind}.tif", joined)
    return phases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, help="folder for the mixed montages, the training and the package")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp())
    phases = deal(args.data, out / "mixed")
    recipe = load_recipe(RECIPE, {"data.pairs": str((out / "mixed").resolve())})
    trained = train(recipe, out / "training", say=print)
    model = OnnxModel(export_checkpoint(out / "training", out / "package"), "cpu")
    sets: dict[str, dict[str, list[np.ndarray]]] = {"train": {}, "test": {}}
    pixels = []
    for number, phase in enumerate(phases):
        bright, dna = (tifffile.imread(out / "mixed" / f"mixed{number}_{kind}.tif") for kind in ("brightfield", "dna"))
        for part, columns in (("train", TRAIN_COLUMNS), ("test", TEST_COLUMNS)):
            strip = slice(columns.start * CELL_PX, columns.stop * CELL_PX)
            guess = model.predict(np.ascontiguousarray(bright[None, :, strip])).planes[0]
            cut = [cells(i).reshape(-1, CELL_PX, CELL_PX) for i in (bright[:, strip], dna[:, strip], guess)]
            used = real_cells(cut[0], cut[1])
            for name, stack in zip(("bright", "dna", "guess"), cut, strict=True):
                sets[part].setdefault(name, []).append(features(stack[used]))
            sets[part].setdefault("phase", []).append(phase[:, columns].reshape(-1)[used])
            if part == "test":
                pixels.append(pearson(guess, dna[:, strip]))
    joined = {part: {name: np.concatenate(parts) for name, parts in found.items()} for part, found in sets.items()}
    test, learn = joined["test"], joined["train"]
    total = {name: test[name][:, 0] for name in ("bright", "dna", "guess")}
    result = {
        "benchmark": "jurkat",
        "machine": machine(),
        "cells_tested": len(test["phase"]),
        "steps": trained.step,
        "pixel_pearson": round(float(np.mean(pixels)), 4),
        "total_dna_pearson": round(float(np.corrcoef(total["guess"], total["dna"])[0, 1]), 4),
        "total_dna_pearson_by_phase": {
            phase: round(float(np.corrcoef(*(total[n][test["phase"] == k] for n in ("guess", "dna")))[0, 1]), 4)
            for k, phase in enumerate(PHASES)
        },
        "baseline_bright_field_total_pearson": round(float(abs(np.corrcoef(total["bright"], total["dna"])[0, 1])), 4),
        "baseline_bright_field_area_pearson": round(
            float(abs(np.corrcoef(test["bright"][:, 1], total["dna"])[0, 1])), 4
        ),
        "phase": {
            name: told(learn[name], learn["phase"], test[name], test["phase"]) for name in ("guess", "dna", "bright")
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
