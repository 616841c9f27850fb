"""fp16 and int8 of one network: what they cost, that it is stated, and that none is run in place of another."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from pydantic import ValidationError

from livestain._errors import ModelError
from livestain._stain import OnnxModel
from livestain.simulate import Microscope, Settings
from livestain_models.card import card_of, describe_package
from livestain_models.contract import Output, Variant
from livestain_models.package import load_package
from livestain_models.quantise import to_fp16, to_int8
from livestain_models.runtime import open_session
from livestain_models.score import pearson
from livestain_models.variants import add_variant, grey_difference
from livestain_models.verify import verify_package
from tests.model_builders import (
    blur_graph,
    blur_package,
    contract,
    doubling_graph,
    foreign_package,
    identity_graph,
    package,
)


def pair(seed, z_um=0.0, size=256):
    """A field of the simulated microscope: (1, 1, H, W) bright field, (H, W) fluorescence."""
    microscope = Microscope(Settings(seed=seed, seconds_per_exposure=0))
    microscope.set_sensor(size, size)
    microscope.bench.z_um = z_um
    bright = microscope.expose(10)
    microscope.bench.channel, microscope.bench.z_um = "Nuclei", 0.0
    return bright[None, None], microscope.expose(20)


@pytest.fixture(scope="module")
def shipped():
    return load_package("nuclei-demo")


@pytest.fixture(scope="module")
def held_out():
    return [pair(seed) for seed in (911, 912, 913)]


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 65536, (1, 1, 128, 176), dtype=np.uint16)


@pytest.fixture(scope="module")
def graphs(shipped, tmp_path_factory):
    """The shipped network in every precision."""
    folder = tmp_path_factory.mktemp("precisions")
    to_fp16(shipped.weights, folder / "fp16.onnx")
    to_int8(shipped.weights, folder / "int8.onnx", [pair(seed, z)[0] for seed, z in ((1, -1.5), (2, 0.0), (3, 1.5))])
    return {"fp32": shipped.weights, "fp16": folder / "fp16.onnx", "int8": folder / "int8.onnx"}


def answer(file, planes):
    (got,) = open_session(file.read_bytes(), file.name, "cpu", 1).run(None, {"planes": planes})
    return got


ALLOWED = {"fp16": (64, 4, 1e-4, 0.6), "int8": (6000, 200, 0.005, 0.4)}


@pytest.mark.parametrize("precision", ALLOWED)
def test_what_a_precision_costs(graphs, held_out, noise, precision):
    """Grey levels of 65535 at most and on average, Pearson's r lost, size over that of fp32."""
    most, mean, lost, size = ALLOWED[precision]
    found = grey_difference(graphs["fp32"], graphs[precision], [planes for planes, _ in held_out])
    assert 0 < found["parity_max_grey"] <= most
    assert found["parity_mean_grey"] <= mean
    # Noise is no image: int8 was not calibrated for it, and single pixels may be far off.
    assert grey_difference(graphs["fp32"], graphs[precision], [noise])["parity_mean_grey"] <= 2 * mean
    scores = {
        name: np.mean([pearson(answer(graphs[name], planes)[0, 0], real) for planes, real in held_out])
        for name in ("fp32", precision)
    }
    assert scores["fp32"] > 0.9
    assert scores[precision] > scores["fp32"] - lost
    assert graphs[precision].stat().st_size < size * graphs["fp32"].stat().st_size


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_graph_keeps_what_it_promised(graphs, precision):
    before, after = onnx.load(graphs["fp32"]), onnx.load(graphs[precision])
    assert {p.key: p.value for p in after.metadata_props} == {p.key: p.value for p in before.metadata_props}
    session = open_session(graphs[precision].read_bytes(), precision, "cpu", 1)
    assert session.get_inputs()[0].type == session.get_outputs()[0].type == "tensor(uint16)"
    for shape in ((1, 1, 16, 48), (1, 1, 80, 32)):
        stains = answer(graphs[precision], np.full(shape, 9, np.uint16))
        assert stains.shape == answer(graphs["fp32"], np.full(shape, 9, np.uint16)).shape
        assert stains.shape[2:] == shape[2:]
    background = {node.input[1] for node in convolutions(after.graph, of_grey_values=True)}
    assert len(background) == 1
    weights = [tensor for tensor in after.graph.initializer if len(tensor.dims) == 4 and tensor.name not in background]
    assert {tensor.data_type for tensor in weights} == {
        "fp16": {TensorProto.FLOAT16},
        "int8": {TensorProto.INT8, TensorProto.FLOAT},
    }[precision]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_brightest_grey_values_stay_finite(graphs, precision):
    """65535 is infinity in fp16: nothing of the normalisation may run in it."""
    white = np.full((1, 1, 64, 64), 65535, np.uint16)
    points = np.zeros((1, 1, 64, 64), np.uint16)
    points[..., ::9, ::7] = 65535
    model = onnx.load(graphs[precision])
    cast_back = model.graph.node[-1]  # to uint16, which would turn NaN into any number
    assert cast_back.op_type == "Cast"
    model.graph.output.append(helper.make_tensor_value_info(cast_back.input[0], TensorProto.FLOAT, None))
    session = open_session(model.SerializeToString(), precision, "cpu", 1)
    for planes in (white, points, white - points):
        _, real = session.run(None, {"planes": planes})
        assert np.isfinite(real).all()
    if precision == "fp16":  # int8 cuts off what its calibration frames did not hold
        assert np.abs(answer(graphs["fp16"], points).astype(int) - answer(graphs["fp32"], points)).max() < 300


