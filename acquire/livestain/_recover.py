"""Brings a run that was killed back into order, and stains what it still owes."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import ModelError, StoreError
from livestain._experiment import Stain
from livestain._frame import Place
from livestain._inputs import Inputs
from livestain._journal import JOURNAL_NAME, mend, read_header, read_lines
from livestain._latency import run_stats
from livestain._prepare import open_model
from livestain._session import wanted_inputs
from livestain._staining import Stainer
from livestain._store import Store, lock_run
from livestain_models.package import load_package

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from livestain._layout import Layout
    from livestain._stain import StainModel

__all__ = ["Recovered", "backfill", "damaged_planes", "recover"]


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `recover` found and did.

    Attributes
    ----------
    torn_bytes
        Length of the torn last journal line that was cut off.
    adopted
        Raw planes that were whole on disk but not yet journalled; now they are.
    damaged
        Journalled planes that cannot be read back as they were written.
    frames, owed
        Raw frames on disk, and predictions that `livestain backfill` can still make.
    """

    torn_bytes: int
    adopted: int
    damaged: tuple[Place, ...]
    frames: int
    owed: int


def recover(folder: Path) -> Recovered:
    """Mend a run folder after a crash, a kill or a loss of power. To do it twice changes nothing.

    A torn last line of the journal is cut off, raw planes that are whole on disk but not journalled are
    journalled, the time axis is cut to what was acquired, and every journalled plane is read and held against
    its checksum.

    Raises
    ------
    StoreError
        If the folder is no run, its journal has no header, or the run is still going on.
    """
    journal_path = folder / JOURNAL_NAME
    read_header(journal_path)
    lock = lock_run(folder)
    try:
        torn = mend(journal_path)
    finally:
        lock.release()
    header = read_header(journal_path)
    lines = list(read_lines(journal_path))
    store = Store.reopen(folder, header)
    try:
        known = {Place(*line["at"]) for line in lines if line["kind"] == "raw"}
        adopted = _adopt(store, known)
        damaged = tuple(_damaged(store, lines))
        store.forget_after(max((p.t for p in (*known, *adopted)), default=-1))
    finally:
        store.close("recovered")
    owed = len(list(_owed(store.layout, header, list(read_lines(journal_path)))))
    return Recovered(torn, len(adopted), damaged, len(known) + len(adopted), owed)


def _adopt(store: Store, known: set[Place]) -> list[Place]:
    """Journal the raw planes whose commit was done when the run died before its line was."""
    acquired = {i for i, channel in enumerate(store.layout.channels) if not channel.predicted}
    found = sorted((p for p in store.places_on_disk() if p.c in acquired and p not in known), key=dataclasses.astuple)
    whole: list[Place] = []
    for place in found:
        try:
            image = store.read(place)
        except StoreError:
            continue  # not whole, never acknowledged: nothing was promised of it
        store.note({"kind": "raw", "at": dataclasses.astuple(place), "crc32": _crc32(image), "recovered": True})
        whole.append(place)
    return whole


def damaged_planes(folder: Path) -> list[Place]:
    """Read every journalled plane and hold it against its checksum; give those that differ.

    Raises
    ------
    StoreError
        If the folder is no run or the run is going on.
    """
    journal_path = folder / JOURNAL_NAME
    store = Store.reopen(folder, read_header(journal_path))
    try:
        return list(_damaged(store, read_lines(journal_path)))
    finally:
        store.release()


def _damaged(store: Store, lines: Any) -> Iterator[Place]:
    expected: dict[Place, int] = {}
    for line in lines:
        if line["kind"] == "raw":
            expected[Place(*line["at"])] = line["crc32"]
        elif line["kind"] == "stain" and line["status"] == "stained":
            expected |= {Place(*at): crc for at, crc in zip(line["at"], line["crc32"], strict=True)}
    for place, crc in expected.items():
        try:
            if _crc32(store.read(place)) != crc:
                yield place
        except StoreError:
            yield place


def _crc32(image: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(image))


def _owed(layout: Layout, header: Mapping[str, Any], lines: list[dict[str, Any]]) -> Iterator[Any]:
    """Give the jobs that the raw frames allow and that have no prediction on disk."""
    stained = {
        (line["stain"], tuple(line["at"][0]))
        for line in lines
        if line["kind"] == "stain" and line["status"] == "stained"
    }
    raw = [Place(*line["at"]) for line in lines if line["kind"] == "raw"]
    inputs = Inputs(layout, wanted_inputs(layout, [(s["channel"], s["planes"]) for s in header["stains"]]))
    for job in inputs.jobs_on_disk(raw):
        if (job.stain, dataclasses.astuple(job.targets[0])) not in stained:
            yield job


def backfill(
    folder: Path, *, provider: str | None = None, on_progress: Callable[[int, int], None] = lambda *_: None
) -> Any:
    """Make the predictions that a run still owes, with the models it was run with, from its raw planes.

    Parameters
    ----------
    folder
        A run that has ended; one that was killed goes through `recover` first.
    provider
        Where to run the models, if not where the experiment said.
    on_progress
        Called with (done, owed) after each commit.

    Returns
    -------
    RunStats
        The run's counts after it.

    Raises
    ------
    StoreError
        If the folder is no run, or is being written.
    ModelError
        If a model cannot be had, is not the one of the run, or fails on a frame.
    """
    journal_path = folder / JOURNAL_NAME
    header = read_header(journal_path)
    store = Store.reopen(folder, header)
    stainer = None
    try:
        jobs = list(_owed(store.layout, header, list(read_lines(journal_path))))
        if jobs:
            stainer = _open_stainer(store, header, provider)
        for done, job in enumerate(jobs, start=1):
            store.commit([stainer.stain(job)])  # type: ignore[union-attr]
            on_progress(done, len(jobs))
    finally:
        store.close("backfilled")
        if stainer is not None:
            stainer.close()
    if stainer is not None and stainer.troubles:
        raise ModelError(f"some predictions are still owed: {stainer.troubles[0]}")
    return run_stats(read_lines(journal_path))


def _open_stainer(store: Store, header: Mapping[str, Any], provider: str | None) -> Stainer:
    stains = [Stain.model_validate({k: v for k, v in s.items() if k in Stain.model_fields}) for s in header["stains"]]
    layout = store.layout
    packages = [load_package(stain.model) for stain in stains]
    for package, written in zip(packages, header["stains"], strict=True):
        if package.contract.weights_sha256 != written["weights_sha256"]:
            raise ModelError(
                f"the model {written['model']} of this run had weights {written['weights_sha256'][:12]}, the one "
                f"found now has {package.contract.weights_sha256[:12]}: its predictions would differ. Install the "
                "version that the run names."
            )

    def reopen(i: int, on_cpu: bool) -> StainModel:  # noqa: FBT001  (Stainer's protocol)
        return open_model(stains[i], packages[i], layout.height, layout.width, "cpu" if on_cpu else provider)

    models = [reopen(i, False) for i in range(len(stains))]  # noqa: FBT003
    return Stainer(models, store.read, reopen)
