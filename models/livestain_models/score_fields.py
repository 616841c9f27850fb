"""Scores a model on held-out fields, beside a copy of its input and the mean of the stain."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from livestain_models._errors import DataError
from livestain_models.bootstrap import Estimate, estimate, mean_estimate
from livestain_models.calibration import calibration
from livestain_models.ceiling import noise_ceiling
from livestain_models.micro_ssim import SampledField, fit_micro_ssim, micro_ssim, sample_field
from livestain_models.objects import score_objects, segment, segment_map, typical_diameter_um
from livestain_models.score import nrmse, pearson, psnr, ssim
from livestain_models.spectrum import ring_correlation
from livestain_models.table import CEILING, COPIED, MEAN, MODEL, SCORES, Row, Table
from livestain_models.viability_score import ViabilityCounts, ViabilityScores, count_viability, score_viability

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from livestain_models.contract import Output

__all__ = ["Scored", "copied_input", "score_fields"]

VIABILITY = "Viability"
_DRAWS_OF_COUNTS = 200  # each sums up the counts of all fields
_CLASS_NAMES = ("live", "injured", "dead")
Values = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Scored:
    """A held-out field with its prediction.

    Parameters
    ----------
    name : str
        Of the field.
    input : np.ndarray
        (P, H, W), transmitted-light planes.
    predicted : np.ndarray
        (C, H, W) in the target's unit, the outputs in the contract's order.
    real : np.ndarray
        (C, H, W) in the same unit; the planes of deviations and classes are not looked at.
    place : str
        Fields of one place show the same cells at other times; the name if not given.
    classes : np.ndarray or None
        (H, W) integers: 0 background, 1 live, 2 injured, 3 dead.
    cells : dict of str to np.ndarray
        (H, W) integer labels of the real cells, by the stain's name, where there are any; they replace the
        segmentation of the real stain. Key "Viability": nuclei for the classes.
    noise_variance : dict of str to float
        Mean noise variance of the real stain by its name, in its unit squared, where it is known.
    """

    name: str
    input: np.ndarray
    predicted: np.ndarray
    real: np.ndarray
    place: str = ""
    classes: np.ndarray | None = None
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)
    noise_variance: Mapping[str, float] = field(default_factory=dict)


def score_fields(
    fields: Iterable[Scored],
    pixel_size_um: float,
    outputs: Sequence[Output],
    *,
    cells: Sequence[str] | None = None,
    diameter_um: float | None = None,
    level: float = 0.95,
) -> Table:
    """Score a model.

    Stains are scored by pixels and by cells, deviations as error bars of their stain, distances by pixels and by the
    objects found in them, classes as viability. Means over fields, with intervals from resampled places, always the
    same draws; the classes' counts are summed over fields instead.

    Parameters
    ----------
    fields : iterable of Scored
        Taken one after the other; about 3 MB of each field and output is kept.
    pixel_size_um : float
        In the sample.
    outputs : sequence of Output
        The contract's.
    cells : sequence of str, optional
        Stains that show separate cells or nuclei, and are scored by them; None: all stains.
    diameter_um : float, optional
        Of a typical cell; without it, measured on each real image.
    level : float
        Of the intervals.

    Raises
    ------
    DataError
        No field, or a field that does not fit the outputs.
    """
    book = _Book(pixel_size_um, tuple(outputs), None if cells is None else tuple(cells), diameter_um)
    for one in fields:
        book.enter(one)
    if not book.names:
        raise DataError("There is no field to score. Keep one at least for the test (data.split.test of the recipe).")
    return book.close(level)


def copied_input(planes: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Take the plane that explains the stain best after a straight line a*x + b; an inverted copy counts too.

    Parameters
    ----------
    planes : np.ndarray
        (P, H, W).
    real : np.ndarray
        (H, W).

    Returns
    -------
    np.ndarray
        (H, W) float64 in the stain's unit.
    """
    best = planes[int(np.argmax([abs(pearson(plane, real)) for plane in planes]))].astype(np.float64)
    truth = real.astype(np.float64)
    slope = float(((best - best.mean()) * (truth - truth.mean())).mean() / (best.var() or 1.0))
    return np.asarray(truth.mean() + slope * (best - best.mean()))


