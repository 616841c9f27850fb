"""What a frame costs, counted rather than timed: one call of the network, no copy on the way, one commit a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._engine import TappedEngine
from livestain._images import Images
from livestain._journal import Journal
from livestain._reading import load_experiment
from livestain._session import run_experiment
from livestain.runtimes.onnxruntime import OnnxruntimeGraph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from livestain_models.package import Package

FRAMES = 6


def test_a_frame_is_given_to_network_and_disk_where_the_camera_left_it(
    write_experiment: Callable[..., Path], identity_model: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[np.ndarray] = []
    ran: list[tuple[np.ndarray, np.ndarray]] = []
    written: dict[int, list[np.ndarray]] = {0: [], 1: []}
    appended: list[int] = []

    def spy(owner: type, name: str, note: Callable[..., None]) -> None:
        original = getattr(owner, name)

        def noted(self: Any, *given: Any, **more: Any) -> Any:
            found = original(self, *given, **more)
            note(found, *given)
            return found

        monkeypatch.setattr(owner, name, noted)

    experiment = load_experiment(
        write_experiment(
            stains=[{"model": str(identity_model.folder), "channel": "BF"}],
            # Slow enough that each is stained as it comes.
            sequence={"channels": [{"config": "BF", "exposure": 1}], "time_plan": {"interval": 0.3, "loops": FRAMES}},
            # A multiple of every network's grid: other sizes are padded, which is a copy.
            rig={"config": "simulated.cfg", "properties": [["Camera", "Width", 128], ["Camera", "Height", 96]]},
        )
    )

    def ready(_: Any) -> None:  # the network was warmed up by now
        spy(TappedEngine, "_frame", lambda frame, *_: came.append(frame.image))
        spy(OnnxruntimeGraph, "run", lambda _, given, predicted: ran.append((given, predicted)))
        spy(Images, "write", lambda _, place, image: written[place.c].append(image))
        spy(Journal, "append", lambda _, lines: appended.append(1))

    result = run_experiment(experiment, experiment.run_folder("run"), on_ready=ready)
    assert result.stats.stained_live == FRAMES
    assert len(came) == len(ran) == len(written[0]) == len(written[1]) == FRAMES
    for camera, (given, predicted), raw, stain in zip(came, ran, written[0], written[1], strict=True):
        assert np.shares_memory(given, camera)
        assert np.shares_memory(raw, camera)
        assert np.shares_memory(stain, predicted)
    # Header and end beside at most one for each plane; less where planes are committed together.
    assert len(appended) <= 2 * FRAMES + 2
