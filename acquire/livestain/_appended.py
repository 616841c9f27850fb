"""A file that only ever grows by whole pieces: what a full disk or a lost drive leaves of one is taken back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from livestain._errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Appended"]


class Appended:
    """The file under a journal or a table. One piece is one write, so a kill tears at most the last piece.

    Parameters
    ----------
    path
        Is made if it is not there.
    what
        What messages call it: "the journal".
    when_torn
        What to do if it ends in half a piece that could not be taken back.

    Raises
    ------
    StoreError
        If the file cannot be opened.
    """

    def __init__(self, path: Path, *, what: str, when_torn: str) -> None:
        self._named, self._when_torn = f"{what} {path}", when_torn
        self._torn = False
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            self._refuse("write", error)

    def _add(self, data: bytes, *, sync: bool) -> None:
        """Write a piece, whole, or raise."""
        if self._torn:
            raise StoreError(f"{self._named} ends in half of what was written last: {self._when_torn}")
        before = os.fstat(self._file.fileno()).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) or 0 :]
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            self._take_back(before)
            self._refuse("write", error)

    def _take_back(self, size: int) -> None:
        # Half a piece, with the next one appended to it, would be something that nobody can read.
        try:
            self._file.truncate(size)
        except OSError:
            self._torn = True

    def _shorten(self, size: int) -> None:
        try:
            self._file.truncate(size)
        except OSError as error:
            self._refuse("shorten", error)

    def close(self) -> None:
        """Sync and close.

        Raises
        ------
        StoreError
            If the drive refuses; the file is closed all the same.
        """
        if self._file.closed:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._refuse("sync", error)
        finally:
            self._file.close()

    def _refuse(self, verb: str, error: OSError) -> NoReturn:
        raise StoreError(f"cannot {verb} {self._named}: {error.strerror or error}.") from error