class _Book:
    """What is kept while fields pass."""

    def __init__(
        self,
        pixel_size_um: float,
        outputs: tuple[Output, ...],
        cells: tuple[str, ...] | None,
        diameter_um: float | None,
    ) -> None:
        self.pixel_size_um, self.outputs, self.diameter_um = pixel_size_um, outputs, diameter_um
        stains = tuple(output.name for output in outputs if output.kind == "stain")
        self.cells = stains if cells is None else cells
        if unknown := set(self.cells) - set(stains):
            raise DataError(f"Cells are wanted of {sorted(unknown)}; the stains are {list(stains)}.")
        self.names: list[str] = []
        self.places: list[str] = []
        self.values: dict[tuple[str, str], Values] = defaultdict(lambda: defaultdict(list))
        self.samples: dict[tuple[str, str], list[SampledField]] = defaultdict(list)
        self.doubts: dict[str, list[str]] = defaultdict(list)
        self.viability: list[ViabilityCounts] = []

    def enter(self, one: Scored) -> None:
        """Score a field."""
        expected = (len(self.outputs), *one.input.shape[1:])
        if one.input.ndim != 3 or one.predicted.shape != expected or one.real.shape != expected:
            raise DataError(
                f"{one.name}: {len(self.outputs)} outputs are predicted and real as (C, H, W) and the input is "
                f"(P, H, W), got {one.predicted.shape}, {one.real.shape} and {one.input.shape}."
            )
        self.names.append(one.name)
        self.places.append(one.place or one.name)
        for number, output in enumerate(self.outputs):
            if output.kind in ("stain", "distance"):
                self._enter_image(one, number, output)
            elif output.kind == "deviation":
                stain = self._stain_of(output)
                found = calibration(one.predicted[stain], one.predicted[number], one.real[stain], self.pixel_size_um)
                self._note(output.name, MODEL, asdict(found))
        if any(output.kind == "class" for output in self.outputs):
            self._enter_classes(one)

    def close(self, level: float) -> Table:
        """Sum up."""
        for key, samples in self.samples.items():
            fit = fit_micro_ssim(samples)
            self.values[key]["micro_ssim"] = [micro_ssim(sample, fit) for sample in samples]
        rows = [
            Row(output, method, {name: self._mean(name, values, level) for name, values in scores.items()})
            for (output, method), scores in self.values.items()
        ]
        by_field = {output: dict(scores) for (output, method), scores in self.values.items() if method == MODEL}
        confusions, notes = {}, self._doubts()
        if self.viability:
            rows += [_viability_row(kind, self._grouped_viability(), level) for kind in (0, 1)]
            for kind, found in zip(("pixels", "cells"), score_viability(self.viability), strict=True):
                confusions[kind] = found.confusion.tolist()
                notes += [f"{kind}: no sensitivity at 99 % specificity: {found.note}"] if found.note else []
        return Table(tuple(rows), tuple(self.names), len(set(self.places)), by_field, confusions, tuple(notes), level)

    def _enter_image(self, one: Scored, number: int, output: Output) -> None:
        guess, real = one.predicted[number], one.real[number]
        is_stain = output.kind == "stain"
        methods = {
            MODEL: guess,
            COPIED: copied_input(one.input, real),
            MEAN: np.full(real.shape, real.mean(dtype=np.float64)),
        }
        real_cells, diameter_um = one.cells.get(output.name), self.diameter_um
        if output.name in self.cells:
            diameter_um = diameter_um or typical_diameter_um(real, self.pixel_size_um)
            if real_cells is None:
                real_cells = segment(real, self.pixel_size_um, diameter_um)
        ceiling = noise_ceiling(real, one.noise_variance.get(output.name)) if is_stain else None
        for method, image in methods.items():
            found = _pixel_scores(image, real, self.pixel_size_um)
            if ceiling is not None and method == MODEL:
                found["pearson_over_ceiling"] = _share(found["pearson"], ceiling.pearson)
            if output.name in self.cells:
                found |= _cell_scores(image, real, self.pixel_size_um, diameter_um, real_cells)
            if output.kind == "distance" and method == MODEL:
                found |= _map_scores(image, real, self.pixel_size_um)
            self._note(output.name, method, found)
            self.samples[output.name, method].append(sample_field(image, real))
        if ceiling is not None:
            self._note(output.name, CEILING, {"pearson": ceiling.pearson})
            beyond = pearson(guess, real) > ceiling.pearson
            self.doubts[output.name].append(ceiling.doubt or ("the model exceeds it" if beyond else ""))

    def _enter_classes(self, one: Scored) -> None:
        if one.classes is None:
            raise DataError(f"{one.name}: the model tells classes, but the field has no true ones (Scored.classes).")
        names = [output.name.lower() if output.kind == "class" else "" for output in self.outputs]
        if missing := [name for name in _CLASS_NAMES if name not in names]:
            raise DataError(f"Classes are scored as outputs Live, Injured and Dead; there is no {', '.join(missing)}.")
        planes = np.stack([one.predicted[names.index(name)] for name in _CLASS_NAMES]).astype(np.float64)
        background = np.clip(1 - planes.sum(axis=0), 0, 1)
        nuclei = one.cells.get(VIABILITY)
        if nuclei is None:
            nuclei = segment(one.classes > 0, self.pixel_size_um, self.diameter_um)
        self.viability.append(count_viability(np.concatenate([background[None], planes]), one.classes, nuclei))

    def _stain_of(self, deviation: Output) -> int:
        names = [output.name for output in self.outputs]
        if deviation.of not in names:
            raise DataError(f"{deviation.name} is the deviation of {deviation.of!r}; the outputs are {names}.")
        return names.index(deviation.of)

    def _note(self, output: str, method: str, found: Mapping[str, float]) -> None:
        for name, value in found.items():
            self.values[output, method][name].append(value)

    def _mean(self, name: str, values: Sequence[float], level: float) -> Estimate:
        return mean_estimate(values, self.places, higher_is_better=SCORES[name].higher_is_better, level=level)

    def _grouped_viability(self) -> list[list[ViabilityCounts]]:
        places: dict[str, list[ViabilityCounts]] = {}
        for place, counts in zip(self.places, self.viability, strict=True):
            places.setdefault(place, []).append(counts)
        return list(places.values())

    def _doubts(self) -> list[str]:
        return [
            f"{output}: noise ceiling not to be trusted in {doubts.count(doubt)} of {len(doubts)} fields: {doubt}"
            for output, doubts in self.doubts.items()
            for doubt in dict.fromkeys(filter(None, doubts))
        ]


