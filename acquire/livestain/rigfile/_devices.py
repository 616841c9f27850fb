"""The rules about devices, their order, roles, hubs and ports in a Micro-Manager `.cfg` rig file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from livestain.rigfile._adapters import CAMERA_LIBRARIES, DEVICE_TYPES, OTHER_LIBRARIES
from livestain.rigfile._presets import named_lines, property_settings
from livestain.rigfile._read import ROLES, Finding, nearest, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from livestain.rigfile._read import RigFile, Statement

__all__ = ["DEVICE_RULES"]

CORE_PROPERTIES = (*ROLES, "AutoShutter", "ChannelGroup", "Initialize", "TimeoutMs")
ROLE_TYPES = {
    "Focus": "stage",
    "XYStage": "XY stage",
    "AutoFocus": "autofocus",
    "ImageProcessor": "image processor",
}
SERIAL_SETTINGS = frozenset(
    ["AnswerTimeout", "BaudRate", "DTR", "DataBits", "DelayBetweenCharsMs", "Fast USB to Serial",
     "Handshaking", "Parity", "StopBits", "Verbose"]
)  # fmt: skip
SHARING_LIBRARIES = ("FreeSerialPort", "UserDefinedSerial")  # made to talk beside another device
SERIAL_NAME = re.compile(r"COM\d+|/dev/\S+|tty\w+|cu\.\S+", re.IGNORECASE)
# Properties of Utilities devices whose value names another device.
DEVICE_REFERENCE = re.compile(
    r"Physical (Camera|Shutter|Stage) \d+|State Device|([XY] )?DA Device( \d+)?|AutoFocus Device"
)


def initialisation(rig: RigFile) -> Iterator[Finding]:
    """`Initialize,0`, the devices, `Initialize,1`, and only then what an initialised device can take."""
    started = stopped = False
    first_device = None
    for s in rig.of("Device", "pyDevice", "Property"):
        if s.keyword != "Property":
            first_device = first_device or s.line
            if started:
                what = f"Device {s[0]!r} is declared after Property,Core,Initialize,1 and is never initialised."
                yield Finding(s.line, "error", what, "Move the line up to the other devices.")
        elif (s[0], s[1], s[2]) == ("Core", "Initialize", "1"):
            if started:
                what = "The devices are initialised a second time, which they refuse."
                yield Finding(s.line, "error", what, "Keep one Property,Core,Initialize,1.")
            started = True
        elif (s[0], s[1], s[2]) == ("Core", "Initialize", "0"):
            if first_device:
                what = f"Property,Core,Initialize,0 unloads the devices declared from line {first_device} on."
                yield Finding(s.line, "error", what, "Move it to the top of the file.")
            stopped, started = stopped or not first_device, False
    if rig.devices and not started:
        what = "Nothing initialises the devices: there is no Property,Core,Initialize,1 after them."
        yield Finding(None, "error", what, "Add it below the devices, their pre-init properties and parents.")
    if rig.devices and not stopped:
        what = "There is no Property,Core,Initialize,0 at the top, so loading the file twice fails."
        yield Finding(None, "warning", what, "Add it as the first line.")


def too_early_or_late(rig: RigFile) -> Iterator[Finding]:
    start = next((s.line for s in rig.of("Property") if s.fields == ("Core", "Initialize", "1")), None)
    if start is None:
        return
    where = f"Property,Core,Initialize,1 (line {start})"
    if early := [s.line for s in rig.of("Label") if s.line < start]:
        what = f"Labels are defined before {where}, which devices refuse ({named_lines(early)})."
        yield Finding(early[0], "error", what, "Move them below it.")
    if late := [s.line for s in rig.of("Parent") if s.line > start]:
        what = f"Hubs are assigned after {where}, too late for the devices to use them ({named_lines(late)})."
        yield Finding(late[0], "warning", what, "Move them above it.")
    for s in rig.of("Property"):
        if s.line > start and s[1] in ("Port", *SERIAL_SETTINGS) and _is_serial(rig, s):
            what = f"{s[1]} of {s[0]!r} is set after {where}, when it is fixed."
            yield Finding(s.line, "error", what, "Move the line above it.")
    for s in rig.of("Property"):
        if s.line < start and s[0] == "Core" and s[1] in ROLES and s[1] != "Focus" and s[2] in rig.devices:
            what = f"Role {s[1]} is given before {where}, which resets roles to the last device of a kind."
            yield Finding(s.line, "warning", what, "Move the line below it.")


def _is_serial(rig: RigFile, s: Statement) -> bool:
    label = s[2] if s[1] == "Port" else s[0]
    return label in rig.devices and rig.devices[label].library == "SerialManager"


def duplicate_devices(rig: RigFile) -> Iterator[Finding]:
    for s in rig.statements:
        if s.keyword not in ("Device", "pyDevice"):
            continue
        if s[0] == "Core":
            yield Finding(s.line, "error", "'Core' is Micro-Manager's own device.", "Choose another label.")
        elif s[0] in rig.devices and rig.devices[s[0]].line != s.line:
            what = f"Device {s[0]!r} is already declared on line {rig.devices[s[0]].line}."
            yield Finding(s.line, "error", what, "Remove one of the two, or give it another label.")


def undeclared_devices(rig: RigFile) -> Iterator[Finding]:
    uses: dict[str, list[int]] = {}
    for label, line in _references(rig):
        if label != "Core" and label not in rig.devices:
            uses.setdefault(label, []).append(line)
    for label, lines in uses.items():
        what = f"Device {label!r} is never declared"
        what += f" ({named_lines(lines)})." if len(lines) > 1 else "."
        close = nearest(label, rig.devices)
        remedy = f"Did you mean {close!r}? Otherwise declare it with" if close else "Declare it with"
        yield Finding(lines[0], "error", what, f"{remedy} Device,{label.strip()},LIBRARY,DEVICE, or remove the use.")
    for s in rig.of("Property", "Label", "Delay", "FocusDirection", "Parent"):
        label = s[2] if s[0] == "Core" and s[1] in ROLES else s[0]
        if label in rig.devices and rig.devices[label].line > s.line:
            what = f"{label!r} is used here, but declared only on line {rig.devices[label].line}."
            yield Finding(s.line, "error", what, "Move the Device line up.")


def _references(rig: RigFile) -> Iterator[tuple[str, int]]:
    """Every (device label, line) the file uses, in file order."""
    found: list[tuple[str, int]] = [(s[0], s.line) for s in rig.of("Label", "Delay", "FocusDirection", "Parent")]
    found += [(s[1], s.line) for s in rig.of("Parent") if s[1]]
    for x in property_settings(rig):
        found.append((x.device, x.line))
        if x.device == "Core" and x.property in ROLES and x.value:
            found.append((x.value, x.line))
        owner = rig.devices.get(x.device)
        refers = owner and owner.library == "Utilities" and DEVICE_REFERENCE.fullmatch(x.property)
        if refers and x.value not in ("", "Undefined"):
            found.append((x.value, x.line))
    yield from sorted(found, key=lambda use: use[1])


def device_types(rig: RigFile) -> Iterator[Finding]:
    """Hold each device to one type: MMCore refuses roles and labels that ask for another."""
    known = {label: (_type_of(rig, label), d.line) for label, d in rig.devices.items()}
    uses = [(s[0], "state device", s.line, "is given a state label") for s in rig.of("Label")]
    uses += [
        (x.value, ROLE_TYPES.get(x.property, x.property.lower()), x.line, f"is assigned as {x.property}")
        for x in property_settings(rig)
        if x.device == "Core" and x.property in ROLES
    ]
    reported: set[tuple[str, str]] = set()
    for label, wanted, line, how in sorted(uses, key=lambda use: use[2]):
        kind, since = known.get(label, (None, 0))
        if label in known and kind is None:
            known[label] = (wanted, line)
        elif kind is not None and kind != wanted and (label, wanted) not in reported:
            reported.add((label, wanted))
            what = f"{label!r} {how}, which is for a {wanted}; by line {since} it is of type {kind}."
            yield Finding(line, "error", what, "Name the device that is meant.")


def _type_of(rig: RigFile, label: str) -> str | None:
    device = rig.devices[label]
    if device.library == "SerialManager":
        return "serial port"
    return DEVICE_TYPES.get(device.library, {}).get(device.name)


def adapter_names(rig: RigFile) -> Iterator[Finding]:
    libraries = CAMERA_LIBRARIES | OTHER_LIBRARIES
    for s in rig.of("Device"):
        close = None if s[1] in libraries else nearest(s[1], libraries)
        # A name that only goes on where another ends is a product of its own: Andor, AndorSDK3.
        if close and not (s[1].startswith(close) or close.startswith(s[1])) and _very_close(s[1], close):
            what = f"Adapter library {s[1]!r} is unknown here."
            yield Finding(s.line, "warning", what, f"Did you mean {close!r}?")
        names = DEVICE_TYPES.get(s[1])
        if names and s[2] not in names:
            what = f"{s[1]} has no device {s[2]!r}, as far as is known here."
            yield Finding(s.line, "warning", what, f"It has: {', '.join(sorted(names))}.")


def _very_close(name: str, other: str) -> bool:
    return (
        nearest(name, [other]) == other
        and abs(len(name) - len(other)) <= 1
        and name[:1].casefold() == other[:1].casefold()
    )


def core_properties(rig: RigFile) -> Iterator[Finding]:
    plain = {s.line for s in rig.of("Property")}
    for x in property_settings(rig):
        if x.device != "Core":
            continue
        if x.property not in CORE_PROPERTIES:
            close = nearest(x.property, CORE_PROPERTIES)
            remedy = f"Did you mean {close!r}?" if close else f"It has: {', '.join(sorted(CORE_PROPERTIES))}."
            yield Finding(x.line, "error", f"The Core has no property {x.property!r}.", remedy)
        elif x.property in ("AutoShutter", "Initialize") and x.value not in ("0", "1"):
            yield Finding(x.line, "error", f"{x.property} takes 0 or 1, got {x.value!r}.", "Write 0 or 1.")
        elif x.property == "TimeoutMs" and not number(x.value) >= 1:
            what = f"TimeoutMs takes a positive whole number, got {x.value!r}."
            yield Finding(x.line, "error", what, "Write milliseconds, such as 5000.")
        elif x.property == "ChannelGroup" and x.value:
            yield from _channel_group(rig, x.line, x.value, in_order=x.line in plain)


def _channel_group(rig: RigFile, line: int, group: str, *, in_order: bool) -> Iterator[Finding]:
    if group not in rig.groups:
        close = nearest(group, rig.groups)
        remedy = f"Did you mean {close!r}?" if close else "Define it with ConfigGroup lines."
        yield Finding(line, "error", f"ChannelGroup names {group!r}, which is no group of this file.", remedy)
    elif in_order and not any(s.line < line for s in rig.of("ConfigGroup") if s[0] == group):
        what = f"ChannelGroup names {group!r} before the group is defined."
        yield Finding(line, "error", what, "Move the line below the group, or into the preset System,Startup.")


def camera(rig: RigFile) -> Iterator[Finding]:
    if not rig.devices:
        yield Finding(None, "error", "No device is declared.", "Add lines such as Device,Camera,DemoCamera,DCam.")
        return
    if any(x.device == "Core" and x.property == "Camera" and x.value for x in property_settings(rig)):
        return
    cameras = [label for label in rig.devices if _looks_like_camera(rig, label)]
    if cameras:
        what = f"No camera is assigned; Micro-Manager takes the last one declared ({cameras[-1]!r})."
        yield Finding(None, "warning", what, f"Add Property,Core,Camera,{cameras[-1]} after Initialize,1.")
    else:
        what = f"No camera is declared or assigned: none of the {len(rig.devices)} devices looks like one."
        yield Finding(None, "error", what, "Add its Device line and Property,Core,Camera,LABEL.")


def _looks_like_camera(rig: RigFile, label: str) -> bool:
    device, kind = rig.devices[label], _type_of(rig, label)
    if kind is not None:
        return kind == "camera"
    names = f"{label} {device.name}".casefold()
    return device.library in CAMERA_LIBRARIES or ("cam" in names and "hub" not in names)


def delays_and_directions(rig: RigFile) -> Iterator[Finding]:
    for s in rig.of("Delay"):
        if not number(s[1]) >= 0:
            what = f"The delay of {s[0]!r} is no time in ms: {s[1]!r}."
            yield Finding(
                s.line,
                "warning" if number(s[1]) < 0 else "error",
                what,
                "Write a number of milliseconds, 0 or more.",
            )
    for s in rig.of("FocusDirection"):
        if s[1] not in ("-1", "0", "1", "+1"):
            what = f"FocusDirection of {s[0]!r} is -1, 0 or 1, got {s[1]!r}."
            sign = number(s[1])
            yield Finding(
                s.line,
                "warning" if sign == sign else "error",
                what,
                "1: up is towards the sample; 0: not known.",
            )


def parents(rig: RigFile) -> Iterator[Finding]:
    for s in rig.of("Parent"):
        kind = _type_of(rig, s[1]) if s[1] in rig.devices else None
        if s[0] == s[1]:
            yield Finding(s.line, "error", f"{s[0]!r} is its own hub.", "Name the hub it is plugged into.")
        elif s[1] == "Core" or kind not in (None, "hub"):
            what = f"The hub of {s[0]!r} is {s[1]!r}, which is no hub but: {kind or 'the Core'}."
            yield Finding(s.line, "error", what, "Name the hub it is plugged into, or remove the line.")


def serial_ports(rig: RigFile) -> Iterator[Finding]:
    ports = [s for s in rig.of("Property") if s[1] == "Port" and s[0] in rig.devices]
    users: dict[str, list[Statement]] = {}
    for s in ports:
        if s[2] in rig.devices:
            users.setdefault(s[2], []).append(s)
        elif SERIAL_NAME.fullmatch(s[2]):
            close = nearest(s[2], rig.devices)
            remedy = f"Declare it: Device,{s[2]},SerialManager,{s[2]}" + (f"; or is {close!r} meant?" if close else ".")
            yield Finding(s.line, "error", f"{s[0]!r} is on port {s[2]!r}, which is never declared.", remedy)
        elif s[2] == "Undefined":
            yield Finding(s.line, "warning", f"{s[0]!r} has no port yet.", "Name the serial port it is on.")
    for port, sharers in users.items():
        yield from _shared_port(rig, port, sharers)
    names = [(d.name, label) for label, d in rig.devices.items() if d.library == "SerialManager"]
    for i, (name, label) in enumerate(names):
        if name in [n for n, _ in names[:i]]:
            what = f"Serial port {name!r} is declared twice, the second time as {label!r}."
            yield Finding(rig.devices[label].line, "warning", what, "Keep one; a port opens once only.")


def _shared_port(rig: RigFile, port: str, sharers: list[Statement]) -> Iterator[Finding]:
    """Devices of one library often share their controller's port; two makers' devices cannot."""
    first = sharers[0]
    for s in sharers[1:]:
        libraries = {rig.devices[first[0]].library, rig.devices[s[0]].library}
        if len(libraries) > 1 and not libraries & set(SHARING_LIBRARIES):
            what = f"{s[0]!r} and {first[0]!r} (line {first.line}) are both on port {port!r}."
            yield Finding(s.line, "warning", what, "Check the ports: two controllers rarely share one.")


DEVICE_RULES: tuple[Callable[[RigFile], Iterator[Finding]], ...] = (
    initialisation,
    too_early_or_late,
    duplicate_devices,
    undeclared_devices,
    device_types,
    adapter_names,
    core_properties,
    camera,
    delays_and_directions,
    parents,
    serial_ports,
)
