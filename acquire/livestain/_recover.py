"""Brings a run that was killed back into order, and makes the predictions that a run still owes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from livestain._errors import ModelError, StoreError
from livestain._experiment import Stain
from livestain._frame import Place
from livestain._images import Images, first_sentence
from livestain._inputs import Inputs
from livestain._journal import JOURNAL_NAME, mend, read_header, read_lines
from livestain._latency import RunStats, run_stats
from livestain._lines import layout_from_header
from livestain._prepare import open_model
from livestain._session import wanted_inputs
from livestain._staining import Stainer
from livestain._store import Store, crc32_of, lock_run
from livestain_models.package import load_package

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from livestain._frame import Job
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
    journalled, the time axes are cut to what was acquired, and every journalled plane is read and held against
    its checksum.

    Raises
    ------
    StoreError
        If the folder is no run, its journal has no header, or the run is still going on.
    """
    journal = folder / JOURNAL_NAME
    header = read_header(journal)
    with lock_run(folder):
        torn = mend(journal)
    lines = list(read_lines(journal))
    store = Store.reopen(folder, header)
    try:
        known = {Place(*line["at"]) for line in lines if line["kind"] == "raw"}
        adopted = _adopt(store, known)
        damaged = tuple(_damaged(store.images, lines))
        store.forget_after(max((place.t for place in (*known, *adopted)), default=0))
    finally:
        store.close("recovered")
    owed = sum(1 for _ in _owed(header, list(read_lines(journal))))
    return Recovered(torn, len(adopted), damaged, len(known) + len(adopted), owed)


def _adopt(store: Store, known: set[Place]) -> list[Place]:
    """Journal the raw planes whose commit was done when the run died before it could say so."""
    acquired = {i for i, channel in enumerate(store.layout.channels) if not channel.predicted}
    unknown = (place for place in store.images.places() if place.c in acquired and place not in known)
    whole: list[Place] = []
    for place in sorted(unknown, key=dataclasses.astuple):
        try:
            crc32 = crc32_of(store.images.read(place))
        except StoreError:
            continue  # not whole, so never acknowledged: nothing was promised of it
        line: dict[str, Any] = {"kind": "raw", "at": dataclasses.astuple(place), "crc32": crc32, "recovered": True}
        store.note([line])
        whole.append(place)
    return whole


def damaged_planes(folder: Path) -> list[Place]:
    """Read every journalled plane and hold it against its checksum; give those that differ.

    Raises
    ------
    StoreError
        If the folder is no run, or its images cannot be opened.
    """
    journal = folder / JOURNAL_NAME
    layout = layout_from_header(read_header(journal))
    try:
        images = Images(folder, layout)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot open the images of {folder}: {first_sentence(error)}") from error
    return list(_damaged(images, read_lines(journal)))


def _damaged(images: Images, lines: Iterable[Mapping[str, Any]]) -> Iterator[Place]:
    expected: dict[Place, int] = {}
    for line in lines:
        if line["kind"] == "raw":
            expected[Place(*line["at"])] = line["crc32"]
        elif line.get("status") == "stained":
            expected |= {Place(*at): crc32 for at, crc32 in zip(line["at"], line["crc32"], strict=True)}
    for place, crc32 in expected.items():
        try:
            sound = crc32_of(images.read(place)) == crc32
        except StoreError:
            sound = False
        if not sound:
            yield place


def _owed(header: Mapping[str, Any], lines: list[dict[str, Any]]) -> Iterator[Job]:
    """Give the jobs that the raw frames allow and that have no prediction on disk."""
    layout = layout_from_header(header)
    stained = {(line["stain"], Place(*line["at"][0])) for line in lines if line.get("status") == "stained"}
    raw = [Place(*line["at"]) for line in lines if line["kind"] == "raw"]
    inputs = Inputs(layout, wanted_inputs(layout, [(s["channel"], s["planes"]) for s in header["stains"]]))
    for job in inputs.jobs_on_disk(raw):
        if (job.stain, job.targets[0]) not in stained:
            yield job


def backfill(
    folder: Path, *, provider: str | None = None, on_progress: Callable[[int, int], None] = lambda *_: None
) -> RunStats:
    """Make the predictions that a run still owes, with the models it was run with, from its raw planes.

    Parameters
    ----------
    folder
        A run that has ended; one that was killed goes through `recover` first.
    provider
        Where to run the models, if not where the experiment said.
    on_progress
        Called with (done, owed) after each prediction.

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
    journal = folder / JOURNAL_NAME
    header = read_header(journal)
    with lock_run(folder):
        mend(journal)
    jobs = list(_owed(header, list(read_lines(journal))))
    if jobs:
        _fill(folder, header, jobs, provider, on_progress)
    return run_stats(read_lines(journal))


def _fill(
    folder: Path,
    header: Mapping[str, Any],
    jobs: list[Job],
    provider: str | None,
    on_progress: Callable[[int, int], None],
) -> None:
    stains = [Stain.model_validate({k: s[k] for k in Stain.model_fields if k in s}) for s in header["stains"]]
    packages = [load_package(stain.model) for stain in stains]
    for package, written in zip(packages, header["stains"], strict=True):
        if package.contract.weights_sha256 != written["weights_sha256"]:
            raise ModelError(
                f"the model {written['model']} of this run had weights {written['weights_sha256'][:12]}, the one "
                f"found now has {package.contract.weights_sha256[:12]}: its predictions would differ. Install the "
                "version that the run names."
            )
    layout = layout_from_header(header)

    def reopen(i: int, on_cpu: bool) -> StainModel:  # noqa: FBT001  (Stainer's protocol)
        return open_model(stains[i], packages[i], layout.height, layout.width, "cpu" if on_cpu else provider)

    models = [reopen(i, False) for i in range(len(stains))]  # noqa: FBT003
    store = Store.reopen(folder, header)
    stainer = Stainer(models, store.images.read, reopen)
    try:
        for done, job in enumerate(jobs, start=1):
            store.commit([stainer.stain(job)])
            on_progress(done, len(jobs))
    finally:
        store.close("backfilled")
        stainer.close()
    if stainer.troubles:
        raise ModelError(f"not all went well: {stainer.troubles[0]} `livestain stats {folder}` counts what is owed.")
