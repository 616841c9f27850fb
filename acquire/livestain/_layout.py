"""Where every plane of an experiment goes: images, channels, sizes. Derived from the sequence before it runs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import useq

from livestain._errors import ExperimentError
from livestain._frame import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Channel", "Image", "Layout", "with_fields_of_view"]

# What a position's own sub-sequence may hold: these change where the stage goes, not what a plane's index means.
_SUBSEQUENCE_MAY_HAVE = {"grid_plan", "z_plan", "autofocus_plan", "metadata", "axis_order"}


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of the images; `stain` and `output` say which prediction it is, None for a camera's.

    `least_high` is the grey level that the display range reaches at least: stretched to what it holds, a prediction
    without a single cell would show its noise as cells.
    """

    name: str
    color: str = "FFFFFF"
    stain: int | None = None
    output: int | None = None
    least_high: float = 0.0

    @property
    def predicted(self) -> bool:
        """Whether a model made this channel."""
        return self.stain is not None


@dataclass(frozen=True, slots=True)
class Image:
    """One place of the stage: a position, or a tile of a position's grid.

    `path` is its group inside the store ("" for the only image of a run), `well` its plate row, column and
    field where there is a plate; `z_step_um` is None for a single plane or steps that differ.
    """

    path: str
    name: str
    n_z: int
    z_step_um: float | None = None
    well: tuple[str, str, int] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The arrays of a run. All images share channels, frame size and pixel size.

    `n_t` and `n_frames` are None where they are not known beforehand. `interval_s` is 0 when the camera runs free,
    `pixel_size_um` 0 when it is unknown.
    """

    images: tuple[Image, ...]
    channels: tuple[Channel, ...]
    n_t: int | None
    n_cameras: int
    height: int
    width: int
    pixel_size_um: float
    interval_s: float
    n_frames: int | None
    plate: tuple[str, int, int] | None  # name, rows, columns
    image_of: Mapping[tuple[int, int], int]

    @classmethod
    def of(
        cls,
        sequence: useq.MDASequence,
        *,
        height: int,
        width: int,
        pixel_size_um: float,
        cameras: Sequence[str] = ("Camera",),
        colors: Mapping[str, str] = MappingProxyType({}),
        predicted: Sequence[Channel] = (),
    ) -> Layout:
        """Lay out `sequence` for a camera of `height` x `width` pixels.

        Raises
        ------
        ExperimentError
            If a position's sub-sequence changes time or channels, or two channels have one name.
        """
        images, image_of = _images(sequence)
        channels = (*_camera_channels(sequence, cameras, colors), *predicted)
        names = [c.name for c in channels]
        if twice := {n for n in names if names.count(n) > 1}:
            raise ExperimentError(
                f"channels need different names, but {sorted(twice)} stands more than once. Give each "
                "channel of the sequence its own preset, and each model its own channel."
            )
        n_t, interval_s = _time(sequence)
        return cls(
            images=images,
            channels=channels,
            n_t=n_t,
            n_cameras=len(cameras),
            height=height,
            width=width,
            pixel_size_um=pixel_size_um,
            interval_s=interval_s,
            n_frames=None if n_t is None else _count_frames(sequence, n_t, len(cameras)),
            plate=_plate(sequence),
            image_of=image_of,
        )

    def place(self, index: Mapping[str, int]) -> Place:
        """Say where the plane of an event's index goes."""
        image = self.image_of[(index.get("p", 0), index.get("g", 0))]
        c = index.get("c", 0) * self.n_cameras + index.get("cam", 0)
        return Place(image, index.get("t", 0), c, index.get("z", 0))

    def channel(self, name: str) -> int | None:
        """Give the number of a channel by its name, or None."""
        return next((i for i, channel in enumerate(self.channels) if channel.name == name), None)

    @property
    def position_names(self) -> tuple[str, ...]:
        """A name for each image; with its number where two share a name, since tables and files go by it."""
        names = [image.name for image in self.images]
        return tuple(f"{name} ({i})".strip() if names.count(name) > 1 else name for i, name in enumerate(names))

    def targets(self, stain: int, at: Place) -> tuple[Place, ...]:
        """Say where a stain's outputs go for the plane at `at`, in the order of the model's outputs."""
        mine = [(c.output, i) for i, c in enumerate(self.channels) if c.stain == stain]
        return tuple(replace(at, c=i) for _, i in sorted(mine, key=lambda pair: pair[0] or 0))

    @property
    def bytes_at_most(self) -> int | None:
        """Size on disk before compression, None for a sequence without end."""
        if self.n_frames is None:
            return None
        acquired = sum(not c.predicted for c in self.channels)
        planes = self.n_frames * (1 + sum(c.predicted for c in self.channels) / acquired)
        return int(planes * self.height * self.width * 2)


