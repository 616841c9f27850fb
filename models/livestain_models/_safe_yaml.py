"""Reads a YAML file that a stranger wrote: plain data only, and no more of it than a description needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from livestain_models._errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_stranger_yaml"]

_MAX_BYTES = 1 << 20
_MAX_VALUES = 100_000
_REMEDY = "Correct it or fetch the package again."


def read_stranger_yaml(file: Path) -> Any:
    """Read YAML without running anything that it names.

    Aliases are allowed, since PyYAML itself writes them, but not as loops, and not if they unfold to more than
    100 000 values: a few lines of nested aliases would fill any memory as soon as something walks over them.

    Parameters
    ----------
    file : Path

    Returns
    -------
    object
        dict, list, str, int, float, bool, date or None.

    Raises
    ------
    ModelError
        The file is too long, no YAML, names a Python object, or unfolds without end.
    """
    size = file.stat().st_size
    if size > _MAX_BYTES:
        raise ModelError(f"{file} has {size} bytes, a description has at most {_MAX_BYTES}. {_REMEDY}")
    try:
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _count(root, file, {}, set())
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"{file} is not valid YAML: {error}. {_REMEDY}") from error
    except RecursionError:
        raise ModelError(f"{file} is not a description: it nests too deeply. {_REMEDY}") from None


def _count(node: yaml.Node, file: Path, known: dict[int, int], above: set[int]) -> int:
    """Count the values below a node as if no alias were shared."""
    if id(node) in above:
        raise ModelError(f"{file} is not a description: line {node.start_mark.line + 1} contains itself. {_REMEDY}")
    if id(node) not in known:
        above.add(id(node))
        known[id(node)] = 1 + sum(_count(child, file, known, above) for child in _children(node))
        above.remove(id(node))
    if known[id(node)] > _MAX_VALUES:
        raise ModelError(
            f"{file} is not a description: its aliases unfold to more than {_MAX_VALUES} values. {_REMEDY}"
        )
    return known[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
