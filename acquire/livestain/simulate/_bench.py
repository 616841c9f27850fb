"""Where the devices of one core meet: the positions they set, and which microscope they belong to.

A Python device is built without knowing its core, so the devices of one core find one another by the order of
the configuration file: the device at the head (`Scope`, or `ReplayCamera`) opens a bench, and every device
built after it in the same thread joins that bench. A device that would join a bench already holding one of
its kind is refused, so two cores can never share one by accident.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field

from livestain._errors import RigError

__all__ = ["Bench", "join_bench", "open_bench"]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Bench:
    """Where stages, wheel, SLM and shutter stand; written by the devices, read at each exposure."""

    x_um: float = 0.0
    y_um: float = 0.0
    z_um: float = 0.0
    channel: str = "BF"
    slm_level: float = 0.0  # mean of the SLM's pixels, 0 to 255
    light_on: bool = True
    microscope: object | None = None
    joined: set[str] = field(default_factory=set)


_building = threading.local()


def open_bench() -> Bench:
    """Start a new bench that devices built from now on in this thread will join."""
    bench = Bench()
    _building.bench = weakref.ref(bench)  # the devices keep it, and so the sample, alive
    return bench


def join_bench(kind: str) -> Bench:
    """Return the bench under construction, with `kind` noted as present.

    Raises
    ------
    RigError
        No head device was loaded before, or the bench has one of this kind already.
    """
    bench: Bench | None = getattr(_building, "bench", lambda: None)()
    if bench is None or kind in bench.joined:
        raise RigError(
            f"A simulated {kind} was loaded without a microscope of its own before it; in the configuration file put "
            "'#py pyDevice,Scope,livestain.simulate.devices,Scope' (or the ReplayCamera) above the other devices."
        )
    bench.joined.add(kind)
    return bench
