"""`livestain collect`, before anything is loaded: which channel is the input, and which are the stains."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livestain._errors import ExperimentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import useq

    from livestain._experiment import Experiment

__all__ = ["PairsPlan", "plan_pairs"]


@dataclass(frozen=True, slots=True)
class PairsPlan:
    """What a pair is made of.

    Attributes
    ----------
    input
        The channel of transmitted light.
    contrast
        Its kind, e.g. "bright field".
    targets
        The fluorescence channels, in the order of the sequence.
    stacked
        The channels that take every plane of the z_plan; the others take its middle one.
    exposure_ms
        Of every channel, by name.
    colors
        RRGGBB of the channels that have one in the rig, by name.
    """

    input: str
    contrast: str
    targets: tuple[str, ...]
    stacked: frozenset[str]
    exposure_ms: Mapping[str, float]
    colors: Mapping[str, str]

    def planes_of(self, channel: str, n_z: int) -> range:
        """Say which planes of a stack of `n_z` a pair needs of a channel: all, or the middle one."""
        return range(n_z) if channel in self.stacked else range(n_z // 2, n_z // 2 + 1)


def plan_pairs(experiment: Experiment) -> PairsPlan:
    """Tell transmitted light from fluorescence; needs no rig.

    Raises
    ------
    ExperimentError
        No transmitted channel or several, no fluorescence, no exposure, or several time points; with the lines to
        write.
    """
    names = [channel.config for channel in experiment.sequence.channels]
    rig = experiment.rig.channels
    transmitted = [name for name in names if name in rig and rig[name].contrast is not None]
    if not transmitted:
        raise ExperimentError(_no_input(names, experiment))
    if len(transmitted) > 1:
        raise ExperimentError(
            f"rig.channels gives a contrast to {_listed(transmitted)}, and only one channel can be the input of the "
            "pairs. Take the others out of sequence.channels, and collect them in runs of their own."
        )
    targets = tuple(name for name in names if name not in transmitted)
    if not targets:
        raise ExperimentError(
            f"the sequence acquires no fluorescence beside {transmitted[0]!r}, so there is nothing to learn. Add the "
            "channel of the real stain:\n\n    sequence:\n      channels:\n        ...\n"
            "        - {config: DAPI, exposure: 50, do_stack: false}"
        )
    _check_exposures(experiment)
    _check_time(experiment.sequence)
    return PairsPlan(
        input=transmitted[0],
        contrast=str(rig[transmitted[0]].contrast),
        targets=targets,
        stacked=frozenset(channel.config for channel in experiment.sequence.channels if channel.do_stack),
        exposure_ms={channel.config: float(channel.exposure or 0) for channel in experiment.sequence.channels},
        colors={name: str(rig[name].color) for name in names if name in rig and rig[name].color},
    )


def _no_input(names: Sequence[str], experiment: Experiment) -> str:
    if not names:
        return "the sequence has no channels. Give it the channel of transmitted light and those of the real stains."
    elsewhere = [name for name, channel in experiment.rig.channels.items() if channel.contrast is not None]
    if elsewhere:
        return (
            f"the sequence acquires {_listed(names)}, but the channel that rig.channels gives a contrast to is "
            f"{_listed(elsewhere)}. Add it to sequence.channels, in front of the fluorescence."
        )
    return (
        f"nothing says which of the channels {_listed(names)} is transmitted light, the input of the pairs. Say so in "
        f"the experiment:\n\n    rig:\n      config: {experiment.rig.config.name}\n      channels:\n"
        f"        {names[0]}: {{contrast: bright field}}    # or phase contrast, DIC, ..."
    )


def _check_exposures(experiment: Experiment) -> None:
    for i, channel in enumerate(experiment.sequence.channels):
        if channel.exposure is None:
            raise ExperimentError(
                f"sequence.channels[{i}] ({channel.config!r}) has no exposure: it would be whatever the camera was "
                "last set to, and another one on another afternoon. Give it in ms: "
                f"{{config: {channel.config}, exposure: 50}}"
            )
        if channel.acquire_every != 1:
            raise ExperimentError(
                f"sequence.channels[{i}] ({channel.config!r}) has acquire_every: {channel.acquire_every}; every pair "
                "needs every channel. Take the key away."
            )


def _check_time(sequence: useq.MDASequence) -> None:
    plan = sequence.time_plan
    times = 1 if plan is None else len(list(itertools.islice(plan, 2)))
    if times > 1:
        raise ExperimentError(
            "sequence.time_plan asks for more than one time point. The same cells again teach a model little, and the "
            "light for the stain harms them in between: take the time_plan away and add positions. (A time-lapse with "
            "`livestain run` can be trained from all the same.)"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
