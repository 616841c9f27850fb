"""Says what is wrong in a file that a person wrote: file, line, field, value, remedy."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, get_args, get_origin

import useq
from pydantic import BaseModel

from livestain._errors import ExperimentError
from livestain._experiment import Written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

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
_PLAIN_ENDS = (  # what of a message is said in other words, whatever stands before
    (
        r"^\w+ should have at (least|most) (\d+) items? after validation, not (\d+)$",
        r"it needs at \1 \2 entries, not \3",
    ),
    (r"^Input should be ", "it should be "),
)
_LARGEST_UM = 100  # above it a length in micrometres that cannot be is likely one in nanometres

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
        return fault(document, *_said(where, problem))
    options = sorted({str(where[-1]) for where, _ in rivals if len(where) > len(top)})
    hint = f"; depending on the form it lacks {', '.join(options)}" if options else ""
    return fault(document, top, _at(document.data, top), f"it fits no form that is known{hint}")


def _said(where: tuple[str | int, ...], problem: ErrorDetails) -> tuple[tuple[str | int, ...], Any, str]:
    """Give the place of a problem, the value that is wrong there, and why."""
    value, why = problem["input"], _plainly(str(problem["msg"]))
    if problem["type"] == "union_tag_invalid":
        return (*where, "method"), value["method"], why
    in_um = str(where[-1]).endswith("_um") and isinstance(value, int | float) and value > _LARGEST_UM
    return where, value, why + (f", in micrometres: {value / 1000:g} if these are nanometres" if in_um else "")


def _plainly(message: str) -> str:
    """Say in the file's own terms what pydantic and useq say in Python's."""
    for theirs, ours in _PLAINLY.items():
        if theirs in message:
            return ours
    for theirs, ours in _PLAIN_ENDS:
        message = re.sub(theirs, ours, message)
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
    got = "" if isinstance(value, dict) else f" (got {str(value)[:120]!r})"  # of a mapping the field says enough
    return ExperimentError(f"{document.path}, line {document.line_of(where)}: {name}: {why}{got}.")


def _dotted(where: tuple[str | int, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return "".join(parts).removeprefix(".") or "the file"


def refuse_unknown(document: Document, data: Any, model: type[BaseModel], where: tuple[str | int, ...]) -> None:
    """Refuse keys that the model does not have, with the nearest that it has; and sections without a word in them."""
    if not isinstance(data, dict):
        return
    _refuse_keys(document, data, set(model.model_fields), where)
    for name, field in model.model_fields.items():
        inner = _sections(field.annotation)
        if not inner or name == "rig":
            continue
        if name in data and data[name] is None and field.default is None:
            why = "the section is empty; write what it holds ({} for the defaults), or leave the line out"
            raise fault(document, (*where, name), {}, why)
        for key, value in _items(data.get(name), mapping=get_origin(field.annotation) is dict):
            if (meant := _meant(inner, value)) is not None:
                refuse_unknown(document, value, meant, (*where, name, *key))


def _sections(annotation: Any) -> list[type[Written]]:
    """Give the models of ours that an annotation may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Written):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _sections(arg)]


def _meant(models: list[type[Written]], value: Any) -> type[Written] | None:
    """Give the one model, or of several the one that the value names by its method."""
    if len(models) == 1 or not isinstance(value, dict):
        return models[0]
    return next((m for m in models if value.get("method") in get_args(m.model_fields["method"].annotation)), None)


def _items(values: Any, *, mapping: bool = False) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Give (where, value) of everything in a list, in a mapping of values, or of one value."""
    if isinstance(values, list):
        yield from (((i,), value) for i, value in enumerate(values))
    elif mapping and isinstance(values, dict):
        yield from (((key,), value) for key, value in values.items())
    else:
        yield (), values


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
