"""What can be set on the simulated microscope: every number with its unit, its limits and its default."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from livestain._errors import RigError
from livestain.simulate._properties import parse_choice, parse_float, parse_int

__all__ = ["CLOCKS", "PROPERTIES", "Settings", "changed"]

CLOCKS = ("frames", "wall")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that determines the sample, the optics and the sensor."""

    seed: int = 1
    clock: str = "frames"
    seconds_per_exposure: float = 30.0
    scene_step_s: float = 60.0
    speed: float = 60.0
    cells_per_mm2: float = 2170.0
    world_um: float = 600.0
    cycle_h: float = 20.0
    death_rate_per_h: float = 0.004
    dead_at_start: float = 0.05
    start_h: float = 0.0
    pixel_size_um: float = 0.325
    objective_na: float = 0.75
    condenser_na: float = 0.3
    focus_um: float = 0.0
    bright_field_offset_um: float = 2.0
    width: int = 512
    height: int = 512


# property name on the device -> (field, lowest, highest); the type of the field decides how it is read
PROPERTIES: dict[str, tuple[str, float, float]] = {
    "Seed": ("seed", 0, 2**31 - 1),
    "SecondsPerExposure": ("seconds_per_exposure", 0, 86_400),
    "SceneStep_s": ("scene_step_s", 0, 86_400),
    "Speed": ("speed", 0, 100_000),
    "CellsPerMm2": ("cells_per_mm2", 0, 10_000),
    "WorldSize_um": ("world_um", 50, 5_000),
    "CellCycle_h": ("cycle_h", 1, 1_000),
    "DeathRate_per_h": ("death_rate_per_h", 0, 10),
    "DeadAtStart": ("dead_at_start", 0, 1),
    "Start_h": ("start_h", 0, 1_000),
    "PixelSize_um": ("pixel_size_um", 0.02, 5),
    "ObjectiveNA": ("objective_na", 0.05, 0.95),
    "CondenserNA": ("condenser_na", 0.02, 0.9),
    "FocusPosition_um": ("focus_um", -1_000, 1_000),
    "BrightFieldOffset_um": ("bright_field_offset_um", -20, 20),
}

_TYPES = {field.name: field.type for field in fields(Settings)}


def changed(settings: Settings, name: str, value: object) -> Settings:
    """Return `settings` with the property `name` set to `value`.

    Raises
    ------
    RigError
        The value cannot be; the message names the property, the value and the limits.
    """
    if name == "Clock":
        return replace(settings, clock=parse_choice(name, value, CLOCKS))
    field, low, high = PROPERTIES[name]
    number = (
        parse_int(name, value, int(low), int(high)) if _TYPES[field] == "int" else parse_float(name, value, low, high)
    )
    new = replace(settings, **{field: number})  # type: ignore[arg-type]
    if new.condenser_na > new.objective_na:
        raise RigError(
            f"{name} was set to {value!r}, which makes CondenserNA {new.condenser_na:g} larger than ObjectiveNA "
            f"{new.objective_na:g}; bright field needs CondenserNA at most ObjectiveNA."
        )
    return new
