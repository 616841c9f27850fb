"""What a stain model promises: inputs, pixel size, planes, outputs and their meaning, origin and limits."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Contract", "Output", "Planes"]

Text = Annotated[str, Field(min_length=1)]


class _Frozen(BaseModel):
    """A record that a file stores: no unknown fields, no change after it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Planes(_Frozen):
    """The planes that make one input: a single one, or a stack along z.

    Parameters
    ----------
    count : int
        Planes a prediction needs, in the order of rising z.
    spacing_um : float or None
        Distance between neighbouring planes; None where there is one plane.
    """

    count: int = Field(default=1, ge=1)
    spacing_um: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _spacing_where_there_is_a_stack(self) -> Self:
        if (self.count > 1) != (self.spacing_um is not None):
            raise ValueError("spacing_um belongs to a stack (count > 1), and a stack needs it")
        return self


class Output(_Frozen):
    """One predicted channel.

    Parameters
    ----------
    name : str
        The stain, e.g. "Nuclei"; the channel on disk is called "Nuclei (predicted)".
    meaning : str
        What a grey value stands for, e.g. "fluorescence of a DNA stain; 65535 = 4x the training maximum".
    color : str
        RRGGBB, for viewers.
    """

    name: Text
    meaning: Text
    color: str = Field(default="00FF00", pattern=r"^[0-9A-Fa-f]{6}$")

    @property
    def channel(self) -> str:
        """The name of the channel on disk, which says that it was predicted."""
        return f"{self.name} (predicted)"


class Contract(_Frozen):
    """What a model promises, beyond the standard part of its BioImage.IO package.

    Parameters
    ----------
    id, version : str
        Which model this is.
    pixel_size_um : float
        Pixel size in the sample that the model was trained at.
    pixel_size_tolerance : float
        Largest relative deviation at which the scores still hold.
    contrast : str
        How the input is imaged: "bright field", "phase contrast", ...
    planes : Planes
        The planes of one input.
    outputs : tuple of Output
        The predicted channels, in the order of the output's channel axis.
    multiple_px : int
        Height and width of the input are whole multiples of it.
    halo_px : int or None
        Radius within which an input pixel can change the output. None: statistics of the whole frame are
        used, so the model cannot be tiled.
    input_dtype : {"uint16", "float32"}
        What the graph's input takes; float32 is for packages made elsewhere.
    normalisation : str
        What the graph does to grey values before the network.
    weights_sha256 : str
        Of the ONNX file; empty only until the package is written.
    training_data, intended_use, limitations : str
        For the person who decides whether to trust it.
    scores : dict of str to float or str
        Held-out scores, and the largest and mean difference between training and deployment, by name.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: Text
    pixel_size_um: float = Field(gt=0)
    pixel_size_tolerance: float = Field(default=0.1, ge=0)
    contrast: Text
    planes: Planes = Planes()
    outputs: tuple[Output, ...] = Field(min_length=1)
    multiple_px: int = Field(ge=1)
    halo_px: int | None = Field(ge=0)
    input_dtype: Literal["uint16", "float32"] = "uint16"
    normalisation: Text
    weights_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    training_data: Text
    scores: dict[str, float | str] = Field(default_factory=dict)
    intended_use: Text
    limitations: Text

    @model_validator(mode="after")
    def _output_names_differ(self) -> Self:
        names = [output.name for output in self.outputs]
        if len(set(names)) < len(names):
            raise ValueError(f"every output needs a name of its own, got {names}")
        return self

    def accepts_pixel_size(self, pixel_size_um: float) -> bool:
        """Whether a camera pixel of this size in the sample lies within the tolerance."""
        deviation = abs(pixel_size_um / self.pixel_size_um - 1.0)
        return deviation <= self.pixel_size_tolerance + 1e-9
