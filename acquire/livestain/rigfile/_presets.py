"""The rules about state labels, presets and pixel sizes in a Micro-Manager `.cfg` rig file."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from livestain.rigfile._read import Finding, Setting, nearest, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from livestain.rigfile._read import RigFile

__all__ = ["PRESET_RULES", "named_lines", "property_settings"]

FORBIDDEN = "/\\*!'"  # in preset names, by MMCore
DEFAULT_LABEL = re.compile(r"([A-Za-z]+[-_ ]?)?([0-9]{1,9})")  # "State-3", "Position 4", "5": what adapters start with
FEW = 6
PLAUSIBLE_UM = (0.005, 50.0)  # a pixel in the sample plane, from super-resolution to a macro lens
AFFINE_TOLERANCE = 0.05


def named_lines(lines: Iterable[int]) -> str:
    """'line 3' or 'lines 3, 5 and 9', or the first few and how many more."""
    numbers = sorted(set(lines))
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    if len(numbers) > FEW + 1:
        return f"lines {', '.join(map(str, numbers[:FEW]))} and {len(numbers) - FEW} more"
    return f"lines {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def property_settings(rig: RigFile) -> Iterator[Setting]:
    """Every property the file sets, directly or in a preset, and those that select a pixel size."""
    for s in rig.of("Property"):
        yield Setting(s[0], s[1], s[2], s.line)
    for presets in rig.groups.values():
        for settings in presets.values():
            yield from settings
    for settings in rig.pixel_presets.values():
        yield from settings


def _presets(rig: RigFile) -> Iterator[tuple[str, list[Setting]]]:
    """Each preset with its name for messages."""
    for group, presets in rig.groups.items():
        for preset, settings in presets.items():
            yield f"preset {preset!r} of group {group!r}", settings
    for preset, settings in rig.pixel_presets.items():
        yield f"pixel-size preset {preset!r}", settings


def state_labels(rig: RigFile) -> Iterator[Finding]:
    for s in rig.of("Label"):
        if not re.fullmatch(r"[0-9]{1,9}", s[1].strip()):
            what = f"State {s[1]!r} of {s[0]!r} is no whole number from 0 on; Micro-Manager reads it as another."
            yield Finding(s.line, "error", what, "Write the number of the position, counted from 0.")
        elif (count := _positions(rig).get(s[0])) is not None and int(s[1]) >= count:
            what = f"State {s[1]} of {s[0]!r} is labelled {s[2]!r}, but 'Number of positions' is {count}."
            yield Finding(s.line, "error", what, f"States are 0 to {count - 1}: raise the number, or drop the label.")


def repeated_labels(rig: RigFile) -> Iterator[Finding]:
    by_state: dict[tuple[str, str], tuple[str, int]] = {}
    by_name: dict[tuple[str, str], tuple[str, int]] = {}
    for s in rig.of("Label"):
        name, line = by_state.get((s[0], s[1]), (s[2], s.line))
        if line != s.line:
            same = "the same" if name == s[2] else f"{s[2]!r}, which replaces it"
            what = f"State {s[1]} of {s[0]!r} is labelled {name!r} on line {line}, and here {same}."
            yield Finding(s.line, "warning", what, "Keep one label for a state.")
        state, line = by_name.get((s[0], s[2]), (s[1], s.line))
        if state != s[1]:
            what = f"Label {s[2]!r} of {s[0]!r} moves from state {state} (line {line}) to state {s[1]}."
            yield Finding(s.line, "warning", what, "Give every state a label of its own.")
        by_state[s[0], s[1]] = by_name[s[0], s[2]] = (s[2], s.line)
        by_name[s[0], s[2]] = (s[1], s.line)


def _positions(rig: RigFile) -> dict[str, int]:
    """How many states a device has, where the file says so."""
    given = {s[0]: s[2] for s in rig.of("Property") if s[1] == "Number of positions"}
    return {device: int(count) for device, count in given.items() if re.fullmatch(r"[0-9]{1,9}", count)}


def _labels(rig: RigFile) -> dict[str, dict[str, int]]:
    """Device -> label -> state after all Label lines: a state has one label, a label one state."""
    devices: dict[str, dict[str, int]] = {}
    for s in rig.of("Label"):
        if not re.fullmatch(r"[0-9]{1,9}", s[1].strip()):
            continue
        labels, state = devices.setdefault(s[0], {}), int(s[1])
        for name in [n for n, old in labels.items() if old == state or n == s[2]]:
            del labels[name]
        labels[s[2]] = state
    return devices


def undefined_labels(rig: RigFile) -> Iterator[Finding]:
    """Find labels that no state of their device has: such a preset cannot be applied."""
    labels = _labels(rig)
    uses: dict[tuple[str, str], list[int]] = {}
    for x in property_settings(rig):
        if x.property == "Label" and x.device in labels and x.value not in labels[x.device]:
            uses.setdefault((x.device, x.value), []).append(x.line)
    for (device, label), lines in uses.items():
        defined = labels[device]
        also = f" (also {named_lines(lines[1:])})" if len(lines) > 1 else ""
        what = f"{device!r} has no label {label!r}{also}: it has {_some(defined)}."
        close = nearest(label, defined)
        remedy = f"Did you mean {close!r}?" if close else f"Define it with Label,{device},STATE,{label}."
        default = DEFAULT_LABEL.fullmatch(label)
        if not (default and _may_be_default(rig, device, int(default[2]), set(defined.values()))):
            yield Finding(lines[0], "error", what, remedy)


def _may_be_default(rig: RigFile, device: str, digits: int, labelled: set[int]) -> bool:
    """Whether an adapter's own label of that number may still stand: some state has no label here."""
    count = _positions(rig).get(device)
    states = {digits, digits - 1}  # adapters count from 0 or from 1
    return any(s >= 0 and s not in labelled and (count is None or s < count) for s in states)


