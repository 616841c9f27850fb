"""OpenVINO as the second engine: the same packages, the same answers as onnxruntime, and no word to anybody."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

from livestain._errors import ModelError
from livestain._experiment import Stain
from livestain._reading import load_experiment
from livestain._session import run_experiment
from livestain._stain import OnnxModel
from livestain.runtimes.openvino import import_openvino
from livestain.simulate import Microscope, Settings
from livestain_models.package import load_package, sha256_of, zoo
from livestain_models.quantise import to_fp16, to_int8
from livestain_models.variants import add_variant, grey_difference
from tests.conftest import PIXEL_SIZE_UM, Run
from tests.model_builders import (
    blur_package,
    doubling_graph,
    foreign_package,
    graph,
    grid_package,
    identity_graph,
    package,
    residual_package,
    two_stains_graph,
    two_stains_package,
    z_stack_package,
)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is an extra")

MOST_GREY = 2  # of 65535, fp32 in OpenVINO against fp32 in onnxruntime
INT8_MEAN_GREY = 20  # the same of int8: each engine rounds its own way (measured: 8 on average, 600 at most)
BF16_MEAN_GREY = 30  # bf16 against fp32 (measured: 5 to 24 on average, 1604 at most)


def noise(planes=1, height=33, width=47, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (planes, height, width)).astype(dtype)


def simulated(count=1, height=256, width=256, seed=921):
    """Bright field of a sample that no shipped model saw, (count, H, W), 1 um from plane to plane."""
    microscope = Microscope(Settings(seed=seed, seconds_per_exposure=0))
    microscope.set_sensor(height, width)
    taken = []
    for number in range(count):
        microscope.bench.z_um = number - (count - 1) / 2
        taken.append(microscope.expose(10))
    return np.stack(taken)


def both(built, planes, **more):
    """(C, H, W) of onnxruntime and of OpenVINO, as int."""
    answers = [OnnxModel(built, name, threads=1, **more).predict(planes).planes for name in ("cpu", "openvino")]
    assert [answer.dtype for answer in answers] == [np.uint16] * 2
    return [answer.astype(int) for answer in answers]


# ---------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
def test_grey_values_go_in_as_they_are(tmp_path, dtype):
    planes = noise().astype(dtype)
    prediction = OnnxModel(package(tmp_path), "openvino").predict(planes)
    assert prediction.planes.dtype == np.uint16
    assert (prediction.planes == planes).all()
    assert 0 < prediction.net_ms <= prediction.host_to_host_ms


def test_float_input_where_the_contract_declares_it(tmp_path):
    cast = helper.make_node("Cast", ["planes"], ["stains"], to=TensorProto.UINT16)
    built = package(tmp_path, graph([cast], dtype_in=TensorProto.FLOAT), input_dtype="float32")
    planes = noise()
    assert (OnnxModel(built, "openvino").predict(planes).planes == planes).all()


@pytest.mark.parametrize("make", [blur_package, grid_package, two_stains_package, z_stack_package])
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 40)])
def test_small_graphs_at_sizes_that_need_padding(tmp_path, make, size):
    built = make(tmp_path)
    ort, openvino = both(built, noise(built.contract.planes.count, *size))
    assert openvino.shape[1:] == size
    assert np.abs(ort - openvino).max() <= 1  # halves round as the arithmetic before them ended


@pytest.mark.parametrize("name", zoo())
def test_shipped_models_answer_as_in_onnxruntime(name):
    built = load_package(name)
    ort, openvino = both(built, simulated(built.contract.planes.count, 200, 331))
    assert ort.std() > 20
    assert np.abs(ort - openvino).max() <= MOST_GREY


def test_tiles_are_the_whole_frame():
    planes = simulated(1, 390, 500)
    model = OnnxModel(load_package("nuclei-demo"), "openvino", threads=1, max_tile_px=368)
    ort, whole = both(load_package("nuclei-demo"), planes)
    tiled = model.predict(planes).planes.astype(int)
    assert np.abs(tiled - ort).max() <= MOST_GREY
    assert np.abs(tiled - whole).max() <= 1  # kernels are chosen by shape


def test_a_package_made_elsewhere(tmp_path):
    given = noise(1, 8, 8)[None].astype(np.float32)
    folder = foreign_package(tmp_path, doubling_graph([1, 1, "H", "W"]), given, 2 * given)
    ort, openvino = both(load_package(folder), noise(1, 16, 12))
    assert (ort == openvino).all()


def test_answers_are_the_callers_to_keep(tmp_path):
    model = OnnxModel(package(tmp_path), "openvino")
    planes = noise()
    first = model.predict(planes).planes
    model.predict(np.zeros_like(planes))
    model.close()
    assert (first == planes).all()
    first[:] = 0  # writable, and not the input
    assert planes.any()
    with pytest.raises(ModelError, match="was closed"):
        model.predict(planes)


def test_views_read_only_frames_and_changing_sizes(tmp_path):
    model = OnnxModel(two_stains_package(tmp_path), "openvino")
    planes = noise(height=64, width=80)
    locked = planes.copy()
    locked.flags.writeable = False  # OpenVINO takes no such memory as it is
    for view in (planes, planes[:, ::2, ::-1], planes[:, 3:40, 5:], locked, planes):
        assert (model.predict(view).planes[0] == view[0]).all()


# ---------------------------------------------------------------------------------------------- precision


def configured(model, name):
    return model._graph._requests[-1].get_compiled_model().get_property(name)


@pytest.mark.parametrize("threads", [None, 1])
def test_fp32_is_fp32_on_every_processor(threads):
    model = OnnxModel(load_package("nuclei-demo"), "openvino", threads=threads)
    model.warm_up(64, 64)
    assert model.provider == "OpenVINO CPU fp32"
    assert configured(model, "INFERENCE_PRECISION_HINT") == import_openvino().Type.f32
    assert configured(model, "NUM_STREAMS") == 1
    if threads is not None:
        assert configured(model, "INFERENCE_NUM_THREADS") == threads


def with_variant(folder, precision, convert):
    """The shipped network with weights of another precision beside its own."""
    shipped = load_package("nuclei-demo")
    shutil.copytree(shipped.folder, folder / "model")
    frames = [simulated(seed=seed)[None] for seed in (1, 2, 3)]
    convert(shipped.weights, folder / "other.onnx", frames)
    parity = grey_difference(shipped.weights, folder / "other.onnx", frames)
    return add_variant(load_package(folder / "model"), precision, folder / "other.onnx", parity, {})


def test_fp16_weights_are_computed_in_fp32_and_it_says_so(tmp_path):
    built = with_variant(tmp_path, "fp16", lambda fp32, out, _: to_fp16(fp32, out))
    model = OnnxModel(built, "openvino", threads=1)
    planes = simulated()
    got = model.predict(planes).planes.astype(int)
    assert model.provider == "OpenVINO CPU fp32"
    assert set(executed_convolutions(model)) == {"f32"}
    _, fp32 = both(load_package("nuclei-demo"), planes)
    assert 0 < np.abs(got - fp32).max() <= built.contract.variants[0].parity["parity_max_grey"]


def executed_convolutions(model):
    """The arithmetic of every convolution that OpenVINO runs."""
    return [part for request in model._graph._requests for part in convolutions_of(request)]


def convolutions_of(request):
    told = [op.get_rt_info() for op in request.get_compiled_model().get_runtime_model().get_ops()]
    return [
        str(info["runtimePrecision"].astype(str)) for info in told if info["layerType"].astype(str) == "Convolution"
    ]


def test_int8_runs_in_int8_and_says_so(tmp_path):
    quantised = with_variant(tmp_path, "int8", to_int8)
    planes = simulated()
    model = OnnxModel(quantised, "openvino", threads=1)
    got = model.predict(planes).planes.astype(int)
    arithmetic = executed_convolutions(model)
    assert model.provider == "OpenVINO CPU int8"
    assert sum(name in {"i8", "u8"} for name in arithmetic) > len(arithmetic) / 2
    assert set(arithmetic) <= {"i8", "u8", "f32"}
    fp32, _ = both(load_package("nuclei-demo"), planes)
    ort = OnnxModel(quantised, "cpu", threads=1).predict(planes).planes.astype(int)
    assert np.abs(got - ort).mean() <= INT8_MEAN_GREY
    assert np.abs(got - fp32).mean() <= 1.2 * np.abs(ort - fp32).mean()


def bf16(built):
    """The same package as one that states bf16; what it costs is measured when it is added, see test_model_scoring."""
    return replace(built, precision="bf16")


@pytest.mark.usefixtures("computes_in_bf16")
@pytest.mark.parametrize("name", zoo())
def test_the_network_runs_in_bf16_and_what_lies_around_it_in_fp32(name):
    """Neither frames nor stains are rounded to the 8 bits of bf16, 256 grey levels in the brighter half."""
    built = load_package(name)
    model = OnnxModel(bf16(built), threads=1)  # provider auto: nothing else computes in it
    planes = simulated(built.contract.planes.count)
    got = model.predict(planes).planes.astype(int)
    assert model.provider == "OpenVINO CPU bf16"
    before, network, last = model._graph._requests
    told = [op.get_rt_info() for op in before.get_compiled_model().get_runtime_model().get_ops()]
    assert {str(info["runtimePrecision"].astype(str)) for info in told} <= {"u16", "f32", "i32", "i64"}
    assert set(convolutions_of(network)) == {"bf16"}
    assert set(convolutions_of(last)) == {"f32"}
    fp32, _ = both(built, planes)
    assert 0 < np.abs(got - fp32).mean() <= BF16_MEAN_GREY
    for rounded, whole in zip(got, fp32, strict=True):
        assert np.unique(rounded).size > 0.9 * np.unique(whole).size


@pytest.mark.usefixtures("computes_in_bf16")
def test_what_goes_round_the_network_is_not_rounded(tmp_path):
    """And of two last convolutions, one may lie deeper than the other."""
    planes = noise(1, 40, 56) // 2  # the graph does not clip
    whole, early = OnnxModel(bf16(residual_package(tmp_path)), threads=1).predict(planes).planes.astype(int)
    assert (whole == planes[0]).all()
    assert 0 < np.abs(early - planes[0]).max() <= 64  # half of the last of 8 bits


@pytest.mark.usefixtures("computes_in_bf16")
def test_bf16_needs_a_network(tmp_path):
    with pytest.raises(
        ModelError, match=r"test-model@.* has no convolution between its normalisation and its last one"
    ):
        OnnxModel(bf16(blur_package(tmp_path))).warm_up(16, 16)


def test_a_processor_without_bf16_is_an_error(monkeypatch):
    """OpenVINO would compute in fp32 there, and not say so."""
    openvino = import_openvino()

    class Older(openvino.Core):
        def get_property(self, device, name):
            told = {"OPTIMIZATION_CAPABILITIES": ["FP32", "INT8"], "FULL_DEVICE_NAME": "An Older Processor "}
            return told[name]

    monkeypatch.setattr(openvino, "Core", Older)
    with pytest.raises(ModelError, match=r"this processor \(An Older Processor\) does not compute in bf16. Write prec"):
        OnnxModel(bf16(load_package("nuclei-demo")))


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt"])
def test_bf16_is_refused_where_nothing_computes_in_it(provider):
    with pytest.raises(ModelError, match=f"bf16 .* OpenVINO only, and provider is '{provider}'. Write provider: auto"):
        OnnxModel(bf16(load_package("nuclei-demo")), provider)


# ---------------------------------------------------------------------------------------------- failures


def with_weights(good, content):
    path = good.folder / "other.onnx"
    path.write_bytes(content)
    changed = good.contract.model_copy(update={"weights_sha256": sha256_of(path)})
    return replace(good, weights=path, contract=changed)


def unknown_operator():
    model = graph([helper.make_node("Ours", ["planes"], ["stains"], domain="elsewhere")])
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    return model


def halving():
    nodes = [
        helper.make_node("Cast", ["planes"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MaxPool", ["wide"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Cast", ["half"], ["stains"], to=TensorProto.UINT16),
    ]
    model = graph(nodes)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "h"
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_param = "w"
    return model


BROKEN = {
    "empty": (lambda: b"", r"inputs \[\] and outputs \[\]"),
    "foreign": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(200), "not ONNX at all"),
    "truncated": (lambda: two_stains_graph().SerializeToString()[:150], "truncated"),
    "an operator of its own": (lambda: unknown_operator().SerializeToString(), "Ours.*write provider: cpu"),
    "float in": (
        lambda: identity_graph(dtype=TensorProto.FLOAT).SerializeToString(),
        r"input 'planes' is tensor\(float\)",
    ),
    "two planes": (lambda: identity_graph(planes=2).SerializeToString(), r"needs \(1, 1, H, W\)"),
    "fixed size": (
        lambda: graph([helper.make_node("Identity", ["planes"], ["stains"])], size=(512, 512)).SerializeToString(),
        r"fixed frame size \[512, 512\]",
    ),
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_graphs_are_refused_at_once(tmp_path, capfd, content, reason):
    broken = with_weights(package(tmp_path), content())
    with pytest.raises(ModelError, match=reason) as caught:
        OnnxModel(broken, "openvino")
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_changes_the_frame_size_fails_in_the_warm_up(tmp_path):
    built = with_weights(package(tmp_path), halving().SerializeToString())
    with pytest.raises(ModelError, match=r"failed on a \(1, 1, 32, 32\) tile in OpenVINO: .*incompatible"):
        OnnxModel(built, "openvino").warm_up(32, 32)


def test_what_the_device_refuses_ends_the_warm_up(tmp_path):
    model = OnnxModel(package(tmp_path), "openvino")
    model._graph._settings["INFERENCE_NUM_THREADS"] = "many"
    with pytest.raises(ModelError, match=r"failed on a \(1, 1, 8, 8\) tile in OpenVINO: .*INFERENCE_NUM_THREADS"):
        model.warm_up(8, 8)
    model._graph._settings["INFERENCE_NUM_THREADS"] = 1
    model.warm_up(8, 8)


def test_neither_engine_needs_the_other(tmp_path, monkeypatch):
    built, planes = package(tmp_path), noise()
    for provider, other in (("cpu", "openvino"), ("openvino", "onnxruntime")):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, other, None)
            assert (OnnxModel(built, provider).predict(planes).planes == planes).all()


def test_without_openvino_the_line_to_run_is_named(tmp_path, monkeypatch):
    built = package(tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r'pip install "livestain\[openvino\]"; or write provider: cpu'):
        OnnxModel(built, "openvino")


# ---------------------------------------------------------------------------------------------- the run


LISTENING = """
import sys

