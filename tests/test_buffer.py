"""The bounded buffer: order, depth, refusal, the end and the failure of either side."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestain._buffer import Buffer, BufferBroken
from livestain._worker import Worker


@given(items=st.lists(st.integers(), max_size=60), depth=st.integers(1, 8), most=st.integers(1, 5))
def test_everything_put_is_taken_once_and_in_order(items: list[int], depth: int, most: int) -> None:
    buffer: Buffer[int] = Buffer(depth)
    taken: list[int] = []

    def consume() -> None:
        while (batch := buffer.take(most)) is not None:
            assert len(batch) <= most
            taken.extend(batch)

    consumer = Worker("consumer", consume)
    consumer.start()
    for item in items:
        buffer.put(item)
    buffer.flush()
    assert taken == items
    buffer.close()
    consumer.finish()
    assert buffer.stats.peak <= depth
    assert buffer.stats.accepted == len(items)


def test_offer_refuses_when_full_and_counts() -> None:
    buffer: Buffer[int] = Buffer(2)
    assert [buffer.offer(i) for i in range(4)] == [True, True, False, False]
    assert buffer.stats.refused == 2
    assert buffer.take(9) == [0, 1]
    assert buffer.offer(5)


def test_put_waits_for_room() -> None:
    buffer: Buffer[int] = Buffer(1)
    buffer.put(1)
    producer = Worker("producer", lambda: buffer.put(2))
    producer.start()
    assert buffer.take() == [1]
    producer.finish()
    assert buffer.take() == [2]


def test_take_ends_after_close_and_not_before_all_is_taken() -> None:
    buffer: Buffer[int] = Buffer(3)
    buffer.put(1)
    buffer.close()
    assert buffer.take() == [1]
    assert buffer.take() is None
    with pytest.raises(RuntimeError, match="after close"):
        buffer.put(2)


def test_take_with_a_timeout_gives_nothing_but_is_not_the_end() -> None:
    assert Buffer[int](1).take(timeout_s=0.01) == []


def test_a_failed_consumer_wakes_and_refuses_every_producer() -> None:
    buffer: Buffer[int] = Buffer(1)
    buffer.put(1)
    waiting = Worker("producer", lambda: buffer.put(2))
    waiting.start()
    buffer.fail(OSError("disk full"))
    with pytest.raises(BufferBroken, match="disk full") as broken:
        waiting.finish()
    assert isinstance(broken.value.__cause__, OSError)
    for act in (lambda: buffer.put(3), lambda: buffer.offer(3), buffer.flush):
        with pytest.raises(BufferBroken, match="disk full"):
            act()


def test_a_depth_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        Buffer(0)


def test_a_worker_carries_its_error_to_its_owner_and_calls_at_once() -> None:
    called = threading.Event()

    def fail() -> None:
        raise KeyError("lost")

    worker = Worker("failing", fail, on_error=lambda _: called.set())
    worker.start()
    assert called.wait(5)
    with pytest.raises(KeyError, match="lost"):
        worker.finish()
