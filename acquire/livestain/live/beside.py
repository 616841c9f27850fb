"""The page's process beside a run: it may fail, and the run goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livestain._errors import LivestainError
from livestain._journal import JOURNAL_NAME
from livestain._priority import other_process_last
from livestain.live.serve import serve, step_back
from livestain.live.server import need_extra

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["ViewProcess"]

_LOOK_FOR_RUN_S = 0.2
_END_WITHIN_S = 5


class ViewProcess:
    """The page in a process of its own, beside a run: it may fail, and the run goes on.

    It ends with this process, however that ends. It is not ended by Ctrl-C in the terminal, which asks the run to end:
    the page shows that end.

    Parameters
    ----------
    folder
        The run folder; it need not be there yet.
    on_address
        Called in a thread of its own with the page's address, once it can be opened; or with why there is no page.

    Raises
    ------
    LivestainError
        If the extra `view` is missing.
    """

    def __init__(self, folder: Path, on_address: Callable[[str], None]) -> None:
        need_extra()
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "livestain.live.beside", str(folder)]
        self._process: subprocess.Popen[str] = subprocess.Popen(  # noqa: S603  (our own command)
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **_own_group()
        )
        other_process_last(self._process.pid)  # before it does so itself: its start would take time from the run's
        self._on_address = on_address
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def _tell(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        assert self._process.stderr is not None  # noqa: S101
        for line in self._process.stdout:
            if line.startswith("http://"):
                self._on_address(line.strip())
                return
        if said := self._process.stderr.read().strip():
            self._on_address(f"there is no page: {said}")

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End the page, and wait for its end."""
        assert self._process.stdin is not None  # noqa: S101
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(_END_WITHIN_S)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    def __enter__(self) -> ViewProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _own_group() -> dict[str, Any]:
    """Say how to start a process that Ctrl-C in this terminal does not reach."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
    return {"start_new_session": True}


def _main() -> None:
    """Wait until there is a run in the folder, and serve it until the standard input ends."""
    step_back()
    folder, stop = Path(sys.argv[1]), threading.Event()
    threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    while not (folder / JOURNAL_NAME).is_file():
        if stop.wait(_LOOK_FOR_RUN_S):
            return
    try:
        serve(folder, stop=stop, on_address=_say)
    except LivestainError as error:
        sys.exit(str(error))


def _say(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


def _wait_for_end_of_input(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin.read: its lock would be held as the interpreter ends
        pass
    stop.set()


if __name__ == "__main__":
    _main()
