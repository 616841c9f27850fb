"""What stands on the card of each model that a run used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from livestain._errors import ModelError
from livestain.live.report.words import counted
from livestain_models.card import describe_package
from livestain_models.package import load_package
from livestain_models.table import SCORES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livestain.live.report.told import Told
    from livestain.live.run_folder import RunFolder
    from livestain_models.contract import Contract
    from livestain_models.package import Package

__all__ = ["Card", "ScoreRow", "cards_of", "score_rows"]


_MAIN = ("pearson", "f1", "intensity_pearson", "coverage_1sd", "balanced_accuracy", "f1_live", "f1_injured", "f1_dead")


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One score of one output: value, 95 % interval, and what a copy of the input reaches; "" where not known.

    `key` is its name in `livestain_models.table.SCORES`.
    """

    key: str
    output: str
    score: str
    value: str
    interval: str
    copied: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Card:
    """One model.

    Attributes
    ----------
    name
        As the experiment names it.
    facts
        (what, value) in the order of reading.
    scores
        Of images held out from training.
    notes
        What a reader must know before believing the rest.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    scores: tuple[ScoreRow, ...]
    notes: tuple[str, ...]

    @property
    def main(self) -> tuple[ScoreRow, ...]:
        """The scores that a biologist asks for."""
        return tuple(row for row in self.scores if row.key in _MAIN)

    @property
    def more(self) -> tuple[ScoreRow, ...]:
        """The others."""
        return tuple(row for row in self.scores if row.key not in _MAIN)


def cards_of(run: RunFolder, told: Told) -> tuple[Card, ...]:
    """Describe the models of a run, from its journal and, where they are still there, from their packages."""
    provenance = run.header.get("provenance", {}).get("predicted", [])
    return tuple(_card(run, told, i, stain, provenance) for i, stain in enumerate(run.header.get("stains", ())))


def _card(run: RunFolder, told: Told, i: int, stain: Mapping[str, Any], provenance: list[dict[str, Any]]) -> Card:
    channels = [c.name for c in run.layout.channels if c.stain == i]
    mine = next((one for one in provenance if one.get("channel") in channels), {})
    precision = str(mine.get("precision") or stain.get("precision") or "fp32")
    sha = str(stain.get("weights_sha256", ""))
    name = str(mine.get("model") or stain.get("model"))
    version = str(mine.get("version", "the journal does not say"))
    ran = told.providers.get(i)
    by = ", ".join(f"{p} ({counted(n, 'prediction')})" for p, n in sorted(ran.items())) if ran else "no prediction made"
    facts = [
        ("Version", version),
        ("Fingerprint", f"{name}@{version} sha256:{sha[:12]} (in full: {sha})" if sha else "not in the journal"),
        ("Stains channel", f"{stain.get('channel')} \u2192 {', '.join(channels)}"),
        ("Ran as", f"{precision} on {by}"),
        ("Input before the network", str(mine.get("normalisation", "the journal does not say"))),
    ]
    notes = [str(warning) for warning in mine.get("warnings", ())]
    package = _package(stain, precision)
    if isinstance(package, str):
        notes.append(f"The package could not be read when this report was made, so its card is not here: {package}")
        return Card(name, tuple(facts), (), tuple(notes))
    if package.contract.weights_sha256 != sha:
        notes.append(
            f"The package {name} that is installed now has other weights ({package.fingerprint}) than those that ran. "
            "Its card would describe another model, so it is not shown; install the version above to see it."
        )
        return Card(name, tuple(facts), (), tuple(notes))
    contract, differs = _as_it_ran(package)
    if differs and contract is package.contract:
        notes.append(f"The scores below were measured in fp32; nobody measured them in {precision}.")
    return Card(name, (*facts, *differs, *_of_package(package)), score_rows(contract), tuple(notes))


def _package(stain: Mapping[str, Any], precision: Any) -> Package | str:
    try:
        return load_package(str(stain.get("model")), precision)
    except (ModelError, OSError) as error:
        return str(error)


def _as_it_ran(package: Package) -> tuple[Contract, list[tuple[str, str]]]:
    """Give the contract with the scores of the precision that ran, where it has them, and its difference to fp32."""
    contract = package.contract
    variant = next((one for one in contract.variants if one.precision == package.precision), None)
    if variant is None:
        return contract, []
    mean, most = (variant.parity.get(f"parity_{which}_grey") for which in ("mean", "max"))
    said = [
        f"{mean:.3g} grey levels of 65535 on average" if mean is not None else "",
        f"{most:.0f} at most" if most is not None else "",
    ]
    differs = [
        (f"{variant.precision} differs from fp32 by", ", ".join(filter(None, said)) or "the package does not say")
    ]
    if variant.scores:
        contract = contract.model_copy(update={"scores": variant.scores})
    return contract, differs


def _of_package(package: Package) -> list[tuple[str, str]]:
    told = describe_package(package)
    labels = {
        "outputs": "Predicts",
        "trained on": "Trained on",
        "use": "Use it for",
        "limits": "Not for, and limits",
        "pixel size": "Made for a pixel of",
        "contrast": "Made for",
        "planes": "Planes it takes",
    }
    return [(label, told[key]) for key, label in labels.items()]


def score_rows(contract: Contract) -> tuple[ScoreRow, ...]:
    """Lay out the flat scores of a contract as rows, each with its interval where the package states one.

    Names are those of `livestain_models.table.Table.flat`: the first output's plain, another's with it in front.
    """
    scores = contract.scores
    rows = []
    for prefix, output in _prefixes(contract).items():
        for key, score in SCORES.items():
            value = scores.get(prefix + key)
            if value is None:
                continue
            low, high = scores.get(f"{prefix}{key}_low"), scores.get(f"{prefix}{key}_high")
            interval = f"{_short(low)} to {_short(high)}" if low is not None and high is not None else ""
            copied = scores.get(f"{prefix}input_copied_{key}")
            better = "" if score.higher_is_better else "; less is better"
            copied_text = "" if copied is None else _short(copied)
            rows.append(
                ScoreRow(key, output, score.heading, _short(value), interval, copied_text, score.meaning + better)
            )
    return tuple(rows)


def _prefixes(contract: Contract) -> dict[str, str]:
    """Give the outputs by what stands in front of their scores' names; "pixels" and "cells" are classes by what."""
    outputs = [output.name for output in contract.outputs if output.kind != "class"]
    found = {"": outputs[0]} if outputs else {}
    found |= {f"{name.lower().replace(' ', '_')}_": name for name in outputs[1:]}
    classes = "Viability" if any(output.kind == "class" for output in contract.outputs) else ""
    for start in ("", "viability_") if classes else ():
        found |= {f"{start}pixels_": f"{classes}, by pixels", f"{start}cells_": f"{classes}, by cells"}
    return found


def _short(value: float | str) -> str:
    return f"{value:.3f}" if isinstance(value, float | int) else str(value)
