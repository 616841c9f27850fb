"""A population of adherent cells on a periodic plane: they crawl, grow, divide, and some die.

One step moves every cell by a persistent random walk (Fuerth 1920: constant speed, heading diffusing with the
persistence time), advances its cell cycle and dry mass (exponential growth, so that a cycle doubles the mass),
and pushes overlapping cells apart. All arrays have one row a cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from livestain.simulate._settings import Settings

__all__ = ["ALIVE", "DEAD", "INJURED", "STATES", "Birth", "Population"]

ALIVE, INJURED, DEAD = 0, 1, 2
STATES = ("alive", "injured", "dead")

BIRTH_MASS_PG = 105.0
AREA_UM2_AT_BIRTH = 230.0
SPEED_UM_PER_S = 16.0 / 3600
PERSISTENCE_S = 45 * 60.0
ROUNDING_S = 45 * 60.0
SPREADING_S = 50 * 60.0
INJURY_S = 60 * 60.0
MASS_LOSS_S = 6 * 3600.0
DETACH_S = 14 * 3600.0
LARGEST_STEP_S = 120.0
TOUCHING = 0.95  # of the sum of two radii: closer than this, cells push each other away
TURNING_S = 2 * 3600.0  # how long a cell's long axis takes to follow its heading
SNAPSHOT_S = 600.0  # how long a cell keeps one drawn shape; shapes change over tens of minutes

CELL = np.dtype(
    [
        ("id", "i8"),
        ("parent", "i8"),
        ("x_um", "f8"),
        ("y_um", "f8"),
        ("heading_rad", "f8"),
        ("axis_rad", "f8"),
        ("mass_pg", "f8"),
        ("phase", "f8"),  # cell-cycle phase, 0 at birth, 1 at division
        ("cycle_s", "f8"),
        ("age_s", "f8"),
        ("state", "i8"),
        ("in_state_s", "f8"),
        ("radius_um", "f8"),
        ("roundness", "f8"),  # 0 spread and flat, 1 a ball
        ("stained", "f8"),  # dead-cell stain taken up, 0 to 1
        ("epoch", "i8"),
        ("drawn", "f8", (6,)),  # radius, roundness, axis, phase, stained, time at the last snapshot
    ]
)


@dataclass(frozen=True, slots=True)
class Birth:
    """One line of the lineage: when a cell came and how it went.

    `end` is "" while the cell is there, then "division" or "detached"; times are in seconds of sample time, NaN for
    what has not come. A cell that was dead at the start died before 0.
    """

    id: int
    parent: int
    born_s: float
    ended_s: float = float("nan")
    end: str = ""
    died_s: float = float("nan")


class Population:
    """Cells on a square of `edge_um`, periodic at its borders."""

    def __init__(self, settings: Settings, edge_um: float) -> None:
        self.edge_um = edge_um
        self.time_s = 0.0
        self.lineage: dict[int, Birth] = {}
        self._rng = np.random.default_rng([settings.seed, 1])
        self._count = round(settings.cells_per_mm2 * edge_um**2 / 1e6)
        self._settings = settings
        self.cells = self._first_cells()
        for _ in range(40):
            self._push_apart()
        self._update_shape()
        self._snapshot(np.ones(len(self.cells), bool))

    def update_settings(self, settings: Settings) -> None:
        """Take over rates (death, cycle length) that may change while the sample lives."""
        self._settings = settings

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, in equal steps of at most two minutes."""
        steps = max(1, int(np.ceil(seconds / LARGEST_STEP_S)))
        for _ in range(steps):
            self._step(seconds / steps)

    # ------------------------------------------------------------------ one step

    def _step(self, dt_s: float) -> None:
        self.time_s += dt_s
        self._crawl(dt_s)
        self._grow(dt_s)
        self._die(dt_s)
        self._divide()
        self._push_apart()
        self._update_shape()
        due = np.floor((self.time_s + self.cells["id"] * 37.0) / SNAPSHOT_S).astype(np.int64)
        self._snapshot(due != self.cells["epoch"])

    def _crawl(self, dt_s: float) -> None:
        c = self.cells
        turn = self._rng.normal(0, np.sqrt(2 * dt_s / PERSISTENCE_S), len(c))
        c["heading_rad"] += np.where(c["state"] == ALIVE, turn, 0)
        c["axis_rad"] += np.where(c["state"] == ALIVE, (c["heading_rad"] - c["axis_rad"]) * dt_s / TURNING_S, 0)
        vigour = np.array([1.0, 0.25, 0.0])[c["state"]] * (1 - c["roundness"])
        way_um = SPEED_UM_PER_S * dt_s * vigour
        jitter_um = self._rng.normal(0, 0.01 * np.sqrt(dt_s), (2, len(c)))
        c["x_um"] = (c["x_um"] + way_um * np.cos(c["heading_rad"]) + jitter_um[0]) % self.edge_um
        c["y_um"] = (c["y_um"] + way_um * np.sin(c["heading_rad"]) + jitter_um[1]) % self.edge_um

    def _grow(self, dt_s: float) -> None:
        c = self.cells
        c["age_s"] += dt_s
        c["in_state_s"] += dt_s
        # Contact inhibition: the cycle slows as the dish fills, and stops at twice the seeded density.
        room = np.clip(2.0 - len(c) / max(self._count, 1), 0, 1)
        progress = np.where(c["state"] == ALIVE, dt_s * room / c["cycle_s"], 0)
        c["phase"] += progress
        c["mass_pg"] *= np.exp(np.log(2) * progress)
        c["mass_pg"] *= np.where(c["state"] == DEAD, np.exp(-dt_s / MASS_LOSS_S), 1)

    def _die(self, dt_s: float) -> None:
        c = self.cells
        chance = 1 - np.exp(-self._settings.death_rate_per_h * dt_s / 3600)
        hit = (c["state"] == ALIVE) & (self._rng.random(len(c)) < chance)
        gone_dead = (c["state"] == INJURED) & (c["in_state_s"] > INJURY_S)
        c["state"][hit] = INJURED
        c["state"][gone_dead] = DEAD
        c["in_state_s"][hit | gone_dead] = 0
        for cell in c["id"][gone_dead].tolist():
            self.lineage[cell] = replace(self.lineage[cell], died_s=self.time_s)
        detached = (c["state"] == DEAD) & (c["in_state_s"] > DETACH_S)
        self._end(c["id"][detached], "detached")
        self.cells = c[~detached]

    def _divide(self) -> None:
        ready = (self.cells["state"] == ALIVE) & (self.cells["phase"] >= 1)
        if not ready.any():
            return
        mothers = self.cells[ready]
        self._end(mothers["id"], "division")
        daughters = np.repeat(mothers, 2)
        side = np.tile([1.0, -1.0], len(mothers))
        axis = daughters["axis_rad"] + np.pi / 2
        apart_um = 0.55 * daughters["radius_um"] * side
        daughters["x_um"] = (daughters["x_um"] + apart_um * np.cos(axis)) % self.edge_um
        daughters["y_um"] = (daughters["y_um"] + apart_um * np.sin(axis)) % self.edge_um
        daughters["heading_rad"] = axis + np.where(side > 0, 0, np.pi)
        daughters["axis_rad"] = daughters["heading_rad"]
        daughters["mass_pg"] /= 2
        daughters["parent"] = daughters["id"]
        daughters["id"] = self._new_ids(daughters["parent"])
        daughters["phase"] -= 1
        daughters["age_s"] = daughters["in_state_s"] = 0
        daughters["cycle_s"] = self._cycles(len(daughters))
        daughters["epoch"] = -1
        self.cells = np.concatenate([self.cells[~ready], daughters])

    def _push_apart(self) -> None:
        c = self.cells
        if len(c) < 2:
            return
        at = np.stack([c["x_um"], c["y_um"]], axis=1)
        reach_um = 2 * TOUCHING * float(c["radius_um"].max())
        pairs = cKDTree(at % self.edge_um, boxsize=np.full(2, self.edge_um)).query_pairs(
            reach_um, output_type="ndarray"
        )
        i, j = pairs[:, 0], pairs[:, 1]
        between = at[j] - at[i]
        between -= self.edge_um * np.round(between / self.edge_um)
        distance = np.maximum(np.hypot(between[:, 0], between[:, 1]), 1e-6)
        overlap = np.maximum(TOUCHING * (c["radius_um"][i] + c["radius_um"][j]) - distance, 0)
        push = (0.15 * overlap / distance)[:, None] * between
        for axis, name in enumerate(("x_um", "y_um")):
            shift = np.bincount(j, push[:, axis], len(c)) - np.bincount(i, push[:, axis], len(c))
            c[name] = (c[name] + shift) % self.edge_um

    def _update_shape(self) -> None:
        c = self.cells
        alive = c["state"] == ALIVE
        to_division_s = (1 - c["phase"]) * c["cycle_s"]
        mitotic = np.clip(1 - to_division_s / ROUNDING_S, 0, 1)
        settling = np.where(c["parent"] > 0, np.clip(1 - c["age_s"] / SPREADING_S, 0, 1), 0)
        dying = np.where(c["state"] == INJURED, 0.7 * np.clip(c["in_state_s"] / INJURY_S, 0, 1), 0.7)
        c["roundness"] = np.where(alive, np.maximum(mitotic, 0.8 * settling), dying)
        # Spread area follows mass^(2/3); a ball of the same volume covers less than half of it.
        area = AREA_UM2_AT_BIRTH * (c["mass_pg"] / BIRTH_MASS_PG) ** (2 / 3) * (1 - 0.55 * c["roundness"])
        c["radius_um"] = np.sqrt(area / np.pi)
        taken = np.array([0.0, 0.35, 1.0])[c["state"]]
        before = np.array([0.0, 0.0, 0.35])[c["state"]]
        c["stained"] = before + (taken - before) * np.clip(c["in_state_s"] / INJURY_S, 0, 1)

    def _snapshot(self, due: np.ndarray) -> None:
        c = self.cells
        names = ("radius_um", "roundness", "axis_rad", "phase", "stained")
        for column, name in enumerate(names):
            c["drawn"][due, column] = c[name][due]
        c["drawn"][due, 5] = self.time_s
        c["epoch"][due] = np.floor((self.time_s + c["id"][due] * 37.0) / SNAPSHOT_S).astype(np.int64)

    # ------------------------------------------------------------------ births and ends

    def _first_cells(self) -> np.ndarray:
        n, rng = self._count, self._rng
        c = np.zeros(n, CELL)
        c["id"] = self._new_ids(np.zeros(n, np.int64))
        side = int(np.ceil(np.sqrt(max(n, 1))))
        grid = rng.permutation(side * side)[:n]
        spacing = self.edge_um / side
        c["x_um"] = (grid % side + rng.uniform(0.1, 0.9, n)) * spacing % self.edge_um
        c["y_um"] = (grid // side + rng.uniform(0.1, 0.9, n)) * spacing % self.edge_um
        c["heading_rad"] = c["axis_rad"] = rng.uniform(0, 2 * np.pi, n)
        # Ages of an exponentially growing culture: density 2 ln2 2^-phase (Powell 1956).
        c["phase"] = np.minimum(-np.log2(1 - rng.random(n) / 2), 0.999)
        c["cycle_s"] = self._cycles(n)
        c["age_s"] = c["phase"] * c["cycle_s"]
        c["mass_pg"] = BIRTH_MASS_PG * rng.lognormal(0, 0.12, n) * 2 ** c["phase"]
        dead = rng.random(n) < self._settings.dead_at_start
        c["state"][dead] = DEAD
        c["in_state_s"] = rng.uniform(0.1, 0.9, n) * DETACH_S
        for cell, died_s in zip(c["id"][dead].tolist(), -c["in_state_s"][dead], strict=True):
            self.lineage[cell] = replace(self.lineage[cell], died_s=float(died_s))
        c["mass_pg"] *= np.where(dead, np.exp(-c["in_state_s"] / MASS_LOSS_S), 1)
        c["radius_um"] = np.sqrt(AREA_UM2_AT_BIRTH / np.pi)
        c["epoch"] = -1
        return c

    def _cycles(self, n: int) -> np.ndarray:
        return 3600 * self._settings.cycle_h * np.clip(self._rng.normal(1, 0.12, n), 0.6, 1.6)

    def _new_ids(self, parents: np.ndarray) -> np.ndarray:
        first = len(self.lineage) + 1
        ids = np.arange(first, first + len(parents))
        for cell, parent in zip(ids.tolist(), parents.tolist(), strict=True):
            self.lineage[cell] = Birth(cell, parent, self.time_s)
        return ids

    def _end(self, ids: np.ndarray, end: str) -> None:
        for cell in ids.tolist():
            self.lineage[cell] = replace(self.lineage[cell], ended_s=self.time_s, end=end)