def _some(names: Iterable[str]) -> str:
    shown = [repr(n) for n in names]
    return ", ".join(shown[:FEW]) + (f" and {len(shown) - FEW} more" if len(shown) > FEW else "")


def states_out_of_range(rig: RigFile) -> Iterator[Finding]:
    positions = _positions(rig)
    for x in property_settings(rig):
        count = positions.get(x.device)
        if count is None or x.property != "State":
            continue
        if not re.fullmatch(r"[0-9]{1,9}", x.value) or int(x.value) >= count:
            what = f"{x.device!r} has {count} positions, so states 0 to {count - 1}, got {x.value!r}."
            yield Finding(x.line, "error", what, "Name one of its states, or raise the number of positions.")


def group_names(rig: RigFile) -> Iterator[Finding]:
    seen: set[str] = set()
    for s in rig.of("ConfigGroup"):
        if len(s.fields) == 1 and s[0] in seen:
            yield Finding(s.line, "error", f"Group {s[0]!r} is defined above already.", "Remove this line.")
        seen.add(s[0])


def preset_names(rig: RigFile) -> Iterator[Finding]:
    names = [(s[1], s.line) for s in rig.of("ConfigGroup") if len(s.fields) > 1]
    names += [(s[0], s.line) for s in rig.of("ConfigPixelSize")]
    reported: set[str] = set()
    for name, line in names:
        bad = sorted(set(name) & set(FORBIDDEN))
        if bad and name not in reported:
            reported.add(name)
            what = f"Preset name {name!r} holds {' '.join(bad)}, which Micro-Manager refuses."
            yield Finding(line, "error", what, f"Use another character than {' '.join(FORBIDDEN)}.")


def repeated_settings(rig: RigFile) -> Iterator[Finding]:
    for name, settings in _presets(rig):
        seen: dict[tuple[str, str], Setting] = {}
        for x in settings:
            first = seen.setdefault((x.device, x.property), x)
            if first is x:
                continue
            where = f"{name[0].upper()}{name[1:]} sets {x.device}-{x.property}"
            if first.value == x.value:
                what = f"{where} to {x.value!r} twice (first on line {first.line})."
                yield Finding(x.line, "warning", what, "Remove one of the two lines.")
            else:
                what = f"{where} to {first.value!r} (line {first.line}) and here to {x.value!r}, which counts."
                yield Finding(x.line, "error", what, "Keep the one that is meant.")


def uneven_presets(rig: RigFile) -> Iterator[Finding]:
    """Presets of a group should set the same properties, or what is in force depends on the one before."""
    for group, presets in rig.groups.items():
        if group == "System":
            continue
        sets = {p: {(x.device, x.property) for x in settings} for p, settings in presets.items()}
        every = set().union(*sets.values())
        for preset, properties in sets.items():
            if missing := sorted(f"{device}-{prop}" for device, prop in every - properties):
                what = f"Preset {preset!r} of group {group!r} does not set {_some(missing)}, as others do."
                yield Finding(
                    presets[preset][0].line,
                    "warning",
                    what,
                    "Let all presets of a group set the same properties.",
                )


def twin_presets(rig: RigFile) -> Iterator[Finding]:
    tables = [(f"group {g!r}", presets) for g, presets in rig.groups.items()]
    for where, presets in [*tables, ("the pixel sizes", rig.pixel_presets)]:
        seen: dict[frozenset[tuple[str, str, str]], str] = {}
        for preset, settings in presets.items():
            key = frozenset((x.device, x.property, x.value) for x in settings)
            twin = seen.setdefault(key, preset)
            if twin != preset:
                what = f"Presets {twin!r} and {preset!r} of {where} are the same settings."
                yield Finding(settings[0].line, "warning", what, "Change one; the first by name is what is reported.")


def channels(rig: RigFile) -> Iterator[Finding]:
    named = [x.value for x in property_settings(rig) if x.device == "Core" and x.property == "ChannelGroup"]
    if not any(rig.groups.get(g) for g in [*named, "Channel"]):
        others = [group for group in rig.groups if group != "System"]
        groups = f"the groups are {_some(others)}" if others else "there are no groups"
        what = f"No channel group: an experiment's channels are presets of the group 'Channel', and {groups}."
        yield Finding(
            None,
            "warning",
            what,
            "Add ConfigGroup,Channel,PRESET,DEVICE,PROPERTY,VALUE, or ChannelGroup to Core.",
        )


