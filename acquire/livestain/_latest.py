"""One slot with the latest prediction: viewers poll it, and can neither slow nor stop the run."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, TypeVar

from livestain._frame import Note, Stained
from livestain._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Latest", "Viewer"]

log = logging.getLogger("livestain")
T = TypeVar("T", bound="Stained | Note")


class Latest:
    """Holds the newest prediction; an older one that nobody looked at is forgotten."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Stained | None = None
        self._count = 0
        self._closed = False

    def show(self, item: T) -> T:
        """Put a prediction into the slot (a note is none) and give it back."""
        if isinstance(item, Stained):
            with self._changed:
                self._item = item
                self._count += 1
                self._changed.notify_all()
        return item

    def newer(self, count: int, timeout_s: float | None = None) -> tuple[int, Stained | None]:
        """Wait for a prediction after the `count`-th.

        Returns
        -------
        tuple
            Its number and the prediction; (count, None) if there is none before the timeout or the end.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._count > count or self._closed, timeout_s)
            return (self._count, self._item) if self._count > count else (count, None)

    def close(self) -> None:
        """Say that no more will come, and let waiting viewers go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the run has ended."""
        return self._closed


class Viewer:
    """Calls a function with the newest prediction, in a thread of its own.

    If the function raises, that is logged once, the viewer is switched off, and the run goes on.
    """

    def __init__(self, latest: Latest, look: Callable[[Stained], None]) -> None:
        self._latest = latest
        self._look = look
        self.trouble: str | None = None
        self._worker = Worker("viewer", self._watch, on_error=self._failed, may_be_left=True)
        self._worker.start()

    def _watch(self) -> None:
        count = 0
        while True:
            count, item = self._latest.newer(count)
            if item is None and self._latest.closed:
                return
            if item is not None:
                self._look(item)

    def _failed(self, error: BaseException) -> None:
        self.trouble = f"the viewer failed and was switched off ({type(error).__name__}: {error}); the run went on."
        log.warning("%s", self.trouble, exc_info=error)

    def close(self, timeout_s: float = 2) -> None:
        """Wait for the function to return, but not for long; the slot must be closed before."""
        if not self._worker.wait(timeout_s):
            self.trouble = f"the viewer did not return within {timeout_s:g} s of the end and was left behind."
            log.warning("%s", self.trouble)
