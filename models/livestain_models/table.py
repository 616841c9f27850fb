"""A table of scores: what stands in it, and how it is written as markdown, plain text, JSON and for a model's card."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from livestain_models.viability_score import CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from livestain_models.bootstrap import Estimate

__all__ = ["CEILING", "COPIED", "MEAN", "MODEL", "SCORES", "Row", "Score", "Table"]

MODEL, COPIED, MEAN, CEILING = "model", "input copied", "mean of the stain", "noise ceiling"
_CARD_PREFIX = {MODEL: "", COPIED: "input_copied_", MEAN: "mean_", CEILING: "ceiling_"}
_SEEN = ("missed", *CLASSES[1:])  # of a confusion matrix; row 0 is what is no cell
_CARD_BASELINE = ("pearson", "ssim", "nrmse", "f1")


@dataclass(frozen=True, slots=True)
class Score:
    """A column.

    Parameters
    ----------
    group : str
        The part of the table it stands in.
    heading : str
        With the unit.
    meaning : str
        Half a sentence for the legend.
    higher_is_better : bool
        False for errors.
    """

    group: str
    heading: str
    meaning: str
    higher_is_better: bool = True


SCORES: dict[str, Score] = {
    "pearson": Score("pixels", "Pearson r", "correlation of predicted and real grey values"),
    "pearson_over_ceiling": Score("pixels", "r / ceiling", "r over what the noise of the real image leaves possible"),
    "ssim": Score("pixels", "SSIM", "structural similarity, over the real image's range, Gaussian window of 1.5 px"),
    "micro_ssim": Score("pixels", "MicroSSIM", "SSIM without backgrounds, one brightness factor for all fields"),
    "psnr": Score("pixels", "PSNR (dB)", "peak signal-to-noise ratio, peak = the real image's range"),
    "nrmse": Score(
        "pixels", "NRMSE", "root mean square error over the stain's standard deviation", higher_is_better=False
    ),
    "frc": Score("pixels", "FRC", "mean Fourier ring correlation up to the camera's Nyquist frequency"),
    "frc_cutoff_per_um": Score("pixels", "FRC < 1/7 (1/um)", "finest spatial frequency that still agrees"),
    "f1": Score("cells", "F1", "cells found at an overlap (IoU) of 0.5"),
    "count_error": Score("cells", "count error", "relative error of the number of cells", higher_is_better=False),
    "area_error": Score("cells", "area error", "median relative error of a cell's area", higher_is_better=False),
    "intensity_error": Score(
        "cells", "intensity error", "median relative error of a cell's total stain", higher_is_better=False
    ),
    "intensity_pearson": Score("cells", "intensity r", "correlation of the cells' total stain"),
    "coverage_1sd": Score("error bars", "within 1 sd", "share of the predicted foreground; 0.683 is right"),
    "coverage_90": Score("error bars", "within 1.645 sd", "the same; 0.900 is right"),
    "coverage_1sd_all": Score("error bars", "within 1 sd, all", "share of all pixels; background is easy"),
    "coverage_90_all": Score("error bars", "within 1.645 sd, all", "the same"),
    "sd_error_pearson": Score("error bars", "sd ~ error r", "correlation of predicted deviation and absolute error"),
    "balanced_accuracy": Score("classes", "balanced accuracy", "mean over classes of the share recognised"),
    "f1_background": Score("classes", "F1 background", "F1 of the class"),
    "f1_live": Score("classes", "F1 live", "F1 of the class"),
    "f1_injured": Score("classes", "F1 injured", "F1 of the class"),
    "f1_dead": Score("classes", "F1 dead", "F1 of the class"),
    "sensitivity_99": Score(
        "classes", "dead found at 99 % specificity", "1 % of the living and injured taken for dead"
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One method's scores for one output; `scores` by the names of `SCORES`."""

    output: str
    method: str
    scores: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Table:
    """Scores of a model beside baselines that understand nothing of the image.

    Parameters
    ----------
    rows : tuple of Row
        Output by output; the model first.
    fields : tuple of str
        Names of the scored fields.
    n_places : int
        Places they lie at; what is resampled for the intervals.
    by_field : dict
        Output -> score -> the model's score in each field, in the order of `fields`.
    confusions : dict
        "pixels" and "cells" -> confusion matrix of the classes, where there are any.
    notes : tuple of str
        What a reader must know: doubts, and why something is missing.
    level : float
        Of the intervals.
    """

    rows: tuple[Row, ...]
    fields: tuple[str, ...]
    n_places: int
    by_field: Mapping[str, Mapping[str, Sequence[float]]]
    confusions: Mapping[str, Sequence[Sequence[int]]]
    notes: tuple[str, ...]
    level: float

    def row(self, output: str, method: str = MODEL) -> Row:
        """Find a row; KeyError if there is none."""
        for row in self.rows:
            if (row.output, row.method) == (output, method):
                return row
        raise KeyError(f"no row {method!r} of {output!r}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        return tuple(dict.fromkeys(row.output for row in self.rows))

    def markdown(self) -> str:
        """Write it for a README or a report."""
        parts = [self._about()]
        for output in self.outputs:
            parts.append(f"### {output}")
            parts += [_markdown(cells) for cells in self._blocks(output)]
        parts += ["\n".join(f"- {name}" for name in self._legend()), "\n".join(f"- {note}" for note in self.notes)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def text(self) -> str:
        """Write it for a terminal, columns aligned."""
        parts = [self._about()]
        for output in self.outputs:
            parts.append(output)
            parts += [_aligned(cells) for cells in self._blocks(output)]
        parts += ["\n".join(self._legend()), "\n".join(f"Note: {note}" for note in self.notes)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def as_json(self) -> dict[str, Any]:
        """Make plain dicts, lists, strings and numbers; what is not finite becomes None."""
        rows = [
            {"output": row.output, "method": row.method, "scores": {k: _plain(v) for k, v in row.scores.items()}}
            for row in self.rows
        ]
        by_field = {
            output: {score: [_finite(value) for value in values] for score, values in scores.items()}
            for output, scores in self.by_field.items()
        }
        return {
            "fields": list(self.fields),
            "places": self.n_places,
            "level": self.level,
            "rows": rows,
            "by_field": by_field,
            "confusions": {name: [list(row) for row in matrix] for name, matrix in self.confusions.items()},
            "notes": list(self.notes),
        }

    def flat(self) -> dict[str, float]:
        """Make what `Contract.scores` holds: finite floats by name.

        The first output's names are plain ("pearson", "pearson_low", "pearson_high", "pearson_worst",
        "input_copied_pearson", "mean_pearson", "ceiling_pearson"); another output's carry its name in front
        ("membrane_pearson"). "cells_dead_as_live" is the share of the dead cells that were taken for live.
        """
        flat: dict[str, float] = {"fields": float(len(self.fields))}
        for row in self.rows:
            own = "" if row.output == self.outputs[0] else row.output.lower().replace(" ", "_") + "_"
            prefix = own + _CARD_PREFIX.get(row.method, row.method + "_")
            baseline = row.method in (COPIED, MEAN)
            for name, found in row.scores.items():
                if baseline and name not in _CARD_BASELINE:
                    continue
                flat[prefix + name] = found.value
                if not baseline and found.low is not None and found.high is not None:
                    flat |= {f"{prefix}{name}_low": found.low, f"{prefix}{name}_high": found.high}
                if row.method == MODEL and name == "pearson" and found.worst is not None:
                    flat[f"{prefix}{name}_worst"] = found.worst
            if row.method in self.confusions:
                flat |= {f"{prefix}{name}": share for name, share in _confused(self.confusions[row.method]).items()}
        return {name: value for name, value in flat.items() if math.isfinite(value)}

    def _about(self) -> str:
        fields = f"{len(self.fields)} field{'s' * (len(self.fields) != 1)}"
        if self.n_places != len(self.fields):
            fields += f" at {self.n_places} place{'s' * (self.n_places != 1)}"
        if self.n_places < 2:
            return f"Scored on {fields}. One place gives no interval: how much the scores vary is not known."
        return (
            f"Scored on {fields}. In brackets: {self.level:.0%} intervals, by resampling "
            f"{'fields' if self.n_places == len(self.fields) else 'places'}; with fewer than ten they are too narrow."
        )

    def _blocks(self, output: str) -> list[list[list[str]]]:
        """Tables of an output, one for each group of scores: rows of cells, headings first."""
        rows = [row for row in self.rows if row.output == output]
        blocks = []
        for group in dict.fromkeys(score.group for score in SCORES.values()):
            names = [n for n, score in SCORES.items() if score.group == group and any(n in row.scores for row in rows)]
            block = [
                [row.method, *(str(row.scores[n]) if n in row.scores else "-" for n in names)]
                for row in rows
                if any(n in row.scores for n in names)
            ]
            if block:
                blocks.append([[group, *(SCORES[n].heading for n in names)], *block])
        return blocks

    def _legend(self) -> list[str]:
        used = {name for row in self.rows for name in row.scores}
        return [
            f"{score.heading}: {score.meaning}{'' if score.higher_is_better else '; less is better'}"
            for name, score in SCORES.items()
            if name in used
        ]


def _confused(confusion: Sequence[Sequence[int]]) -> dict[str, float]:
    """Of each true class, which share was taken for which."""
    return {
        f"{true}_as_{seen}": count / sum(row)
        for true, row in zip(_SEEN[1:], confusion[1:], strict=True)
        for seen, count in zip(_SEEN, row, strict=True)
        if sum(row)
    }


def _markdown(cells: list[list[str]]) -> str:
    head, *rows = cells
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _aligned(cells: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    )


def _plain(found: Estimate) -> dict[str, float | int | None]:
    return {
        "value": _finite(found.value),
        "low": _finite(found.low),
        "high": _finite(found.high),
        "worst": _finite(found.worst),
        "n": found.n,
    }


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
