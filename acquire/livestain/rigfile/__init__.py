"""Finds the faults of a Micro-Manager `.cfg` rig file by reading it, without the vendors' adapters.

Error: MMCore refuses the file, or takes the line and silently does something else than it says.
Warning: the file loads, but a person should look. What only UniMMCore, the loader of Python devices,
refuses is an error in a file that has such devices.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from livestain.rigfile._devices import DEVICE_RULES
from livestain.rigfile._presets import PRESET_RULES, named_lines
from livestain.rigfile._read import (
    FIELD_COUNTS,
    OBSOLETE,
    PY_PREFIX,
    Finding,
    RigFile,
    empty_field,
    nearest,
    read_rig_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from livestain.rigfile._read import Statement

__all__ = ["Finding", "RigFile", "check_rig_file", "read_rig_file"]

FORMS = {
    "Device": "Device,LABEL,LIBRARY,DEVICE",
    "pyDevice": "#py pyDevice,LABEL,MODULE,CLASS",
    "Property": "Property,DEVICE,PROPERTY,VALUE",
    "Parent": "Parent,DEVICE,HUB",
    "Delay": "Delay,DEVICE,MILLISECONDS",
    "FocusDirection": "FocusDirection,DEVICE,-1 or 0 or 1",
    "Label": "Label,DEVICE,STATE,NAME",
    "ConfigGroup": "ConfigGroup,GROUP,PRESET,DEVICE,PROPERTY,VALUE",
    "ConfigPixelSize": "ConfigPixelSize,PRESET,DEVICE,PROPERTY,VALUE",
    "PixelSize_um": "PixelSize_um,PRESET,MICROMETRES",
    "PixelSizeAffine": "PixelSizeAffine,PRESET, then six numbers",
    "PixelSizeAngle_dxdz": "PixelSizeAngle_dxdz,PRESET,NUMBER",
    "PixelSizeAngle_dydz": "PixelSizeAngle_dydz,PRESET,NUMBER",
    "PixelSizeOptimalZ_Um": "PixelSizeOptimalZ_Um,PRESET,MICROMETRES",
}
LOOKALIKES = re.compile("[\u00a0\u2000-\u200f\u2010-\u2015\u2018-\u201f\u202f\u2060\ufeff\uff0c]")


def check_rig_file(rig: RigFile) -> list[Finding]:
    """Find all faults of a rig file that reading can find.

    Parameters
    ----------
    rig : RigFile
        From `read_rig_file`.

    Returns
    -------
    list of Finding
        Sorted by line, those about the whole file last. No error: MMCore loads it, given the adapters.
    """
    findings = list(rig.text_findings)
    for rule in (*LINE_RULES, *DEVICE_RULES, *PRESET_RULES):
        findings.extend(rule(rig))
    return sorted(set(findings), key=lambda f: (f.line is None, f.line or 0, f.severity, f.message))


def unknown_keywords(rig: RigFile) -> Iterator[Finding]:
    for s in rig.statements:
        if s.written in FIELD_COUNTS or s.written in OBSOLETE:
            continue
        if s.keyword in FIELD_COUNTS:
            what = f"{s.written!r} is no command, so Micro-Manager skips the line without a word."
            yield Finding(s.line, "error", what, f"Write {s.keyword!r}.")
        elif not s.written:
            yield Finding(s.line, "error", "The line holds commas only.", "Remove it.")
        else:
            yield Finding(s.line, "error", *_no_command(s.written))


def _no_command(written: str) -> tuple[str, str]:
    other = re.match(r"\s*(\w+)\s*([;:\t|]| {2,})", written)
    if other and nearest(other[1], FIELD_COUNTS):
        return f"The fields of {written[:40]!r} are not separated by commas.", "Separate them with commas."
    what = f"{written[:60]!r} is no command, so Micro-Manager skips the line without a word."
    return what, f"Start it with # if it is a remark; the commands are {', '.join(FIELD_COUNTS)}."


def obsolete_commands(rig: RigFile) -> Iterator[Finding]:
    for s in rig.statements:
        if s.keyword == "Config" and len(s.fields) == 4:
            yield Finding(s.line, "warning", "Micro-Manager skips 'Config' lines.", "Write it as ConfigGroup.")
        elif s.keyword in OBSOLETE:
            what = f"Micro-Manager has removed the command {s.keyword!r} and refuses the file."
            yield Finding(s.line, "error", what, "Remove the line.")


def field_counts(rig: RigFile) -> Iterator[Finding]:
    for s in rig.statements:
        counts = FIELD_COUNTS.get(s.keyword)
        if counts is None:
            continue
        form = f"Write {FORMS[s.keyword]}."
        if (place := empty_field(s)) is not None:
            what = f"Field {place + 1} after {s.keyword} is empty; Micro-Manager drops it and shifts the rest."
            yield Finding(s.line, "error", what, form)
        elif len(s.fields) not in counts:
            yield Finding(s.line, "error", _wrong_count(s, counts), form)
        elif len(s.fields) + s.trailing > max(counts):
            what = "A comma too many at the end, which UniMMCore, the loader of Python devices, refuses."
            yield Finding(s.line, "warning", what, "Remove the comma.")


def _wrong_count(s: Statement, counts: tuple[int, ...]) -> str:
    takes = " or ".join(map(str, counts))
    what = f"{s.keyword} takes {takes} fields, got {len(s.fields)}: {','.join(s.fields)!r}."
    if len(s.fields) > max(counts):
        what += " A comma inside a name or number (0,65 for 0.65) separates too."
    return what


def _only_python(rig: RigFile) -> Literal["error", "warning"]:
    return "error" if rig.python_devices else "warning"


def missing_values(rig: RigFile) -> Iterator[Finding]:
    """Find settings that end before the value; one comma more says that empty is meant."""
    for s in rig.of("Property", "ConfigGroup"):
        fields = s.fields[-2:]
        short = len(s.fields) == (2 if s.keyword == "Property" else 4)
        if short and not s.trailing and fields[0] != "Core":
            what = f"{fields[1]} of {fields[0]!r} stands without a value, so it is set to nothing."
            yield Finding(s.line, "warning", what, "Add the value; or a comma, if empty is meant.")


def padded_fields(rig: RigFile) -> Iterator[Finding]:
    padded = [s for s in rig.statements if any(f != f.strip() for f in s.fields)]
    for s in padded:
        if s.keyword == "Device" and any(f != f.strip() for f in s.fields[1:]):
            what = f"Spaces belong to the names: no adapter is called {','.join(s.fields[1:])!r}."
            yield Finding(s.line, "error", what, "Remove the spaces around the commas.")
    rest = [s.line for s in padded if s.keyword != "Device" or s[0] != s[0].strip()]
    if rest:
        what = f"Spaces beside commas belong to the names and values ({named_lines(rest)})."
        yield Finding(rest[0], "warning", what, "Remove them unless they are meant.")


def foreign_letters(rig: RigFile) -> Iterator[Finding]:
    foreign: list[int] = []
    for s in rig.statements:
        text = ",".join(s.fields)
        if found := LOOKALIKES.search(text):
            what = f"{text!r} has a character that only looks like a plain one (U+{ord(found[0]):04X})."
            yield Finding(s.line, "warning", what, "Type the plain quote, dash, comma or space.")
        elif not text.isascii():
            foreign.append(s.line)
    if foreign and not rig.text_findings:
        what = f"Letters outside ASCII ({named_lines(foreign)}) can read differently on another computer."
        yield Finding(foreign[0], "warning", what, "Prefer plain letters, such as um for the micro sign.")


def byte_order_mark(rig: RigFile) -> Iterator[Finding]:
    if rig.comments and rig.comments[0][1].startswith("\ufeff"):
        what = "The file starts with a byte-order mark, which UniMMCore, the loader of Python devices, refuses."
        yield Finding(1, _only_python(rig), what, "Save it as UTF-8 without BOM.")


def python_lines(rig: RigFile) -> Iterator[Finding]:
    for line, text in rig.comments:
        found = re.match(r"#\s*(?:py[\s,]+)?(\w+)\s*,", text.strip())
        if found and (found[1] == "pyDevice" or (found[1] in FIELD_COUNTS and "py" in found[0])):
            what = f"{text.strip()[:40]!r} is a remark: lines for Python devices start with {PY_PREFIX!r}."
            yield Finding(line, "warning", what, f"Start the line with {PY_PREFIX + found[1]!r}.")
    for s in rig.statements:
        if s.keyword == "pyDevice" and not s.python:
            what = f"Plain Micro-Manager skips pyDevice, so {s[0]!r} exists for UniMMCore only."
            yield Finding(s.line, "warning", what, f"Start the line with {PY_PREFIX!r}, so that this is seen.")


LINE_RULES: tuple[Callable[[RigFile], Iterator[Finding]], ...] = (
    unknown_keywords,
    obsolete_commands,
    field_counts,
    missing_values,
    padded_fields,
    foreign_letters,
    byte_order_mark,
    python_lines,
)