def pixel_sizes(rig: RigFile) -> Iterator[Finding]:
    if not rig.pixel_presets and not any(rig.of("PixelSize_um")):
        what = "No pixel size: predictions cannot be held against their model, and images have no scale."
        yield Finding(
            None,
            "warning",
            what,
            "Add ConfigPixelSize,PRESET,DEVICE,PROPERTY,VALUE and PixelSize_um,PRESET,MICROMETRES.",
        )
    sized: dict[str, tuple[str, int]] = {}
    for s in rig.of("PixelSize_um"):
        yield from _one_pixel_size(s.line, s[0], s[1])
        text, line = sized.setdefault(s[0], (s[1], s.line))
        if number(text) != number(s[1]):
            what = f"The pixel size of {s[0]!r} is {text} um on line {line} and {s[1]} um here; the last counts."
            yield Finding(s.line, "error", what, "Keep the measured one.")
    for preset, settings in rig.pixel_presets.items():
        if preset not in sized:
            what = f"Pixel-size preset {preset!r} has no size, so images taken with it have no scale."
            yield Finding(settings[0].line, "warning", what, f"Add PixelSize_um,{preset},MICROMETRES.")


def _one_pixel_size(line: int, preset: str, text: str) -> Iterator[Finding]:
    size = number(text)
    if math.isnan(size) or size < 0:
        what = f"The pixel size of {preset!r} is no positive number: {text!r}."
        yield Finding(line, "error", what, "Write micrometres in the sample, with a decimal point.")
    elif size == 0:
        what = f"The pixel size of {preset!r} is 0, Micro-Manager's word for not measured."
        yield Finding(line, "warning", what, "Measure it with a stage micrometer, or camera pixel / magnification.")
    elif not PLAUSIBLE_UM[0] <= size <= PLAUSIBLE_UM[1]:
        what = f"The pixel size of {preset!r} is {text} um."
        yield Finding(line, "warning", what, "Check the unit: micrometres in the sample, not nm, not on the chip.")


def pixel_size_order(rig: RigFile) -> Iterator[Finding]:
    first = {p: settings[0].line for p, settings in rig.pixel_presets.items()}
    keywords = (
        "PixelSize_um",
        "PixelSizeAffine",
        "PixelSizeAngle_dxdz",
        "PixelSizeAngle_dydz",
        "PixelSizeOptimalZ_Um",
    )
    for s in rig.of(*keywords):
        if s[0] not in first:
            close = nearest(s[0], first)
            remedy = f"Did you mean {close!r}?" if close else f"Add ConfigPixelSize,{s[0]},DEVICE,PROPERTY,VALUE above."
            yield Finding(s.line, "error", f"{s.keyword} is for {s[0]!r}, which no ConfigPixelSize defines.", remedy)
        elif first[s[0]] > s.line:
            what = f"{s.keyword} is for {s[0]!r}, which is defined only on line {first[s[0]]}."
            yield Finding(s.line, "error", what, "Move it below that line.")


def pixel_size_numbers(rig: RigFile) -> Iterator[Finding]:
    for s in rig.of("PixelSizeAngle_dxdz", "PixelSizeAngle_dydz", "PixelSizeOptimalZ_Um"):
        if math.isnan(number(s[1])):
            yield Finding(s.line, "error", f"{s.keyword} of {s[0]!r} is no number: {s[1]!r}.", "Write a number.")
    for s in rig.of("PixelSizeAffine"):
        values = [number(text) for text in s.fields[1:]]
        if any(map(math.isnan, values)):
            what = f"The affine of {s[0]!r} is not six numbers: {','.join(s.fields[1:])!r}."
            yield Finding(s.line, "error", what, "Write six numbers, or remove the line.")
        else:
            yield from _affine(s.line, s[0], values, rig.pixel_sizes_um.get(s[0]))


def _affine(line: int, preset: str, values: list[float], size: float | None) -> Iterator[Finding]:
    scale = math.sqrt(abs(values[0] * values[4] - values[1] * values[3]))
    if scale < 1e-9:
        what = f"The affine of {preset!r} is singular: it maps the image onto a line or a point."
        yield Finding(line, "warning", what, "Measure it again, or remove the line.")
    elif values == [1, 0, 0, 0, 1, 0]:
        return  # what Micro-Manager writes for "not measured"
    elif size is not None and abs(scale / size - 1) > AFFINE_TOLERANCE:
        what = f"The affine of {preset!r} makes a pixel {scale:.4g} um, PixelSize_um says {size:g} um."
        yield Finding(line, "warning", what, "Measure again and keep the two together.")


PRESET_RULES: tuple[Callable[[RigFile], Iterator[Finding]], ...] = (
    state_labels,
    repeated_labels,
    undefined_labels,
    states_out_of_range,
    group_names,
    preset_names,
    repeated_settings,
    uneven_presets,
    twin_presets,
    channels,
    pixel_sizes,
    pixel_size_order,
    pixel_size_numbers,
)
