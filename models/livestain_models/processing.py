"""What BioImage.IO packages declare around their network, as pure numpy functions over whole frames.

The operations are those of model description 0.5, named as there. Statistics are taken of the frame as it is
when its turn comes. Those over the axis "batch" are meant for a whole data set, of which a microscope has seen
nothing when it starts; here they are of the one frame, so that a prediction never depends on the frames before.

References
----------
https://github.com/bioimage-io/spec-bioimage-io (model description 0.5); where it leaves open what is meant (the kind
of percentile, the epsilon of fixed_zero_mean_unit_variance), bioimageio.core 0.11 is followed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator
from scipy.special import expit, softmax

from livestain_models._errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livestain_models.tensors import TensorLayout

__all__ = ["Around", "Operation", "describe_operations", "operations_in", "run_operations"]

_FULL_NAMES = {"b": "batch", "c": "channel", "i": "index", "t": "time"}
_FIXED_EPS = 1e-6
_Eps = Annotated[float, Field(gt=0, le=0.1)]
_Dtype = Literal["float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool"]


@dataclass(frozen=True, slots=True)
class Around:
    """What an operation may look at beside its tensor.

    Parameters
    ----------
    layout : TensorLayout
        Of the tensor.
    others : dict of str to (np.ndarray, TensorLayout)
        Whole (P, H, W) tensors that it may refer to, by their id.
    greys : np.ndarray or None
        The tensor as the camera gave it, uint8 or uint16, while its values are still the same: percentiles
        of whole numbers are counted instead of sorted, at the same result.
    """

    layout: TensorLayout
    others: Mapping[str, tuple[np.ndarray, TensorLayout]] = field(default_factory=dict)
    greys: np.ndarray | None = None

    def reference(self, name: str, asked_by: str) -> tuple[np.ndarray, TensorLayout]:
        """Give another tensor."""
        if name not in self.others:
            raise ModelError(
                f"{asked_by} refers to the tensor {name!r}, of which nothing is known there (known: "
                f"{', '.join(self.others) or 'none'}). Correct reference_tensor."
            )
        return self.others[name]


def _full_name(axis: str) -> str:
    return _FULL_NAMES.get(axis, axis)


class Operation(BaseModel, ABC):
    """One declared step; frozen, and an argument that we do not know is refused, since it would change the result."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    id: str

    @abstractmethod
    def run(self, x: np.ndarray, around: Around) -> np.ndarray:
        """Apply it to a (P, H, W) tensor; the argument is left as it is."""

    def axes_named(self) -> tuple[str, ...]:
        """Give the axes that it names."""
        return ()


class EnsureDtype(Operation):
    """Cast; integers are cut off, not rounded."""

    id: Literal["ensure_dtype"]
    dtype: _Dtype

    def run(self, x: np.ndarray, around: Around) -> np.ndarray:  # noqa: ARG002
        if x.dtype.kind == "f" and np.dtype(self.dtype).kind != "f" and not np.isfinite(x).all():
            raise ModelError(f"the model's processing gave numbers that are not finite, before a cast to {self.dtype}.")
        return x.astype(self.dtype, copy=False)


class _AlongAxis(Operation):
    """A step with one number for all, or one for each place along an axis."""

    axis: str | None = None

    def _spread(self, numbers: float | tuple[float, ...], x: np.ndarray, around: Around) -> np.ndarray:
        values = np.asarray(numbers, x.dtype if x.dtype.kind == "f" else np.float32)
        place = around.layout.index(_full_name(self.axis)) if self.axis is not None else None
        if values.size != 1 and (place is None or x.shape[place] != values.size):
            there = 1 if place is None else x.shape[place]
            raise ModelError(f"{self.id} has {values.size} values along {self.axis!r}, which has size {there}.")
        shape = [1, 1, 1]
        if place is not None:
            shape[place] = values.size
        return values.reshape(shape)

    def axes_named(self) -> tuple[str, ...]:
        return () if self.axis is None else (_full_name(self.axis),)


class Binarize(_AlongAxis):
    """True above a threshold."""

    id: Literal["binarize"]
    threshold: float | tuple[float, ...]

    def run(self, x: np.ndarray, around: Around) -> np.ndarray:
        return x > self._spread(self.threshold, x, around)


class ScaleLinear(_AlongAxis):
    """Times a gain, plus an offset."""

    id: Literal["scale_linear"]
    gain: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0

    def run(self, x: np.ndarray, around: Around) -> np.ndarray:
        x = _real(x)
        return np.asarray(x * self._spread(self.gain, x, around) + self._spread(self.offset, x, around))


