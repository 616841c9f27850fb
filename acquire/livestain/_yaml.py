"""Reads a YAML file that a person wrote, and remembers the line of everything in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from livestain._errors import ExperimentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Document", "read_yaml"]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its data, and the node tree that knows the lines."""

    path: Path
    data: dict[str, Any]
    root: yaml.Node

    def line_of(self, where: Sequence[str | int]) -> int:
        """Give the line (from 1) of the deepest part of `where` that is in the file."""
        node, line = self.root, 1
        for key in where:
            child, child_line = _child(node, key)
            if child is None:
                break
            node, line = child, child_line
        return line


def _child(node: yaml.Node, key: str | int) -> tuple[yaml.Node | None, int]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return value, name.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key].start_mark.line + 1
    return None, 0


def read_yaml(path: Path) -> Document:
    """Read a mapping from a YAML file.

    Raises
    ------
    ExperimentError
        If the file is missing, not text, not YAML, not a mapping, or has one key twice.
    """
    if path.suffix.lower() == ".cfg":
        raise ExperimentError(f"{path} is a rig's configuration. Give an experiment file that names it as its rig.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ExperimentError(f"{path} does not exist. Give the path of an experiment file.") from error
    except IsADirectoryError as error:
        raise ExperimentError(f"{path} is a folder. Give the path of an experiment file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path} cannot be read as text: {error}.") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ExperimentError(f"{path}{_where(error)}: not YAML: {_problem(error)}.") from error
    if not isinstance(data, dict) or root is None:
        raise ExperimentError(
            f"{path} holds {_kind(data)}, but an experiment is a mapping with the keys rig, sequence, stains "
            "and output."
        )
    _refuse_twice(root, path)
    return Document(path, data, root)


def _refuse_twice(node: yaml.Node, path: Path) -> None:
    # YAML's readers let the last of two equal keys win in silence.
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            if name.value in seen:
                raise ExperimentError(
                    f"{path}, line {line}: {name.value!r} stands already in line {seen[name.value]}. Keep one."
                )
            seen[name.value] = line
            _refuse_twice(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(value, path)


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error)
    return f"{problem} (indent with spaces, never tabs)" if "\\t" in problem else problem


def _kind(data: object) -> str:
    return "nothing" if data is None else f"a {type(data).__name__} ({str(data)[:40]!r})"
