"""The tap: what failed is named by its own place, one failure is no end, three are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import useq
from pymmcore_plus.core._sequencing import SequencedEvent
from pymmcore_plus.mda import MDAEngine, SkipEvent

from livestain._engine import TappedEngine
from livestain._errors import RigError
from livestain._frame import Place

if TYPE_CHECKING:
    from collections.abc import Iterator


class Core:
    """As much of a core as the engine asks while pymmcore-plus's part of it is replaced."""

    def __init__(self, cameras: int) -> None:
        self._cameras = cameras

    def getAutoShutter(self) -> bool:  # noqa: N802
        return True

    def getNumberOfCameraChannels(self) -> int:  # noqa: N802
        return self._cameras

    def isSequenceRunning(self) -> bool:  # noqa: N802
        return False


class Tap:
    """An engine whose frames and failures are collected."""

    def __init__(self, cameras: int) -> None:
        self.core: Any = Core(cameras)
        self.frames: list[Place] = []
        self.missing: list[tuple[Place, str]] = []

        def place(index: Any) -> Place:
            return Place(0, index.get("t", 0), index.get("cam", 0), index.get("z", 0))

        self.engine = TappedEngine(
            self.core, place, lambda f: self.frames.append(f.place), lambda p, why: self.missing.append((p, why))
        )

    def run(self, event: useq.MDAEvent) -> None:
        for _ in self.engine.exec_event(event):
            pass


@pytest.fixture
def deliver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have pymmcore-plus's engine deliver the given (t, camera) frames, None for a hole, or raise."""

    def make(frames: list[Any], cameras: int = 1) -> Tap:
        tap = Tap(cameras)

        def exec_event(self: MDAEngine, event: useq.MDAEvent) -> Iterator[Any]:
            for item in frames:
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    yield None
                else:
                    t, camera = item
                    yield "image", useq.MDAEvent(index={"t": t, "cam": camera}), {}

        monkeypatch.setattr(MDAEngine, "exec_event", exec_event)
        return tap

    return make


def burst(n: int) -> SequencedEvent:
    return SequencedEvent(events=tuple(useq.MDAEvent(index={"t": t}) for t in range(n)))


def test_what_one_of_two_cameras_lost_is_named_by_its_place(deliver: Any) -> None:
    tap = deliver([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0), None, None], cameras=2)
    tap.run(burst(4))
    assert [place for place, _ in tap.missing] == [Place(0, 2, 1, 0), Place(0, 3, 1, 0)]
    assert "after 6 of 8 frames" in tap.missing[0][1]


def test_a_failed_snap_of_two_cameras_is_two_missing_frames(deliver: Any) -> None:
    tap = deliver([], cameras=2)
    tap.run(useq.MDAEvent(index={"t": 5}))
    assert [place for place, _ in tap.missing] == [Place(0, 5, 0, 0), Place(0, 5, 1, 0)]


def test_a_driver_that_raises_ends_its_event_and_not_the_run(deliver: Any) -> None:
    tap = deliver([(0, 0), RuntimeError("cable")])
    tap.run(burst(500))
    assert len(tap.missing) == 499
    assert "RuntimeError: cable" in tap.missing[0][1]


def test_three_events_in_a_row_end_it_and_a_good_one_between_does_not(deliver: Any) -> None:
    tap = deliver([RuntimeError("no light")])
    event = useq.MDAEvent(index={"t": 0})
    tap.run(event)
    tap.run(event)
    tap.engine._failed(event, {Place(0, 0, 0, 0)}, "")  # a frame came
    tap.run(event)
    tap.run(event)
    with pytest.raises(RigError, match=r"3 events in a row failed.*no light"):
        tap.run(event)


def test_a_stage_that_raises_skips_its_event(deliver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tap = deliver([])

    def setup(self: MDAEngine, event: useq.MDAEvent) -> None:
        raise RuntimeError("z drive: limit")

    monkeypatch.setattr(MDAEngine, "setup_event", setup)
    with pytest.raises(SkipEvent, match="limit"):
        tap.engine.setup_event(burst(5))
    assert len(tap.missing) == 5


def test_an_autofocus_that_fails_loses_no_frame(deliver: Any) -> None:
    tap = deliver([])
    tap.run(useq.MDAEvent(index={"t": 0}, action=useq.HardwareAutofocus()))
    assert tap.missing == []


def test_an_overflow_is_never_swallowed(deliver: Any) -> None:
    tap = deliver([(0, 0), MemoryError("Buffer overflowed")])
    with pytest.raises(MemoryError):
        tap.run(burst(3))
