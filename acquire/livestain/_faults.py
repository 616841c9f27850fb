"""Says what is wrong in a file that a person wrote: file, line, field, value, remedy."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, get_args, get_origin

import useq
from pydantic import BaseModel

from livestain._errors import ExperimentError
from livestain._experiment import Written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError

    from livestain._yaml import Document

_PLAINLY = {
    "to Position": "write positions as mappings: {x: 0, y: 0, z: 0, name: control}",
    "should be a valid tuple": "write a list: lines that begin with -",
    "instance of Stain": "write a mapping: {model: nuclei-demo, channel: BF}",
    "invalid character in hour": "write a time as seconds or as a mapping: {minutes: 5}",
    "Field required": "it is missing",
    "Unable to extract tag": "it needs a method: steps, defocus or given",
    "does not match any of the expected tags": "method must be steps, defocus or given",
    "Extra inputs are not permitted": "there is no such field here",
}

__all__ = ["explain", "fault", "refuse_unknown", "refuse_unknown_useq"]


def explain(errors: ValidationError, document: Document) -> ExperimentError:
    """Make one sentence of pydantic's list, which has a problem for every member of a union."""
    problems = [(_written_path(document.data, problem["loc"]), problem) for problem in errors.errors(include_url=False)]
    top = problems[0][0][:2]
    rivals = [(where, problem) for where, problem in problems if where[:2] == top]
    # A value that is wrong says more than a field that another form would have had: take the deepest.
    wrong = [rival for rival in rivals if rival[1]["type"] != "missing" and len(rival[0]) > len(top)]
    if len(rivals) == 1 or wrong:
        where, problem = max(wrong, key=lambda rival: len(rival[0])) if wrong else rivals[0]
        return fault(document, where, problem["input"], _plainly(str(problem["msg"])))
    options = sorted({str(where[-1]) for where, _ in rivals if len(where) > len(top)})
    hint = f"; depending on the form it lacks {', '.join(options)}" if options else ""
    return fault(document, top, _at(document.data, top), f"it fits no form that is known{hint}")


def _plainly(message: str) -> str:
    """Say in the file's own terms what pydantic and useq say in Python's."""
    for theirs, ours in _PLAINLY.items():
        if theirs in message:
            return ours
    return message.removeprefix("Value error, ")


def _written_path(data: Any, where: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Leave out of pydantic's location what nobody wrote: the names of union members and validators."""
    path: list[str | int] = []
    for number, part in enumerate(where, start=1):
        child = _at(data, (part,))
        is_missing_field = number == len(where) and isinstance(part, str) and part.isidentifier() and part.islower()
        if child is not None or is_missing_field:
            path.append(part)
            data = child
    return tuple(path)


def _at(data: Any, where: tuple[str | int, ...]) -> Any:
    for key in where:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def fault(document: Document, where: tuple[str | int, ...], value: Any, why: str) -> ExperimentError:
    """Make the error: where in the file, which field, what was got, and why it cannot be."""
    name = _dotted(where)
    got = f" (got {str(value)[:120]!r})" if not isinstance(value, dict) or len(str(value)) < 120 else ""
    return ExperimentError(f"{document.path}, line {document.line_of(where)}: {name}: {why}{got}.")


def _dotted(where: tuple[str | int, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return "".join(parts).removeprefix(".") or "the file"


def refuse_unknown(document: Document, data: Any, model: type[BaseModel], where: tuple[str | int, ...]) -> None:
    """Refuse keys that the model does not have, with the nearest that it has."""
    if not isinstance(data, dict):
        return
    _refuse_keys(document, data, set(model.model_fields), where)
    for name, field in model.model_fields.items():
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if _is_ours(t)]
        if not inner or name == "rig":
            continue
        for key, value in _items(data.get(name), mapping=get_origin(field.annotation) is dict):
            refuse_unknown(document, value, inner[0], (*where, name, *key))


def _items(values: Any, *, mapping: bool = False) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Give (where, value) of everything in a list, in a mapping of values, or of one value."""
    if isinstance(values, list):
        yield from (((i,), value) for i, value in enumerate(values))
    elif mapping and isinstance(values, dict):
        yield from (((key,), value) for key, value in values.items())
    else:
        yield (), values


def _is_ours(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Written)


def _refuse_keys(document: Document, data: dict[str, Any], known: set[str], where: tuple[str | int, ...]) -> None:
    for key in data:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
            line = document.line_of((*where, key))
            raise ExperimentError(f"{document.path}, line {line}: {_dotted(where)} has no field {key!r}: {hint}")


def _fields(*models: type[BaseModel]) -> set[str]:
    names = set[str]()
    for model in models:
        for name, field in model.model_fields.items():
            names |= {name, field.alias or name}
    return names


def _subclasses(base: type) -> list[type]:
    below: list[type] = base.__subclasses__()
    return [base, *(deep for direct in below for deep in _subclasses(direct))]


def _plan_fields(annotation: Any) -> set[str]:
    """Give the fields of all useq models that an annotation may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _fields(*_subclasses(annotation))
    return set().union(*(_plan_fields(arg) for arg in get_args(annotation)))


def refuse_unknown_useq(document: Document, sequence: Any, where: tuple[str | int, ...]) -> None:
    """Do for useq's models what they do not do themselves: an unknown key would be ignored in silence."""
    if not isinstance(sequence, dict):
        return
    fields = useq.MDASequence.model_fields
    _refuse_keys(document, sequence, _fields(useq.MDASequence) | {"uid"}, where)
    for name in ("channels", "stage_positions", "time_plan", "z_plan", "grid_plan", "autofocus_plan"):
        known = _plan_fields(fields[name].annotation)
        for key, value in _items(sequence.get(name)):
            here = (*where, name, *key)
            if isinstance(value, dict):
                _refuse_keys(document, value, known, here)
                refuse_unknown_useq(document, value.get("sequence"), (*here, "sequence"))
