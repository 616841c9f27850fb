"""How far a measurement came, beside its tables, so that it can be taken up from there: RUN/measuring.json."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from livestain._errors import StoreError
from livestain._images import IMAGES_NAME
from livestain.measure._rows import extent
from livestain.measure.labels import LABEL_NAMES
from livestain.measure.phase_images import PHASE_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from livestain._experiment import Experiment
    from livestain._layout import Layout

__all__ = ["STATE_NAME", "Saved", "begun_with", "forget", "is_finished", "settings_of", "unusable"]

STATE_NAME = "measuring.json"
_TABLES = ("cells", "summary")
_VERSION = 3


class Saved(BaseModel):
    """The state of a measurement between two time points.

    Attributes
    ----------
    settings
        What it was begun with (`settings_of`); rows made with others do not go into the same table.
    measured
        For each position its last time point that was taken, -1 for none.
    skipped
        How many of these had no plane to measure on.
    rows
        Of cells and summary that belong to it; what is behind them is written again.
    phase
        What was learned of the rig, None without phase.
    positions
        The state of each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Any]
    measured: list[int]
    skipped: NonNegativeInt
    rows: tuple[NonNegativeInt, NonNegativeInt]
    phase: dict[str, Any] | None
    positions: list[dict[str, Any]]

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read the state of a run folder; None where no measurement was stopped.

        Raises
        ------
        StoreError
            If it is damaged, or of another version.
        """
        try:
            found = json.loads((folder / STATE_NAME).read_bytes())
            version = found["version"]
            if version != _VERSION:
                raise unusable(folder, f"has version {version!r}, and this livestain goes on from {_VERSION} only")
            if _crc(json.dumps(found["state"])) != found["crc32"]:
                raise unusable(folder, "is damaged: its checksum differs")
            return cls.model_validate(found["state"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(folder, f"cannot be read: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise unusable(folder, f"is damaged: {where}: {first['msg'].lower()}") from error
        except (ValueError, KeyError, TypeError) as error:  # cut off, no JSON, or JSON of something else
            raise unusable(folder, f"is damaged, no state of a measurement ({error})") from error

    def save(self, folder: Path) -> None:
        """Write it in one step: a kill leaves the one before or this one.

        Raises
        ------
        StoreError
            If the disk refuses.
        """
        state = json.dumps(self.model_dump())
        fresh = folder / f"{STATE_NAME}.new"
        try:
            with fresh.open("w", encoding="utf-8") as file:
                file.write(f'{{"version": {_VERSION}, "crc32": {_crc(state)}, "state": {state}}}')
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(folder / STATE_NAME)
        except OSError as error:
            raise StoreError(f"cannot save the measurement's state in {folder}: {error.strerror}.") from error

    def check(self, folder: Path, settings: dict[str, Any], n_positions: int) -> None:
        """Hold it against the measurement that shall go on from it, and against the tables; nothing is changed.

        Raises
        ------
        StoreError
            If that has other settings, the run other positions, or a table has lost rows.
        """
        if len(self.measured) != n_positions or len(self.positions) != n_positions:
            raise unusable(folder, f"is damaged: it has {len(self.measured)} positions, and the run {n_positions}")
        if self.settings != settings:
            now, then = _flat(settings), _flat(self.settings)
            differ = [name for name in sorted({*now, *then}) if now.get(name) != then.get(name)]
            said = "; ".join(f"{name} was {then.get(name)}, and is {now.get(name)}" for name in differ)
            raise StoreError(
                f"{folder} holds a measurement that was stopped and has other settings ({said}). Rows of both cannot "
                f"stand in one table. Go on with the same settings, or measure anew: {_remedy(folder)}"
            )
        for name, n_rows in zip(_TABLES, self.rows, strict=True):
            _check_rows(folder, name, n_rows)


def forget(folder: Path, layout: Layout) -> None:
    """Take an earlier measurement away, with all that was made of it: it would lie beside tables of other cells.

    The state goes first, so that a kill in between leaves none to go on from.
    """
    tables = [f"{table}.{kind}" for table in _TABLES for kind in ("arrow", "parquet")]
    pictures = [f"{name}.{kind}" for name in ("masses", "survival") for kind in ("png", "svg")]
    labels = [f"{IMAGES_NAME}/{image.path}/labels/{name}" for image in layout.images for name in LABEL_NAMES]
    for name in (STATE_NAME, *tables, *pictures, "tracks.geff", "tracks", *labels, PHASE_NAME):
        try:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot replace {folder / name} of an earlier measurement: {error.strerror}. Is the folder writable?"
            ) from error


def is_finished(folder: Path) -> bool:
    """Say whether a run was measured to its end: both tables are whole, and nothing is left to be made of them."""
    streams = [folder / f"{name}.arrow" for name in _TABLES]
    whole = all((folder / f"{name}.parquet").is_file() for name in _TABLES)
    return whole and not any(path.exists() for path in (folder / STATE_NAME, *streams))


def begun_with(folder: Path, experiment: Experiment) -> bool:
    """Say whether a measurement with this experiment's settings was stopped there, and can be gone on with."""
    try:
        saved = Saved.load(folder)
    except StoreError:
        return False
    return saved is not None and saved.settings == settings_of(experiment)


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """Give what a person may change between two measurements of a run, as plain data."""
    measure, optics = experiment.measure, experiment.rig.optics
    plain = measure.model_dump(mode="json") if measure else {}
    empty = getattr(measure and measure.phase, "empty_field", None)
    if empty is not None and empty.is_file():  # by what it holds: the run's folder has a copy, and may be moved
        plain["phase"]["empty_field"] = f"of checksum {zlib.crc32(empty.read_bytes()):08x}"
    return {"measure": plain, "optics": optics.model_dump(mode="json") if optics else None}


def _check_rows(folder: Path, name: str, n_rows: int) -> None:
    stream, parquet = folder / f"{name}.arrow", folder / f"{name}.parquet"
    why = ""
    try:
        if stream.exists():
            there = extent(stream).n_rows
        else:
            there = pq.read_metadata(parquet).num_rows if parquet.exists() else 0
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:  # what a damaged header makes pyarrow raise
        there, why = 0, f" ({error})"
    if there < n_rows:
        file = stream if stream.exists() or not parquet.exists() else parquet
        found = f"has {there} that can be read{why}" if file.exists() else "is not there"
        raise StoreError(
            f"{n_rows} rows of the table {file} were written, and it {found}: it was damaged or removed. Measure "
            f"anew: {_remedy(folder)}"
        )


def _remedy(folder: Path) -> str:
    return f"livestain measure {folder} --again"


def unusable(folder: Path, why: str) -> StoreError:
    """Make the error for a state that cannot be gone on from, with the remedy."""
    file = folder / STATE_NAME
    return StoreError(f"{file}, which says how far the measurement came, {why}. Measure anew: {_remedy(folder)}")


def _crc(text: str) -> int:
    return zlib.crc32(text.encode())


def _flat(plain: object, name: str = "") -> dict[str, Any]:
    """Name every value by its way through the mappings: {"measure.phase.sign": -1}."""
    if not isinstance(plain, dict):
        return {name: plain}
    return {
        way: value for key, inner in plain.items() for way, value in _flat(inner, f"{name}.{key}".strip(".")).items()
    }
