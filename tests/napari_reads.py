"""Opens a run's images with napari's own reader and says what napari would show.

    python -m venv napari-env && napari-env/bin/pip install napari-ome-zarr
    napari-env/bin/python tests/napari_reads.py RUN/images.ome.zarr

It stands alone, in an environment without livestain, because napari is far heavier than what it checks.
"""

from __future__ import annotations

import sys

import numpy as np
from napari_ome_zarr._reader import napari_get_reader


def main(path: str) -> None:
    """Read the images and check names, colours, contrast and scale of the channels."""
    read = napari_get_reader(path)
    assert read is not None, f"napari-ome-zarr does not take {path}"
    data, shown, kind = read(path)[0]
    assert kind == "image"
    assert shown["channel_axis"] == 1
    assert any(name.endswith("(predicted)") for name in shown["name"]), shown["name"]
    assert not any(name.startswith("channel_") for name in shown["name"]), shown["name"]
    assert shown["units"][-2:] == ("micrometer", "micrometer")
    assert shown["scale"][-1] == shown["scale"][-2] != 1, shown["scale"]
    assert all(low < high for low, high in shown["contrast_limits"])
    levels = data if isinstance(data, list) else [data]
    assert np.asarray(levels[0][0]).any(), "the first time point is empty"
    for name, colours, limits in zip(shown["name"], shown["colormap"], shown["contrast_limits"], strict=True):
        top = "".join(f"{round(255 * float(c)):02X}" for c in np.asarray(colours.colors)[-1, :3])
        print(f"{name}: #{top}, shown from {limits[0]:.0f} to {limits[1]:.0f}")
    print(f"scale {shown['scale']} in {shown['units']}")


if __name__ == "__main__":
    main(sys.argv[1])
