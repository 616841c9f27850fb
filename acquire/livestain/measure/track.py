"""The online tracker: detections of one time point after another in, finished time points out, three behind.

On each time point: the stage's drift is taken out, every cell's place predicted, and the likeliest set of links, splits
and mergers chosen. A cell may be missing for two time points. What a split was is decided three time points later,
when that time point leaves the window; until then everything in the window may still change.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from livestain._errors import LivestainError
from livestain.measure import _divisions, _tracks
from livestain.measure._assign import choose, match
from livestain.measure._gains import link_gains
from livestain.measure._motion import Motion
from livestain.measure._scene import expected, scene_of
from livestain.measure._sightings import MERGED, ONCE, Detections, Finished
from livestain.measure._splits import late_splits, mergers, splits
from livestain.measure._tracks import MOTHER, NONE
from livestain.measure._window import Page, Window
from livestain.measure.drift import common_shift

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livestain.measure._scene import Scene

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["Detections", "Finished", "Tracker", "Tracking"]


@dataclass(frozen=True, slots=True)
class Tracking:
    """What may be set. Distances are not here: they come from the cells' sizes and motion.

    Attributes
    ----------
    longest_gap
        Time points in a row that a cell may be missing, at most 2.
    lag
        Time points that a split is watched for, and that finished time points are behind; more than `longest_gap`.
    correct_drift
        Whether a common shift of all cells is taken for the stage's.
    """

    longest_gap: int = 2
    lag: int = 3
    correct_drift: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.longest_gap <= 2 or not self.longest_gap < self.lag <= 10:
            raise LivestainError(
                f"Tracking was asked for longest_gap {self.longest_gap} and lag {self.lag}; gaps are of 0 to 2 time "
                "points, and the lag is larger than the gap and at most 10."
            )


class Tracker:
    """Follows the cells of one position.

    Parameters
    ----------
    settings
        See `Tracking`; the defaults need no tuning.
    height_um, width_um
        Size of the field.
    """

    def __init__(self, settings: Tracking, height_um: float, width_um: float) -> None:
        if not (0 < height_um < np.inf and 0 < width_um < np.inf):
            raise LivestainError(f"The field is {height_um} x {width_um} um; tracking needs its size in um.")
        self._settings = settings
        self._field_um = (float(height_um), float(width_um))
        self._motion = Motion()
        self._tracks = np.zeros(0, _tracks.TRACK)
        self._window = Window()
        self._next_id = 1
        self._t: int | None = None
        self._drift_um = np.zeros(2)  # of the stage, since the beginning
        self._last_shift_um = np.zeros(2)

    def add(self, detections: Detections) -> list[Finished]:
        """Take the next time point; returns the time points that are final now, in order.

        Raises
        ------
        LivestainError
            The time point is not later than the last one.
        """
        if self._t is not None and detections.t <= self._t:
            raise LivestainError(
                f"Time point {detections.t} came after {self._t}; give the time points of one position in order, once."
            )
        first = detections.t if self._t is None else self._t + 1
        done = []
        # After `lag` missing time points nothing is left to follow or to finish: the rest need no pages.
        for t in range(first, min(detections.t, first + self._settings.lag + 1)):
            done += self._step(Detections.none(t), observed=False)
        return done + self._step(detections, observed=True)

    def finish(self) -> list[Finished]:
        """Return the rest, once no more time points come."""
        self._judge_splits(due=None)
        done = [self._window.close(self._field_um) for _ in range(len(self._window.pages))]
        self._tracks = self._tracks[:0]
        return [finished for finished in done if finished is not None]

    # ------------------------------------------------------------------ one time point

    def _step(self, found: Detections, *, observed: bool) -> list[Finished]:
        self._t = found.t
        self._motion.begin(found.area_um2, found.at_um, self._field_um)
        place, scatter = expected(self._tracks, self._motion, found.t)
        self._correct_drift(place, scatter, found)
        page = self._window.open(found, self._drift_um, observed=observed)
        if len(found):
            scene = scene_of(self._tracks, place, scatter, found, self._drift_um, self._motion, self._field_um)
            self._connect(scene, page)
        self._judge_splits(due=found.t - self._settings.lag)
        self._let_go(found.t)
        if len(self._window.pages) <= self._settings.lag:
            return []
        finished = self._window.close(self._field_um)
        self._window.forget(self._tracks["id"])
        return [] if finished is None else [finished]

    def _correct_drift(self, place_um: Floats, scatter_um: Floats, found: Detections) -> None:
        if not self._settings.correct_drift or not len(found) or not len(place_um):
            return
        near_um = max(2 * float(np.median(scatter_um)), 0.5 * self._motion.radius_um)
        shift = common_shift(
            place_um + self._drift_um, found.at_um, near_um, self._last_shift_um, *self._field_um
        )  # fmt: skip
        self._window.spread_drift(self._drift_um, self._drift_um + shift)
        self._drift_um = self._drift_um + shift
        self._last_shift_um = shift

    def _connect(self, scene: Scene, page: Page) -> None:
        """Choose who is who, and bring tracks and page up to date."""
        links = link_gains(scene)
        taken = match(links)
        # A link far below the usual may be a missing cell that took a daughter, or half of a blob: it is in question.
        sure = taken & (links.gain > 0.6 * np.median(links.gain[taken])) if taken.any() else taken
        n_tracks, n_segments = len(self._tracks), len(scene.found_um)
        sure_tracks = np.isin(np.arange(n_tracks), links.track[sure])
        events = splits(scene, np.isin(np.arange(n_segments), links.segment[sure]), sure_tracks)
        events += mergers(scene, sure_tracks)
        taken, chosen = choose(links, events, taken, n_tracks, n_segments)
        ids = self._tracks["id"].copy()
        self._follow(links.track[taken], links.segment[taken], scene, page)
        for event in chosen:
            cells = [int(ids[track]) for track in event.tracks]
            if len(event.tracks) == 1:
                self._split(cells[0], event.tracks[0], event.segments, scene, page)
            else:
                self._merge(cells, event.segments[0], scene, page)
        self._uncover(page)
        self._begin(np.flatnonzero(page.owner == 0), scene, page)
        self._split_late(scene, page)

    def _follow(self, rows: Ints, segments: Ints, scene: Scene, page: Page) -> None:
        """Add a sighting to each of the tracks `rows`, and learn from it."""
        tracks, found, t = self._tracks, page.detections, page.detections.t
        at_um, log_sizes = scene.found_um[segments], scene.found_sizes[segments]
        steady = rows[tracks["seen"][rows] == t - 1]
        if len(steady):
            of = segments[tracks["seen"][rows] == t - 1]
            went = scene.found_um[of] - tracks["past"][steady, 0, 1:3]
            self._motion.learn_steps(went, _tracks.step_back(tracks[steady], 0), _tracks.step_back(tracks[steady], 1))
            whole = ~(found.at_border[of] | tracks["border"][steady])
            self._motion.learn_sizes((scene.found_sizes[of] - scene.sizes[steady])[whole])
        for row, at in zip(rows[tracks["seen"][rows] < t - 1], at_um[tracks["seen"][rows] < t - 1], strict=True):
            self._bridge(int(row), t, at)
        _tracks.extend(tracks, rows, t, at_um, log_sizes, found.alive[segments], found.at_border[segments])
        page.owner[segments] = tracks["id"][rows]

    def _bridge(self, row: int, t: int, at_um: Floats) -> None:
        """Fill the gap between a track's last sighting and its new one."""
        track = self._tracks[row]
        self._window.bridge(int(track["id"]), int(track["seen"]), track["past"][0, 1:3], t, at_um)

    def _begin(self, segments: Ints, scene: Scene, page: Page) -> None:
        """Begin a track for each of `segments`."""
        found = page.detections
        ids = np.arange(self._next_id, self._next_id + len(segments))
        self._next_id += len(segments)
        new = _tracks.new_tracks(
            ids, found.t, scene.found_um[segments], scene.found_sizes[segments], found.alive[segments],
            found.at_border[segments],
        )  # fmt: skip
        if not np.isnan(scene.usual[0]):
            # It may be round just now: a mother seen for the first time is not taken for a small cell.
            new["spread"] = np.fmax(new["spread"], scene.usual[0])
        if not len(self._tracks) and self._next_id == len(segments) + 1:
            new["sightings"] = 2  # what is there from the beginning is no debris: it did not just come up
        self._tracks = np.concatenate([self._tracks, new])
        page.owner[segments] = ids
        self._window.parents.update(dict.fromkeys(ids.tolist(), 0))

    # ------------------------------------------------------------------ splits and mergers

    def _split(self, cell: int, scene_row: int, segments: tuple[int, ...], scene: Scene, page: Page) -> None:
        """Let `cell` go on as one of two segments, with the other one as a track of its own, until more is known."""
        row, found = _tracks.row_of(self._tracks, cell), page.detections
        near = np.argsort(((scene.found_um[list(segments)] - scene.expected_um[scene_row]) ** 2).sum(axis=1))
        one, other = (np.array([segments[k]]) for k in near)
        if self._tracks["role"][row] == MOTHER:
            self._tracks = _divisions.reunite(self._tracks, self._window, row, keep=row)
            row = _tracks.row_of(self._tracks, cell)
        self._bridge(row, found.t, scene.found_um[list(segments)].mean(axis=0))
        _tracks.extend(
            self._tracks, np.array([row]), found.t, scene.found_um[one], scene.found_sizes[one], found.alive[one],
            found.at_border[one],
        )  # fmt: skip
        page.owner[one] = cell
        self._begin(other, scene, page)
        daughter = len(self._tracks) - 1
        if _divisions.halved_before(self._tracks[row], self._tracks[daughter]):
            self._open_late(row, daughter, 2)
        elif hidden := _divisions.under_one_outline(self._tracks[row]):
            self._open_hidden(row, daughter, hidden)
        else:
            _divisions.open_split(self._tracks, row, daughter, found.t, 1)

    def _open_late(self, row: int, daughter: int, since: int) -> None:
        """Open a split `since` sightings ago, of which the row `daughter` was seen only now."""
        past, cell = self._tracks["past"][row].copy(), self._tracks[daughter]
        split_t = int(past[since - 1, 0])
        self._window.bridge(
            int(cell["id"]), split_t - 1, past[since, 1:3], int(cell["seen"]), cell["past"][0, 1:3].copy()
        )
        _divisions.open_split(self._tracks, row, daughter, split_t, since)

    def _open_hidden(self, row: int, daughter: int, hidden: int) -> None:
        """Open a split `hidden` sightings before this one, at which both lay under one outline."""
        tracks = self._tracks
        past, t = tracks["past"][row].copy(), int(tracks["seen"][row])
        split_t, place = int(past[hidden, 0]), past[hidden + 1, 1:3].copy()
        if split_t < self._window.pages[0].detections.t:  # written already
            _divisions.open_split(tracks, row, daughter, t, 1)
            return
        self._window.drop(int(tracks["id"][row]), split_t, MERGED, before=t)
        tracks["past"][row, 1:] = np.nan
        tracks["past"][row, 1:-hidden] = past[hidden + 1 :]
        tracks["since"][row] -= hidden
        for one in (row, daughter):
            self._window.bridge(int(tracks["id"][one]), split_t - 1, place, t, tracks["past"][one, 0, 1:3].copy())
        _divisions.open_split(tracks, row, daughter, split_t, 1)

    def _split_late(self, scene: Scene, page: Page) -> None:
        """Open splits whose second daughter was not found until now."""
        for late in late_splits(scene, self._tracks, self._motion, page.owner, page.detections.t):
            daughter = _tracks.row_of(self._tracks, int(page.owner[late.segment]))
            self._open_late(late.row, daughter, late.since)

    def _merge(self, cells: list[int], segment: int, scene: Scene, page: Page) -> None:
        """Two tracks lie under one segment: pieces that are whole again, or cells that wait until they are apart."""
        # A split of this time point may have taken back one of them as a piece of its cell.
        cells = [cell for cell in cells if _tracks.row_of(self._tracks, cell) >= 0]
        if not cells:
            return
        rows = [_tracks.row_of(self._tracks, cell) for cell in cells]
        whole = self._made_whole(rows) if len(rows) == 2 else cells[0]
        if whole:
            row, one, found = _tracks.row_of(self._tracks, whole), np.array([segment]), page.detections
            self._bridge(row, found.t, scene.found_um[segment])
            _tracks.extend(
                self._tracks, np.array([row]), found.t, scene.found_um[one], scene.found_sizes[one], found.alive[one],
                found.at_border[one],
            )  # fmt: skip
            page.owner[segment] = whole
            return
        self._begin(np.array([segment]), scene, page)
        self._tracks["made_of"][-1] = cells
        self._tracks["blob"][rows] = self._tracks["id"][-1]

    def _made_whole(self, rows: list[int]) -> int:
        """Join two tracks that are pieces of one cell, and return its number; 0 if they are two cells."""
        pair = self._tracks[rows]
        if (pair["sibling"] == pair["id"][::-1]).all():
            mother = rows[int(np.argmax(pair["role"] == MOTHER))]
            cell = int(self._tracks["id"][mother])
            self._tracks = _divisions.reunite(self._tracks, self._window, mother, keep=mother)
            return cell
        # What came up a frame or two ago beside a cell, and is now one with it, was a piece of it.
        young = (pair["sightings"] <= 2) & (pair["role"] == NONE) & ~pair["border"] & (pair["parent"] == 0)
        young &= ~pair["made_of"].any(axis=1)
        if young.sum() != 1 or self._window.pages[0].detections.t > pair["born"][young][0]:
            return 0
        piece, cell = int(pair["id"][young][0]), int(pair["id"][~young][0])
        self._window.rename(piece, cell, int(pair["born"][young][0]))
        _divisions.join_piece(self._tracks, *(rows[int(np.argmax(young == y))] for y in (False, True)))
        self._tracks = np.delete(self._tracks, rows[int(np.argmax(young))])
        return cell

    def _uncover(self, page: Page) -> None:
        """Give up outlines around two cells of which one has been found by itself again."""
        tracks, t = self._tracks, page.detections.t
        out = (tracks["blob"] > 0) & (tracks["seen"] == t)
        blobs = np.unique(tracks["blob"][out])
        tracks["blob"][out] = 0
        for blob in blobs.tolist():
            row = _tracks.row_of(self._tracks, blob)
            if row >= 0 and self._tracks["seen"][row] < t and self._tracks["role"][row] == 0:
                self._window.drop(blob, int(self._tracks["born"][row]), MERGED)
                self._tracks = np.delete(self._tracks, row)

    def _judge_splits(self, due: int | None) -> None:
        """Close the splits of time point `due` and before; all of them without `due`."""
        while True:
            open_ = self._tracks["role"] == MOTHER
            rows = np.flatnonzero(open_ if due is None else open_ & (self._tracks["split_t"] <= due))
            if not len(rows):
                return
            self._tracks, self._next_id = _divisions.judge(self._tracks, self._window, int(rows[0]), self._next_id)

    def _let_go(self, t: int) -> None:
        """End the tracks that were missed for too long."""
        while True:
            lost = t - self._tracks["seen"] > self._settings.longest_gap
            split = np.flatnonzero(lost & (self._tracks["role"] != 0))
            if not len(split):
                break
            row = self._tracks[split[0]]
            mother = int(split[0]) if row["role"] == MOTHER else _tracks.row_of(self._tracks, int(row["sibling"]))
            self._tracks, self._next_id = _divisions.judge(self._tracks, self._window, mother, self._next_id)
        once = lost & (self._tracks["sightings"] == 1) & ~self._tracks["border"]
        for track in self._tracks[once]:
            self._window.drop(int(track["id"]), int(track["born"]), ONCE)
        self._tracks = self._tracks[~lost]

    # ------------------------------------------------------------------ stopping and going on

    def state(self) -> dict[str, Any]:
        """Return everything that `from_state` needs to go on with the same result, fit for JSON."""
        return {
            "version": 2,
            "settings": asdict(self._settings),
            "field_um": list(self._field_um),
            "motion": self._motion.state(),
            "tracks": _tracks.state(self._tracks),
            "window": self._window.state(),
            "next_id": self._next_id,
            "t": self._t,
            "drift_um": self._drift_um.tolist(),
            "last_shift_um": self._last_shift_um.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Tracker:
        """Return a tracker that goes on where `state` was taken, with the same cells and the same bits."""
        if state.get("version") != 2:
            raise LivestainError(
                f"The tracker's saved state has version {state.get('version')}, not 2; another version of livestain "
                "wrote it. Measure the run again from the start."
            )
        tracker = cls(Tracking(**state["settings"]), *state["field_um"])
        tracker._motion = Motion.from_state(state["motion"])
        tracker._tracks = _tracks.from_state(state["tracks"])
        tracker._window = Window.from_state(state["window"])
        tracker._next_id, tracker._t = state["next_id"], state["t"]
        tracker._drift_um = np.array(state["drift_um"], np.float64)
        tracker._last_shift_um = np.array(state["last_shift_um"], np.float64)
        return tracker
