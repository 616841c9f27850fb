"""OnnxModel: what it answers, and what it refuses before the first frame."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from livestain._errors import ModelError
from livestain._stain import OnnxModel
from livestain_models.package import sha256_of
from tests.model_builders import (
    fragile_package,
    graph,
    identity_graph,
    package,
    two_stains_graph,
    two_stains_package,
    z_stack_package,
)


def frame(planes=1, height=33, width=47, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (planes, height, width)).astype(dtype)


def with_weights(good, content):
    """The same package over another ONNX file, its hash in the contract."""
    path = good.folder / "other.onnx"
    path.write_bytes(content)
    changed = good.contract.model_copy(update={"weights_sha256": sha256_of(path)})
    return replace(good, weights=path, contract=changed)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
def test_grey_values_go_in_as_they_are(tmp_path, dtype):
    planes = frame().astype(dtype)
    prediction = OnnxModel(package(tmp_path)).predict(planes)
    assert prediction.planes.dtype == np.uint16
    assert (prediction.planes == planes).all()
    assert 0 < prediction.net_ms <= prediction.host_to_host_ms


def test_float_input_where_the_contract_declares_it(tmp_path):
    cast = helper.make_node("Cast", ["planes"], ["stains"], to=TensorProto.UINT16)
    built = package(tmp_path, graph([cast], dtype_in=TensorProto.FLOAT), input_dtype="float32")
    planes = frame()
    assert (OnnxModel(built).predict(planes).planes == planes).all()


def test_several_planes_several_stains(tmp_path):
    model = OnnxModel(z_stack_package(tmp_path, planes=3))
    planes = frame(planes=3)
    first, second = model.predict(planes).planes
    assert np.abs(first - planes.mean(0)).max() <= 0.51
    assert (first.astype(int) + second == 65535).all()


def test_answers_are_the_callers_to_keep(tmp_path):
    model = OnnxModel(package(tmp_path))
    planes = frame()
    first = model.predict(planes).planes
    model.predict(np.zeros_like(planes))
    model.close()
    assert (first == planes).all()
    first[:] = 0  # writable, and not the input
    assert planes.any()


class Watched:
    """A graph that keeps the arrays it was run on."""

    def __init__(self, graph):
        self.graph, self.ran = graph, []

    def __getattr__(self, name):
        return getattr(self.graph, name)

    def run(self, given, predicted):
        self.ran.append((given, predicted))
        self.graph.run(given, predicted)


def test_a_frame_that_fits_is_neither_copied_in_nor_out(tmp_path):
    model = OnnxModel(package(tmp_path, multiple_px=8))
    model._graph = watched = Watched(model._graph)
    fits = frame(height=32, width=48)
    locked, padded = fits.copy(), frame()
    locked.flags.writeable = False
    for planes, is_direct in ((fits, True), (fits.byteswap().view(">u2"), False), (locked, False), (padded, False)):
        stains = model.predict(planes).planes
        given, predicted = watched.ran[-1]
        assert (stains == planes).all()
        assert (np.shares_memory(given, planes), np.shares_memory(predicted, stains)) == (is_direct, is_direct)


def test_views_and_changing_frame_sizes(tmp_path):
    model = OnnxModel(two_stains_package(tmp_path))
    planes = frame(height=64, width=80)
    for view in (planes, planes[:, ::2, ::-1], planes[:, 3:40, 5:], planes):
        assert (model.predict(view).planes[0] == view[0]).all()


def test_warm_up_then_predict(tmp_path):
    model = OnnxModel(package(tmp_path), threads=1)
    model.warm_up(40, 50)
    planes = frame(height=40, width=50)
    assert (model.predict(planes).planes == planes).all()
    assert model.provider == "CPUExecutionProvider"
    assert model.fingerprint.startswith("test-model@1 sha256:")


@pytest.mark.parametrize(
    "planes",
    [
        np.zeros((2, 8, 8), np.uint16),
        np.zeros((8, 8), np.uint16),
        np.zeros((1, 0, 8), np.uint16),
        np.zeros((1, 8, 8), np.float32),
        np.zeros((1, 8, 8), np.int16),
        np.zeros((1, 8, 8), np.uint32),
    ],
    ids=lambda planes: f"{planes.shape} {planes.dtype}",
)
def test_other_frames_are_refused(tmp_path, planes):
    with pytest.raises(ModelError, match="takes"):
        OnnxModel(package(tmp_path)).predict(planes)


def test_a_failing_run_raises_and_the_next_one_works(tmp_path):
    model = OnnxModel(fragile_package(tmp_path))
    planes = frame()
    planes[0, 0, 0] = 666
    with pytest.raises(ModelError, match="failed on a"):
        model.predict(planes)
    planes[0, 0, 0] = 0
    assert (model.predict(planes).planes == planes).all()


def test_a_closed_model_says_so(tmp_path):
    model = OnnxModel(package(tmp_path))
    model.predict(frame())
    model.close()
    with pytest.raises(ModelError, match="was closed"):
        model.predict(frame())


def test_a_graph_that_changes_the_frame_size_fails_in_the_warm_up(tmp_path):
    halve = helper.make_node("MaxPool", ["planes8"], ["half"], kernel_shape=[2, 2], strides=[2, 2])
    nodes = [
        helper.make_node("Cast", ["planes"], ["planes8"], to=TensorProto.FLOAT),
        halve,
        helper.make_node("Cast", ["half"], ["stains"], to=TensorProto.UINT16),
    ]
    model = graph(nodes)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "h"
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_param = "w"
    built = with_weights(package(tmp_path), model.SerializeToString())
    with pytest.raises(ModelError, match="failed on a"):
        OnnxModel(built).warm_up(32, 32)


def two_inputs():
    model = identity_graph()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.UINT16, [1, 1, "H", "W"]))
    return model


def rank_three():
    model = identity_graph()
    for value in (model.graph.input[0], model.graph.output[0]):
        del value.type.tensor_type.shape.dim[0]
    return model


def with_weights_outside():
    model = graph([helper.make_node("Add", ["planes", "w"], ["stains"])], constants={"w": np.ones(4096, np.uint16)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.data")
    return model


BROKEN = {
    "empty": (lambda: b"", "0 byte"),
    "foreign": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(200), "not ONNX at all"),
    "truncated": (lambda: two_stains_graph().SerializeToString()[:150], "truncated"),
    "two inputs": (lambda: two_inputs().SerializeToString(), r"inputs \['planes', 'more'\]"),
    "float in": (
        lambda: identity_graph(dtype=TensorProto.FLOAT).SerializeToString(),
        r"input 'planes' is tensor\(float\)",
    ),
    "uint8 in": (lambda: identity_graph(dtype=TensorProto.UINT8).SerializeToString(), r"tensor\(uint8\)"),
    "rank 3": (lambda: rank_three().SerializeToString(), r"needs \(1, 1, H, W\)"),
    "two planes": (lambda: identity_graph(planes=2).SerializeToString(), r"needs \(1, 1, H, W\)"),
    "two stains": (lambda: two_stains_graph().SerializeToString(), "output 'stains' has shape"),
    "fixed size": (
        lambda: graph([helper.make_node("Identity", ["planes"], ["stains"])], size=(512, 512)).SerializeToString(),
        r"fixed frame size \[512, 512\]",
    ),
    "weights in a second file": (lambda: with_weights_outside().SerializeToString(), "cannot open"),
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_graphs_are_refused_at_once(tmp_path, capfd, content, reason):
    broken = with_weights(package(tmp_path), content())
    with pytest.raises(ModelError, match=reason):
        OnnxModel(broken)
    assert capfd.readouterr() == ("", "")


def test_weights_that_changed_since_they_were_read(tmp_path):
    good = package(tmp_path)
    onnx.save(two_stains_graph(), good.weights)
    with pytest.raises(ModelError, match="the contract says"):
        OnnxModel(good)
    good.weights.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        OnnxModel(good)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime knows GPUs"
)
def test_a_gpu_that_is_not_there_is_an_error(tmp_path, provider):
    with pytest.raises(ModelError, match=rf"Asked for provider '{provider}'.*livestain\[gpu\]"):
        OnnxModel(package(tmp_path), provider)


class FallsBack(onnxruntime.InferenceSession):
    """What onnxruntime-gpu does without CUDA's libraries: a session on the CPU, and no exception."""

    def __init__(self, weights, options, providers):
        super().__init__(weights, options, providers=["CPUExecutionProvider"])


