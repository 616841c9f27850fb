"""Gets a model ready for a camera before the day of the experiment, and says what a frame will cost here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from livestain._prepare import open_model
from livestain_models.package import load_package
from livestain_models.runtime import engine_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livestain._experiment import Stain

__all__ = ["Warmed", "warm_up"]

_FRAMES = 7


@dataclass(frozen=True, slots=True)
class Warmed:
    """A model that ran on this machine.

    Attributes
    ----------
    model
        Name, version and hash.
    provider
        What ran it.
    ready_s
        From opening to the first frame that costs no more than any other; for TensorRT that builds an engine, once.
    host_to_host_ms, net_ms
        Median of a few frames: planes in memory to stains in memory, and the network's share.
    engines
        Where TensorRT keeps what it has built; None elsewhere.
    """

    model: str
    provider: str
    ready_s: float
    host_to_host_ms: float
    net_ms: float
    engines: Path | None


def warm_up(stain: Stain, height: int, width: int, on_opened: Callable[[str], None] = lambda _: None) -> Warmed:
    """Open a model as a run would, run frames of the camera's size, and let it go again.

    Parameters
    ----------
    stain
        Model, precision, provider; the channel does not matter.
    height, width
        Of the camera's frames, in pixels.
    on_opened
        Is told the model's fingerprint before the long part begins.

    Raises
    ------
    ModelError
        There is no such model or provider, or the model does not run at this size.
    """
    package = load_package(stain.model, stain.precision)
    on_opened(package.fingerprint)
    started_s = time.perf_counter()
    model = open_model(stain, package, height, width)
    ready_s = time.perf_counter() - started_s
    try:
        # A ramp and not a constant: a package made elsewhere may divide by the spread of the frame.
        ramp = (np.arange(height * width, dtype=np.uint32) % 250).astype(np.uint16).reshape(1, height, width)
        planes = np.repeat(ramp, package.contract.planes.count, 0)
        taken = [model.predict(planes) for _ in range(_FRAMES)]
    finally:
        model.close()
    built = model.provider == "TensorrtExecutionProvider"
    return Warmed(
        package.fingerprint,
        model.provider,
        ready_s,
        median(p.host_to_host_ms for p in taken),
        median(p.net_ms for p in taken),
        engine_folder(package.weights.read_bytes()) if built else None,
    )
