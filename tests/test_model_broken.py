"""Packages that are broken, or meant to break something: refused with the reason, and nothing of theirs runs."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, external_data_helper, helper

from livestain_models._errors import ModelError
from livestain_models._onnx_file import refuse_weights_outside
from livestain_models.package import load_package
from livestain_models.verify import verify_package
from tests.model_builders import doubling_graph, float_graph, foreign_package, graph, package


@pytest.fixture
def theirs(tmp_path):
    """A package made elsewhere, y = 2 x."""
    given = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    return foreign_package(tmp_path / "theirs", doubling_graph([1, 1, "h", "w"]), given, 2 * given)


def describe(folder, text):
    (folder / "bioimageio.yaml").write_text(text, encoding="utf-8")


def replace_file(folder, name, content):
    """Put other bytes in place of a file, its hash in the description."""
    (folder / name).write_bytes(content)
    text = (folder / "bioimageio.yaml").read_text()
    description = yaml.safe_load(text)
    digest = hashlib.sha256(content).hexdigest()
    for entry in (description["weights"]["onnx"], *(description[s][0]["test_tensor"] for s in ("inputs", "outputs"))):
        if entry["source"] == name:
            entry["sha256"] = digest
    describe(folder, yaml.safe_dump(description))


def bomb(levels=30, width=10):
    """Lists of lists of lists, by aliases: 10^30 values in a thousand bytes."""
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "type: model\n" + "\n".join(lines)


DESCRIPTIONS = {
    "python object": ("type: !!python/object/apply:pathlib.Path.touch ['{marker}']", "not valid YAML"),
    "python name": ("type: model\nname: !!python/name:os.system", "not valid YAML"),
    "python module": ("x: !!python/module:this", "not valid YAML"),
    "aliases without end": (bomb(), "unfold to more than 100000 values"),
    "a merged bomb": (bomb() + "\ninputs: {<<: *a0}", "unfold to more than|not valid YAML"),
    "a loop": ("type: model\ninputs: &a [*a]", "line 2 contains itself"),
    "a loop of mappings": ("type: model\nconfig: &a {livestain: *a}", "contains itself"),
    "deep": ("type: " + "[" * 3000 + "]" * 3000, "nests too deeply|not valid YAML"),
    "long": ("type: model\nx: '" + "y" * (1 << 20) + "'", "has 1048.* bytes"),
    "two documents": ("type: model\n---\ntype: model", "not valid YAML"),
    "no YAML": ("type: model: x", "not valid YAML"),
    "a list": ("[1, 2]", "does not describe a model"),
    "empty": ("", "does not describe a model"),
    "a date that is none": ("type: model\ntimestamp: 2024-99-99", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "reason"), DESCRIPTIONS.values(), ids=DESCRIPTIONS.keys())
def test_descriptions(theirs, tmp_path, text, reason):
    marker = tmp_path / "marker"
    describe(theirs, text.replace("{marker}", str(marker)))
    with pytest.raises(ModelError, match=reason) as caught:
        load_package(theirs)
    assert not marker.exists()
    assert len(str(caught.value)) < 1500


def test_shared_parts_are_not_a_bomb(theirs):
    """PyYAML itself writes an anchor where one object stands in two places."""
    description = yaml.safe_load((theirs / "bioimageio.yaml").read_text())
    step = {"id": "scale_linear", "kwargs": {"gain": 1.0, "offset": 0.0}}
    description["inputs"][0]["preprocessing"] = [step, step]
    text = yaml.safe_dump(description)
    assert "&id001" in text
    describe(theirs, text)
    verify_package(load_package(theirs))


def outside_graph():
    weights = np.ones((1, 1, 400, 400), np.float32)
    built = float_graph([helper.make_node("Add", ["x", "w"], ["y"])], [1, 1, "h", "w"], constants={"w": weights})
    external_data_helper.set_external_data(built.graph.initializer[0], "weights.bin")
    built.graph.initializer[0].ClearField("raw_data")
    return built


def outside_in_a_node():
    """The same hidden in a Constant node of a branch."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    external_data_helper.set_external_data(tensor, "/etc/passwd") if tensor.HasField("raw_data") else None
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["w"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["one"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["x", "one"], ["y"]),
    ]
    return float_graph(nodes, [1, 1, "h", "w"], constants={"yes": np.array(True)})


def npy(**header):
    stream = io.BytesIO()
    defaults = {"descr": "<f4", "fortran_order": False, "shape": (1, 1, 8, 8)}
    np.lib.format.write_array_header_1_0(stream, defaults | header)
    return stream.getvalue() + bytes(256)


class Touch:
    """Unpickling it creates a file."""

    def __reduce__(self):
        return Path.touch, (Path("marker"),)


def two_inputs():
    built = float_graph([helper.make_node("Add", ["x", "z"], ["y"])], [1, 1, "h", "w"])
    built.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 1, "h", "w"]))
    return built


def custom_operator():
    return float_graph([helper.make_node("Add", ["x", "x"], ["y"], domain="org.example")], [1, 1, "h", "w"])


