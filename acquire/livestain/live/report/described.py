"""What was run, how it ended, and how much of it is there: the words and tables at the top of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.live.report.words import UNKNOWN, counted, length_of_time, listed, moment, moment_utc

if TYPE_CHECKING:
    from collections import Counter

    from livestain._experiment import Experiment, Measure
    from livestain._latency import RunStats
    from livestain.live.report.told import Told
    from livestain.live.run_folder import RunFolder

__all__ = ["Completeness", "Fact", "completeness_of", "ending_of", "facts_of", "times_of"]

Fact = tuple[str, str]

_METHODS = {
    "steps": "phase by four steps",
    "defocus": "phase by focal planes of bright field",
    "given": "the phase image that the rig gives",
}
_ENDINGS = {
    "completed": "It ran to its end.",
    "canceled": "It was stopped by a person before its end; everything up to then is on disk.",
    "errored": "An error ended it before its end; everything up to then is on disk.",
    "recovered": (
        "It was cut off (killed, a crash, or a loss of power) and put in order afterwards with livestain recover; "
        "everything that had reached the disk is there."
    ),
    "running": "It was still going on when this report was made, so all figures end there.",
    "silent": (
        "It has no end and gives no sign of life: it was killed, or its computer was. To put the folder in order: "
        "livestain recover {folder}"
    ),
}


def ending_of(run: RunFolder, state: str) -> str:
    """Say how a run ended, by its state (see `livestain.live.health.Health`)."""
    return _ENDINGS.get(state, f"It ended as {state!r}.").format(folder=run.path)


def times_of(told: Told) -> tuple[Fact, ...]:
    """Say when the run was, and how long."""
    if told.first is None or told.last is None:
        return (("Started", "no frame was taken"),)
    seconds = (told.last - told.first).total_seconds()
    return (
        ("Started", f"{moment(told.first)}; {moment_utc(told.first)}"),
        ("Last frame", f"{moment(told.last)}; {moment_utc(told.last)}"),
        ("Duration", f"{length_of_time(seconds)} from the first frame to the last"),
    )


def facts_of(run: RunFolder, told: Told) -> tuple[Fact, ...]:
    """Say what was run, from the experiment and the journal."""
    layout, experiment = run.layout, run.experiment
    facts = [
        ("Camera", f"{listed(sorted(told.cameras)) or UNKNOWN}, {layout.width} \u00d7 {layout.height} pixels"),
        ("Pixel size", _pixel_size(run)),
        ("Positions", _positions(run)),
        ("Channels", listed([c.name for c in layout.channels if not c.predicted], 20)),
        (
            "Predicted channels",
            listed([c.name for c in layout.channels if c.predicted], 20) or "none: no model was asked for",
        ),
        ("Time points", _time_points(run)),
    ]
    if experiment is None:
        return (*facts, ("Experiment", "experiment.yaml cannot be read, so rig, optics and settings are not known"))
    return (*_of_rig(experiment), *facts, *_of_settings(experiment))


def _pixel_size(run: RunFolder) -> str:
    layout = run.layout
    if layout.pixel_size_um <= 0:
        return "not known: lengths in this report are in pixels"
    height, width = (n * layout.pixel_size_um for n in (layout.height, layout.width))
    return f"{layout.pixel_size_um:g} \u00b5m in the sample; a field is {width:.4g} \u00d7 {height:.4g} \u00b5m"


def _positions(run: RunFolder) -> str:
    names, layout = [name for name in run.position_names if name], run.layout
    text = f"{len(layout.images):,}" + (f": {listed(names)}" if names else "")
    if layout.plate:
        wells = {image.well[:2] for image in layout.images if image.well}
        text += f"; {counted(len(wells), 'well')} of a plate {layout.plate[0]}"
    n_z = sorted({image.n_z for image in layout.images})
    return text + (f"; {' or '.join(map(str, n_z))} focal planes" if n_z != [1] else "")


def _time_points(run: RunFolder) -> str:
    layout = run.layout
    taken = max((run.n_t(image) for image in range(len(layout.images))), default=0)
    planned = "without end" if layout.n_t is None else f"of {layout.n_t:,} planned"
    times = run.time_s(0)
    steps = np.diff(times[np.isfinite(times)])
    came = f", one every {length_of_time(float(np.median(steps)))}" if steps.size else ""
    asked = f" (asked for: {length_of_time(layout.interval_s)})" if layout.interval_s > 0 else ""
    return f"{taken:,} {planned}{came}{asked}"


def _of_rig(experiment: Experiment) -> list[Fact]:
    rig, optics = experiment.rig, experiment.rig.optics
    name = f"{rig.instrument}, " if rig.instrument else ""
    facts = [("Microscope", f"{name}configuration {rig.config.name} (a copy is in the run folder)")]
    if optics is None:
        return [*facts, ("Optics", "not stated in the experiment (rig.optics)")]
    parts = [f"light of {1000 * optics.wavelength_um:g} nm"]
    parts += [f"objective NA {optics.objective_na:g}"] if optics.objective_na else []
    parts += [f"condenser NA {optics.condenser_na:g}"] if optics.condenser_na else []
    return [*facts, ("Optics", f"{', '.join(parts)}, medium of refractive index {optics.medium_index:g}")]


def _of_settings(experiment: Experiment) -> list[Fact]:
    exposures = [
        f"{channel.config} {channel.exposure:g} ms"
        + (f" (every {channel.acquire_every}.)" * (channel.acquire_every > 1))
        for channel in experiment.sequence.channels
        if channel.exposure
    ]
    facts = [("Exposures", listed(exposures, 20))] if exposures else []
    facts += [("Stain", f"model {s.model} on channel {s.channel}, {s.precision}") for s in experiment.stains]
    return [*facts, ("Measured", _measured(experiment.measure))]


def _measured(measure: Measure | None) -> str:
    if measure is None:
        return "no cells: the experiment has no measure section"
    phase = "no phase, so no dry mass"
    if measure.phase is not None:
        plain: dict[str, Any] = measure.phase.model_dump(mode="json", exclude_none=True)
        channels = plain.get("channels") or [plain.get("channel")]
        phase = f"dry mass from {_METHODS[plain['method']]} ({', '.join(channels)}), {measure.alpha_ml_per_g:g} ml/g"
        if plain["method"] == "given" and "rad_per_grey" not in plain:
            phase = f"relative mass from a phase image of unknown scale ({', '.join(channels)})"
    by = [f"{what} on {on}" for what, on in (("nuclei", measure.nuclei), ("cells", measure.cells)) if on]
    interval = ""
    if measure.interval_s:
        interval = f"; {length_of_time(measure.interval_s)} of the sample between time points"
    return "; ".join([*by, phase]) + interval


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether all is there, in a sentence; the counts; the reasons (what, how many, why); and what to do."""

    whole: bool
    sentence: str
    counts: tuple[Fact, ...]
    reasons: tuple[tuple[str, str, str], ...]
    remedies: tuple[tuple[str, str], ...]


