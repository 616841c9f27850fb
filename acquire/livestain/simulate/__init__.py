"""A simulated microscope: living cells, optics, camera, stages, shutter, channel wheel and SLM.

Load `hardware_configs/simulated.cfg` into a `UniMMCore`, then `microscope(core)` tells the truth about the sample.
`hardware_configs/replay.cfg` plays recorded images through the same engine.
"""

from __future__ import annotations

from livestain.simulate._camera import circular_buffer_mb
from livestain.simulate._cells import Birth
from livestain.simulate._microscope import CELL_TABLE, CHANNELS, Microscope, Truth
from livestain.simulate._scene import ALPHA_UM3_PER_PG, WAVELENGTH_UM
from livestain.simulate._settings import Settings
from livestain.simulate.devices import microscope

__all__ = [
    "ALPHA_UM3_PER_PG",
    "CELL_TABLE",
    "CHANNELS",
    "WAVELENGTH_UM",
    "Birth",
    "Microscope",
    "Settings",
    "Truth",
    "circular_buffer_mb",
    "microscope",
]