FILES = {
    "truncated": (
        "weights.onnx",
        lambda: doubling_graph([1, 1, 8, 8]).SerializeToString()[:-9],
        "truncated|cannot open",
    ),
    "not ONNX": ("weights.onnx", lambda: b"PK\x03\x04 a zip of something else", "cannot be read as ONNX|cannot open"),
    "empty": ("weights.onnx", lambda: b"", "cannot open"),
    "zeros": ("weights.onnx", lambda: bytes(10000), "cannot open"),
    "weights outside": ("weights.onnx", lambda: outside_graph().SerializeToString(), "keeps weights in a second file"),
    "weights outside, hidden": ("weights.onnx", lambda: outside_in_a_node().SerializeToString(), "second file"),
    "two inputs": ("weights.onnx", lambda: two_inputs().SerializeToString(), r"inputs \['x', 'z'\]"),
    "an operator of their own": ("weights.onnx", lambda: custom_operator().SerializeToString(), "cannot open"),
    "opset to come": (
        "weights.onnx",
        lambda: float_graph(
            [helper.make_node("Add", ["x", "x"], ["y"])], [1, 1, "h", "w"], opset=99
        ).SerializeToString(),
        "cannot open.*[Oo]pset",
    ),
    "other rank": (
        "weights.onnx",
        lambda: doubling_graph([1, "h", "w"]).SerializeToString(),
        "describes the axes batch",
    ),
    "other channels": ("weights.onnx", lambda: doubling_graph([1, 3, "h", "w"]).SerializeToString(), "channel of 1"),
    "a batch of two": ("weights.onnx", lambda: doubling_graph([2, 1, "h", "w"]).SerializeToString(), "batch of 1"),
    "fixed where any size is allowed": (
        "weights.onnx",
        lambda: doubling_graph([1, 1, 16, 16]).SerializeToString(),
        "describes y of any size",
    ),
    "another type": (
        "weights.onnx",
        lambda: float_graph(
            [helper.make_node("Add", ["x", "x"], ["y"])],
            [1, 1, "h", "w"],
            dtypes=(TensorProto.DOUBLE, TensorProto.DOUBLE),
        ).SerializeToString(),
        "takes float64",
    ),
    "our own graph in their place": ("weights.onnx", lambda: graph([]).SerializeToString(), "cannot open"),
    "pickle as input": ("in.npy", lambda: pickle.dumps(Touch()), "not a plain .npy array"),
    "pickled objects in an array": ("in.npy", lambda: npy(descr="|O"), "not a plain .npy array"),
    "header that runs code": ("in.npy", lambda: npy().replace(b"False", b"1/0  "), "not a plain .npy array"),
    "absurd shape": ("in.npy", lambda: npy(shape=(10**6, 10**6, 10**6)), "not a plain .npy array"),
    "negative shape": ("in.npy", lambda: npy(shape=(1, 1, -8, 8)), "not a plain .npy array|shape"),
    "other shape": ("in.npy", lambda: npy(shape=(8, 8)), "has shape"),
    "text": ("in.npy", lambda: npy(descr="<U1"), "not numbers"),
    "no image": ("in.npy", lambda: npy(shape=(1, 1, 0, 8)), "not one that the description allows"),
    "empty output": ("out.npy", lambda: b"", "not a plain .npy array"),
    "output of another rank": ("out.npy", lambda: npy(shape=(8, 8)), "has shape|described are"),
    "NaN as output": ("out.npy", lambda: npy()[:-256] + np.full(64, np.nan, "<f4").tobytes(), "does not reproduce"),
    "another output": ("out.npy", lambda: npy(), "does not reproduce: it differs by up to 126"),
}


@pytest.mark.parametrize(("name", "content", "reason"), FILES.values(), ids=FILES.keys())
def test_files(theirs, tmp_path, monkeypatch, name, content, reason):
    monkeypatch.chdir(tmp_path)
    replace_file(theirs, name, content())
    with pytest.raises(ModelError, match=reason):
        verify_package(load_package(theirs))
    assert not Path("marker").exists()


def test_weights_outside_are_found_even_where_they_lie_at_hand(theirs, tmp_path, monkeypatch):
    """onnxruntime would look for them in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("weights.bin").write_bytes(np.ones((400, 400), np.float32).tobytes())
    replace_file(theirs, "weights.onnx", outside_graph().SerializeToString())
    with pytest.raises(ModelError, match="second file"):
        load_package(theirs)


def test_our_own_package_may_not_keep_weights_outside_either(tmp_path):
    with pytest.raises(ModelError, match="second file"):
        package(tmp_path / "ours", outside_graph())


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_cut_file_never_ends_in_another_error(cut):
    content = outside_in_a_node().SerializeToString()
    try:
        refuse_weights_outside(content[: max(len(content) - cut, 0)], "it")
    except ModelError:
        return
    onnx.ModelProto.FromString(content[: max(len(content) - cut, 0)])  # whole after all, only shorter


def test_links_out_of_the_folder(theirs, tmp_path):
    secret = tmp_path / "secret.onnx"
    (theirs / "weights.onnx").rename(secret)
    (theirs / "weights.onnx").symlink_to(secret)
    with pytest.raises(ModelError, match="outside the package"):
        load_package(theirs)


def test_several_descriptions(theirs):
    text = (theirs / "bioimageio.yaml").read_text()
    (theirs / "bioimageio.yaml").rename(theirs / "nuclei.bioimageio-2024-11-05.yaml")
    verify_package(load_package(theirs))
    (theirs / "rdf_2023.yaml").write_text(text)
    with pytest.raises(
        ModelError, match=r"several descriptions \(nuclei\.bioimageio-2024-11-05\.yaml, rdf_2023\.yaml\)"
    ):
        load_package(theirs)


def test_a_packed_package(tmp_path):
    (tmp_path / "model.zip").write_bytes(b"PK")
    with pytest.raises(ModelError, match="Unpack it"):
        load_package(tmp_path / "model.zip")
