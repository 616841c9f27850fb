"""Small paired images for training tests: nuclei that dim bright field and shine in their stains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import yaml

if TYPE_CHECKING:
    from pathlib import Path

PIXEL_SIZE_UM = 0.325


def field(seed: int, size: int = 96, planes: int = 1) -> dict[str, np.ndarray]:
    """Transmitted planes (Z, H, W), two stains (H, W) and their classes (H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    nuclei, membrane, classes = np.zeros((3, size, size))
    for number, (cy, cx) in enumerate(rng.uniform(6, size - 6, (7, 2))):
        distance = np.hypot(y - cy, x - cx)
        nuclei = np.maximum(nuclei, np.clip(9 - distance, 0, 4) / 4)
        membrane = np.maximum(membrane, np.exp(-((distance - 13) ** 2) / 4))
        classes = np.where(distance < 9, 1 + number % 3, classes)
    darkness = 1 - 0.2 * nuclei * (1 + 0.5 * classes) / 2 - 0.1 * membrane
    stack = [5000 * (1 + (darkness - 1) * (1 - 0.15 * abs(z - planes // 2))) for z in range(planes)]
    return {
        "bf": rng.poisson(stack).astype(np.uint16),
        "nuclei": rng.poisson(100 + 3000 * nuclei).astype(np.uint16),
        "membrane": rng.poisson(100 + 1500 * membrane).astype(np.uint16),
        "classes": classes.astype(np.uint8),
    }


def write_pairs(folder: Path, fields: int = 6, size: int = 96, planes: int = 1, *, stack: bool = False) -> Path:
    """Write TIFFs, a folder a kind; with `stack` the nuclei in every plane too."""
    for seed in range(fields):
        made = field(seed, size, planes)
        if stack:
            made["nuclei"] = np.stack([made["nuclei"]] * planes)
        for kind, image in made.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / kind / f"f{seed}.tif", image, photometric="minisblack")
    return folder


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of a few quick steps for `write_pairs`; dotted keys change it."""
    written: dict[str, Any] = {
        "id": "tiny",
        "data": {
            "pairs": str(folder),
            "input": "bf/{field}.tif",
            "targets": [{"name": "Nuclei", "channel": "nuclei/{field}.tif"}],
            "pixel_size_um": PIXEL_SIZE_UM,
            "plane_spacing_um": 1.0,
            "check_registration": False,
            "split": {"validation": 0.2, "test": 0.2},
        },
        "network": {"base": 8, "levels": 2},
        "train": {
            "steps": 20, "batch": 2, "patch_px": 48, "warm_up": 3, "validate_every": 10, "learning_rate": 0.005
        },
    }  # fmt: skip
    for dotted, value in changes.items():
        *sections, key = dotted.split("__")
        inner = written
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[key] = value
    return written


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write `recipe` beside the pairs."""
    file = folder.parent / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(folder, **changes)), encoding="utf-8")
    return file
