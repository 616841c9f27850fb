"""Looks at every position as soon as it is whole, while the run goes on: a bad exposure then costs no day."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from livestain._errors import LivestainError, StoreError
from livestain._frame import Place
from livestain._images import Images, first_sentence
from livestain._journal import JOURNAL_NAME, Tail
from livestain._worker import Worker
from livestain.pairs.pair_check import PairCheck, check_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livestain._layout import Layout
    from livestain.pairs.plan import PairsPlan

__all__ = ["PairsChecker"]

_LOOK_EVERY_S = 0.3


class PairsChecker:
    """Follows a run's journal in a thread of its own, and reads from disk what it says is there.

    Parameters
    ----------
    folder
        The run folder; it may come later.
    plan, layout
        What is acquired.
    bits
        Of the camera.
    """

    def __init__(self, folder: Path, plan: PairsPlan, layout: Layout, bits: int) -> None:
        self.layout = layout
        self._folder, self._plan, self._bits = folder, plan, bits
        self._needed = [self._places_of(image) for image in range(len(layout.images))]
        self._checks: list[PairCheck] = []
        self._handed_on = 0
        self._run_ended, self._give_up = threading.Event(), threading.Event()
        self._worker = Worker("pairs", self._work)
        self._worker.start()

    def fresh(self) -> list[PairCheck]:
        """Give what was looked at since the last call."""
        new = self._checks[self._handed_on :]
        self._handed_on += len(new)
        return new

    def finish(self, on_wait: Callable[[int, int], None]) -> tuple[list[PairCheck], bool]:
        """Look at what is left once the run has ended; Ctrl-C leaves the rest.

        Parameters
        ----------
        on_wait
            Called about ten times a second with how many positions were looked at, and of how many.

        Returns
        -------
        tuple
            What was seen, and whether that is of every position that is whole.

        Raises
        ------
        LivestainError
            What ended the looking.
        """
        self._run_ended.set()
        n_targets = len(self._plan.targets)
        try:
            while not self._worker.wait(0.1):
                on_wait(len(self._checks) // n_targets, len(self._needed))
        except KeyboardInterrupt:
            self._give_up.set()
            self._worker.wait()
            return list(self._checks), False
        except BaseException:
            self.abandon()
            raise
        self._raise_what_failed()
        return list(self._checks), True

    def _raise_what_failed(self) -> None:
        error = self._worker.error
        if isinstance(error, LivestainError):
            raise error
        if error is not None:
            raise LivestainError(
                f"looking at the pairs ended with {type(error).__name__}: {error}. The images are safe in "
                f"{self._folder}; to look at them again: livestain collect {self._folder}"
            ) from error

    def abandon(self) -> int:
        """End without looking at more; give the number of positions that were looked at."""
        self._give_up.set()
        self._run_ended.set()
        self._worker.wait()
        return len(self._checks) // len(self._plan.targets)

    # ---------------------------------------------------- the thread

    def _places_of(self, image: int) -> set[Place]:
        n_z = self.layout.images[image].n_z
        return {
            Place(image, 0, number, z)
            for number, channel in enumerate(self.layout.channels)
            if channel.name in (self._plan.input, *self._plan.targets)
            for z in self._plan.planes_of(channel.name, n_z)
        }

    def _work(self) -> None:
        journal = self._folder / JOURNAL_NAME
        while not journal.exists():
            # A short run may have begun and ended while this waited.
            if self._run_ended.wait(_LOOK_EVERY_S) and not journal.exists():
                return
        tail = Tail(journal)
        images: Images | None = None
        ended = False
        while not ended and not self._give_up.is_set():
            ended = self._run_ended.wait(_LOOK_EVERY_S)  # asked before the journal is read for the last time
            for image in self._whole_now(tail):
                if self._give_up.is_set():
                    return
                images = images or self._open()
                self._check(image, images)

    def _open(self) -> Images:
        try:
            return Images(self._folder, self.layout)
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot open the images of {self._folder}: {first_sentence(error)}") from error

    def _whole_now(self, tail: Tail) -> list[int]:
        """Read on in the journal; give the images that became whole."""
        whole = []
        while lines := tail.read():
            for line in lines:
                if line["kind"] == "raw":
                    place = Place(*line["at"])
                    waits = bool(self._needed[place.image])
                    self._needed[place.image].discard(place)
                    if waits and not self._needed[place.image]:
                        whole.append(place.image)
        return whole

    def _check(self, image: int, images: Images) -> None:
        n_z = self.layout.images[image].n_z

        def read(channel: str, z: int) -> np.ndarray:
            number = self.layout.channel(channel)
            assert number is not None  # noqa: S101  (the plan was made from the same sequence)
            return images.read(Place(image, 0, number, z))

        planes = np.stack([read(self._plan.input, z) for z in self._plan.planes_of(self._plan.input, n_z)])
        self._checks += [
            check_pair(
                image, target, planes, read(target, n_z // 2), pixel_size_um=self.layout.pixel_size_um, bits=self._bits
            )
            for target in self._plan.targets
        ]
