"""Reads a Micro-Manager `.cfg` rig file into what it declares, line by line, without loading any device."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from livestain._errors import RigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Device", "Finding", "RigFile", "Setting", "Statement", "nearest", "read_rig_file"]

Severity = Literal["error", "warning"]

# Fields after the keyword, trailing empty ones not counted; from MMCore's loadSystemConfiguration.
FIELD_COUNTS: dict[str, tuple[int, ...]] = {
    "Device": (3,),
    "pyDevice": (3,),
    "Property": (2, 3),  # two: the value is empty
    "Parent": (2,),
    "Delay": (2,),
    "FocusDirection": (2,),
    "Label": (3,),
    "ConfigGroup": (1, 4, 5),  # one: an empty group; four: the value is empty
    "ConfigPixelSize": (4,),
    "PixelSize_um": (2,),
    "PixelSizeAffine": (7,),
    "PixelSizeAngle_dxdz": (2,),
    "PixelSizeAngle_dydz": (2,),
    "PixelSizeOptimalZ_Um": (2,),
}
# For UniMMCore; MMCore drops an empty last field, which FIELD_COUNTS knows for Property and ConfigGroup.
MAY_END_EMPTY = ("ConfigGroup", "ConfigPixelSize", "Label", "Parent", "Property")
# Known to MMCore, but refused (the first two) or skipped (the last) by it.
OBSOLETE = ("Equipment", "ImageSynchro", "Config")
ROLES = ("AutoFocus", "Camera", "Focus", "Galvo", "ImageProcessor", "SLM", "Shutter", "XYStage")
PY_PREFIX = "#py "  # UniMMCore's mark for lines that MMCore shall take for comments
LONGEST_LINE = 4099  # bytes; MMCore's line buffer, beyond which it stops reading the file without a word
LARGEST_FILE = 10_000_000  # bytes; real rig files have 1 to 50 kB


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a rig file: where, how bad, what (with the value got), and what to do about it."""

    line: int | None
    severity: Severity
    message: str
    remedy: str

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}: "
        return f"{where}{self.severity}: {self.message} {self.remedy}"


@dataclass(frozen=True, slots=True)
class Statement:
    """One command line: `keyword` is the command meant, `written` what stands there (the same if sound)."""

    line: int
    keyword: str
    written: str
    fields: tuple[str, ...]  # after the keyword, as written: MMCore keeps spaces
    python: bool  # behind "#py ", so for UniMMCore only
    trailing: int = 0  # empty fields at the end, which MMCore drops

    def __getitem__(self, index: int) -> str:
        """Field `index`, or an empty string: MMCore takes a missing last value as empty."""
        return self.fields[index] if index < len(self.fields) else ""


@dataclass(frozen=True, slots=True)
class Device:
    """A `Device` line: which device of which adapter library (or class of which Python module)."""

    library: str
    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Setting:
    """One property setting of a preset."""

    device: str
    property: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class RigFile:
    """What a rig file declares. Nothing is checked here: `livestain.rigfile.check_rig_file` does.

    `groups` maps group -> preset -> settings; `pixel_presets` maps a pixel-size preset to the settings
    that select it; `pixel_sizes_um` holds the positive sizes only; `roles` maps a Core role ("Camera",
    "Focus", ...) to a device label after the startup preset; `text_findings` are the faults of the text
    itself (encoding, line ends).
    """

    path: Path
    statements: tuple[Statement, ...]
    comments: tuple[tuple[int, str], ...] = ()
    text_findings: tuple[Finding, ...] = ()
    devices: dict[str, Device] = field(default_factory=dict)
    groups: dict[str, dict[str, list[Setting]]] = field(default_factory=dict)
    pixel_presets: dict[str, list[Setting]] = field(default_factory=dict)
    pixel_sizes_um: dict[str, float] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    python_devices: bool = False

    def of(self, *keywords: str) -> Iterator[Statement]:
        """Statements with these keywords that have the fields they need, in file order."""
        return (s for s in self.statements if s.keyword in keywords and is_complete(s))


def is_complete(statement: Statement) -> bool:
    """Whether the loader would find as many fields as the command takes, none empty that must not be."""
    counts = FIELD_COUNTS.get(statement.keyword, ())
    return len(statement.fields) in counts and empty_field(statement) is None


def empty_field(statement: Statement) -> int | None:
    """Index of the first field that is empty and must not be, if any; a last value may be empty."""
    fields = statement.fields[:-1] if statement.keyword in MAY_END_EMPTY else statement.fields
    return fields.index("") if "" in fields else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name a person most likely meant, if one is close: case and spaces count least."""
    plain = {re.sub(r"[\s_-]+", "", k).casefold(): k for k in known}
    key = re.sub(r"[\s_-]+", "", name.strip("\ufeff")).casefold()
    close = get_close_matches(key, plain, n=1, cutoff=0.7)
    return plain[close[0]] if close else None


def number(text: str) -> float:
    """Return the finite number in `text`, or NaN."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def read_rig_file(path: Path) -> RigFile:
    """Read a Micro-Manager configuration.

    Parameters
    ----------
    path : Path
        A `.cfg` file; lines behind `#py ` are read as UniMMCore reads them.

    Returns
    -------
    RigFile
        Everything it declares, with line numbers; faulty lines included as far as they can be understood.

    Raises
    ------
    RigError
        The file cannot be read, or is no Micro-Manager configuration at all.
    """
    text, findings = _decode(path, _read_bytes(path))
    text, line_ends = _normal_line_ends(text)
    python_rig = re.search(rf"(?m)^\s*({PY_PREFIX}|pyDevice,)", text) is not None
    statements: list[Statement] = []
    comments: list[tuple[int, str]] = []
    for line_number, line in enumerate(text.split("\n"), start=1):
        findings.extend(_line_length(line_number, line))
        if statement := _parse(line_number, line, python_rig=python_rig):
            statements.append(statement)
        elif line.strip():
            comments.append((line_number, line))
    _refuse_other_formats(path, statements)
    rig = RigFile(path, tuple(statements), tuple(comments), (*findings, *line_ends), python_devices=python_rig)
    _collect(rig)
    return rig


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise RigError(f"{path} is a folder, not a Micro-Manager configuration. Name a .cfg file in it.")
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise RigError(f"{path} has {size:,} bytes: no Micro-Manager configuration. Name a .cfg file.")
        return path.read_bytes()
    except FileNotFoundError:
        raise RigError(f"{path} does not exist. Check the spelling and the folder.") from None
    except OSError as error:
        raise RigError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error


