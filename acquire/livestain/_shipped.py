"""Finds the hardware configurations that livestain brings along."""

from __future__ import annotations

from pathlib import Path

__all__ = ["shipped_config", "shipped_folder"]


def shipped_folder() -> Path:
    """Give the folder of shipped configurations: in the wheel, or in a checkout that is installed editable."""
    installed = Path(__file__).parent / "hardware_configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "hardware_configs"


def shipped_config(name: str, *, bare: bool = False) -> Path | None:
    """Give the shipped rig of this name: its YAML where there is one (not if `bare`), else its .cfg, else None."""
    if Path(name).name != name:
        return None
    folder = shipped_folder()
    candidates = [folder / name, *([] if bare else [folder / f"{name}.yaml"]), folder / f"{name}.cfg"]
    return next((path for path in candidates if path.is_file()), None)
