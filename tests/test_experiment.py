"""What a person may write wrong in an experiment, and what they are told: file, line, field, value, remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from livestain._errors import ExperimentError, LivestainError
from livestain._prepare import prepare
from livestain._reading import load_experiment, save_experiment

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
rig: simulated
sequence:
  channels: [{config: BF, exposure: 5}]
  time_plan: {interval: 1, loops: 3}
stains: []
output: {folder: runs, name: one}
"""

# (what is changed, into what, what the message must say)
FAULTS: dict[str, tuple[str, str, str]] = {
    "typo at the top": ("stains: []", "stainz: []", r"line 5: the file has no field 'stainz': did you mean 'stains'\?"),
    "typo in output": ("folder:", "fodler:", r"line 6: output has no field 'fodler': did you mean 'folder'\?"),
    "typo in a channel": ("exposure", "exposre", r"line 3: sequence\.channels.*'exposre': did you mean 'exposure'\?"),
    "typo in the time plan": (
        "loops",
        "loop",
        r"line 4: sequence\.time_plan has no field 'loop': did you mean 'loops'",
    ),
    "typo in the sequence": ("channels", "chanels", r"line 3: sequence has no field 'chanels'"),
    "typo in a stain": (
        "stains: []",
        "stains: [{model: m, chanel: BF}]",
        r"line 5: stains\[0\] has no field 'chanel': did you mean 'channel'\?",
    ),
    "a stain without a channel": (
        "stains: []",
        "stains: [{model: m}]",
        r"line 5: stains\[0\]\.channel: it is missing",
    ),
    "an unknown provider": (
        "stains: []",
        "stains: [{model: m, channel: BF, provider: gpu}]",
        r"line 5: stains\[0\]\.provider: .*'cuda'.*got 'gpu'",
    ),
    "a negative exposure": ("exposure: 5", "exposure: -5", r"line 3: sequence\.channels"),
    "loops as a word": ("loops: 3", "loops: three", r"line 4: sequence\.time_plan.*three"),
    "a missing sequence": (
        "sequence:\n  channels: [{config: BF, exposure: 5}]\n  time_plan: {interval: 1, loops: 3}\n",
        "",
        "sequence: it is missing",
    ),
    "positions as lists": (
        "  time_plan: {interval: 1, loops: 3}",
        "  stage_positions: [[0, 0, 0]]",
        r"line 4: sequence\.stage_positions.*write positions as mappings: \{x: 0",
    ),
    "an interval in words": ("interval: 1", "interval: 1 min", r"line 4: .*write a time as seconds or as a mapping"),
    "stains as a mapping": ("stains: []", "stains: {model: m}", "line 5: stains: write a list"),
    "a stain as a word": ("stains: []", "stains: [nuclei-demo]", "line 5: .*write a mapping: {model: nuclei-demo"),
    "an unknown rig": ("rig: simulated", "rig: simulatd", r"line 1: rig: there is no file .*simulatd"),
    "a rig that is a list": ("rig: simulated", "rig: [1]", "line 1: rig: write a path"),
    "a key twice": ("stains: []", "rig: demo", r"line 5: 'rig' stands already in line 1"),
    "no YAML": ("rig: simulated", "rig: [", "line 3, column.*not YAML"),
    "a tab": ("  time_plan", "\ttime_plan", "line 4, column 1: not YAML"),
    "a bad colour": (
        "rig: simulated",
        "rig: {config: simulated.cfg, channels: {BF: {color: red}}}",
        r"line 1: rig\.channels\.BF\.color: .*got 'red'",
    ),
    "a typo in the rig": (
        "rig: simulated",
        "rig: {config: simulated.cfg, pixelsize: 1}",
        "rig has no field 'pixelsize': did you mean 'pixel_size_um'",
    ),
    "a wavelength in nm": (
        "rig: simulated",
        "rig: {config: simulated.cfg, optics: {wavelength_um: 550}}",
        r"line 1: rig\.optics\.wavelength_um: it should be .*in micrometres: 0\.55 if these are nanometres \(got '550'",
    ),
    "no wavelength": (
        "rig: simulated",
        "rig: {config: simulated.cfg, optics: {objective_na: 0.75}}",
        r"line 1: rig\.optics\.wavelength_um: it is missing\.$",
    ),
    "an empty measure section": (
        "stains: []",
        "measure:",
        r"line 5: measure: the section is empty; .*leave the line out",
    ),
    "an empty phase": ("stains: []", "measure: {phase: }", r"line 5: measure\.phase: the section is empty"),
    "three phase steps": (
        "stains: []",
        "measure: {phase: {method: steps, channels: [A, B, C]}}",
        r"line 5: measure\.phase\.channels: it needs at least 4 entries, not 3",
    ),
    "a typo in phase from steps": (
        "stains: []",
        "measure: {phase: {method: steps, coherance_um: 18}}",
        r"line 5: measure\.phase has no field 'coherance_um': did you mean 'coherence_um'\?",
    ),
    "a typo in phase from defocus": (
        "stains: []",
        "measure: {phase: {method: defocus, chanel: BF}}",
        r"line 5: measure\.phase has no field 'chanel': did you mean 'channel'\?",
    ),
    "an unknown method": (
        "stains: []",
        "measure: {phase: {method: stepps, channel: BF}}",
        r"line 5: measure\.phase\.method: method must be steps, defocus or given \(got 'stepps'",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_line_and_remedy(name: str, tmp_path: Path) -> None:
    good, bad, says = FAULTS[name]
    assert good in GOOD
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD.replace(good, bad))
    with pytest.raises(ExperimentError, match=says) as caught:
        load_experiment(path)
    assert str(path) in str(caught.value)


# Faults that only the rig can show.
RIG_FAULTS: dict[str, tuple[str, str, str]] = {
    "a preset that is not there": ("config: BF", "config: DAPI", r"no preset 'DAPI' in group 'Channel' \(there: BF, "),
    "a group that is not there": ("config: BF", "config: BF, group: Light", "no such group; groups: Channel, System"),
    "a sequence of nothing": (
        "channels: [{config: BF, exposure: 5}]\n  time_plan: {interval: 1, loops: 3}",
        "channels: []",
        "the sequence has no event",
    ),
    "an unknown model": ("stains: []", "stains: [{model: nuclei, channel: BF}]", "nuclei"),
}


@pytest.mark.parametrize("name", RIG_FAULTS)
def test_what_the_rig_does_not_have_is_named(name: str, tmp_path: Path) -> None:
    good, bad, says = RIG_FAULTS[name]
    assert good in GOOD
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD.replace(good, bad))
    with pytest.raises(LivestainError, match=says), prepare(load_experiment(path)):
        pass


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds nothing"),
        (b"- a\n- b\n", "holds a list"),
        (b"just words", "holds a str"),
        (b"\xff\xfe\x00rig", "cannot be read as text"),
    ],
)
def test_a_file_that_is_no_experiment(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_bytes(content)
    with pytest.raises(ExperimentError, match=says):
        load_experiment(path)


def test_a_cfg_is_no_experiment(tmp_path: Path) -> None:
    path = tmp_path / "rig.cfg"
    path.write_text("Property,Core,Initialize,0\n")
    with pytest.raises(ExperimentError, match="is a rig's configuration"):
        load_experiment(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="does not exist"):
        load_experiment(tmp_path / "none.yaml")
    with pytest.raises(ExperimentError, match="is a folder"):
        load_experiment(tmp_path)


def test_a_good_file_survives_saving(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    setup = "  setup: {roi: [0, 0, 64, 48]}\n  grid_plan: {rows: 2, columns: 2}\n"
    path.write_text(GOOD.replace("stains: []", setup + "stains: []"))
    experiment = load_experiment(path)
    saved = tmp_path / "elsewhere.yaml"
    save_experiment(experiment, saved)
    again = load_experiment(saved)
    assert again.sequence == experiment.sequence
    assert again.rig.channels == experiment.rig.channels


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "rigs").mkdir()
    (tmp_path / "rigs" / "mine.cfg").write_text("Property,Core,Initialize,0\n")
    (tmp_path / "rigs" / "mine.yaml").write_text("config: mine.cfg\npixel_size_um: 0.5\n")
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD.replace("rig: simulated", "rig: rigs/mine.yaml"))
    rig = load_experiment(path).rig
    assert rig.config == tmp_path / "rigs" / "mine.cfg"
    assert rig.pixel_size_um == 0.5


def test_a_run_without_a_name_is_numbered(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD.replace("{folder: runs, name: one}", f"{{folder: {tmp_path}}}"))
    experiment = load_experiment(path)
    first = experiment.run_folder("growth")
    assert first.name.endswith("-growth")
    first.mkdir()
    assert experiment.run_folder("growth").name == first.name + "-2"
