"""The report of a run: whole, self-contained, the same each time, and honest about what is not there."""

from __future__ import annotations

import html
import json
import re
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import useq

from livestain._errors import LivestainError, StoreError
from livestain._layout import Channel, Layout
from livestain._lines import header_line, iso_time
from livestain._pulse import PULSE_NAME
from livestain._reading import load_experiment
from livestain._session import run_experiment
from livestain.live.report import make_report
from livestain.live.report.cards import score_rows
from livestain.live.report.cells import _survival
from livestain.live.report.choice import chosen_times, evenly
from livestain.live.report.series import series_of
from livestain.live.report.words import length_of_time
from livestain.live.run_folder import RunFolder
from livestain.measure._rows import read_rows
from livestain.measure.overview import overview_of
from livestain.measure.summary import SummaryTable, summarised
from livestain.measure.table import CELL_SCHEMA, CellTable, read_cells
from livestain_models.package import load_package
from livestain_models.variants import add_variant
from tests import model_builders
from tests.conftest import PIXEL_SIZE_UM

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livestain_models.package import Package

pytest.importorskip("matplotlib", reason='a report needs the extra "cells"')
pytest.importorskip("jinja2", reason='a report needs the extra "cells"')

SECTIONS = ["run", "completeness", "pictures", "cells", "latency", "models", "warnings", "software"]
VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = "<script>alert(1)</script>\"'&$\\frac_"
START_S = 1_800_000_000.0


