"""What the commands of the training side are given: a recipe by file or name, its settings, the pairs beside it."""

from __future__ import annotations

import importlib
import importlib.resources
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from livestain._errors import LivestainError

if TYPE_CHECKING:
    from livestain_models.recipe import Recipe

__all__ = [
    "chosen_recipe",
    "parts_beside",
    "recipe_beside",
    "recipe_of_training",
    "shipped_recipes",
    "training_folder",
    "training_side",
]


def training_side(module: str) -> Any:
    """Import a module of the training side, which the rig does not have."""
    try:
        return importlib.import_module(f"livestain_models.{module}")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("livestain"):
            raise
        raise LivestainError(
            f'This command needs {error.name}, which is not installed. Run: pip install "livestain[cpu,train]"'
        ) from error


def chosen_recipe(recipe: str, data: list[str] | None, settings: list[str] | None) -> Recipe:
    """Load a recipe, a file's or a shipped one's, with `--data` and `--set` taken into account."""
    from livestain_models.recipe import load_recipe

    overrides = dict(_setting(text) for text in settings or [])
    if data:
        overrides["data.pairs"] = [{"path": str(Path(path).resolve())} for path in data]
    shipped = {file.name.removesuffix(".yaml"): file for file in shipped_recipes()}
    if recipe in shipped and not Path(recipe).exists():
        if not data:
            raise LivestainError(f"The shipped recipe {recipe} needs pairs; give them with --data FOLDER.")
        with importlib.resources.as_file(shipped[recipe]) as file:
            return load_recipe(file, overrides)
    return load_recipe(Path(recipe), overrides)


def shipped_recipes() -> list[Any]:
    """Give the files of the shipped recipes, by name."""
    folder = importlib.resources.files("livestain_models") / "recipes"
    return sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise LivestainError(f"--set takes KEY=VALUE, e.g. train.steps=500, got {text!r}.")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise LivestainError(f"--set takes a value as YAML writes it, got {text!r}: {error}") from error


def recipe_of_training(checkpoint: Path) -> Recipe:
    """Load the recipe that a training keeps in its folder."""
    from livestain_models.recipe import load_recipe

    return load_recipe(training_folder(checkpoint) / "recipe.yaml")


def training_folder(checkpoint: Path) -> Path:
    """Give a training's folder, where it or one of its checkpoints is given."""
    return checkpoint if checkpoint.is_dir() else checkpoint.parent


def parts_beside(recipe: Path) -> dict[str, list[str]] | None:
    """Read which fields a training used for what, where the recipe is a training's own."""
    file = recipe.parent / "fields.json"
    if not (recipe.name == "recipe.yaml" and file.is_file()):
        return None
    parts: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))["fields"]
    return parts


def recipe_beside(data: list[str] | None) -> str:
    """Find the recipe that `livestain collect` left with the pairs."""
    for path in data or []:
        folder = Path(path).resolve()
        for candidate in (folder / "recipe.yaml", folder.parent / "recipe.yaml"):
            if candidate.is_file():
                return str(candidate)
    raise LivestainError("Which channels are input and stain? Give --recipe FILE, whose data section says it.")
