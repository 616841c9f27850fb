"""What a stain model promises: inputs, pixel size, planes, outputs and their meaning, origin and limits."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["UNSAID", "Contract", "OtherPrecision", "Output", "Planes", "Precision", "Variant"]

Text = Annotated[str, Field(min_length=1)]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
OtherPrecision = Literal["bf16", "fp16", "int8"]
UNSAID = "the package does not say"


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
        Distance between neighbouring planes; None where there is one plane, or it is not stated.
    stated : bool
        False where a package made elsewhere does not say what its planes are or how far apart.
    """

    count: int = Field(default=1, ge=1)
    spacing_um: float | None = Field(default=None, gt=0)
    stated: bool = True

    @model_validator(mode="after")
    def _spacing_where_there_is_a_stack(self) -> Self:
        if (self.count > 1 and self.stated) != (self.spacing_um is not None):
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
    kind : {"stain", "deviation", "distance", "class"}
        A fluorescence; the standard deviation of another output's error; the distance to the edge of the
        object; or the probability of a class.
    of : str or None
        The output that a deviation or a distance belongs to.
    full_scale : float or None
        The value, in `unit`, that grey level 65535 stands for.
    zero : float
        The value that grey level 0 stands for: 0, but for packages made elsewhere that predict below 0.
    unit : str
        Of that value: "relative" (to the training images), "um", "1".
    """

    name: Text
    meaning: Text
    color: str = Field(default="00FF00", pattern=r"^[0-9A-Fa-f]{6}$")
    kind: Literal["stain", "deviation", "distance", "class"] = "stain"
    of: str | None = None
    full_scale: float | None = None
    zero: float = 0.0
    unit: str = "relative"

    @model_validator(mode="after")
    def _full_scale_above_zero(self) -> Self:
        if self.full_scale is not None and self.full_scale <= self.zero:
            raise ValueError(f"full_scale {self.full_scale:g} must lie above zero, the value of black: {self.zero:g}")
        return self

    @property
    def channel(self) -> str:
        """The name of the channel on disk, which says that it was predicted."""
        return f"{self.name} (predicted)"


class Variant(_Frozen):
    """The same network in another precision: less to compute, at a difference that is stated.

    Parameters
    ----------
    precision : {"bf16", "fp16", "int8"}
        What the network's weights and activations are; normalisation and grey values stay in fp32.
    file : str
        The ONNX file, beside rdf.yaml. For bf16 it is that of fp32: the runtime rounds while it computes.
    sha256 : str
        Of that file.
    parity : dict of str to float
        ``parity_max_grey`` and ``parity_mean_grey``: differences to fp32 in grey levels of 65535, over
        held-out frames and noise, the package's own test input included.
    scores : dict of str to float or str
        As the contract's, measured with this precision; empty where nobody did.
    """

    precision: OtherPrecision
    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    parity: dict[str, float]
    scores: dict[str, float | str] = Field(default_factory=dict)


class Contract(_Frozen):
    """What a model promises, beyond the standard part of its BioImage.IO package.

    Parameters
    ----------
    id, version : str
        Which model this is.
    pixel_size_um : float or None
        Pixel size in the sample that the model was trained at. None: a package made elsewhere does not say.
    pixel_size_tolerance : float
        Largest relative deviation at which the scores still hold.
    contrast : str or None
        How the input is imaged: "bright field", "phase contrast", ... None: a package made elsewhere does
        not say.
    planes : Planes
        The planes of one input.
    outputs : tuple of Output
        The predicted channels, in the order of the output's channel axis.
    multiple_px : int
        Height and width of the input are whole multiples of it.
    halo_px : int or None
        Radius within which an input pixel can change the output. None: statistics of the whole frame are
        used, so the model cannot be tiled.
    input_dtype : str
        What camera frames are turned into: the graph's input, or what a package made elsewhere declares.
    normalisation : str
        What is done to grey values before the network.
    weights_sha256 : str
        Of the ONNX file that runs; empty only until the package is written.
    variants : tuple of Variant
        Other precisions of the same network.
    foreign : bool
        Whether the package was made elsewhere, so that it may leave unsaid what ours must say.
    notes : tuple of str
        What livestain had to assume of a package made elsewhere.
    training_data, intended_use, limitations : str
        For the person who decides whether to trust it.
    scores : dict of str to float or str
        Held-out scores, and the largest and mean difference between training and deployment, by name.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: Text
    pixel_size_um: float | None = Field(gt=0)
    pixel_size_tolerance: float = Field(default=0.1, ge=0)
    contrast: Text | None
    planes: Planes = Planes()
    outputs: tuple[Output, ...] = Field(min_length=1)
    multiple_px: int = Field(ge=1)
    halo_px: int | None = Field(ge=0)
    input_dtype: Literal[
        "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "bool"
    ] = "uint16"
    normalisation: Text
    weights_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    variants: tuple[Variant, ...] = ()
    foreign: bool = False
    notes: tuple[Text, ...] = ()
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

    @model_validator(mode="after")
    def _precisions_differ(self) -> Self:
        if len(set(self.precisions)) < len(self.precisions):
            raise ValueError(f"every variant needs a precision of its own, got {self.precisions}")
        return self

    @model_validator(mode="after")
    def _ours_leaves_nothing_unsaid(self) -> Self:
        if self.foreign:
            return self
        if self.input_dtype not in {"uint16", "float32"}:
            raise ValueError(f"input_dtype must be uint16 or float32, got {self.input_dtype!r}")
        for name in ("pixel_size_um", "contrast"):
            if getattr(self, name) is None:
                raise ValueError(f"{name} may stay unsaid only in a package made elsewhere")
        return self

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that the package holds, the reference first."""
        return ("fp32", *(variant.precision for variant in self.variants))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before trusting it, because the package leaves it unsaid."""
        said = {
            "its pixel size": self.pixel_size_um is not None,
            "which contrast it was made for": self.contrast is not None,
            "what it was trained on": self.training_data != UNSAID,
            "its scores": bool(self.scores),
            "its limits": self.limitations != UNSAID,
        }
        missing = [what for what, there in said.items() if not there]
        unsaid = (f"the package does not say {', '.join(missing)}",) if missing else ()
        return (*unsaid, *self.notes)

    def accepts_pixel_size(self, pixel_size_um: float) -> bool:
        """Whether a camera pixel of this size lies within the tolerance; anything does where no size is said."""
        if self.pixel_size_um is None:
            return True
        deviation = abs(pixel_size_um / self.pixel_size_um - 1.0)
        return deviation <= self.pixel_size_tolerance + 1e-9