class FixedZeroMeanUnitVariance(_AlongAxis):
    """Less a given mean, over a given standard deviation."""

    id: Literal["fixed_zero_mean_unit_variance"]
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def run(self, x: np.ndarray, around: Around) -> np.ndarray:
        x = _real(x)
        std = self._spread(self.std, x, around)
        return np.asarray((x - self._spread(self.mean, x, around)) / (std + std.dtype.type(_FIXED_EPS)))


class Sigmoid(Operation):
    """The logistic function."""

    id: Literal["sigmoid"]

    def run(self, x: np.ndarray, around: Around) -> np.ndarray:  # noqa: ARG002
        return np.asarray(expit(_real(x)))


class Softmax(Operation):
    """Shares along an axis that add up to one."""

    id: Literal["softmax"]
    axis: str = "channel"

    def run(self, x: np.ndarray, around: Around) -> np.ndarray:
        place = around.layout.index(_full_name(self.axis))
        return np.ones_like(_real(x)) if place is None else np.asarray(softmax(_real(x), axis=place))

    def axes_named(self) -> tuple[str, ...]:
        return (_full_name(self.axis),)


class _OverAxes(Operation):
    """A step with statistics over some axes, or over all."""

    axes: tuple[str, ...] | None = None

    @field_validator("axes", mode="before")
    @classmethod
    def _letters(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, str) else value

    def _places(self, around: Around) -> tuple[int, ...]:
        if self.axes is None:
            return (0, 1, 2)
        places = {around.layout.index(_full_name(axis)) for axis in self.axes}
        return tuple(sorted(place for place in places if place is not None))

    def _centred(self, x: np.ndarray, around: Around) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give a fresh tensor less its mean, the mean, and the standard deviation."""
        places = self._places(around)
        mean = x.mean(places, dtype=np.float64, keepdims=True).astype(x.dtype)
        centred = x - mean
        variance = np.square(centred).mean(places, dtype=np.float64, keepdims=True)
        return centred, mean, np.sqrt(variance).astype(x.dtype)

    def _percentiles(
        self, x: np.ndarray, around: Around, wanted: list[float], method: Literal["linear", "inverted_cdf"]
    ) -> list[np.ndarray]:
        places = self._places(around)
        if not places:
            return [x for _ in wanted]
        if around.greys is not None and places in {(0, 1, 2), (1, 2)}:
            stacks = [around.greys] if 0 in places else list(around.greys)
            found = np.stack([_counted_percentiles(stack, wanted, method) for stack in stacks], -1)[..., None, None]
        else:
            found = np.percentile(x, wanted, axis=places, keepdims=True, method=method)
        return list(np.asarray(found).astype(x.dtype))

    def axes_named(self) -> tuple[str, ...]:
        return tuple(map(_full_name, self.axes or ()))


class ZeroMeanUnitVariance(_OverAxes):
    """Less the frame's mean, over its standard deviation."""

    id: Literal["zero_mean_unit_variance"]
    eps: _Eps = 1e-6

    def run(self, x: np.ndarray, around: Around) -> np.ndarray:
        x = _real(x)
        centred, _, std = self._centred(x, around)
        centred /= std + x.dtype.type(self.eps)
        return centred


class Clip(_OverAxes):
    """Nothing below one value and nothing above another, given or percentiles."""

    id: Literal["clip"]
    min: float | None = None
    max: float | None = None
    min_percentile: Annotated[float, Field(ge=0, lt=100)] | None = None
    max_percentile: Annotated[float, Field(gt=1, le=100)] | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        low, high = (self.min, self.min_percentile), (self.max, self.max_percentile)
        if None not in low or None not in high:
            raise ValueError("clip takes a value or a percentile, not both")
        if (*low, *high) == (None,) * 4:
            raise ValueError("clip needs min or max")
        return self

    def run(self, x: np.ndarray, around: Around) -> np.ndarray:
        low, high = self.min, self.max
        wanted = [one for one in (self.min_percentile, self.max_percentile) if one is not None]
        found = self._percentiles(x, around, wanted, "inverted_cdf") if wanted else []
        if self.min_percentile is not None:
            x = np.maximum(x, found[0])
        if self.max_percentile is not None:
            x = np.minimum(x, found[-1])
        return x if low is None and high is None else np.clip(_real(x), low, high)


class ScaleRange(_OverAxes):
    """One percentile becomes 0, another 1."""

    id: Literal["scale_range"]
    min_percentile: Annotated[float, Field(ge=0, lt=100)] = 0.0
    max_percentile: Annotated[float, Field(gt=1, le=100)] = 100.0
    eps: _Eps = 1e-6
    reference_tensor: str | None = None

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.min_percentile >= self.max_percentile:
            raise ValueError(f"min_percentile {self.min_percentile:g} is not below max_percentile")
        return self

    def run(self, x: np.ndarray, around: Around) -> np.ndarray:
        x = _real(x)
        of, its = (x, around.layout)
        if self.reference_tensor is not None:
            of, its = around.reference(self.reference_tensor, self.id)
        greys = around.greys if self.reference_tensor is None else None
        low, high = self._percentiles(
            _real(of), Around(its, greys=greys), [self.min_percentile, self.max_percentile], "linear"
        )
        return np.asarray((x - low) / (high - low + x.dtype.type(self.eps)))


