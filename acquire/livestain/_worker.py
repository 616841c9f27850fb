"""A thread with an owner: it carries its error to whoever joins it, and never dies in silence."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Worker"]


class Worker(threading.Thread):
    """Run `work` in a thread of its own.

    If it raises, the error is kept in `error`, and `on_error` is called at once from the thread that failed, so
    that whoever waits for this worker can be woken.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        on_error: Callable[[BaseException], None] | None = None,
        *,
        may_be_left: bool = False,
    ) -> None:
        # The interpreter must not end under a thread that is writing frames; under a viewer's it may.
        super().__init__(name=f"livestain-{name}", daemon=may_be_left)
        self._work = work
        self._on_error = on_error
        self.error: BaseException | None = None
        # Waited for instead of `join`: Ctrl-C within CPython 3.11's `join` marks a running thread as ended.
        self._done = threading.Event()
        self._woken = threading.Event()

    def run(self) -> None:
        """Do the work; called by `start`."""
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  (kept for the owner, who re-raises it)
            self.error = error
            if self._on_error is not None:
                self._on_error(error)
        finally:
            self._done.set()

    def pause(self, timeout_s: float) -> None:
        """Wait within the work, for as long as said or until `wake`."""
        self._woken.wait(timeout_s)

    def wake(self) -> None:
        """End this pause and every later one."""
        self._woken.set()

    @property
    def done(self) -> bool:
        """Whether the work has ended, well or not."""
        return self._done.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the work; say whether it has ended."""
        return self._done.wait(timeout_s)

    def finish(self) -> None:
        """Wait for the end of the work and raise what it raised."""
        self.wait()
        if self.error is not None:
            raise self.error