def test_only_the_network_is_in_fp16(graphs):
    model = onnx.shape_inference.infer_shapes(onnx.load(graphs["fp16"]))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    for node in model.graph.node:
        if node.op_type in {"AveragePool", "Div", "Round", "Clip"}:
            assert TensorProto.FLOAT16 not in [types.get(name) for name in node.output], node.op_type
    for grey, kind in ((True, TensorProto.FLOAT), (False, TensorProto.FLOAT16)):
        assert {types[node.output[0]] for node in convolutions(model.graph, of_grey_values=grey)} == {kind}


def convolutions(graph, *, of_grey_values):
    """Those that average the camera's grey values, or those of the network."""
    grey = {node.output[0] for node in graph.node if node.op_type == "Cast" and node.input[0] == "planes"}
    return [node for node in graph.node if node.op_type == "Conv" and (node.input[0] in grey) == of_grey_values]


@pytest.mark.parametrize("convert", ["fp16", "int8"])
def test_a_stem_of_convolutions_on_grey_values_stays_in_fp32(tmp_path, convert):
    """The fast network unfolds and averages camera frames by convolutions: 65535 is infinity in fp16."""
    fast = load_package("nuclei-fast").weights
    if convert == "fp16":
        to_fp16(fast, tmp_path / "out.onnx")
    else:
        to_int8(fast, tmp_path / "out.onnx", [pair(seed)[0] for seed in (1, 2)])
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "out.onnx"))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    (frame,) = [node.output[0] for node in model.graph.node if node.op_type == "Cast" and node.input[0] == "planes"]
    stem = [node for node in model.graph.node if frame in node.input]
    assert {node.op_type for node in stem} == {"Conv"}
    assert {types[name] for node in stem for name in [*node.input, *node.output]} == {TensorProto.FLOAT}
    inner = [node for node in model.graph.node if node.op_type == "Conv" and node not in stem]
    assert len(inner) > 10