def with_fields_of_view(sequence: useq.MDASequence, width_um: float, height_um: float) -> useq.MDASequence:
    """Give a fresh sequence whose grid plans know the camera's field: it decides how many tiles they have.

    The engine tells them too, but later than the layout needs it; and a sequence that was iterated before
    remembers how many tiles it had without.

    Raises
    ------
    ExperimentError
        If a grid of random points has no seed.
    """
    fresh = useq.MDASequence.model_validate(sequence.model_dump())
    subs = [getattr(position, "sequence", None) for position in fresh.stage_positions]
    for plan in [s.grid_plan for s in (fresh, *subs) if s is not None and s.grid_plan is not None]:
        if isinstance(plan, useq.RandomPoints) and plan.random_seed is None:
            raise ExperimentError(
                "a grid_plan of random points without a random_seed would give other points each time it is asked: "
                "give it a random_seed."
            )
        if width_um and height_um:
            plan.fov_width, plan.fov_height = width_um, height_um
    return fresh


def _images(sequence: useq.MDASequence) -> tuple[tuple[Image, ...], dict[tuple[int, int], int]]:
    positions = list(sequence.stage_positions) or [useq.Position(name="")]
    plan = sequence.stage_positions if isinstance(sequence.stage_positions, useq.WellPlatePlan) else None
    found: list[tuple[tuple[int, int], str, useq.MDASequence, tuple[str, str, int] | None]] = []
    for p, position in enumerate(positions):
        sub = _subsequence(p, position)
        grid = (sub.grid_plan if sub else None) or sequence.grid_plan
        with_z = sub if sub and sub.z_plan else sequence
        name = position.name or (f"Position {p}" if len(positions) > 1 else "")
        for g in range(_n_grid(grid)):
            label = f"{name} tile {g}".strip() if grid else name
            found.append(((p, g), label, with_z, _well(plan, p)))
    well_fields: dict[tuple[str, str], int] = {}
    images: list[Image] = []
    for i, (_, label, with_z, well) in enumerate(found):
        if well:  # number the fields of each well, tiles of a grid included
            key = well[:2]
            well = (*key, well_fields.get(key, 0))
            well_fields[key] = well[2] + 1
        path = "/".join(map(str, well)) if well else (str(i) if len(found) > 1 else "")
        images.append(Image(path, label, _n_z(with_z), _z_step_um(with_z), well))
    return tuple(images), {key: i for i, (key, *_) in enumerate(found)}


def _subsequence(p: int, position: useq.Position) -> useq.MDASequence | None:
    sub: useq.MDASequence | None = getattr(position, "sequence", None)
    if sub is None:
        return None
    if beyond := {name for name in sub.model_fields_set if getattr(sub, name)} - _SUBSEQUENCE_MAY_HAVE:
        raise ExperimentError(
            f"sequence.stage_positions[{p}].sequence has {sorted(beyond)}: a position may have its own grid_plan "
            "and z_plan, while time and channels are those of the whole experiment."
        )
    return sub


def _n_grid(plan: Any) -> int:
    return len(list(plan)) if plan is not None else 1


def _n_z(sequence: useq.MDASequence) -> int:
    return len(list(sequence.z_plan)) if sequence.z_plan else 1


def _well(plan: useq.WellPlatePlan | None, p: int) -> tuple[str, str, int] | None:
    if plan is None:
        return None
    per_well = len(plan) // len(plan.selected_well_names)
    name = str(plan.selected_well_names[p // per_well])
    row = name.rstrip("0123456789")
    return row, name[len(row) :], p % per_well


def _plate(sequence: useq.MDASequence) -> tuple[str, int, int] | None:
    plan = sequence.stage_positions
    if not isinstance(plan, useq.WellPlatePlan):
        return None
    return plan.plate.name or "Plate", plan.plate.rows, plan.plate.columns


def _camera_channels(
    sequence: useq.MDASequence, cameras: Sequence[str], colors: Mapping[str, str]
) -> Iterator[Channel]:
    for name in [c.config for c in sequence.channels] or ["Camera"]:
        for camera in cameras:
            yield Channel(name if len(cameras) == 1 else f"{name} ({camera})", colors.get(name, "FFFFFF"))


def _time(sequence: useq.MDASequence) -> tuple[int | None, float]:
    plan = sequence.time_plan
    if plan is None:
        return 1, 0.0
    phases = getattr(plan, "phases", [plan])
    intervals = {p.interval.total_seconds() for p in phases if getattr(p, "interval", None) is not None}
    interval_s = intervals.pop() if len(intervals) == 1 else 0.0  # phases that differ have no one interval
    return len(list(plan)), interval_s


def _z_step_um(sequence: useq.MDASequence) -> float | None:
    if sequence.z_plan is None:
        return None
    z_um = sorted(sequence.z_plan)
    steps = [b - a for a, b in itertools.pairwise(z_um)]
    uniform = steps and all(math.isclose(s, steps[0], rel_tol=1e-3, abs_tol=1e-6) for s in steps)
    return steps[0] if uniform and steps[0] > 0 else None


def _count_frames(sequence: useq.MDASequence, n_t: int, n_cameras: int) -> int:
    """Count from the events of one time point: to iterate over those of a week costs minutes."""
    one_time_point = Counter(
        event.index.get("c", 0)
        for event in sequence.replace(time_plan=None)
        if isinstance(event.action, useq.AcquireImage)  # not an autofocus, which comes before some of them
    )
    if not one_time_point and sequence.time_plan:
        return n_cameras * n_t
    every = [channel.acquire_every for channel in sequence.channels] or [1]
    return n_cameras * sum(count * math.ceil(n_t / every[c]) for c, count in one_time_point.items())
