"""How these cells move and how steady their sizes look, learnt while tracking: nothing of it is set by hand.

Displacements follow an autoregression of order two, d(t+1) = b1 d(t) + b2 d(t-1): a persistent random walk (Fuerth
1920) seen through noisy positions. b1, b2 and the scatter about the prediction are running estimates over the last
thousand or so links, all cells together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from livestain.measure._sightings import floats_in, floats_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Motion"]

MEMORY = 1500.0  # links that a running estimate remembers
PRIOR = 15.0  # links that the first guess is worth
NORMAL_MEDIAN_R2 = 1.3863  # median of the squared length of a 2D normal vector of unit scatter
NORMAL_MEDIAN_ABS = 0.6745
FIRST_SIZE_SCATTER = np.log([1.15, 1.12, 1.15])  # of area, mass, DNA between two frames
LEAST_SIZE_SCATTER = 0.02
LEAST_SCATTER = 0.03  # of a cell's radius: below it, positions are known too well to be true


class Motion:
    """Running estimates of the cells' motion and of the scatter of positions and sizes."""

    def __init__(self) -> None:
        self.radius_um = 0.0  # 0: no cell seen yet
        self._weight = np.full(5, PRIOR)  # worth in links of: scatter, first scatter, three sizes
        self._log_scatter2 = np.zeros(2)  # log um2: with a velocity, without one
        self._size_scatter = FIRST_SIZE_SCATTER.copy()
        self._moments = np.zeros(5)  # d1.d1, d1.d2, d2.d2, d.d1, d.d2

    def begin(self, area_um2: Floats, at_um: Floats, field_um: tuple[float, float]) -> None:
        """Take first guesses from the size of the cells, once; where no area is known, from how far apart they are."""
        known = area_um2[np.isfinite(area_um2) & (area_um2 > 0)]
        if self.radius_um or not len(at_um):
            return
        if len(known):
            self.radius_um = float(np.sqrt(np.median(known) / np.pi))
        else:
            self.radius_um = 0.3 * float(np.sqrt(field_um[0] * field_um[1] / max(len(at_um), 25)))
        self._log_scatter2[:] = 2 * np.log(0.4 * self.radius_um)
        # A weak belief in standing still, so that two cells do not teach a wild extrapolation.
        self._moments[:] = PRIOR * (0.2 * self.radius_um) ** 2 * np.array([1, 0, 1, 0.2, 0])

    @property
    def scatter_um(self) -> Floats:
        """(2,): scatter per axis of one step about its prediction, for cells with a known velocity and without."""
        return np.maximum(np.exp(0.5 * self._log_scatter2), LEAST_SCATTER * self.radius_um)

    @property
    def size_scatter(self) -> Floats:
        """(3,): scatter of log area, log mass and log DNA from one frame to the next."""
        return np.maximum(self._size_scatter, LEAST_SIZE_SCATTER)

    def predict(self, first_um: Floats, second_um: Floats, steps: NDArray[np.int64]) -> Floats:
        """Return how far cells go in `steps` frames, given their last (n, 2) displacement and the one before.

        NaN stands for a displacement that is not known.
        """
        b1, b2 = self._coefficients()
        d1 = np.nan_to_num(first_um)
        d2 = np.where(np.isnan(second_um), d1, second_um)
        total = np.zeros_like(d1)
        for step in range(int(steps.max(initial=0))):
            d1, d2 = b1 * d1 + b2 * d2, d1
            total += np.where((steps > step)[:, None], d1, 0)
        return total

    def learn_steps(self, went_um: Floats, first_um: Floats, second_um: Floats) -> None:
        """Learn from displacements of one frame: what happened, and the two displacements before (NaN: not known)."""
        one = np.ones(len(went_um), np.int64)
        miss2 = ((went_um - self.predict(first_um, second_um, one)) ** 2).sum(axis=1)
        moving = np.isfinite(first_um[:, 0])
        for which, some in enumerate((moving, ~moving)):
            if some.any():
                seen = np.log(np.median(miss2[some]) / NORMAL_MEDIAN_R2 + 1e-12)
                self._log_scatter2[which] += self._share(which, some.sum()) * (seen - self._log_scatter2[which])
        full = np.isfinite(second_um[:, 0])
        if not full.any():
            return
        d, d1, d2 = went_um[full], first_um[full], second_um[full]
        trust = 1 / (1 + miss2[full] / (8 * self.scatter_um[0] ** 2))  # an odd jump teaches little
        seen = np.array(
            [(trust * (a * b).sum(axis=1)).sum() for a, b in ((d1, d1), (d1, d2), (d2, d2), (d, d1), (d, d2))]
        )
        self._moments = self._moments * np.exp(-full.sum() / MEMORY) + seen

    def learn_sizes(self, change: Floats) -> None:
        """Learn from changes of the (n, 3) log sizes between two frames; NaN where unknown."""
        for which in range(3):
            known = change[np.isfinite(change[:, which]), which]
            if len(known):
                seen = max(float(np.median(np.abs(known))) / NORMAL_MEDIAN_ABS, LEAST_SIZE_SCATTER / 2)
                share = self._share(2 + which, len(known))
                self._size_scatter[which] *= (seen / self._size_scatter[which]) ** share

    def _share(self, which: int, n: float) -> float:
        """Return the weight of `n` new links in the estimate `which`."""
        self._weight[which] = min(self._weight[which] + n, MEMORY + n)
        return float(n / self._weight[which])

    def _coefficients(self) -> tuple[float, float]:
        s11, s12, s22, c1, c2 = self._moments
        det = s11 * s22 - s12**2
        if det <= 1e-9 * s11 * s22 or s11 <= 0:
            return 0.0, 0.0
        b1, b2 = (c1 * s22 - c2 * s12) / det, (c2 * s11 - c1 * s12) / det
        # Never faster than straight on: an explosive autoregression would fling cells out of the field.
        scale = 1 / max(1.0, abs(b1) + abs(b2))
        return float(b1 * scale), float(b2 * scale)

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, fit for JSON."""
        arrays = {name: floats_out(getattr(self, "_" + name)) for name in _ARRAYS}
        return {"radius_um": self.radius_um, **arrays}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Motion:
        """Return the estimates that `state` was taken of."""
        motion = cls()
        motion.radius_um = state["radius_um"]
        for name in _ARRAYS:
            setattr(motion, "_" + name, floats_in(state[name]))
        return motion


_ARRAYS = ("weight", "log_scatter2", "size_scatter", "moments")
