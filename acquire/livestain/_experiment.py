"""What a person writes: the rig, a useq MDASequence as it is, which model stains which channel, the output."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import useq
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt

__all__ = ["Experiment", "Output", "Rig", "RigChannel", "Stain", "Written"]


class Written(BaseModel):
    """Base of what a person writes: an unknown key is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RigChannel(Written):
    """What a .cfg cannot say of a channel preset.

    `contrast` is the kind of transmitted light ("bright field", "phase contrast", ...), held against the models;
    `color` is how viewers show the channel, RRGGBB.
    """

    contrast: str | None = None
    color: Annotated[str, Field(pattern="^[0-9A-Fa-f]{6}$")] | None = None


class Rig(Written):
    """A microscope: its Micro-Manager configuration, and what such a file cannot say.

    Attributes
    ----------
    config
        Path of the .cfg file, relative to the file that names it.
    pixel_size_um
        Size of a pixel in the sample, where the .cfg has none.
    channels
        What is known of channel presets, by name.
    properties
        (device, property, value) to set once the .cfg is loaded.
    circular_buffer_mb
        The core's buffer between camera and acquisition; it takes up the slack when the disk is slow.
    instrument
        The microscope's name, recorded with training pairs so that a model can be tested on one it never saw.
    """

    config: Path
    pixel_size_um: PositiveFloat | None = None
    channels: dict[str, RigChannel] = Field(default_factory=dict)
    properties: list[tuple[str, str, str | int | float]] = Field(default_factory=list)
    circular_buffer_mb: PositiveInt = 512
    instrument: Annotated[str, Field(min_length=1)] | None = None


class Stain(Written):
    """One model on one channel.

    Attributes
    ----------
    model
        Folder of a model package (relative to the experiment file), or the name of a shipped one.
    channel
        Preset of the sequence whose planes the model takes.
    precision
        Which of the package's weights to run. One that the package lacks is an error, never replaced by another.
    provider
        Where to run it. "auto" takes the fastest that works; any other that does not work is an error.
    threads
        CPU threads; all physical cores if not given.
    max_tile_px
        Frames with a longer side are stained in tiles, where the model allows it.
    """

    model: str
    channel: str
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    threads: PositiveInt | None = None
    max_tile_px: PositiveInt = 2048


class Output(Written):
    """Where the run goes: `folder`/`name`. Without a name it is the date and the experiment's, numbered.

    `sync` makes every commit wait for the drive itself (fsync), so that it survives a loss of power;
    `write_buffer_mb` bounds the frames that wait for the disk; `stain_remaining` has the end of the run wait
    for predictions that are still owed.
    """

    folder: Annotated[Path, AfterValidator(Path.expanduser)] = Path("livestain-runs")
    name: str | None = None
    sync: bool = True
    write_buffer_mb: PositiveInt = 256
    stain_remaining: bool = True


def _as_sequence(value: Any) -> Any:
    return useq.MDASequence.model_validate(value) if isinstance(value, dict) else value


class Experiment(Written):
    """One acquisition, whole."""

    rig: Rig
    sequence: Annotated[useq.MDASequence, BeforeValidator(_as_sequence)]
    stains: tuple[Stain, ...] = ()
    output: Output = Output()

    def run_folder(self, stem: str) -> Path:
        """Choose the run's folder. A name that was given is taken as it is, one that was not is free."""
        if self.output.name is not None:
            return self.output.folder / self.output.name
        base = f"{date.today().isoformat()}-{stem}"
        folder, number = self.output.folder / base, 1
        while folder.exists():
            number += 1
            folder = self.output.folder / f"{base}-{number}"
        return folder