class Page(HTMLParser):
    """Reads a page as a browser would, and holds it against the rules of a report."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.sections: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.cells: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        named = dict(attrs)
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in named)
        if tag == "section":
            self.sections.append(named["id"] or "")
        if tag == "img":
            self.images.append(named)
        if tag in {"td", "th"}:
            self.cells.append("")
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.refers += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "srcset", "data"}]
        self.refers += re.findall(r"url\((.*?)\)", " ".join(value or "" for _, value in attrs))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            assert "url(" not in data
            assert "@import" not in data or "svg" in self.open
            return
        self.words.append(data)
        if self.cells and {"td", "th"} & set(self.open):
            self.cells[-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(folder: Path) -> Page:
    """Make a report and hold it against what every report must be."""
    path = make_report(folder)
    assert path == folder / "report.html"
    page = Page(path)
    assert page.sections == SECTIONS
    assert len(page.ids) == len(set(page.ids))
    for target in page.refers:
        assert target.startswith(("data:image/", "#")), target
        assert not target.startswith("#") or target[1:] in page.ids
    assert all(image["alt"] for image in page.images)
    assert "://" not in page.source
    assert "Predictions are predictions." in page.text
    assert not re.search(r"\bnan\b|\binf\b|None\b(?!\.)", page.text.replace("None.", ""))
    return page


# ------------------------------------------------------------------ run folders by hand


def lay_out(n_t: int = 6, positions: tuple[str, ...] = ("",), **changes: Any) -> Layout:
    places = [{"x": i, "y": 0, "name": name} for i, name in enumerate(positions)] if positions != ("",) else []
    plan = {"channels": ["BF"], "time_plan": {"interval": 60, "loops": n_t}, "stage_positions": places}
    predicted = [Channel("Nuclei (predicted)", "00BFFF", stain=0, output=0)]
    sequence = useq.MDASequence.model_validate(plan)
    return replace(Layout.of(sequence, height=64, width=64, pixel_size_um=0.5, predicted=predicted), **changes)


STAIN = {"model": "nuclei-demo", "channel": "BF", "planes": 1, "weights_sha256": "0" * 64}
OUTPUTS = [{"name": "Nuclei", "kind": "stain"}]


def write_run(folder: Path, layout: Layout, lines: list[dict[str, Any]], end: str | None = "completed") -> Path:
    """Write a journal; the planes that it speaks of are not there, as on a drive that failed."""
    folder.mkdir(exist_ok=True)
    header = header_line(layout, START_S, {"stains": [STAIN | {"outputs": OUTPUTS}], "provenance": {"software": {}}})
    last = [] if end is None else [{"kind": "end", "reason": end, "time": iso_time(START_S + 3600)}]
    (folder / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [header, *lines, *last]))
    return folder


def raw(image: int, t: int) -> dict[str, Any]:
    time = iso_time(START_S + 60 * t)
    return {"kind": "raw", "at": [image, t, 0, 0], "time": time, "camera_to_disk_ms": 5.0 + t, "crc32": 1}


def stained(image: int, t: int) -> dict[str, Any]:
    at = {"at": [[image, t, 1, 0]], "from": [[image, t, 0, 0]], "crc32": [1], "provider": "CPUExecutionProvider"}
    late = {"net_ms": 10.0 + t, "host_to_host_ms": 11.0, "camera_to_screen_ms": 12.0, "camera_to_disk_ms": 20.0 + t}
    return {"kind": "stain", "status": "stained", "stain": 0, "live": True} | at | late


def frames(images: int = 1, n_t: int = 6) -> list[dict[str, Any]]:
    return [line for t in range(n_t) for i in range(images) for line in (raw(i, t), stained(i, t))]


def measure(folder: Path, position: str = "", image: int = 0, n_t: int = 12, **columns: Any) -> None:
    """Write tables of twelve cells that grow by 3 % an hour; cell 1 divides half-way, cell 2 dies at the end."""
    with CellTable(folder) as cells, SummaryTable(folder) as summary:
        for t in range(n_t):
            ids = [i for i in range(1, 13) if i != 1 or t < n_t // 2] + ([21, 22] if t >= n_t // 2 else [])
            rows = {field.name: np.zeros(len(ids)) for field in CELL_SCHEMA}
            mass = [(100 + i) * np.exp(0.03 * t) / (2 if i > 20 else 1) for i in ids]
            states = ["dead" if i == 2 and t > n_t - 3 else "live" for i in ids]
            told: dict[str, Any] = {
                "position": [position] * len(ids),
                "image": [image] * len(ids),
                "t": [t] * len(ids),
                "time_s": [3600.0 * t] * len(ids),
                "cell": ids,
                "parent": [1 if i > 20 else 0 for i in ids],
                "dry_mass_pg": mass,
                "dry_mass_sd_pg": [2.0] * len(ids),
                "mass_method": ["phase steps"] * len(ids),
                "state": states,
                "dead_belief": [float(state == "dead") for state in states],
                "relative_dry_mass": [np.nan] * len(ids),
                "reason": [""] * len(ids),
                "at_border": [False] * len(ids),
                "gap": [False] * len(ids),
            }
            rows |= told | {name: [value] * len(ids) for name, value in columns.items()}
            cells.append(rows)
            summary.append(summarised(rows, position=position, image=image, t=t, time_s=3600.0 * t))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run") / "measured", lay_out(12), frames(n_t=12))
    measure(folder)
    return folder


@pytest.fixture(scope="module")
def page(measured: Path) -> Page:
    return read(measured)


# ------------------------------------------------------------------ whole runs


def test_a_run_of_the_microscope(write_experiment: Callable[..., Path], identity_model: Package) -> None:
    stains = [{"model": str(identity_model.folder), "channel": "BF"}]
    channels = [{"config": "BF", "exposure": 1}, {"config": "Nuclei", "exposure": 2}]
    sequence = {
        "channels": channels,
        "time_plan": {"interval": 0, "loops": 3},
        "stage_positions": [{"x": 0, "y": 0, "z": 0, "name": HOSTILE}, {"x": 9, "y": 0, "z": 0, "name": "drug"}],
    }
    experiment = load_experiment(write_experiment(HOSTILE.replace("/", ""), stains=stains, sequence=sequence))
    result = run_experiment(experiment, experiment.run_folder("run"))
    page = read(result.folder)
    assert "It ran to its end. Everything that was asked for is there." in page.text
    assert HOSTILE in page.text
    assert len(page.images) == 2 * 3 * 3, "positions, channels, time points"
    assert "Fingerprint" in page.text
    assert identity_model.contract.weights_sha256 in page.text
    assert identity_model.contract.limitations in page.text
    assert "This run was not measured" in page.text
    assert {"BF", "Nuclei"} <= {cell.split()[0] for cell in page.cells if cell}
    for name in ("latency.svg", "latency.png", "pictures-1-drug.png"):
        assert (result.folder / "report" / name).stat().st_size > 1000
    before = {file.name: file.read_bytes() for file in (result.folder / "report").iterdir()}
    assert make_report(result.folder).read_text() == page.source, "the same folder gives the same report"
    assert {file.name: file.read_bytes() for file in (result.folder / "report").iterdir()} == before


@pytest.mark.parametrize(
    ("measured_in_it", "shown", "said"),
    [
        ({"pearson": 0.625}, "0.625", "fp16 differs from fp32 by 2.5 grey levels of 65535 on average, 70 at most"),
        ({}, "0.875", "The scores below were measured in fp32; nobody measured them in fp16."),
    ],
    ids=["measured in it", "not measured in it"],
)
def test_the_scores_of_a_card_are_those_of_the_precision_that_ran(
    write_experiment: Callable[..., Path],
    tmp_path: Path,
    measured_in_it: dict[str, float | str],
    shown: str,
    said: str,
) -> None:
    built = model_builders.package(tmp_path / "model", pixel_size_um=PIXEL_SIZE_UM, scores={"pearson": 0.875})
    parity = {"parity_mean_grey": 2.5, "parity_max_grey": 70.0}
    add_variant(built, "fp16", built.weights, parity, measured_in_it)
    stains = [{"model": str(built.folder), "channel": "BF", "precision": "fp16"}]
    experiment = load_experiment(write_experiment(stains=stains))
    page = read(run_experiment(experiment, experiment.run_folder("run")).folder)
    assert "fp16 on CPUExecutionProvider" in page.text
    assert said in page.text
    assert {"0.625", "0.875"} & set(page.cells) == {shown}


def test_the_numbers_are_those_of_the_tables(measured: Path, page: Page) -> None:
    told = overview_of(measured)
    numbers = re.findall(r"[\d.]+%|[\d.]+ pg|[\d.]+ h(?! )|quartiles", told)
    assert len(numbers) > 8
    for number in numbers:
        assert number in page.text, number
    summary = read_rows(measured, "summary")
    rows = dict(zip(page.cells[::1], page.cells[1:], strict=False))
    assert rows["cells at first"] == str(summary["cells"][0])
    assert rows["cells at last"] == str(summary["cells"][-1])
    assert rows["divisions"] == "1"
    stats = RunFolder(measured).stats().latency["camera_to_disk_ms"]
    assert " ".join(f"{value:.1f}" for value in (stats.p50, stats.p95, stats.p99, stats.max)) in page.text


def test_figures_of_cells(measured: Path, page: Page) -> None:
    names = ("cells", "total-mass", "median-mass", "viability", "masses", "survival", "lineage", "growth-rates")
    for name in (*names, "latency"):
        for suffix in ("svg", "png"):
            assert (measured / "report" / f"{name}.{suffix}").is_file(), name
        assert f'id="{name}-' in page.source
    assert page.source.count("<svg") == 9
    assert "Nothing is missing: each of 150 rows has a mass and a state." in page.text
    assert "cell 1: 1 division" in page.text


def test_reasons_are_told(tmp_path: Path) -> None:
    lines = [raw(0, 0), stained(0, 0), raw(0, 1), {"kind": "missing", "at": [0, 2, 0, 0], "why": "the shutter <stuck>"}]
    lines += [
        {
            "kind": "stain",
            "status": "pending",
            "stain": 0,
            "at": [[0, 1, 1, 0]],
            "from": [[0, 1, 0, 0]],
            "live": True,
            "why": "the model failed",
        }
    ]
    page = read(write_run(tmp_path / "run", lay_out(6), lines, "canceled"))
    assert "It was stopped by a person" in page.text
    assert page.images == []
    assert "Not all is there: 1 missing frame, 3 not taken, 1 pending prediction." in page.text
    assert "the shutter <stuck>" in page.text
    assert "the model failed" in page.text
    assert f"livestain backfill {tmp_path / 'run'}" in page.text
    assert "on disk, but cannot be read" in page.text


ENDS = {
    "killed": (frames(), None, "livestain recover"),
    "recovered": (frames(), "recovered", "It was cut off"),
    "errored": (frames(), "errored", "An error ended it"),
    "no frame": ([], "canceled", "There is no frame in this run folder."),
    "one time point": (frames(n_t=1), "canceled", "1 of 6 planned"),
}


@pytest.mark.parametrize("case", ENDS)
def test_ends(tmp_path: Path, case: str) -> None:
    lines, end, sentence = ENDS[case]
    assert sentence in read(write_run(tmp_path / "run", lay_out(6), lines, end)).text


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lay_out(6), frames(n_t=3), None)
    (folder / PULSE_NAME).write_text(json.dumps({"time_s": time.time(), "phase": "acquiring"}))
    text = read(folder).text
    assert "It was still going on when this report was made" in text
    assert "put the folder in order" not in text


def test_unknown_pixel_size(tmp_path: Path) -> None:
    page = read(write_run(tmp_path / "run", lay_out(6, pixel_size_um=0.0), frames()))
    assert "not known: lengths in this report are in pixels" in page.text
    assert "there is no scale bar" in page.text


def test_a_hostile_position(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lay_out(12, (HOSTILE, "_hidden")), frames(2, 12))
    measure(folder, HOSTILE)
    measure(folder, "_hidden", 1)
    page = read(folder)
    assert "<script" not in page.source
    assert html.unescape(HOSTILE) in page.text
    assert "_hidden" in (folder / "report" / "viability.svg").read_text(), "matplotlib hides such labels"


def test_without_states_or_masses(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lay_out(12), frames(n_t=12))
    measure(folder, state="", dead_belief=np.nan, dry_mass_pg=np.nan, dry_mass_sd_pg=np.nan, reason="no phase <here>")
    page = read(folder)
    assert "Survival: no cell has a state" in page.text
    assert "Total dry mass: no value at any time point." in page.text
    assert "Growth rates: fewer than two cells" in page.text
    assert "reason: no phase <here>" in page.text
    row = page.cells.index("have no mass, absolute or relative")
    assert page.cells[row - 2 : row + 4 : 3] == ["150", "150"], "rows without mass, rows without state"
    assert (folder / "report" / "lineage.svg").is_file(), "coloured by state"


def test_no_cell_at_all(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lay_out(3), frames(n_t=3))
    none: dict[str, Any] = {field.name: [] for field in CELL_SCHEMA}
    with CellTable(folder), SummaryTable(folder) as summary:
        for t in range(3):
            summary.append(summarised(none, position="", image=0, t=t, time_s=60.0 * t, reason="out of focus"))
    page = read(folder)
    assert "3: out of focus" in page.text
    assert "No cell was found" in page.text


def test_many_positions(tmp_path: Path) -> None:
    names = tuple(f"P{i}" for i in range(200))
    page = read(write_run(tmp_path / "run", lay_out(1, names), frames(200, 1)))
    assert "8 of 200 positions are shown" in page.text
    assert "P0, P1, P2, P3, P4, P5, P6, P7 and 192 more" in page.text


@pytest.mark.slow
def test_ten_thousand_time_points(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lay_out(10_000), frames(n_t=10_000))
    measure(folder, n_t=10_000)
    page = read(folder)
    assert "10,000 of 10,000 planned" in page.text
    assert len(page.source) < 3_000_000
    assert "Every 20th time point is drawn." in page.text


# ------------------------------------------------------------------ faults


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_without_the_extra(measured: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LivestainError, match=rf'{package}.*pip install "livestain\[cells\]"'):
        make_report(measured)


def test_survival_without_lifelines(tmp_path: Path, measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lifelines", None)
    drawn = _survival(tmp_path, read_cells(measured), None, "")
    assert isinstance(drawn, str)
    assert 'pip install "livestain[cells]"' in drawn


def test_no_run_and_no_place(tmp_path: Path, measured: Path) -> None:
    with pytest.raises(StoreError, match="not a run folder"):
        make_report(tmp_path)
    mine = tmp_path / "talk-figures"
    mine.mkdir()
    (mine / "thesis.docx").write_text("years of work")
    with pytest.raises(StoreError, match="left as it is"):
        make_report(measured, tmp_path / "talk.html")
    assert (mine / "thesis.docx").read_text() == "years of work"
    with pytest.raises(StoreError, match="cannot write the report"):
        make_report(measured, mine / "thesis.docx" / "report.html")


def test_elsewhere(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lay_out(3), frames(n_t=3))
    there = set(folder.iterdir())
    assert make_report(folder, tmp_path / "mine.html") == tmp_path / "mine.html"
    assert (tmp_path / "mine-figures" / "latency.svg").is_file()
    assert set(folder.iterdir()) == there


def test_a_damaged_journal(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lay_out(6), frames())
    journal = folder / "frames.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:5], "not json\n", *lines[5:]]))
    page = read(folder)
    assert "line 6: not a journal line" in page.text
    assert "something cannot be read: see Warnings" in page.text


# ------------------------------------------------------------------ parts


TIMES = [
    (0.5, "0.5 s"),
    (65, "1 min 5 s"),
    (3600, "1 h"),
    (12_000, "3 h 20 min"),
    (90_000, "1 d 1 h"),
    (np.nan, "not known"),
]


@pytest.mark.parametrize(("seconds", "text"), TIMES)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert length_of_time(seconds) == text


def test_time_points_are_chosen_evenly_and_fuller_ones_first() -> None:
    there = np.ones((100, 2, 1), bool)
    assert chosen_times(there, (0, 1), 5) == evenly(100, 5) == [0, 25, 50, 74, 99]
    there[50, 1] = False
    assert chosen_times(there, (0, 1), 5) == [0, 25, 49, 74, 99]
    assert chosen_times(there[:1], (0, 1), 5) == [0]
    assert chosen_times(np.zeros((4, 2, 1), bool), (0, 1), 5) == []


def test_positions_of_a_well_are_taken_together(tmp_path: Path) -> None:
    measure(tmp_path, "a")
    measure(tmp_path, "b", 1, n_t=6)
    (both,) = series_of(read_rows(tmp_path, "summary"), {"a": "A1", "b": "A1"})
    one, two = series_of(read_rows(tmp_path, "summary"), None)
    assert (both.condition, both.n_positions, both.hours.size) == ("A1", 2, 6)
    np.testing.assert_allclose(both.cells, one.cells[:6] + two.cells)
    np.testing.assert_allclose(both.total_pg, one.total_pg[:6] + two.total_pg)
    np.testing.assert_allclose(both.total_sd_pg, np.hypot(one.total_sd_pg[:6], two.total_sd_pg))
    assert ((both.high - both.low) < (two.high - two.low)).all(), "more cells, narrower intervals"


def test_scores_of_a_card_have_their_intervals() -> None:
    contract = load_package("cells-demo").contract
    rows = {(row.output, row.key): row for row in score_rows(contract)}
    nuclei = rows["Nuclei", "pearson"]
    scores = contract.scores
    assert nuclei.value == f"{scores['pearson']:.3f}"
    assert nuclei.interval == f"{scores['pearson_low']:.3f} to {scores['pearson_high']:.3f}"
    assert nuclei.copied == f"{scores['input_copied_pearson']:.3f}"
    assert rows["Cells distance", "f1"].value == f"{scores['cells_distance_f1']:.3f}"
    assert rows["Viability, by cells", "f1_dead"].value == f"{scores['viability_cells_f1_dead']:.3f}"
