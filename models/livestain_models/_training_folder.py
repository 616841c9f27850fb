"""The folder of one training: recipe, fields, log, picture and checkpoints."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import yaml

from livestain_models._errors import ModelError, RecipeError
from livestain_models.checkpoint import load_checkpoint, save_checkpoint
from livestain_models.recipe import load_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from livestain_models.checkpoint import Checkpoint
    from livestain_models.learner import Learner
    from livestain_models.prepared import Prepared
    from livestain_models.recipe import Recipe

__all__ = ["BEST", "LAST", "TrainingFolder"]

BEST, LAST = "best.safetensors", "last.safetensors"
_SPARE_BYTES = 20_000_000  # log, picture, and the file system's own


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """Writes what a training leaves.

    Parameters
    ----------
    path : Path
    facts : dict
        What a package needs to know besides the tensors: recipe, scales, names of fields, normalisation.
    write : bool
        False in all processes but the first.
    """

    path: Path
    facts: dict[str, Any]
    write: bool

    @classmethod
    def open(cls, path: Path, recipe: Recipe, data: Prepared, size_bytes: int, *, write: bool) -> Self:
        """Make the folder, or open one of the same recipe and data.

        Raises
        ------
        RecipeError
            The folder is of another recipe or other data.
        ModelError
            It cannot be written, or the disk has no room for the checkpoints.
        """
        facts = {
            "recipe": recipe.model_dump(mode="json"),
            "fields": data.names(),
            "left_out": data.left_out,
            "scales": {name: [[s.black, s.reference] for s in scales] for name, scales in data.scales.items()},
            "gain": getattr(data.normalise, "gain", None),
            "pixel_size_um": data.parts.train[0].pixel_size_um,
            "plane_spacing_um": data.parts.train[0].plane_spacing_um,
        }
        folder = cls(path, facts, write)
        if not write:
            return folder
        if (path / "recipe.yaml").exists():
            folder._check_same()
        elif path.is_dir() and any(path.iterdir()):
            raise RecipeError(f"{path} exists and holds other files. Give another --out, or remove it.")
        folder._write_first(size_bytes)
        return folder

    @property
    def preview(self) -> Path:
        """Where the picture of the last look goes."""
        return self.path / "preview.png"

    def last(self) -> Checkpoint | None:
        """Read the last checkpoint, if there is one."""
        file = self.path / LAST
        return load_checkpoint(file) if file.exists() else None

    def save(self, learner: Learner) -> None:
        """Save where training stands; after the best look so far, also what would be exported."""
        if not self.write:
            return
        if learner.is_best:
            save_checkpoint(self.path / BEST, learner.deployed_parts(), self.facts | learner.facts())
        save_checkpoint(self.path / LAST, learner.parts(), self.facts | learner.facts())

    def log(self, entry: dict[str, Any]) -> None:
        """Append a line to log.jsonl."""
        if self.write:
            with (self.path / "log.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")

    def cut_log(self, step: int) -> None:
        """Drop the lines of log.jsonl beyond a step: those of a training that was killed after its last checkpoint."""
        file = self.path / "log.jsonl"
        if not self.write or not file.exists():
            return
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        # The last line may be half written.
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept != lines:
            beside = file.with_suffix(".partial")
            beside.write_text("".join(kept), encoding="utf-8")
            beside.replace(file)

    def _check_same(self) -> None:
        before = json.loads((self.path / "fields.json").read_text(encoding="utf-8"))
        # Read as a recipe, so that a key which a newer version added has its default on both sides.
        written = load_recipe(self.path / "recipe.yaml").model_dump(mode="json")
        if changed := _changed(written, self.facts["recipe"]):
            raise RecipeError(
                f"{self.path} is a training of another recipe ({', '.join(changed)} changed). To go on with it, use "
                f"{self.path / 'recipe.yaml'}; to train anew, give another --out or remove the folder."
            )
        if before["fields"] != self.facts["fields"]:
            raise RecipeError(
                f"{self.path} was trained on other fields ({_counts(before['fields'])}) than there are now "
                f"({_counts(self.facts['fields'])}). To train on these, give another --out or remove the folder."
            )

    def _write_first(self, size_bytes: int) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path).free
            # The last, the best, and the one that is being written.
            if free < 3 * size_bytes + _SPARE_BYTES:
                raise ModelError(
                    f"{self.path} has {free / 1e6:.0f} MB free, but checkpoints need "
                    f"{3 * size_bytes / 1e6 + 20:.0f} MB. "
                    "Free some space or give an --out on another disk."
                )
            text = yaml.safe_dump(self.facts["recipe"], sort_keys=False, allow_unicode=True)
            (self.path / "recipe.yaml").write_text(text, encoding="utf-8")
            fields = {"fields": self.facts["fields"], "left_out": self.facts["left_out"]}
            (self.path / "fields.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")
        except OSError as error:
            raise ModelError(f"{self.path} cannot be written: {error}. Give another --out.") from error


def _changed(before: Any, now: Any, at: str = "") -> list[str]:
    """Name the keys in which two recipes differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [name for key in keys for name in _changed(before.get(key), now.get(key), f"{at}.{key}".lstrip("."))]
    return [] if before == now else [at]


def _counts(fields: dict[str, list[str]]) -> str:
    return ", ".join(f"{len(names)} {part}" for part, names in fields.items())
