"""`livestain collect` as a lab meets it: pairs, what is said of them, and the first recipe, through the real engine."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from livestain._errors import ExperimentError, LivestainError, RigError, StoreError
from livestain._prepare import prepare
from livestain._reading import load_experiment
from livestain._shipped import shipped_folder
from livestain.cli.terminal import OwnConsole
from livestain.pairs import checker as pairs_checker
from livestain.pairs.collect import collect, look_again
from livestain.pairs.display import PairsDisplay
from livestain.pairs.pair_check import PairCheck, is_empty, saturated_share
from livestain.pairs.places import check_places
from livestain.pairs.plan import plan_pairs
from livestain.pairs.report import judge
from livestain.simulate._microscope import Microscope
from livestain.simulate._settings import Settings
from livestain_models.data import Registration, read_fields
from livestain_models.recipe import load_recipe
from tests.test_cli import livestain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BF = {"config": "BF", "exposure": 10}
NUCLEI = {"config": "Nuclei", "exposure": 20, "do_stack": False}
STACK = {"range": 3, "step": 1.5}
PLACES = [{"x": x, "y": y, "z": 0} for x in (-150, 0, 150) for y in (0, 150)]
RIG: dict[str, Any] = {
    "config": "simulated.cfg",
    "instrument": "simulated",
    "channels": {"BF": {"contrast": "bright field"}, "Nuclei": {"color": "00A0FF"}},
    "properties": [["Camera", "Width", 320], ["Camera", "Height", 320], ["Scope", "SecondsPerExposure", 0]],
}

SMALL = RIG | {"properties": [["Camera", "Width", 128], ["Camera", "Height", 128]]}


def sequence(**changes: Any) -> dict[str, Any]:
    return {"axis_order": "tpgcz", "channels": [BF, NUCLEI], "z_plan": STACK, "stage_positions": PLACES} | changes


@pytest.fixture
def written(write_experiment: Callable[..., Path]) -> Callable[..., Path]:
    def write(rig: dict[str, Any] | None = None, **changes: Any) -> Path:
        return write_experiment("afternoon", rig=rig or RIG, sequence=sequence(**changes), output={})

    return write


def only_run(folder: Path) -> Path:
    (run,) = (path.parent for path in folder.glob("*/pairs.json"))
    return run


def pairs_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((only_run(folder) / "pairs.json").read_text())
    return found


def plain(said: str) -> str:
    return " ".join(said.split())


# ------------------------------------------------------------------------------------------ the whole way


def test_pairs_are_acquired_looked_at_and_ready_to_train_from(written: Callable[..., Path], tmp_path: Path) -> None:
    said = livestain("collect", written(), "--out", "pairs", folder=tmp_path)
    assert "completed: 24 of 24 frames acquired" in said
    assert "6 of 6 positions give pairs" in said
    assert "warning" not in said
    pairs = pairs_of(tmp_path / "pairs")
    assert pairs["instrument"] == "simulated"
    assert (pairs["input"], pairs["targets"], pairs["left_out"]) == ("BF", ["Nuclei"], {})
    assert np.abs(pairs["shift_px"]["Nuclei"]).max() <= 1

    recipe = load_recipe(tmp_path / "pairs" / "recipe.yaml")
    data = recipe.data
    assert recipe.id == "nuclei-from-bright-field"
    assert (data.input, data.contrast, data.pixel_size_um, data.planes.count) == ("BF", "bright field", 0.325, 3)
    assert [(t.name, t.source, t.color) for t in data.targets] == [("Nuclei", "Nuclei", "00A0FF")]
    assert data.split.by == "field"
    assert recipe.train.patch_px <= 320
    found = read_fields(data.model_copy(update={"check_registration": False}))
    assert len(found.fields) == 6
    assert {field.instrument for field in found.fields} == {"simulated"}
    assert found.fields[0].planes.shape[0] == 3
    assert found.fields[0].targets.shape[1] == 1


def test_a_second_afternoon_joins_and_a_recipe_that_was_edited_stays(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    places = PLACES[:3]
    first, _ = collect_quietly(written(stage_positions=places), tmp_path)
    assert first.recipe_is_new
    edited = first.recipe.read_text().replace("steps: 3000", "steps: 17")
    first.recipe.write_text(edited)
    brighter = written(stage_positions=places, channels=[BF, NUCLEI | {"exposure": 30}], z_plan=None)
    second, warnings = collect_quietly(brighter, tmp_path, "another")
    assert not second.recipe_is_new
    assert second.recipe.read_text() == edited
    assert any("wants 3 focal planes in steps of 1; this run took 1" in said for said in warnings)
    assert any("Nuclei is exposed for 30 ms, and was for 20 ms in" in said for said in warnings)
    assert len(list((tmp_path / "pairs").glob("*/pairs.json"))) == 2


SIDE_PX = 400  # enough cells to tell a shift by


def recording(path: Path, shifts_px: list[tuple[int, int]], exposure_ms: float = 20.0) -> None:
    """Record bright field and nuclei of several places; the nuclei lie (dy, dx) pixels beside it."""
    scope = Microscope(Settings(width=SIDE_PX, height=SIDE_PX, seconds_per_exposure=0.0))
    frames = []
    for place, (dy, dx) in zip(PLACES, shifts_px, strict=False):
        for channel, y_px, x_px in (("BF", 0, 0), ("Nuclei", dy, dx)):
            scope.bench.channel = channel
            # What lies further down in the image is seen with the stage further up.
            scope.bench.y_um, scope.bench.x_um = place["y"] - y_px * 0.325, place["x"] - x_px * 0.325
            frames.append(scope.expose(10.0 if channel == "BF" else exposure_ms))
    tifffile.imwrite(path, np.stack(frames), photometric="minisblack")


def replayed(tmp_path: Path, written: Callable[..., Path], n: int, **changes: Any) -> Path:
    config = (shipped_folder() / "replay.cfg").read_text()
    config = config.replace(
        "Property,Core,ChannelGroup,Channel",
        "#py ConfigGroup,Channel,Nuclei,Camera,Binning,1\nProperty,Core,ChannelGroup,Channel",
    )
    (tmp_path / "replay_pairs.cfg").write_text(config)
    rig = RIG | {
        "config": "replay_pairs.cfg",
        "pixel_size_um": 0.325,
        "properties": [["Camera", "Source", str(tmp_path / "recording.tif")]],
    }
    return written(rig=rig, z_plan=None, stage_positions=PLACES[:n], **changes)


def test_the_shift_of_a_filter_cube_is_found_and_taken_out_by_the_reader(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    recording(tmp_path / "recording.tif", [(9, -6)] * 5)
    said = plain(livestain("collect", replayed(tmp_path, written, 5), "--out", "pairs", folder=tmp_path))
    assert "5 of 5 positions give pairs" in said
    assert "below and" in said
    assert "left of the transmitted light" in said
    found = pairs_of(tmp_path / "pairs")["shift_px"]["Nuclei"]
    np.testing.assert_allclose(found, (9, -6), atol=1)
    fields = read_fields(load_recipe(tmp_path / "pairs" / "recipe.yaml").data).fields
    assert len(fields) == 5
    assert fields[0].size_px == (SIDE_PX - abs(found[0]), SIDE_PX - abs(found[1]))


def test_a_position_that_moved_between_the_channels_is_left_out(written: Callable[..., Path], tmp_path: Path) -> None:
    recording(tmp_path / "recording.tif", [(2, 1), (2, 1), (2, -14), (2, 1), (2, 1)])
    found, _ = collect_quietly(replayed(tmp_path, written, 5), tmp_path)
    assert found.report.n_good == 4, found.report
    left_out = pairs_of(tmp_path / "pairs")["left_out"]
    assert list(left_out) == ["2"]
    assert "beside where it lies at the other positions" in left_out["2"]
    assert len(read_fields(load_recipe(found.recipe).data).fields) == 4


def test_a_saturated_and_an_empty_position_are_left_out_with_the_remedy(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    recording(tmp_path / "recording.tif", [(0, 0)] * 5)
    frames = tifffile.imread(tmp_path / "recording.tif")
    frames[3] = np.minimum(frames[3].astype(np.int64) * 12, 4095)  # a camera of 12 bits that says 16
    frames[7] = np.random.default_rng(0).normal(100, 2, frames[7].shape)
    tifffile.imwrite(tmp_path / "recording.tif", frames, photometric="minisblack")
    said = plain(livestain("collect", replayed(tmp_path, written, 5), "--out", "pairs", folder=tmp_path, status=1))
    left_out = pairs_of(tmp_path / "pairs")["left_out"]
    assert set(left_out) == {"1", "3"}
    assert "saturated" in left_out["1"]
    assert "empty" in left_out["3"]
    assert "lower its exposure (20 ms)" in said
    assert "raise its exposure (20 ms)" in said
    assert "3 of 5 positions give pairs" in said


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_keeps_and_checks_what_is_whole_and_the_rest_can_be_looked_at_again(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written(rig=SMALL, stage_positions=[], grid_plan={"rows": 8, "columns": 8})
    command = [sys.executable, "-m", "livestain", "collect", str(path), "--out", "pairs"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        journals = list((tmp_path / "pairs").glob("*/frames.jsonl"))
        if journals and journals[0].read_bytes().count(b"\n") > 12:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "canceled" in said
    assert "not whole, left out" in said
    left_out = pairs_of(tmp_path / "pairs")["left_out"]
    assert 0 < len(left_out) < 64
    assert "not whole" in left_out.values()
    recipe = load_recipe(tmp_path / "pairs" / "recipe.yaml", {"data.check_registration": False})
    assert len(read_fields(recipe.data).fields) == 64 - len(left_out)

    run = only_run(tmp_path / "pairs")
    before = (run / "pairs.json").read_bytes()
    (run / "pairs.json").unlink()
    look_again(run, Quiet())
    assert (run / "pairs.json").read_bytes() == before


def test_the_shipped_example_is_sound() -> None:
    example = load_experiment(shipped_folder() / "collect_simulated.yaml")
    plan = plan_pairs(example)
    assert (plan.input, plan.targets) == ("BF", ("Nuclei",))
    with prepare(example) as ready:
        assert check_places(plan, ready, example.rig.instrument) == []


# ------------------------------------------------------------------------------------------ before the first frame


@pytest.mark.parametrize(
    ("rig", "changes", "says"),
    [
        ({"channels": {}}, {}, "BF: {contrast: bright field}"),
        ({"channels": {"Ph": {"contrast": "phase contrast"}}}, {}, "gives a contrast to is 'Ph'"),
        ({"channels": {n: {"contrast": "DIC"} for n in ("BF", "Nuclei")}}, {}, "only one channel can be the input"),
        ({}, {"channels": [BF]}, "acquires no fluorescence beside 'BF'"),
        ({}, {"channels": [BF, {"config": "Nuclei"}]}, "('Nuclei') has no exposure"),
        ({}, {"time_plan": {"interval": 0, "loops": 3}}, "take the time_plan away"),
        ({}, {"z_plan": {"range": 4.5, "step": 1.5}}, "number odd, e.g. 5 planes: z_plan: {range: 6, step: 1.5}"),
        ({}, {"channels": [BF | {"do_stack": False}, NUCLEI]}, "'BF' has do_stack: false"),
        (
            {},
            {"stage_positions": [PLACES[0] | {"name": "odd one", "sequence": {"z_plan": STACK}}, PLACES[1]]},
            "position 'odd one' takes no image of channel 'Nuclei'",
        ),
    ],
)
def test_what_would_be_of_no_use_is_refused_before_the_first_frame(
    rig: dict[str, Any], changes: dict[str, Any], says: str, written: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ExperimentError, match=re.escape(says)):
        collect_quietly(written(rig=RIG | rig, **changes), tmp_path)
    assert not list((tmp_path / "pairs").glob("*"))


def test_a_rig_without_pixel_size_is_refused(written: Callable[..., Path], tmp_path: Path) -> None:
    recording(tmp_path / "recording.tif", [(0, 0)])
    path = replayed(tmp_path, written, 1)
    path.write_text(
        path.read_text().replace("pixel_size_um: 0.325", "instrument: x").replace("instrument: simulated\n", "\n")
    )
    with pytest.raises(RigError, match=r"pixel_size_um: 0\.325"):
        collect_quietly(path, tmp_path)


def test_an_output_that_exists_is_refused(written: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "pairs" / "run").mkdir(parents=True)
    with pytest.raises(StoreError, match="exists already"):
        collect_quietly(written(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"stage_positions": PLACES[:1], "channels": [NUCLEI, BF]},
            ["only one position", "fluorescence is taken before all of 'BF'", "the microscope has no name"],
        ),
        (
            {"stage_positions": PLACES[:2], "axis_order": "tcpz", "z_plan": {"above": 3, "below": 0, "step": 1.5}},
            ["only 2 positions", "comes to every position 2 times", "lies +1.5 um from"],
        ),
        ({"stage_positions": PLACES[:3], "axis_order": "tpzc"}, ["fluorescence is taken before all of 'BF'"]),
    ],
)
def test_what_is_not_ideal_is_said_and_acquired_all_the_same(
    changes: dict[str, Any], says: list[str], written: Callable[..., Path], tmp_path: Path
) -> None:
    rig = SMALL | {"instrument": None if len(changes["stage_positions"]) == 1 else "simulated"}
    found, warnings = collect_quietly(written(rig=rig, **changes), tmp_path)
    for said in says:
        assert any(said in warning for warning in warnings), warnings
    assert len([warning for warning in warnings if "recipe" not in warning]) == len(says)
    assert found.result.complete


class Quiet:
    """A listener that keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def ready(self, prepared: Any) -> None: ...
    def update(self, status: Any) -> None: ...
    def checked(self, check: Any, position: str, plan: Any) -> None: ...
    def checking(self, done: int, total: int) -> None: ...
    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def collect_quietly(path: Path, tmp_path: Path, name: str = "run") -> tuple[Any, list[str]]:
    listener = Quiet()
    return collect(load_experiment(path), tmp_path / "pairs" / name, listener), listener.warnings