def completeness_of(run: RunFolder, stats: RunStats, told: Told, state: str, measured: int) -> Completeness:
    """Count what is there and what is not, and say what to do about it."""
    expected = stats.frames_expected
    wants_cells = bool(run.experiment and run.experiment.measure)
    time_points = sum(run.n_t(image) for image in range(len(run.layout.images)))
    counts = [
        ("Frames expected", UNKNOWN + " beforehand" if expected is None else f"{expected:,}"),
        ("Frames on disk", f"{stats.frames_acquired:,}"),
        ("Frames that never came", f"{stats.frames_missing:,}"),
        ("Frames not taken", UNKNOWN if expected is None else f"{_not_taken(stats):,}"),
        ("Predictions made", f"{stats.frames_stained:,} ({stats.stained_live:,} of them live)"),
        ("Predictions pending", f"{stats.frames_pending:,}"),
        ("Time points measured", f"{measured:,} of {time_points:,}" if wants_cells or measured else "not asked for"),
    ]
    short = [
        *([counted(stats.frames_missing, "missing frame")] if stats.frames_missing else []),
        *([f"{_not_taken(stats):,} not taken"] if _not_taken(stats) else []),
        *([counted(stats.frames_pending, "pending prediction")] if stats.frames_pending else []),
        *(
            [f"{counted(time_points - measured, 'time point')} not measured"]
            if wants_cells and measured < time_points
            else []
        ),
    ]
    whole = not short and state == "completed" and not run.notes
    sentence = "Everything that was asked for is there." if whole else f"Not all is there: {', '.join(short)}."
    if not short and not whole:
        sentence = "Everything that was taken is there with its predictions."
        if run.notes:
            sentence = "Nothing is missing by the journal, but something cannot be read: see Warnings."
    if not stats.frames_acquired:
        sentence = "There is no frame in this run folder."
    return Completeness(
        whole,
        sentence,
        tuple(counts),
        _all_reasons(stats, told),
        _remedies(run, stats, state, wants=wants_cells and measured < time_points),
    )


def _not_taken(stats: RunStats) -> int:
    if stats.frames_expected is None:
        return 0
    return max(0, stats.frames_expected - stats.frames_acquired - stats.frames_missing)


def _all_reasons(stats: RunStats, told: Told) -> tuple[tuple[str, str, str], ...]:
    found = [("frame that never came", f"{n:,}", why) for why, n in _ordered(told.missing)]
    found += [("pending prediction", f"{n:,}", why) for why, n in _ordered(told.pending)]
    silent = stats.frames_pending - sum(told.pending.values())
    if silent > 0:
        found.append(("pending prediction", f"{silent:,}", "the run ended before its turn came"))
    if n := _not_taken(stats):
        found.append(("frame not taken", f"{n:,}", "the run ended before their time"))
    return tuple(found)


def _ordered(count: Counter[str]) -> list[tuple[str, int]]:
    return sorted(count.items(), key=lambda item: (-item[1], item[0]))[:12]


def _remedies(run: RunFolder, stats: RunStats, state: str, *, wants: bool) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    if state == "silent":
        found.append(("put the folder in order", f"livestain recover {run.path}"))
    if stats.frames_pending and state != "running":
        found.append(("make the pending predictions from the frames on disk", f"livestain backfill {run.path}"))
    if wants and state != "running":
        found.append(("measure the cells to the end", f"livestain measure {run.path}"))
    if found:
        found.append(("then make this report again", f"livestain report {run.path}"))
    return tuple(found)


def software_of(run: RunFolder) -> tuple[Fact, ...]:
    """Give the versions of what made the run, as its journal has them."""
    software: dict[str, Any] = run.header.get("provenance", {}).get("software", {})
    return tuple((str(name), str(number)) for name, number in software.items())
