"""The parts of a stranger's BioImage.IO 0.5 model description that we use, as pydantic models.

What is not used here may hold anything: the format grows, and packages carry keys of the tools that made them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Axis", "Data", "Description", "Parameterised", "Reference", "Tensor"]

_MOST_PX = 16384  # beyond it a size is a mistake, or meant to fill the memory
_AXIS_IDS = {"b": "batch", "c": "channel", "i": "index", "t": "time"}
_DEFAULT_IDS = {"batch": "batch", "channel": "channel", "space": "x", "time": "time", "index": "index"}


class _Read(BaseModel):
    """Part of a stranger's description; keys that we do not use are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Parameterised(_Read):
    min: int = Field(ge=1, le=_MOST_PX)
    step: int = Field(ge=1, le=_MOST_PX)


class Reference(_Read):
    tensor_id: str
    axis_id: str
    offset: int = 0


class _DataDependent(_Read):
    model_config = ConfigDict(frozen=True, extra="forbid")
    min: int = 1
    max: int | None = None


_FixedSize = Annotated[int, Field(ge=1, le=_MOST_PX, strict=True)]


class Axis(_Read):
    type: Literal["batch", "channel", "space", "time", "index"]
    id: Annotated[str, AfterValidator(lambda name: _AXIS_IDS.get(name, name))] | None = None
    size: _FixedSize | Parameterised | Reference | _DataDependent | None = None
    channel_names: tuple[str | int, ...] = ()
    unit: str | None = None
    scale: float = Field(default=1.0, gt=0)
    halo: int = Field(default=0, ge=0, le=_MOST_PX)

    @property
    def name(self) -> str:
        return self.id or _DEFAULT_IDS[self.type]

    @property
    def count(self) -> int | None:
        """The size where it is known beforehand."""
        if self.type == "channel":
            return len(self.channel_names) or None
        if self.type == "batch":
            return 1
        return self.size if isinstance(self.size, int) else None


class Data(_Read):
    type: Literal[
        "float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool"
    ] = "float32"
    range: tuple[float | str | None, float | str | None] = (None, None)
    unit: str | None = None
    values: tuple[Any, ...] | None = None

    @property
    def ends(self) -> tuple[float | None, float | None]:
        low, high = (end if isinstance(end, int | float) and abs(end) < float("inf") else None for end in self.range)
        return low, high


class Tensor(_Read):
    id: str | None = None
    axes: tuple[Axis, ...] = Field(min_length=2, max_length=8)
    data: Data | Annotated[tuple[Data, ...], Field(min_length=1)] = Data()
    optional: bool = False
    preprocessing: list[Any] = Field(default_factory=list, max_length=100)
    postprocessing: list[Any] = Field(default_factory=list, max_length=100)

    @property
    def dtype(self) -> str:
        return self.data.type if isinstance(self.data, Data) else self.data[0].type

    def data_of(self, channel: int) -> Data:
        """Give the description of a channel's values."""
        if isinstance(self.data, Data):
            return self.data
        return self.data[min(channel, len(self.data) - 1)]

    def axis(self, name: str) -> Axis | None:
        """Find an axis by its name."""
        return next((axis for axis in self.axes if axis.name == name), None)


class Description(_Read):
    name: str = "unnamed"
    id: str | None = None
    version: str | float | int | None = None
    description: str | None = None
    inputs: tuple[Tensor, ...] = Field(min_length=1, max_length=64)
    outputs: tuple[Tensor, ...] = Field(min_length=1, max_length=64)
