"""Cell tables of a simulated culture whose truth is known, and class heads that err as often as they are told to."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from scipy.special import ndtr

from livestain.measure.viability_model import STATES
from livestain.simulate._cells import Population
from livestain.simulate._settings import Settings

INTERVAL_S = 600.0
# Rows: truth, columns: taken for. F1 0.95 live, 0.45 injured, 0.8 dead, as the demo's viability model on its test set.
DEMO_CONFUSION = np.array([[955, 35, 10], [300, 500, 200], [40, 100, 860]])


def culture(
    *,
    seed: int = 1,
    hours: float = 24,
    death_rate_per_h: float = 0.02,
    dead_at_start: float = 0.05,
    edge_um: float = 250,
) -> dict[str, Any]:
    """The true table: about 2170 cells/mm2 x edge^2 at the start, a frame every 10 minutes."""
    return dict(_culture(seed, hours, float(death_rate_per_h), dead_at_start, edge_um))


@cache  # several tests look at the same culture
def _culture(seed: int, hours: float, death_rate_per_h: float, dead_at_start: float, edge_um: float) -> dict[str, Any]:
    settings = Settings(seed=seed, death_rate_per_h=death_rate_per_h, dead_at_start=dead_at_start, world_um=edge_um)
    population = Population(settings, edge_um)
    frames = []
    for t in range(round(hours * 3600 / INTERVAL_S) + 1):
        if t:
            population.advance(INTERVAL_S)
        frames.append((t, population.cells.copy()))
    cells = np.concatenate([cells for _, cells in frames])
    t = np.repeat([t for t, _ in frames], [len(cells) for _, cells in frames])
    n = t.size
    table = {
        "position": np.full(n, "A1"),
        "t": t,
        "time_s": t * INTERVAL_S,
        "cell": cells["id"],
        "parent": cells["parent"],
        "state": np.array(STATES)[cells["state"]],
        "dry_mass_pg": cells["mass_pg"].copy(),
        "dry_mass_sd_pg": 0.02 * cells["mass_pg"],
        "x_um": cells["x_um"],
        "y_um": cells["y_um"],
        "at_border": np.zeros(n, bool),
    }
    for column in table.values():
        column.setflags(write=False)
    return table


def classified(
    table: dict[str, Any],
    confusion: np.ndarray = DEMO_CONFUSION,
    *,
    seed: int = 1,
    again: float = 0.7,
    own: float = 0.2,
) -> np.ndarray:
    """What a class head says of each row: (n, 3) probabilities.

    A cell looks healthier or worse than it is by a normal number that is `own` (share of the variance) its for life,
    and otherwise correlates by `again` from frame to frame: errors come in runs, and some cells always look odd.
    """
    rng = np.random.default_rng(seed)
    up_to = np.cumsum(confusion / confusion.sum(axis=1, keepdims=True), axis=1)
    now: dict[int, float] = {}
    always: dict[int, float] = {}
    given = np.empty((table["cell"].size, 3))
    true = np.array([STATES.index(state) for state in table["state"]])
    for row, cell in enumerate(table["cell"].tolist()):  # rows are in order of time
        fresh = rng.normal()
        always.setdefault(cell, rng.normal())
        now[cell] = again * now[cell] + np.sqrt(1 - again**2) * fresh if cell in now else fresh
        worse = ndtr(np.sqrt(own) * always[cell] + np.sqrt(1 - own) * now[cell])
        taken_for = min(int(np.searchsorted(up_to[true[row]], worse)), 2)
        top, split = rng.uniform(0.5, 0.95), rng.uniform()
        given[row] = np.insert([(1 - top) * split, (1 - top) * (1 - split)], taken_for, top)
    return given
