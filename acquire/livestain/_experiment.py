"""What a person writes: the rig, a useq MDASequence as it is, which model stains which channel, the output."""

from __future__ import annotations

import difflib
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import useq
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from livestain._errors import ExperimentError
from livestain._shipped import shipped_config
from livestain._yaml import Document, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Experiment",
    "Output",
    "Rig",
    "RigChannel",
    "Stain",
    "absolute_model",
    "load_experiment",
    "load_rig",
    "save_experiment",
]


M = TypeVar("M", bound=BaseModel)


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RigChannel(_Written):
    """What a .cfg cannot say of a channel preset.

    `contrast` is the kind of transmitted light ("bright field", "phase contrast", ...), held against the models;
    `color` is how viewers show the channel, RRGGBB.
    """

    contrast: str | None = None
    color: Annotated[str, Field(pattern="^[0-9A-Fa-f]{6}$")] | None = None


class Rig(_Written):
    """A microscope: its Micro-Manager configuration, and what such a file cannot say.

    Attributes
    ----------
    config
        Path of the .cfg file, relative to the file that names it.
    pixel_size_um
        Size of a pixel in the sample, where the .cfg has none.
    channels
        What is known of channel presets, by name.
    properties
        (device, property, value) to set once the .cfg is loaded.
    circular_buffer_mb
        The core's buffer between camera and acquisition; it takes up the slack when the disk is slow.
    """

    config: Path
    pixel_size_um: PositiveFloat | None = None
    channels: dict[str, RigChannel] = Field(default_factory=dict)
    properties: list[tuple[str, str, str | int | float]] = Field(default_factory=list)
    circular_buffer_mb: PositiveInt = 512


class Stain(_Written):
    """One model on one channel.

    Attributes
    ----------
    model
        Folder of a model package (relative to the experiment file), or the name of a shipped one.
    channel
        Preset of the sequence whose planes the model takes.
    provider
        Where to run it. "auto" takes the fastest that works; any other that does not work is an error.
    threads
        CPU threads; all physical cores if not given.
    max_tile_px
        Frames with a longer side are stained in tiles, where the model allows it.
    """

    model: str
    channel: str
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    threads: PositiveInt | None = None
    max_tile_px: PositiveInt = 2048


class Output(_Written):
    """Where the run goes: `folder`/`name`. Without a name it is the date and the experiment's, numbered.

    `sync` makes every commit wait for the drive itself (fsync), so that it survives a loss of power;
    `write_buffer_mb` bounds the frames that wait for the disk; `stain_remaining` has the end of the run wait
    for predictions that are still owed.
    """

    folder: Path = Path("livestain-runs")
    name: str | None = None
    sync: bool = True
    write_buffer_mb: PositiveInt = 256
    stain_remaining: bool = True


def _as_sequence(value: Any) -> Any:
    return useq.MDASequence.model_validate(value) if isinstance(value, dict) else value


class Experiment(_Written):
    """One acquisition, whole."""

    rig: Rig
    sequence: Annotated[useq.MDASequence, BeforeValidator(_as_sequence)]
    stains: tuple[Stain, ...] = ()
    output: Output = Output()

    def run_folder(self, stem: str) -> Path:
        """Choose the run's folder. A name that was given is taken as it is, one that was not is free."""
        if self.output.name is not None:
            return self.output.folder / self.output.name
        base = f"{date.today().isoformat()}-{stem}"
        folder, number = self.output.folder / base, 1
        while folder.exists():
            number += 1
            folder = self.output.folder / f"{base}-{number}"
        return folder


# ------------------------------------------------------------------------------------ reading


def load_experiment(path: Path) -> Experiment:
    """Read an experiment file; relative paths in it are relative to the file, except `output.folder`.

    Raises
    ------
    ExperimentError
        With the file, line, field, value and remedy of the first fault.
    """
    document = read_yaml(path)
    data = dict(document.data)
    _refuse_unknown(document, data, Experiment, ())
    _refuse_unknown_useq(document, data.get("sequence"), ("sequence",))
    if "rig" in data:
        data["rig"] = _rig_data(document, data["rig"])
    if isinstance(data.get("stains"), list):
        data["stains"] = [_resolve_model(stain, path.parent) for stain in data["stains"]]
    elif data.get("stains") is None:
        data.pop("stains", None)
    if data.get("output") is None:
        data.pop("output", None)
    return _validate(Experiment, data, document)