heard = []
sys.addaudithook(lambda event, args: heard.append((event, args)) if event.startswith("socket.") else None)
import numpy as np
from livestain._stain import OnnxModel
from livestain_models.package import load_package

OnnxModel(load_package("nuclei-demo"), "openvino", threads=1).warm_up(32, 32)
sys.exit(repr(heard) if heard else 0)
"""


def test_nothing_is_reported_to_anybody(tmp_path):
    """`import openvino` alone would send an event to a web analytics service and leave an identity at home."""
    for name in ("home", "appdata"):
        (tmp_path / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD"}}  # it is shy there
    environment = kept | {"HOME": str(tmp_path / "home"), "LOCALAPPDATA": str(tmp_path / "appdata")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LISTENING], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "pymmcore-plus" not in path.parts]
    assert left == []


def test_a_run_names_the_engine_and_its_precision(tmp_path, write_experiment):
    built = package(tmp_path / "model", pixel_size_um=PIXEL_SIZE_UM)
    stains = [{"model": str(built.folder), "channel": "BF", "provider": "openvino", "threads": 1}]
    experiment = load_experiment(write_experiment(stains=stains))
    run = Run(run_experiment(experiment, tmp_path / "run").folder)
    stained = [line for line in run.of_kind("stain") if line["status"] == "stained"]
    assert {line["provider"] for line in stained} == {"OpenVINO CPU fp32"}
    np.testing.assert_array_equal(run.array()[:, 1], run.array()[:, 0])


def test_auto_stays_with_onnxruntime(tmp_path):
    assert OnnxModel(package(tmp_path), Stain(model="m", channel="BF").provider).provider == "CPUExecutionProvider"
