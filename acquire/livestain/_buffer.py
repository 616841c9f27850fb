"""The bounded hand-over between two threads: it has a depth, a policy, counts, and an end that both sides see."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Buffer", "BufferBroken", "BufferStats"]

T = TypeVar("T")


class BufferBroken(Exception):  # noqa: N818  (a state, seen by the producer; the cause is chained)
    """The consumer has failed; what is put now would never be taken. The consumer's error is the cause."""


@dataclass(frozen=True, slots=True)
class BufferStats:
    """How a buffer has been used so far; `waited_ms` is the total time producers stood before a full buffer."""

    depth: int
    length: int
    peak: int
    accepted: int
    refused: int
    waited_ms: float


class Buffer(Generic[T]):
    """A first-in first-out buffer of at most `depth` items for one consumer and any number of producers.

    `put` waits while the buffer is full, `offer` refuses instead. The consumer calls `take`, which
    gives None after `close` once everything has been taken. A consumer that dies calls `fail`, and every producer,
    waiting or to come, gets `BufferBroken`.
    """

    def __init__(self, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"a buffer needs a depth of at least 1, got {depth}")
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._in_hand = 0  # taken by the consumer and not yet done with
        self._closed = False
        self._error: BaseException | None = None
        self._peak = self._accepted = self._refused = 0
        self._waited_s = 0.0

    def put(self, item: T) -> None:
        """Add an item, waiting for room as long as it takes.

        Raises
        ------
        BufferBroken
            If the consumer failed, before or while waiting.
        """
        with self._changed:
            if len(self._items) >= self._depth and self._error is None:
                start = time.perf_counter()
                self._changed.wait_for(lambda: len(self._items) < self._depth or self._error is not None)
                self._waited_s += time.perf_counter() - start
            self._add(item)

    def offer(self, item: T) -> bool:
        """Add an item if there is room now; say whether it was taken.

        Raises
        ------
        BufferBroken
            If the consumer failed.
        """
        with self._changed:
            if len(self._items) >= self._depth and self._error is None:
                self._refused += 1
                return False
            self._add(item)
            return True

    def _add(self, item: T) -> None:
        if self._error is not None:
            raise BufferBroken(str(self._error)) from self._error
        if self._closed:
            raise RuntimeError("put after close")
        self._items.append(item)
        self._accepted += 1
        self._peak = max(self._peak, len(self._items))
        self._changed.notify_all()

    def take(self, most: int = 1, *, timeout_s: float | None = None) -> list[T] | None:
        """Take between one and `most` items, in order. The items of the last `take` count as done with.

        Returns
        -------
        list or None
            An empty list if `timeout_s` passed without an item; None when the buffer is closed and empty.
        """
        with self._changed:
            self._in_hand = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: bool(self._items) or self._closed, timeout_s)
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._in_hand = len(taken)
            if taken:
                self._changed.notify_all()
            return None if not taken and self._closed else taken

    def close(self) -> None:
        """Say that nothing more will be put. The consumer still gets everything that is in the buffer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Say, as the consumer, that nothing will be taken any more because of `error`."""
        with self._changed:
            self._error = error
            self._in_hand = 0
            self._items.clear()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until the consumer is done with everything that was put before.

        Raises
        ------
        BufferBroken
            If the consumer failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: (not self._items and not self._in_hand) or self._error is not None)
            if self._error is not None:
                raise BufferBroken(str(self._error)) from self._error

    @property
    def stats(self) -> BufferStats:
        """A snapshot of the buffer's counts."""
        with self._changed:
            return BufferStats(
                depth=self._depth,
                length=len(self._items),
                peak=self._peak,
                accepted=self._accepted,
                refused=self._refused,
                waited_ms=self._waited_s * 1e3,
            )