def load_rig(path: Path) -> Rig:
    """Read a rig file: our YAML, or a bare .cfg.

    Raises
    ------
    ExperimentError
        With the file, line, field, value and remedy of the first fault.
    """
    if path.suffix.lower() != ".yaml":
        return Rig(config=path)
    document = read_yaml(path)
    _refuse_unknown(document, document.data, Rig, ())
    data = dict(document.data)
    if isinstance(data.get("config"), str):
        data["config"] = path.parent / data["config"]
    return _validate(Rig, data, document)


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Write an experiment, and a copy of its rig's .cfg beside it, so that both can be run again.

    Raises
    ------
    OSError
        If the folder cannot be written, or the .cfg is gone.
    """
    (path.parent / "rig.cfg").write_bytes(experiment.rig.config.read_bytes())
    rig = experiment.rig.model_copy(update={"config": Path("rig.cfg")})
    stains = [stain.model_copy(update={"model": absolute_model(stain.model)}) for stain in experiment.stains]
    plain = {
        "rig": rig.model_dump(mode="json", exclude_defaults=True),
        # Not exclude_unset: useq could not read a setup event back without the defaults of its action.
        "sequence": experiment.sequence.model_dump(mode="json", exclude_none=True),
        "stains": [stain.model_dump(mode="json", exclude_defaults=True) for stain in stains],
        # The name is left out: to run it again is another run.
        "output": experiment.output.model_dump(mode="json", exclude={"name"}, exclude_defaults=True),
    }
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def absolute_model(model: str) -> str:
    """Give a model's folder as an absolute path; the name of a shipped model stays as it is."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def _rig_data(document: Document, rig: Any) -> Any:
    if isinstance(rig, dict):
        _refuse_unknown(document, rig, Rig, ("rig",))
        written = rig.get("config")
        if not isinstance(written, str):
            return rig
        return rig | {"config": _find_config(document, ("rig", "config"), written)}
    if not isinstance(rig, str):
        raise _fault(document, ("rig",), rig, "write a path, the name of a shipped rig, or a mapping")
    return load_rig(_find_config(document, ("rig",), rig))


def _find_config(document: Document, where: tuple[str, ...], written: str) -> Path:
    """Find a file beside the experiment, or among the shipped ones."""
    path = document.path.parent / written
    found = path if path.is_file() else shipped_config(written, bare=where[-1] == "config")
    if found is None:
        raise _fault(document, where, written, f"there is no file {path}, and no shipped rig of that name")
    return found


def _resolve_model(stain: Any, here: Path) -> Any:
    if isinstance(stain, dict) and isinstance(stain.get("model"), str) and (here / stain["model"]).exists():
        return stain | {"model": str((here / stain["model"]).resolve())}
    return stain


def _validate(model: type[M], data: Any, document: Document) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as errors:
        raise _explain(errors, document) from errors


def _explain(errors: ValidationError, document: Document) -> ExperimentError:
    """Make one sentence of pydantic's list, which has a fault for every member of a union."""
    faults = [(_written_path(document.data, fault["loc"]), fault) for fault in errors.errors(include_url=False)]
    top = faults[0][0][:2]
    rivals = [(where, fault) for where, fault in faults if where[:2] == top]
    # A value that is wrong says more than a field that another form would have had: take the deepest.
    wrong = [rival for rival in rivals if rival[1]["type"] != "missing" and len(rival[0]) > len(top)]
    if len(rivals) == 1 or wrong:
        where, fault = max(wrong, key=lambda rival: len(rival[0])) if wrong else rivals[0]
        return _fault(document, where, fault["input"], str(fault["msg"]))
    options = sorted({str(where[-1]) for where, _ in rivals if len(where) > len(top)})
    hint = f"; depending on the form it lacks {', '.join(options)}" if options else ""
    return _fault(document, top, _at(document.data, top), f"it fits no form that is known{hint}")


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


def _fault(document: Document, where: tuple[str | int, ...], value: Any, why: str) -> ExperimentError:
    name = _dotted(where)
    got = f" (got {str(value)[:120]!r})" if not isinstance(value, dict) or len(str(value)) < 120 else ""
    return ExperimentError(f"{document.path}, line {document.line_of(where)}: {name}: {why}{got}.")


def _dotted(where: tuple[str | int, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return "".join(parts).removeprefix(".") or "the file"


# ------------------------------------------------------------------------------------ typing errors


def _refuse_unknown(document: Document, data: Any, model: type[BaseModel], where: tuple[str | int, ...]) -> None:
    """Refuse keys that the model does not have, with the nearest that it has."""
    if not isinstance(data, dict):
        return
    _refuse_keys(document, data, set(model.model_fields), where)
    for name, field in model.model_fields.items():
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if _is_ours(t)]
        if not inner or name == "rig":
            continue
        for key, value in _items(data.get(name), mapping=get_origin(field.annotation) is dict):
            _refuse_unknown(document, value, inner[0], (*where, name, *key))


def _items(values: Any, *, mapping: bool = False) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Give (where, value) of everything in a list, in a mapping of values, or of one value."""
    if isinstance(values, list):
        yield from (((i,), value) for i, value in enumerate(values))
    elif mapping and isinstance(values, dict):
        yield from (((key,), value) for key, value in values.items())
    else:
        yield (), values


def _is_ours(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, _Written)


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


def _refuse_unknown_useq(document: Document, sequence: Any, where: tuple[str | int, ...]) -> None:
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
                _refuse_unknown_useq(document, value.get("sequence"), (*here, "sequence"))