def _pixel_scores(image: np.ndarray, real: np.ndarray, pixel_size_um: float) -> dict[str, float]:
    rings = ring_correlation(image, real, pixel_size_um)
    return {
        "pearson": pearson(image, real),
        "ssim": ssim(image, real),
        "psnr": psnr(image, real),
        "nrmse": nrmse(image, real),
        "frc": rings.mean,
        "frc_cutoff_per_um": rings.cutoff_per_um,
    }


def _cell_scores(
    image: np.ndarray, real: np.ndarray, pixel_size_um: float, diameter_um: float | None, real_cells: np.ndarray | None
) -> dict[str, float]:
    found = asdict(score_objects(image, real, pixel_size_um, diameter_um=diameter_um, real_cells=real_cells))
    return {name: float(value) for name, value in found.items() if name in SCORES}


def _map_scores(image: np.ndarray, real: np.ndarray, pixel_size_um: float) -> dict[str, float]:
    guess, truth = segment_map(image, pixel_size_um), segment_map(real, pixel_size_um)
    found = asdict(score_objects(image, real, pixel_size_um, predicted_cells=guess, real_cells=truth))
    return {name: float(found[name]) for name in ("f1", "count_error", "area_error")}


def _share(value: float, ceiling: float) -> float:
    """Of the ceiling, at most 1: what lies above it says that the ceiling was estimated too low."""
    return min(value / ceiling, 1.0) if ceiling > 0 else float("nan")


def _viability_row(kind: int, places: Sequence[Sequence[ViabilityCounts]], level: float) -> Row:
    def pooled(name: str, chosen: Sequence[Sequence[ViabilityCounts]]) -> float:
        return _viability_scores(score_viability([counts for place in chosen for counts in place])[kind])[name]

    names = [name for name, score in SCORES.items() if score.group == "classes"]
    scores = {name: estimate(places, partial(pooled, name), level=level, draws=_DRAWS_OF_COUNTS) for name in names}
    return Row(VIABILITY, ("pixels", "cells")[kind], scores)


def _viability_scores(found: ViabilityScores) -> dict[str, float]:
    by_class = {f"f1_{name}": value for name, value in found.f1.items()}
    return {"balanced_accuracy": found.balanced_accuracy, **by_class, "sensitivity_99": found.sensitivity_99}
