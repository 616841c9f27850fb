"""What a person writes: the rig, a useq MDASequence as it is, which model stains which channel, the output."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import useq
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt

__all__ = [
    "Experiment",
    "Measure",
    "Optics",
    "Output",
    "PhaseFromDefocus",
    "PhaseFromSteps",
    "PhaseGiven",
    "Rig",
    "RigChannel",
    "Stain",
    "Written",
]


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


class Optics(Written):
    """The transmitted light, for phase: without it there is no dry mass.

    Attributes
    ----------
    wavelength_um
        Of the transmitted light, its centre in vacuum.
    objective_na, condenser_na
        Numerical apertures; the condenser's as its diaphragm is set.
    medium_index
        Refractive index in front of the objective: 1 dry, 1.33 water, 1.515 oil.
    focus_offset_um
        What to add to a plane's place in the z_plan to get its distance from the focus of bright field. Without it, it
        is found from the first field of three or more planes; two planes need it. Where the stage counts the other
        way, it is added to the place with its sign turned.
    dark_counts
        What the camera gives without light, in grey levels; needed where phase comes from intensities.
    """

    wavelength_um: Annotated[float, Field(ge=0.2, le=2.0)]
    objective_na: Annotated[float, Field(gt=0, lt=1.7)] | None = None
    condenser_na: Annotated[float, Field(gt=0, lt=1.7)] | None = None
    medium_index: Annotated[float, Field(ge=1, le=1.8)] = 1.0
    focus_offset_um: float | None = None
    dark_counts: Annotated[float, Field(ge=0)] | None = None


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
    optics
        What phase and dry mass need to know of the transmitted light.
    """

    config: Path
    pixel_size_um: PositiveFloat | None = None
    channels: dict[str, RigChannel] = Field(default_factory=dict)
    properties: list[tuple[str, str, str | int | float]] = Field(default_factory=list)
    circular_buffer_mb: PositiveInt = 512
    instrument: Annotated[str, Field(min_length=1)] | None = None
    optics: Optics | None = None


class Stain(Written):
    """One model on one channel.

    Attributes
    ----------
    model
        Folder of a model package (relative to the experiment file), or the name of a shipped one.
    channel
        Preset of the sequence whose planes the model takes.
    precision
        Which of the package's precisions to run. One that the package lacks is an error, never replaced by another.
    provider
        Where to run it. "auto" takes the fastest of onnxruntime's that works; "openvino" is another engine for the CPU,
        of the extra `openvino`, and the one that computes in bf16. Any but "auto" that does not work is an error.
    threads
        CPU threads; all physical cores if not given.
    max_tile_px
        Frames with a longer side are stained in tiles, where the model allows it.
    """

    model: str
    channel: str
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    provider: Literal["auto", "cpu", "cuda", "tensorrt", "openvino"] = "auto"
    threads: PositiveInt | None = None
    max_tile_px: PositiveInt = 2048


class PhaseFromSteps(Written):
    """Phase from four exposures, the undiffracted light a quarter wave later each time (SLIM).

    Attributes
    ----------
    channels
        The four presets, in the order of their phase.
    empty_field
        Calibration made by `livestain empty-field`, relative to the file that names it. Without it the light of the
        empty field is estimated from cell-free pixels.
    coherence_um
        Radius over which the undiffracted light is one wave; without it the halo of the first field with enough cells
        tells.
    sign
        1 where the steps advance the undiffracted light, -1 where they delay it; a wrong one is found out and said.
    """

    method: Literal["steps"]
    channels: Annotated[tuple[str, ...], Field(min_length=4, max_length=4)]
    empty_field: Path | None = None
    coherence_um: PositiveFloat | None = None
    sign: Literal[1, -1] = 1


class PhaseFromDefocus(Written):
    """Phase from two or more focal planes of plain bright field, inside the cells' mask."""

    method: Literal["defocus"]
    channel: str


class PhaseGiven(Written):
    """Phase that the rig delivers as an image: rad = (grey level - zero_grey) * rad_per_grey.

    Without `rad_per_grey` the phase is relative: cells are segmented and tracked, but have no mass.
    """

    method: Literal["given"]
    channel: str
    rad_per_grey: PositiveFloat | None = None
    zero_grey: float = 0.0


class Measure(Written):
    """What is measured of every cell while the run goes on, or later by `livestain measure`.

    Attributes
    ----------
    nuclei, cells
        The channels that nuclei and cells are segmented on: a model's distance map or stain ("Nuclei distance"), or an
        acquired channel. Without them the models' distance maps are taken.
    phase
        Where phase, and so dry mass, comes from; no mass without.
    alpha_ml_per_g
        Specific refraction increment of the dry mass (Barer 1952).
    interval_s
        Time of the sample from one time point to the next, where it is not the computer's: a replayed recording, an
        accelerated simulation.
    """

    nuclei: str | None = None
    cells: str | None = None
    phase: Annotated[PhaseFromSteps | PhaseFromDefocus | PhaseGiven, Field(discriminator="method")] | None = None
    alpha_ml_per_g: Annotated[float, Field(ge=0.05, le=0.5)] = 0.18
    interval_s: PositiveFloat | None = None


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
    measure: Measure | None = None
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