def test_nothing_to_convert(tmp_path):
    onnx.save(identity_graph(), tmp_path / "identity.onnx")
    onnx.save(blur_graph(), tmp_path / "blur.onnx")
    with pytest.raises(ModelError, match="has no convolution"):
        to_fp16(tmp_path / "identity.onnx", tmp_path / "out.onnx")
    with pytest.raises(ModelError, match="no three convolutions in a row"):
        to_int8(tmp_path / "blur.onnx", tmp_path / "out.onnx", [])
    with pytest.raises(ModelError, match="has no convolution behind its normalisation"):
        to_fp16(tmp_path / "blur.onnx", tmp_path / "out.onnx")  # it takes the grey values themselves
    model = blur_graph()
    model.graph.node.insert(1, helper.make_node("Neg", ["real"], ["normalised"]))
    model.graph.node[2].input[0] = "normalised"
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full((1, 1, 3, 3), 1e6, np.float32), "kernel"))
    onnx.save(model, tmp_path / "large.onnx")
    with pytest.raises(ModelError, match=r"'kernel' go up to 1e\+06, which fp16 cannot hold"):
        to_fp16(tmp_path / "large.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_no_frame_to_calibrate_with(graphs, tmp_path):
    with pytest.raises(ModelError, match="no frame was given to calibrate with"):
        to_int8(graphs["fp32"], tmp_path / "out.onnx", [])


def ours(tmp_path, name="ours"):
    """A package of three precisions whose variants are the blur itself."""
    built = blur_package(tmp_path / name)
    for precision in ("int8", "fp16"):
        add_variant(
            built, precision, built.weights, {"parity_max_grey": 3.0, "parity_mean_grey": 0.5}, {"pearson": 0.9}
        )
    return tmp_path / name


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_package_holds_several_precisions(tmp_path, shipped, graphs, held_out, noise, precision):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(shipped.folder, folder)
    inputs = [noise, *(planes for planes, _ in held_out)]
    parity = grey_difference(shipped.weights, graphs[precision], inputs)
    added = add_variant(load_package(folder), precision, graphs[precision], parity, {"pearson": 0.947})
    assert added.precision == precision
    assert f"@{added.contract.version} {precision} sha256:" in added.fingerprint
    assert added.contract.weights_sha256 == hashlib.sha256(graphs[precision].read_bytes()).hexdigest()
    assert load_package(folder, precision) == added
    assert load_package(folder).fingerprint == shipped.fingerprint
    proof = verify_package(added)
    assert 0 < proof.max_difference <= added.contract.variants[0].parity["parity_max_grey"]
    # What was added changes nothing about the first graph; another processor may put both a grey level off.
    assert verify_package(load_package(folder)).max_difference == verify_package(shipped).max_difference
    card = (folder / "README.md").read_text()
    assert f"## {precision}" in card
    assert f"| pearson difference_to_fp32 | {0.947 - shipped.contract.scores['pearson']:+.4f} |" in card
    bright = held_out[0][0][0]
    np.testing.assert_array_equal(OnnxModel(added).predict(bright).planes, answer(graphs[precision], bright[None])[0])


def test_adding_again_replaces(tmp_path):
    folder = ours(tmp_path)
    add_variant(load_package(folder, "int8"), "int8", folder / "weights.onnx", {"parity_max_grey": 9.0}, {})
    read = load_package(folder)
    assert read.contract.precisions == ("fp32", "fp16", "int8")
    assert [variant.parity["parity_max_grey"] for variant in read.contract.variants] == [3.0, 9.0]
    assert (folder / "README.md").read_text().count("# Other precisions") == 1
    assert not list(folder.glob("*.new"))
    assert yaml.safe_load((folder / "rdf.yaml").read_text())["license"] == "BSD-3-Clause"


def test_a_new_export_drops_the_precisions_of_the_old_one(tmp_path):
    old = load_package(ours(tmp_path))
    new = package(tmp_path / "ours", variants=old.contract.variants)
    assert new.contract.precisions == ("fp32",)
    assert not list(new.folder.glob("weights-*.onnx"))


def test_one_that_is_not_there_is_never_replaced_by_another(tmp_path):
    built = blur_package(tmp_path / "ours")
    with pytest.raises(ModelError, match=r"test-model has no int8; it has: fp32"):
        load_package(built.folder, "int8")


def test_every_file_is_checked_whichever_is_asked_for(tmp_path):
    folder = ours(tmp_path)
    other = folder / "weights-int8.onnx"
    other.write_bytes(other.read_bytes() + b"\x00")
    for precision in ("fp32", "fp16", "int8"):
        with pytest.raises(ModelError, match=r"weights-int8\.onnx has sha256"):
            load_package(folder, precision)
    other.unlink()
    with pytest.raises(ModelError, match="not there"):
        load_package(folder)


def test_a_variant_that_is_another_network(tmp_path):
    built = blur_package(tmp_path / "ours")
    onnx.save(identity_graph(planes=2), tmp_path / "two.onnx")
    with pytest.raises(ModelError, match="needs \\(1, 1, H, W\\)"):
        add_variant(built, "fp16", tmp_path / "two.onnx", {}, {})
    onnx.save(identity_graph(), tmp_path / "identity.onnx")
    added = add_variant(built, "fp16", tmp_path / "identity.onnx", {"parity_max_grey": 0.0}, {})
    # Its own test input was compared too, so that a wrong claim does not stand.
    assert added.contract.variants[0].parity["parity_max_grey"] > 1000


def test_none_is_added_to_what_others_made(tmp_path):
    given = np.ones((1, 1, 8, 8), np.float32)
    theirs = load_package(foreign_package(tmp_path, doubling_graph([1, 1, "h", "w"]), given, 2 * given))
    with pytest.raises(ModelError, match="was made elsewhere"):
        add_variant(theirs, "fp16", theirs.weights, {}, {})


def test_a_comparison_needs_an_input(graphs):
    with pytest.raises(ModelError, match="no input was given"):
        grey_difference(graphs["fp32"], graphs["fp16"], [])


REFUSED = [{"precision": "fp32"}, {"precision": "int4"}, {"file": "../w.onnx"}, {"sha256": "0"}, {"other": 1}]


@pytest.mark.parametrize("change", REFUSED)
def test_a_variant_is_refused(change):
    good = {"precision": "fp16", "file": "w.onnx", "sha256": "0" * 64, "parity": {}}
    assert Variant(**good).scores == {}
    with pytest.raises(ValidationError):
        Variant(**(good | change))


def test_two_variants_of_one_precision():
    one = Variant(precision="fp16", file="w.onnx", sha256="0" * 64, parity={})
    with pytest.raises(ValidationError, match="precision of its own"):
        contract(variants=(one, one))


def test_the_card_says_what_every_output_is():
    outputs = (
        Output(name="Nuclei", meaning="relative fluorescence", full_scale=2.0),
        Output(name="Nuclei deviation", meaning="standard deviation", kind="deviation", of="Nuclei", full_scale=1.0),
        Output(name="Nuclei distance", meaning="distance to the edge", kind="distance", of="Nuclei"),
        Output(name="Dead", meaning="probability of death", kind="class", full_scale=1.0, unit="1"),
    )
    scores = {"pearson": 0.9123456, "copied_input_pearson": 0.4, "data": "simulated"}
    card = card_of(contract(outputs=outputs, scores=scores), "livestain models train recipe.yaml")
    assert "Nuclei (fluorescence): relative fluorescence. Grey 0 is 0, grey 65535 is 2 (relative)." in card
    assert "Nuclei deviation (error bar, belongs to Nuclei)" in card
    assert "Dead (probability): probability of death. Grey 0 is 0, grey 65535 is 1." in card
    assert "| pearson | 0.9123 |" in card
    assert "| data | simulated |" in card
    assert "# Validation" in card
    assert "precisions" not in card
    assert "the package does not say" in card_of(contract(), "nothing")


def test_rows_for_lists(tmp_path):
    rows = describe_package(load_package(ours(tmp_path)))
    assert list(rows)[:5] == ["name", "version", "origin", "outputs", "pixel size"]
    assert rows["outputs"] == "Nuclei (fluorescence)"
    assert (rows["pixel size"], rows["planes"], rows["precisions"]) == ("0.5 um", "one plane", "fp32, fp16, int8")
    given = np.ones((1, 1, 8, 8), np.float32)
    folder = foreign_package(tmp_path / "theirs", doubling_graph([1, 1, "h", "w"]), given, 2 * given)
    rows = describe_package(load_package(folder))
    assert (rows["origin"], rows["pixel size"]) == ("made elsewhere", "the package does not say")
    assert "does not say" in rows["warnings"]


def test_a_rig_needs_no_onnx_to_read_variants():
    code = (
        "import sys, livestain_models.variants, livestain_models.card;"
        "sys.exit(any(name in sys.modules for name in ('onnxruntime', 'onnx', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