def test_ctrl_c_while_the_last_pairs_are_looked_at_says_how_to_go_on(
    written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    listener = Quiet()
    with monkeypatch.context() as patched:
        patched.setattr("livestain.pairs.collect._finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(load_experiment(written(rig=SMALL)), tmp_path / "pairs" / "run", listener)
    assert any("livestain collect" in sentence for sentence in listener.warnings)
    assert look_again(tmp_path / "pairs" / "run", Quiet()).report.n_positions == 6


def test_a_run_that_its_camera_ends_says_how_to_look_at_what_is_whole(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    recording(tmp_path / "recording.tif", [(0, 0)] * 3)  # then it is at its end, and the run asks for 6
    listener = Quiet()
    with pytest.raises(LivestainError, match="all were played"):
        collect(load_experiment(replayed(tmp_path, written, 6)), tmp_path / "pairs" / "run", listener)
    found = look_again(tmp_path / "pairs" / "run", Quiet())
    assert found.report.n_good == 3
    assert set(found.report.left_out) == {"3", "4", "5"}


def test_a_check_that_fails_costs_no_image_and_can_be_made_again(
    written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*planes: Any, **more: Any) -> PairCheck:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(pairs_checker, "check_pair", broken)
    with pytest.raises(LivestainError, match=r"a fault of ours.*safe.*livestain collect"):
        collect_quietly(written(rig=SMALL, stage_positions=PLACES[:2]), tmp_path)
    monkeypatch.undo()
    assert look_again(tmp_path / "pairs" / "run", Quiet()).report.n_positions == 2


def test_ctrl_c_while_pairs_are_looked_at_leaves_the_rest_for_later(
    written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hurried(Quiet):
        def checking(self, done: int, total: int) -> None:
            raise KeyboardInterrupt

    def slow(image: int, *planes: Any, **more: Any) -> PairCheck:
        time.sleep(0.5)
        return check(image, "matches")

    monkeypatch.setattr(pairs_checker, "check_pair", slow)
    path = written(rig=SMALL, stage_positions=PLACES[:4])
    found = collect(load_experiment(path), tmp_path / "pairs" / "run", Hurried())
    assert set(found.report.left_out.values()) == {"not looked at"}
    assert len(found.report.left_out) >= 2


def test_a_trouble_is_told_once_while_the_run_goes_on(
    written: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_pairs(load_experiment(written()))
    display = PairsDisplay(OwnConsole())
    for image in range(3):
        display.checked(check(image, "matches", saturated=0.2), f"dish {image}", plan)
        display.checked(check(image, "matches"), f"dish {image}", plan)
    said = plain(capsys.readouterr().out)
    assert said.count("Nuclei is saturated in 20.0% of the pixels") == 1
    assert "dish 0" in said
    display.checked(check(3, "matches", saturated=0.002), "dish 3", plan)
    assert "dish 3: Nuclei is saturated in 0.20%" in plain(capsys.readouterr().out)


# ------------------------------------------------------------------------------------------ what is seen


def check(image: int, verdict: Any, shift_um: tuple[float, float] = (0.0, 0.0), **more: Any) -> PairCheck:
    found = Registration(verdict, shift_um, (shift_um[0] / 0.5, shift_um[1] / 0.5), 1.0, 0.5)
    plain_check = PairCheck(image, "Nuclei", saturated=0.0, input_saturated=0.0, empty=False, registration=found)
    return replace(plain_check, **more)


@pytest.mark.parametrize(
    ("checks", "shift_px", "left_out"),
    [
        ([check(i, "matches", (0.2, -0.2)) for i in range(4)], (0, 0), set()),
        ([check(i, "shifted", (3.0, -2.0)) for i in range(4)], (6, -4), set()),
        ([*(check(i, "shifted", (3.0, -2.0)) for i in range(3)), check(3, "matches")], (6, -4), {3}),
        ([check(0, "shifted", (5.0, 0.0)), check(1, "shifted", (-5.0, 0.0)), check(2, "matches"), check(3, "shifted", (0, 9.0))], (0, 0), {0, 1, 3}),
        ([check(i, "cannot tell") for i in range(4)], (0, 0), set()),
        ([check(0, "unrelated"), check(1, "scaled"), check(2, "matches"), check(3, "matches")], (0, 0), {0, 1}),
        ([check(0, "matches", saturated=0.002), check(1, "matches", saturated=0.02), check(2, "matches", input_saturated=0.5), check(3, "matches", empty=True, registration=None)], (0, 0), {1, 2, 3}),
        ([check(0, "shifted", (4.0, 0.0))], (8, 0), {1, 2, 3}),
    ],
    ids=["fit", "cube", "one beside", "no agreement", "cannot tell", "wrong", "exposure", "not whole"],
)  # fmt: skip
def test_the_positions_decide_together(
    checks: list[PairCheck], shift_px: tuple[int, int], left_out: set[int], written: Callable[..., Path]
) -> None:
    plan = plan_pairs(load_experiment(written()))
    report = judge(checks, plan, layout_of(4))
    assert report.shift_px["Nuclei"] == shift_px
    assert set(report.left_out) == {str(i) for i in left_out}
    assert report.n_good == 4 - len(left_out)


def layout_of(n: int) -> Any:
    import useq

    from livestain._layout import Layout

    asked = sequence(stage_positions=[(x, 0, 0) for x in range(n)])
    return Layout.of(useq.MDASequence.model_validate(asked), height=64, width=64, pixel_size_um=0.5)


@pytest.mark.parametrize("bits", [8, 12, 14, 16])
def test_saturation_is_found_at_any_bit_depth(bits: int) -> None:
    top = (1 << bits) - 1
    rng = np.random.default_rng(bits)
    grey = rng.normal(0.5 * top, 0.1 * top, (200, 200))
    grey[:20, :10] = 10 * top  # half a percent
    saturated = np.clip(grey, 0, top).astype(np.uint16)
    assert saturated_share(saturated, 8 if bits == 8 else 16) == pytest.approx(0.005, abs=1e-4)
    assert saturated_share(np.clip(grey, 0, 0.9 * top).astype(np.uint16), bits) == 0


def test_grey_values_around_a_full_scale_are_not_taken_for_saturation() -> None:
    smooth = np.random.default_rng(0).normal(4095, 20, (300, 300)).astype(np.uint16)
    assert saturated_share(smooth, 16) == 0


@pytest.mark.parametrize(
    ("cells_per_mm2", "exposure_ms", "empty"), [(0, 1, True), (0, 200, True), (200, 1, False), (2170, 20, False)]
)
def test_an_empty_field_is_told_from_a_dim_or_sparse_one(cells_per_mm2: float, exposure_ms: float, empty: bool) -> None:
    scope = Microscope(Settings(cells_per_mm2=cells_per_mm2, width=256, height=192))
    scope.bench.channel = "Nuclei"
    assert is_empty(scope.expose(exposure_ms), 0.325) is empty
    assert is_empty(np.zeros((64, 64), np.uint16), 0.325)