def _decode(path: Path, raw: bytes) -> tuple[str, list[Finding]]:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RigError(f"{path} is UTF-16 text, which Micro-Manager cannot read. Save it as UTF-8.")
    if re.search(rb"[\x00-\x08\x0e-\x1f]", raw):
        raise RigError(f"{path} is a binary file, not a Micro-Manager configuration. Name a .cfg file.")
    if not raw.strip():
        raise RigError(f"{path} is empty. Save the configuration again, or take hardware_configs/demo.cfg.")
    try:
        return raw.decode("utf-8"), []
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        finding = Finding(
            line,
            "warning",
            f"Byte 0x{raw[error.start]:02x} is not UTF-8, so names on this line differ between computers.",
            "Save the file as UTF-8, or write the name in plain letters (um for the micro sign).",
        )
        return raw.decode("latin-1"), [finding]


def _normal_line_ends(text: str) -> tuple[str, list[Finding]]:
    """Windows line ends become plain ones; a lone CR, where MMCore drops the rest of the line, a finding."""
    text = text.replace("\r\n", "\n")
    if "\r" not in text.rstrip("\r"):
        return text.rstrip("\r"), []
    finding = Finding(
        text.count("\n", 0, text.index("\r")) + 1,
        "error",
        "A carriage return stands inside the line, and Micro-Manager drops what follows it.",
        "Save the file with Windows (CRLF) or Unix (LF) line ends.",
    )
    return text.replace("\r", "\n"), [finding]


def _line_length(line_number: int, line: str) -> Iterator[Finding]:
    if (length := len(line.encode())) > LONGEST_LINE:
        yield Finding(
            line_number,
            "error",
            f"The line has {length} bytes; beyond {LONGEST_LINE} Micro-Manager stops reading the file.",
            "Shorten it.",
        )


def _parse(line_number: int, line: str, *, python_rig: bool) -> Statement | None:
    """Parse a line; None for a comment or blank. Mends a misspelt keyword so the checks can go on.

    MMCore keeps spaces at a line's ends and drops empty fields at its end; UniMMCore does the reverse.
    """
    line = line.strip() if python_rig else line
    python = line.lstrip().startswith(PY_PREFIX)
    body = line.strip().removeprefix(PY_PREFIX).lstrip() if python else line
    if not body.strip() or body.lstrip("\ufeff \t").startswith("#"):
        return None
    written, *fields = body.lstrip(",").split(",")
    given = len(fields)
    while fields and not fields[-1] and not python_rig:
        fields.pop()
    keyword = _meant(written, fields)
    return Statement(line_number, keyword, written, tuple(fields), python, given - len(fields))


def _meant(written: str, fields: list[str]) -> str:
    """Find the keyword a person meant: the one written, else a close one that takes so many fields."""
    if written in FIELD_COUNTS or written in OBSOLETE or not fields:
        return written
    fitting = [k for k, counts in FIELD_COUNTS.items() if len(fields) in counts]
    return nearest(written, fitting) or written


def _refuse_other_formats(path: Path, statements: list[Statement]) -> None:
    if not statements:
        raise RigError(f"{path} holds comments only, no configuration. Name the .cfg file of a rig.")
    if not any(s.keyword in FIELD_COUNTS and s.fields for s in statements):
        raise RigError(
            f"{path} is no Micro-Manager configuration: line {statements[0].line} reads "
            f"{statements[0].written[:60]!r}. Name a .cfg file, with lines such as "
            "'Device,Camera,DemoCamera,DCam'."
        )


def _collect(rig: RigFile) -> None:
    """Fill the tables of `rig` from its statements."""
    for s in rig.statements:  # also those with a wrong number of fields: one fault shall not cause ten others
        if s.keyword in ("Device", "pyDevice") and s[0]:
            rig.devices.setdefault(s[0], Device(s[1], s[2], s.line))
    for s in rig.of("ConfigGroup"):
        presets = rig.groups.setdefault(s[0], {})
        if len(s.fields) > 1:
            presets.setdefault(s[1], []).append(Setting(s[2], s[3], s[4], s.line))
    for s in rig.of("ConfigPixelSize"):
        rig.pixel_presets.setdefault(s[0], []).append(Setting(s[1], s[2], s[3], s.line))
    for s in rig.of("PixelSize_um"):
        if (size := number(s[1])) > 0:
            rig.pixel_sizes_um[s[0]] = size
    rig.roles.update(_roles(rig))


def _roles(rig: RigFile) -> dict[str, str]:
    """Roles in force once the file is loaded: `Property,Core` lines, then the startup preset."""
    lines = [(s[1], s[2]) for s in rig.of("Property") if s[0] == "Core"]
    startup = rig.groups.get("System", {}).get("Startup", [])
    lines += [(x.property, x.value) for x in startup if x.device == "Core"]
    return {role: label for role, label in dict(lines).items() if role in ROLES and label}
