"""Reads and writes experiment and rig files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from livestain._experiment import Experiment, Rig
from livestain._faults import explain, fault, refuse_unknown, refuse_unknown_useq
from livestain._shipped import shipped_config, shipped_folder
from livestain._yaml import Document, read_yaml

__all__ = ["absolute_model", "load_experiment", "load_rig", "save_experiment"]

M = TypeVar("M", bound=BaseModel)


def load_experiment(path: Path | str) -> Experiment:
    """Read an experiment file; relative paths in it are relative to the file, except `output.folder`.

    Raises
    ------
    ExperimentError
        With the file, line, field, value and remedy of the first fault.
    """
    path = Path(path)
    document = read_yaml(path)
    data = dict(document.data)
    refuse_unknown(document, data, Experiment, ())
    refuse_unknown_useq(document, data.get("sequence"), ("sequence",))
    if "rig" in data:
        data["rig"] = _rig_data(document, data["rig"])
    if isinstance(data.get("stains"), list):
        data["stains"] = [_resolve_model(stain, path.parent) for stain in data["stains"]]
    elif data.get("stains") is None:
        data.pop("stains", None)
    if isinstance(data.get("measure"), dict):
        data["measure"] = _resolve_calibration(data["measure"], path.parent)
    if data.get("output") is None:
        data.pop("output", None)
    return _validate(Experiment, data, document)


def load_rig(path: Path | str) -> Rig:
    """Read a rig file: our YAML, or a bare .cfg; or a shipped rig by its name.

    Raises
    ------
    ExperimentError
        With the file, line, field, value and remedy of the first fault.
    """
    path = Path(path) if Path(path).is_file() else shipped_config(str(path)) or Path(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return Rig(config=path)
    document = read_yaml(path)
    refuse_unknown(document, document.data, Rig, ())
    data = dict(document.data)
    if isinstance(data.get("config"), str):
        data["config"] = path.parent / data["config"]
    return _validate(Rig, data, document)


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Write an experiment, and copies of its rig's .cfg and calibration beside it, so that it can be run again.

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
        **_measure_section(experiment, path.parent),
        # The name is left out: to run it again is another run.
        "output": experiment.output.model_dump(mode="json", exclude={"name"}, exclude_defaults=True),
    }
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def _measure_section(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """Give the section as it is written, its calibration copied beside the file."""
    if experiment.measure is None:
        return {}
    plain = experiment.measure.model_dump(mode="json", exclude_none=True)
    empty_field = getattr(experiment.measure.phase, "empty_field", None)
    if empty_field is not None:
        (folder / "empty_field.npz").write_bytes(empty_field.read_bytes())
        plain["phase"]["empty_field"] = "empty_field.npz"
    return {"measure": plain}


def absolute_model(model: str) -> str:
    """Give a model's folder as an absolute path; the name of a shipped model stays as it is."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def _rig_data(document: Document, rig: Any) -> Any:
    if isinstance(rig, dict):
        refuse_unknown(document, rig, Rig, ("rig",))
        written = rig.get("config")
        if not isinstance(written, str):
            return rig
        return rig | {"config": _find_config(document, ("rig", "config"), written)}
    if not isinstance(rig, str):
        raise fault(document, ("rig",), rig, "write a path, the name of a shipped rig, or a mapping")
    return load_rig(_find_config(document, ("rig",), rig))


def _find_config(document: Document, where: tuple[str, ...], written: str) -> Path:
    """Find a file beside the experiment, or among the shipped ones."""
    path = document.path.parent / Path(written).expanduser()
    found = path if path.is_file() else shipped_config(written, bare=where[-1] == "config")
    if found is None:
        names = ", ".join(sorted({file.stem for file in shipped_folder().glob("*.cfg")}))
        raise fault(document, where, written, f"there is no file {path}, and no shipped rig of that name ({names})")
    return found


def _resolve_model(stain: Any, here: Path) -> Any:
    if isinstance(stain, dict) and isinstance(stain.get("model"), str) and (here / stain["model"]).exists():
        return stain | {"model": str((here / stain["model"]).resolve())}
    return stain


def _resolve_calibration(measure: Any, here: Path) -> Any:
    phase = measure.get("phase")
    if isinstance(phase, dict) and isinstance(phase.get("empty_field"), str):
        return measure | {"phase": phase | {"empty_field": here / Path(phase["empty_field"]).expanduser()}}
    return measure


def _validate(model: type[M], data: Any, document: Document) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as errors:
        raise explain(errors, document) from errors
