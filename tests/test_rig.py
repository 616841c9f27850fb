"""Rig, sequence and model contract held against each other before the first frame."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from livestain._errors import ExperimentError, ModelError, RigError
from livestain._experiment import Rig
from livestain._prepare import prepare
from livestain._reading import load_experiment
from livestain._rig import close_core, open_core
from livestain._session import run_experiment
from livestain._shipped import shipped_folder
from tests import model_builders
from tests.conftest import PIXEL_SIZE_UM, Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livestain._layout import Layout
    from livestain_models.package import Package

BF = [{"config": "BF", "exposure": 1}]


def prepare_only(path: Path) -> Layout:
    with prepare(load_experiment(path)) as ready:
        return ready.layout


@pytest.fixture
def stack_model(tmp_path: Path) -> Package:
    return model_builders.package(
        tmp_path / "stack",
        model_builders.two_stains_graph(planes=3),
        pixel_size_um=PIXEL_SIZE_UM,
        outputs=model_builders.z_stack_package(tmp_path / "x").contract.outputs,
        planes=model_builders.Planes(count=3, spacing_um=1.0),
    )


STACKS: dict[str, tuple[dict[str, Any], str | None]] = {
    "rising": ({"z_plan": {"range": 4, "step": 1}}, None),
    "falling": ({"z_plan": {"range": 4, "step": 1, "go_up": False}}, "rising planes 1 um apart"),
    "too coarse": ({"z_plan": {"range": 4, "step": 2}}, "rising planes 1 um apart"),
    "uneven": ({"z_plan": {"absolute": [0, 1, 5, 9]}}, "goes to 0, 1, 5, 9 um"),
    "uneven at one position": (
        {
            "z_plan": {"range": 4, "step": 1},
            "stage_positions": [{"x": 0, "y": 0, "z": 0, "sequence": {"z_plan": {"range": 8, "step": 4}}}],
        },
        "goes to -4, 0, 4 um",
    ),
    "stage moves between planes": (
        {
            "z_plan": {"range": 2, "step": 1},
            "axis_order": "tzpc",
            "stage_positions": [{"x": 0, "y": 0, "z": 0}, {"x": 50, "y": 0, "z": 0}],
        },
        "axis_order tzpc moves the stage or time between the planes",
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_a_model_of_several_planes_gets_the_stack_it_was_made_for(
    name: str, stack_model: Package, write_experiment: Callable[..., Path]
) -> None:
    plan, says = STACKS[name]
    path = write_experiment(
        sequence={"channels": BF} | plan, stains=[{"model": str(stack_model.folder), "channel": "BF"}]
    )
    if says is None:
        prepare_only(path)
    else:
        with pytest.raises(ModelError, match=says):
            prepare_only(path)


def test_the_camera_is_judged_as_the_sequence_leaves_it(write_experiment: Callable[..., Path]) -> None:
    layout = prepare_only(write_experiment(sequence={"channels": BF, "setup": {"roi": [0, 0, 64, 48]}}))
    assert (layout.height, layout.width) == (48, 64)
    path = write_experiment("run", sequence={"channels": BF, "setup": {"roi": [0, 0, 64, 48]}})
    experiment = load_experiment(path)
    result = run_experiment(experiment, experiment.run_folder("x"))
    assert result.complete
    assert Run(result.folder).array().shape[-2:] == (48, 64)


def test_a_channel_that_changes_the_pixel_size_is_refused(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    """On the demo camera: a preset that also turns the nosepiece."""
    text = (shipped_folder() / "demo.cfg").read_text()
    group = "ConfigGroup,Channel,BF,"
    device = next(line.split(",")[3] for line in text.splitlines() if line.startswith("ConfigGroup,Objective"))
    labels = [line.split(",")[5] for line in text.splitlines() if line.startswith("ConfigGroup,Objective")]
    assert group in text
    text += (
        f"\nConfigGroup,Channel,BF,{device},Label,{labels[0]}\nConfigGroup,Channel,DAPI,{device},Label,{labels[-1]}\n"
    )
    (tmp_path / "turns.cfg").write_text(text)
    path = write_experiment(
        rig={"config": str(tmp_path / "turns.cfg")},
        sequence={"channels": [{"config": "BF", "exposure": 1}, {"config": "DAPI", "exposure": 1}]},
    )
    with pytest.raises(RigError, match="share frame size, bits and pixel size, but here they differ"):
        prepare_only(path)


def test_two_pixel_sizes_are_one_too_many(write_experiment: Callable[..., Path]) -> None:
    path = write_experiment(rig={"config": "simulated.cfg", "pixel_size_um": 0.65})
    with pytest.raises(RigError, match=r"pixel_size_um is 0\.65, but .* gives 0\.325 um"):
        prepare_only(path)


def test_without_a_pixel_size_no_unit_is_claimed_and_no_model_runs(
    write_experiment: Callable[..., Path], identity_model: Package, tmp_path: Path
) -> None:
    text = "\n".join(
        line
        for line in (shipped_folder() / "simulated.cfg").read_text().splitlines()
        if not line.startswith(("PixelSize", "ConfigPixelSize"))
    )
    (tmp_path / "bare.cfg").write_text(text)
    rig = {"config": str(tmp_path / "bare.cfg"), "properties": [["Camera", "Width", 64], ["Camera", "Height", 64]]}
    experiment = load_experiment(write_experiment(rig=rig, sequence={"channels": BF}))
    result = run_experiment(experiment, experiment.run_folder("x"))
    import yaozarrs

    image = yaozarrs.open_group(Run(result.folder).images).ome_metadata().multiscales[0]
    assert [axis.unit for axis in image.axes[2:]] == [None, None, None]
    path = write_experiment("two", rig=rig, stains=[{"model": str(identity_model.folder), "channel": "BF"}])
    with pytest.raises(RigError, match="no pixel size, but the model test-model needs"):
        prepare_only(path)


def test_a_grid_by_its_edges_has_as_many_tiles_as_the_engine_makes(write_experiment: Callable[..., Path]) -> None:
    edges = {"top": 50, "bottom": -50, "left": -50, "right": 50}
    path = write_experiment(sequence={"channels": BF, "grid_plan": edges})
    experiment = load_experiment(path)
    result = run_experiment(experiment, experiment.run_folder("x"))
    assert result.complete  # 128 x 96 px of 0.325 um: 3 x 4 tiles, not 100 x 100 of a micrometre
    assert result.stats.frames_acquired == 12
    with pytest.raises(ExperimentError, match="random_seed"):
        prepare_only(write_experiment("r", sequence={"channels": BF, "grid_plan": {"num_points": 4}}))


def test_a_core_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest keeps log records, and pymmcore-plus logs its cores.
    monkeypatch.setattr(logging.getLogger("pymmcore-plus"), "disabled", True)
    core = open_core(Rig(config=shipped_folder() / "simulated.cfg", circular_buffer_mb=8))
    gone = weakref.ref(core)
    close_core(core)
    del core
    gc.collect()
    assert gone() is None


def test_a_rig_without_a_camera_is_named(write_experiment: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "blind.cfg").write_text("Property,Core,Initialize,0\nProperty,Core,Initialize,1\n")
    with pytest.raises(RigError, match="gives the core no camera"):
        prepare_only(write_experiment(rig=str(tmp_path / "blind.cfg")))


def test_a_configuration_that_the_core_refuses_is_named_with_its_line(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.cfg").write_text("Property,Core,Initialize,0\nDevice,Camera,NoSuchVendor,Cam\n")
    with pytest.raises(RigError, match=r"the core refuses .*bad\.cfg.*NoSuchVendor(.|\n)*livestain check"):
        prepare_only(write_experiment(rig=str(tmp_path / "bad.cfg")))
