"""Opens a run folder in napari itself, without a window, by livestain's own reader, and says what is there.

    python -m venv napari-env && napari-env/bin/pip install napari .
    napari-env/bin/python tests/napari_opens.py RUN

It stands alone, in an environment of its own, because napari is far heavier than what it checks.
"""

from __future__ import annotations

import sys

import npe2
import numpy as np
from napari.components import ViewerModel


def main(run: str) -> None:
    """Open a run that was measured, and check that images, labels and tracks are one scene."""
    npe2.PluginManager.instance().discover()
    viewer = ViewerModel()
    viewer.open(run, plugin="livestain")
    kinds = [type(layer).__name__ for layer in viewer.layers]
    assert kinds.count("Image") >= 2, kinds
    assert kinds[-3:] == ["Labels", "Labels", "Tracks"], kinds
    units = {tuple(map(str, layer.units)) for layer in viewer.layers}
    assert units == {("second", "micrometer", "micrometer")}, units
    assert len({tuple(layer.scale) for layer in viewer.layers}) == 1
    images = viewer.layers[0].data
    assert viewer.dims.nsteps[0] == images.shape[0]
    assert np.asarray(images[images.shape[0] - 1]).any(), "the last time point is empty"
    cells, tracks = np.asarray(viewer.layers["cells"].data[0]), viewer.layers["tracks"].data
    first = tracks[tracks[:, 1] == 0]
    y, x = np.round(first[:, 2:]).astype(int).T
    inside = np.mean(cells[y, x] == first[:, 0])
    assert inside > 0.9, f"only {inside:.0%} of the tracks begin inside their own cell"
    n_tracks, n_daughters = len(np.unique(tracks[:, 0])), len(viewer.layers["tracks"].graph)
    sys.stdout.write(f"napari: {', '.join(layer.name for layer in viewer.layers)}\n")
    sys.stdout.write(f"{n_tracks} tracks, {n_daughters} of them daughters; {inside:.0%} begin inside their cell\n")


if __name__ == "__main__":
    main(sys.argv[1])