class ScaleMeanVariance(_OverAxes):
    """To the mean and the standard deviation of another tensor."""

    id: Literal["scale_mean_variance"]
    reference_tensor: str
    eps: _Eps = 1e-6

    def run(self, x: np.ndarray, around: Around) -> np.ndarray:
        x = _real(x)
        eps = x.dtype.type(self.eps)
        centred, _, std = self._centred(x, around)
        of, its = around.reference(self.reference_tensor, self.id)
        _, other_mean, other_std = self._centred(_real(of), Around(its))
        return np.asarray(centred / (std + eps) * (other_std + eps) + other_mean)


_ANY = TypeAdapter[Operation](
    Annotated[
        EnsureDtype
        | Binarize
        | ScaleLinear
        | FixedZeroMeanUnitVariance
        | Sigmoid
        | Softmax
        | ZeroMeanUnitVariance
        | Clip
        | ScaleRange
        | ScaleMeanVariance,
        Field(discriminator="id"),
    ]
)


def operations_in(steps: Any, dtype: str, *, begin: bool) -> tuple[Operation, ...]:
    """Parse a list of declared steps.

    Parameters
    ----------
    steps : list of dict
        ``{id: ..., kwargs: {...}}``, as the description holds them.
    dtype : str
        The tensor's declared type. Steps end with a cast to it unless they end with one of their own or with
        ``binarize``.
    begin : bool
        Whether they also begin with that cast, as those of inputs do.

    Returns
    -------
    tuple of Operation

    Raises
    ------
    pydantic.ValidationError
        An operation that is not known, or arguments that it does not take.
    """
    found = [_ANY.validate_python(_flat(step)) for step in steps or ()]
    cast = EnsureDtype(id="ensure_dtype", dtype=dtype)  # type: ignore[arg-type] # pydantic refuses what is no dtype
    if begin and not (found and isinstance(found[0], EnsureDtype)):
        found.insert(0, cast)
    if not (found and isinstance(found[-1], EnsureDtype | Binarize)):
        found.append(cast)
    return tuple(found)


def _flat(step: Any) -> Any:
    """Put the arguments beside the name; what has another form stays as it is, for pydantic to refuse."""
    if not isinstance(step, dict):
        return step
    arguments = step.get("kwargs") or {}
    return {**arguments, "id": step.get("id")} if isinstance(arguments, dict) else step


def run_operations(operations: tuple[Operation, ...], x: np.ndarray, around: Around) -> np.ndarray:
    """Apply operations in their order to a (P, H, W) tensor, which is left as it is."""
    greys = x if x.dtype in (np.uint8, np.uint16) else None
    for operation in operations:
        x = operation.run(x, replace(around, greys=greys))
        if not (isinstance(operation, EnsureDtype) and greys is not None and np.can_cast(greys.dtype, x.dtype)):
            greys = None
    return x


def describe_operations(operations: tuple[Operation, ...]) -> str:
    """Say in one line what is done."""
    said = []
    for operation in operations:
        arguments = operation.model_dump(exclude={"id"}, exclude_defaults=True)
        said.append(operation.id + (f" {_plain(arguments)}" if arguments else ""))
    return ", ".join(said) or "nothing"


def _plain(arguments: dict[str, Any]) -> str:
    shown = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
    return "(" + ", ".join(f"{name} {value}" for name, value in shown.items()) + ")"


def _counted_percentiles(
    greys: np.ndarray, wanted: list[float], method: Literal["linear", "inverted_cdf"]
) -> list[float]:
    """Give percentiles as `np.percentile` does, from a histogram of whole numbers."""
    below = np.bincount(greys.ravel()).cumsum()  # below[v]: how many are at most v
    n = greys.size

    def ranked(rank: float) -> float:
        return float(np.searchsorted(below, rank, side="right"))

    if method == "inverted_cdf":
        return [ranked(max(np.ceil(n * percent / 100) - 1, 0)) for percent in wanted]
    found = []
    for percent in wanted:
        rank = percent / 100 * (n - 1)
        low = ranked(np.floor(rank))
        found.append(low + (rank - np.floor(rank)) * (ranked(min(np.floor(rank) + 1, n - 1)) - low))
    return found


def _real(x: np.ndarray) -> np.ndarray:
    """Floating point, in which every grey value of the tensor is exact."""
    if x.dtype.kind == "f":
        return x
    return x.astype(np.float32 if x.dtype.itemsize <= 2 else np.float64)