@pytest.fixture
def pretended_gpu(monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallsBack)
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_silent_fallback_is_an_error(tmp_path, pretended_gpu, provider):
    with pytest.raises(ModelError, match=r"opened .* on CPUExecutionProvider.*livestain\[gpu\]"):
        OnnxModel(package(tmp_path), provider)


def test_auto_takes_what_works_and_says_why(tmp_path, pretended_gpu, caplog):
    with caplog.at_level(logging.WARNING):
        model = OnnxModel(package(tmp_path), "auto")
    assert model.provider == "CPUExecutionProvider"
    assert "CUDAExecutionProvider" in caplog.text


def test_an_unknown_provider(tmp_path):
    with pytest.raises(ModelError, match=r"'gpu'; take one of auto, cpu, cuda, tensorrt"):
        OnnxModel(package(tmp_path), "gpu")


def test_no_runtime_says_which_line_to_run(tmp_path, monkeypatch):
    built = package(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r'pip install "livestain\[cpu\]".*pip install "livestain\[gpu\]"'):
        OnnxModel(built)


def test_importing_costs_no_runtime_and_no_torch():
    code = (
        "import sys, livestain._stain, livestain_models.package;"
        "sys.exit(any(name in sys.modules for name in ('onnxruntime', 'openvino', 'onnx', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_runtimes_are_one_too_many(tmp_path, monkeypatch):
    import importlib.metadata

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1" if name == "onnxruntime-gpu" else real(name))
    with pytest.raises(ModelError, match=r"onnxruntime and onnxruntime-gpu are both installed.*pip uninstall"):
        OnnxModel(package(tmp_path / "model"))
