"""A run folder as a reader sees it: what is there, while it grows, after it ended, or after it was killed."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError
from livestain._frame import Place
from livestain._images import IMAGES_NAME, first_sentence
from livestain._journal import JOURNAL_NAME, Tail, read_header
from livestain._ledger import Ledger
from livestain._ome import read_windows
from livestain._reading import load_experiment
from livestain._recent import Recent
from livestain.live._planes import PlaneReader
from livestain.live.first_channels import settled_windows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain._experiment import Experiment
    from livestain._latency import RunStats
    from livestain._layout import Layout

__all__ = ["RunFolder"]

_MOST_MISSING = 50  # of frames that never came, the last ones with their reasons
_READ_ERRORS = (OSError, ValueError, IndexError, KeyError)


class RunFolder:
    """Reads a run folder, and reads on as it grows. Nothing is written, nothing locked; any thread may ask.

    Parameters
    ----------
    path
        The run folder.

    Attributes
    ----------
    path, name
        The folder, and its name.
    header, layout
        The journal's first line, and the images and channels that it tells of.
    position_names
        One for each image; "" for the only one.
    experiment
        What was run; None where it cannot be read, and a note says why.
    recent
        Latencies and frame rate of the last minutes.
    missing
        The last frames that never came: when (seconds since the epoch, of the frame before), and why.

    Raises
    ------
    StoreError
        If the folder has no journal that this livestain reads. Whatever else is missing is told by `notes`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = self.path.name
        self.header: Mapping[str, Any] = read_header(path / JOURNAL_NAME)
        self._ledger = Ledger(self.header)
        self.layout: Layout = self._ledger.layout
        self.position_names = self.layout.position_names
        self.recent = Recent()
        self.missing: deque[tuple[float | None, str]] = deque(maxlen=_MOST_MISSING)
        self._tail = Tail(path / JOURNAL_NAME, lambda error: self._note("damaged line", str(error)))
        self._reader = PlaneReader(self.path / IMAGES_NAME)
        self._times = [array("d") for _ in self.layout.images]  # by t, seconds since the epoch
        self._first_s: float | None = None
        self._notes: dict[str, str] = {}  # by what they are about: a fault of one kind is told once
        self._lock = threading.RLock()
        self.experiment = self._load_experiment()
        if not (self.path / IMAGES_NAME / "zarr.json").is_file():
            self._note(IMAGES_NAME, f"there is no {IMAGES_NAME}: `livestain recover {path}` restores what it can.")
        self.refresh()

    # ------------------------------------------------------------------ what is there

    def refresh(self) -> bool:
        """Read the journal on, and say whether anything was new; cheap when nothing was."""
        new = False
        with self._lock:
            while lines := self._read_on():
                new = True
                for line in lines:
                    self._add(line)
        return new

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing or damaged, as sentences."""
        return tuple(self._notes.values())

    @property
    def ended(self) -> str | None:
        """How the run ended: "completed", "canceled", "errored", "recovered"; None while it goes on or was killed."""
        return self._ledger.ended

    @property
    def started(self) -> datetime | None:
        """When the first frame was taken, UTC."""
        return None if self._first_s is None else datetime.fromtimestamp(self._first_s, UTC)

    def n_t(self, image: int) -> int:
        """Give the number of time points of an image up to the last one that has a plane."""
        with self._lock:
            return self._ledger.last_t(image) + 1

    def there(self, image: int) -> NDArray[np.bool_]:
        """Say which planes are on disk, (t, c, z); a copy."""
        with self._lock:
            return self._ledger.there(image)[: self._ledger.last_t(image) + 1].copy()

    def time_s(self, image: int) -> NDArray[np.float64]:
        """Give when each time point began, (t,) seconds since the run's first frame; NaN where that is not known."""
        with self._lock:
            known = np.frombuffer(self._times[image], np.float64).copy() if self._times[image] else np.empty(0)
            known = np.concatenate([known, np.full(max(0, self.n_t(image) - known.size), np.nan)])
            return known[: self.n_t(image)] - (np.nan if self._first_s is None else self._first_s)

    def stats(self) -> RunStats:
        """Count the whole run, and take the percentiles of its latencies."""
        with self._lock:
            return self._ledger.stats()

    # ------------------------------------------------------------------ planes

    def plane(self, place: Place) -> NDArray[np.uint16] | None:
        """Read a plane, (Y, X); None where nothing is on disk, or what is there cannot be read (a note says so)."""
        with self._lock:
            if place not in self._ledger:
                return None
        return self._read(f"{self.layout.images[place.image].path}/0", place.t, place.c, place.z)

    def labels(self, name: str, image: int, t: int) -> NDArray[np.uint32] | None:
        """Read the label image "cells" or "nuclei", (Y, X), the value is a cell's id; None where there is none."""
        path = f"{self.layout.images[image].path}/labels/{name}/0"
        return self._read(path, t, 0) if self._reader.has(path.lstrip("/")) else None

    def windows(self, image: int) -> dict[int, tuple[float, float]]:
        """Give the grey levels between which channels are shown at first, by number: those that the run chose.

        Of distances and probabilities it is the whole scale, whatever an older run chose: stretched to what its first
        pictures held, a map without a dead cell would show its noise as dead cells.
        """
        try:
            chosen = read_windows(self.path / IMAGES_NAME / self.layout.images[image].path)
            return chosen | settled_windows(self.header, self.layout.channels)
        except _READ_ERRORS as error:
            self._note(f"windows {image}", f"the images' metadata cannot be read: {first_sentence(error)}")
            return {}

    def n_bytes(self, place: Place) -> int:
        """Give the size of a plane on disk; 0 where there is none."""
        shard = self.path / IMAGES_NAME / self.layout.images[place.image].path / "0" / "c"
        try:
            return (shard / f"{place.t}/{place.c}/{place.z}/0/0").stat().st_size
        except OSError:
            return 0

    # ------------------------------------------------------------------ inside

    def _read(self, path: str, *index: int) -> NDArray[Any] | None:
        try:
            return self._reader.read(path.lstrip("/"), *index)
        except IndexError:
            return None  # not written so far
        except (OSError, ValueError) as error:
            remedy = f"`livestain check {self.path}` says how much of the run is damaged."
            self._note(f"read {path}", f"{path.lstrip('/')}, t={index[0]}: {first_sentence(error)} {remedy}")
            return None

    def _read_on(self) -> list[dict[str, Any]]:
        try:
            return self._tail.read()
        except OSError as error:
            self._note("journal", f"the journal cannot be read on: {error.strerror}.")
        return []

    def _add(self, line: dict[str, Any]) -> None:
        try:
            self._ledger.add(line)
            self.recent.add(line)
            if line["kind"] == "missing":
                place = Place(*line["at"])
                self.missing.append((self.recent.newest_s, f"the frame at {place} never came: {line.get('why')}"))
            if line["kind"] == "raw":
                self._add_time(Place(*line["at"]), _seconds(line.get("time")))
        except (KeyError, IndexError, TypeError, ValueError):
            self._note("line", f"the journal has a line that cannot be understood: {str(line)[:80]}")

    def _add_time(self, place: Place, time_s: float | None) -> None:
        if time_s is None:
            return
        self._first_s = time_s if self._first_s is None else min(self._first_s, time_s)
        times = self._times[place.image]
        times.extend([np.nan] * (place.t + 1 - len(times)))
        if not times[place.t] <= time_s:  # NaN, or later: a time point begins with its first frame
            times[place.t] = time_s

    def _load_experiment(self) -> Experiment | None:
        if not (self.path / "experiment.yaml").exists():
            self._note("experiment", "there is no experiment.yaml: what was run is known from the journal only.")
            return None
        try:
            return load_experiment(self.path / "experiment.yaml")
        except LivestainError as error:
            self._note("experiment", f"what was run cannot be read: {error}")
            return None

    def _note(self, about: str, sentence: str) -> None:
        self._notes.setdefault(about, sentence)


def _seconds(time: str | None) -> float | None:
    return None if time is None else datetime.fromisoformat(time).timestamp()
