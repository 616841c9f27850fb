"""Brings a run that was killed back into order, and makes the predictions that a run still owes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from livestain._errors import ModelError, StoreError
from livestain._experiment import Stain
from livestain._images import Images, first_sentence
from livestain._journal import JOURNAL_NAME, read_header, read_lines
from livestain._ledger import Ledger
from livestain._prepare import open_model
from livestain._staining import Stainer
from livestain._store import Store, crc32_of
from livestain_models.package import load_package

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from livestain._frame import Job, Place
    from livestain._latency import RunStats
    from livestain._stain import StainModel

__all__ = ["Recovered", "backfill", "damaged_planes", "read_stats", "recover"]


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
        Journalled planes that are missing or not as they were written. They are now journalled as lost: a raw one
        counts as missing, a predicted one as owed.
    frames, owed
        Raw frames on disk, and predictions that `livestain backfill` can still make.
    """

    torn_bytes: int
    adopted: int
    damaged: tuple[Place, ...]
    frames: int
    owed: int


def read_stats(folder: Path) -> RunStats:
    """Count a run and its latencies from its journal, also while the run goes on.

    Raises
    ------
    StoreError
        If the folder is no run.
    """
    journal = folder / JOURNAL_NAME
    return Ledger(read_header(journal), read_lines(journal)).stats()


def recover(folder: Path) -> Recovered:
    """Mend a run folder after a crash, a kill or a loss of power. To do it twice changes nothing.

    Zarr metadata that is missing is written again from the journal's header. A torn last line of the journal is
    cut off, raw planes that are whole on disk but not journalled are journalled, predictions that are not are
    erased (`backfill` makes them again), the time axes are cut to what was acknowledged, and every journalled plane
    is read and held against its checksum; one that is lost is journalled as such.

    Raises
    ------
    StoreError
        If the folder is no run, its journal has no header, or the run is still going on.
    """
    store, torn = Store.reopen(folder, mend_metadata=True)
    try:
        ledger = Ledger(store.header, read_lines(folder / JOURNAL_NAME))
        adopted = _adopt(store, ledger)
        _erase_unacknowledged_predictions(store, ledger)
        damaged = tuple(_damaged(store.images, ledger))
        for place in damaged:
            line = {"kind": "lost", "at": dataclasses.astuple(place)}
            store.note([line])
            ledger.add(line)
        store.end_after([ledger.last_t(image) for image in range(len(store.layout.images))])
    except BaseException:
        store.abandon()
        raise
    store.close("recovered")
    stats = ledger.stats()
    return Recovered(torn, adopted, damaged, stats.frames_acquired, stats.frames_pending)


def _adopt(store: Store, ledger: Ledger) -> int:
    """Journal the raw planes whose commit was done when the run died before it could say so."""
    acquired = {i for i, channel in enumerate(store.layout.channels) if not channel.predicted}
    unknown = (place for place in store.images.places() if place.c in acquired and place not in ledger)
    adopted = 0
    for place in sorted(unknown, key=dataclasses.astuple):
        try:
            crc32 = crc32_of(store.images.read(place))
        except StoreError:
            continue  # not whole, so never acknowledged: nothing was promised of it
        line: dict[str, Any] = {"kind": "raw", "at": dataclasses.astuple(place), "crc32": crc32, "recovered": True}
        store.note([line])
        ledger.add(line)
        adopted += 1
    return adopted


def _erase_unacknowledged_predictions(store: Store, ledger: Ledger) -> None:
    """Leave no prediction that nobody vouches for; `backfill` makes it again where its raw frame is there."""
    for place in list(store.images.places()):
        if store.layout.channels[place.c].predicted and place not in ledger:
            store.images.erase(place)


def damaged_planes(folder: Path) -> list[Place]:
    """Read every journalled plane and hold it against its checksum; give those that differ.

    Raises
    ------
    StoreError
        If the folder is no run, or its images cannot be opened.
    """
    journal = folder / JOURNAL_NAME
    ledger = Ledger(read_header(journal), read_lines(journal))
    try:
        images = Images(folder, ledger.layout)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot open the images of {folder}: {first_sentence(error)}") from error
    return list(_damaged(images, ledger))


def _damaged(images: Images, ledger: Ledger) -> Iterator[Place]:
    for place, crc32 in ledger.planes():
        try:
            sound = crc32_of(images.read(place)) == crc32
        except StoreError:
            sound = False
        if not sound:
            yield place


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
    store, _ = Store.reopen(folder)
    try:
        jobs = Ledger(store.header, read_lines(folder / JOURNAL_NAME)).owed()
        troubles = _fill(store, jobs, provider, on_progress) if jobs else []
    except BaseException:
        store.abandon()
        raise
    store.close("backfilled")
    if troubles:
        raise ModelError(f"not all went well: {troubles[0]} `livestain stats {folder}` counts what is still owed.")
    return read_stats(folder)


def _fill(store: Store, jobs: list[Job], provider: str | None, on_progress: Callable[[int, int], None]) -> list[str]:
    written = store.header["stains"]
    stains = [Stain.model_validate({k: s[k] for k in Stain.model_fields if k in s}) for s in written]
    packages = [load_package(stain.model, stain.precision) for stain in stains]
    for package, said in zip(packages, written, strict=True):
        if package.contract.weights_sha256 != said["weights_sha256"]:
            raise ModelError(
                f"the model {said['model']} of this run had weights {said['weights_sha256'][:12]}, the one found now "
                f"has {package.contract.weights_sha256[:12]}: its predictions would differ. Install the version that "
                "the run names."
            )
    layout = store.layout

    def reopen(i: int, on_cpu: bool) -> StainModel:  # noqa: FBT001  (Stainer's protocol)
        return open_model(stains[i], packages[i], layout.height, layout.width, "cpu" if on_cpu else provider)

    stainer = Stainer([reopen(i, False) for i in range(len(stains))], store.images.read, reopen)  # noqa: FBT003
    try:
        for done, job in enumerate(jobs, start=1):
            store.commit([stainer.stain(job)])
            on_progress(done, len(jobs))
    finally:
        stainer.close()
    return stainer.troubles
