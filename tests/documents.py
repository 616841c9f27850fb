"""Reads the Markdown of the project: its blocks of commands, Python and YAML, its code in lines, links and tables."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.md"
RIG_GUIDE = ROOT / "docs" / "rig.md"
PROGRAMS = {"cp", "livestain", "mmcore", "napari", "pip", "pytest", "python", "torchrun"}

_FENCE = re.compile(r"^ *```(\w*)\s*$")
_LIST_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) ")
_NAMED = re.compile(r"`([\w-]+\.yaml)`:\s*$")


@dataclass(frozen=True)
class Block:
    """A code block: where it begins, its language if the fence names one, and its text without indentation.

    `file` is the name under which the sentence before announces it ("... `night.yaml`:").
    """

    document: Path
    line: int
    language: str
    text: str
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def kind(self) -> str:
        """commands, python, yaml, or other."""
        first = self.text.split(maxsplit=1)[0]
        if self.language in ("python", "yaml", "r"):
            return self.language
        if first in PROGRAMS:
            return "commands"
        if first in ("import", "from"):
            return "python"
        return "yaml" if re.match(r"[a-z_]+:(\s|$)", self.text) else "other"

    @property
    def commands(self) -> list[str]:
        """Its commands: lines joined at a backslash, without comments, parted at &&."""
        lines = re.sub(r"\\\n\s*", " ", self.text).splitlines()
        bare = [re.sub(r"\s+#.*", "", line) for line in lines if line.strip()]
        return [one.strip() for line in bare for one in line.split(" && ")]


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def all_markdown() -> list[Path]:
    return [*documents(), ROOT / "hardware_configs" / "README.md", ROOT / "benchmarks" / "README.md"]


def blocks(document: Path) -> list[Block]:
    """Give a document's code blocks, fenced or indented."""
    lines = document.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    at, in_list, announced = 0, False, None
    while at < len(lines):
        line = lines[at]
        if fence := _FENCE.match(line):
            end = next(i for i in range(at + 1, len(lines)) if _FENCE.match(lines[i]))
            found.append(Block(document, at + 1, fence[1], _dedented(lines[at + 1 : end]), announced))
            at, announced = end + 1, None
            continue
        if line.strip() and not line.startswith(" "):
            in_list = bool(_LIST_ITEM.match(line))
        # In a list a code block is indented by four beyond the item's own text.
        depth = 6 if in_list else 4
        if line.startswith(" " * depth) and not lines[at - 1].strip():
            end = at
            while end < len(lines) and (lines[end].startswith(" " * depth) or not lines[end].strip()):
                end += 1
            found.append(Block(document, at + 1, "", _dedented(lines[at:end]), announced))
            at, announced = end, None
            continue
        if line.strip():
            named = _NAMED.search(line)
            announced = named[1] if named else None
        at += 1
    return found


def commands_of(document: Path) -> list[tuple[Block, str]]:
    """Give every command of a document's blocks, with its block."""
    return [(b, command) for b in blocks(document) if b.kind == "commands" for command in b.commands]


def inline_code(document: Path) -> list[tuple[int, str]]:
    """Give the code within lines of prose and tables, with its line."""
    inside = {i for block in blocks(document) for i in range(block.line, block.line + block.text.count("\n") + 1)}
    lines = enumerate(document.read_text(encoding="utf-8").splitlines(), start=1)
    return [(n, code) for n, line in lines if n not in inside for code in re.findall(r"`([^`]+)`", line)]


def links(document: Path) -> list[str]:
    """Give the targets of a document's links and pictures, outside its blocks."""
    text = document.read_text(encoding="utf-8")
    for block in blocks(document):
        for line in block.text.splitlines():
            text = text.replace(line, "") if line.strip() else text
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(document: Path) -> set[str]:
    """Give the anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^ *```.*?^ *```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def table_after(document: Path, heading: str) -> list[list[str]]:
    """Give the cells of the first table under a heading, without its head; backticks are left in."""
    text = document.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    assert text, f"{document} has no heading {heading!r}"
    rows: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def fields_of_journal() -> dict[str, set[str]]:
    """Give the fields of each kind of journal line, as results.md has them."""
    fields: dict[str, set[str]] = {}
    kind = ""
    for row in table_after(RESULTS, "The journal"):
        kind = row[0].strip("`") or kind
        fields.setdefault(kind, {"kind"}).add(row[1].strip("`"))
    return fields


def words(command: str) -> list[str]:
    return shlex.split(command)


def _dedented(lines: list[str]) -> str:
    filled = [line for line in lines if line.strip()]
    margin = min((len(line) - len(line.lstrip()) for line in filled), default=0)
    return "\n".join(line[margin:] for line in lines).strip("\n")
