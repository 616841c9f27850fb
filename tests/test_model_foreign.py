"""Packages made elsewhere: read, reproduced, run on frames of any size, or refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from onnx import TensorProto, helper

from livestain._errors import ModelError
from livestain._stain import OnnxModel
from livestain_models.package import load_package
from livestain_models.tensors import TensorLayout
from livestain_models.verify import verify_package
from tests.model_builders import doubling_graph, float_blur_graph, float_graph, foreign_axes, foreign_package

NORMALISE = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["x", "y"]}}]
SIGMOID = [{"id": "sigmoid"}]
NAMES = {"b": "batch", "c": "channel", "z": "z", "y": "y", "x": "x"}


def frame(height=40, width=56, planes=1, seed=0, dtype=np.uint16):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (planes, height, width)).astype(dtype)


def normalised(x):
    x = x.astype(np.float64)
    return (x - x.mean()) / (x.std() + 1e-6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def blurred(x):
    """3x3 binomial blur of (H, W), zero beyond the edge."""
    padded = np.pad(x, 1)
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16


def doubling(folder, order="bcyx", height=16, width=24, **kwargs):
    """y = sigmoid(2 * normalised x) with axes in any order."""
    layout = TensorLayout(tuple(NAMES[letter] for letter in order), "channel" if "c" in order else None)
    planes = frame(height, width).astype(np.float32)
    expected = sigmoid(2 * normalised(planes)).astype(np.float32)
    sizes = {"b": 1, "c": 1, "z": 1}
    inputs = {"axes": foreign_axes(order, kwargs.pop("size", None)), "preprocessing": NORMALISE}
    outputs = {"axes": foreign_axes(order, output=True), "postprocessing": SIGMOID}
    for side in (inputs, outputs):
        for axis in side["axes"]:
            if axis.get("id") == "z":
                axis["size"] = 1
    return foreign_package(
        folder,
        doubling_graph([sizes.get(letter, f"n_{letter}") for letter in order]),
        layout.tensor(planes),
        layout.tensor(expected),
        inputs=inputs | kwargs.pop("inputs", {}),
        outputs=outputs | kwargs.pop("outputs", {}),
        of_the_tool_that_made_it={"anything": [1, 2]},
        **kwargs,
    )


@pytest.mark.parametrize("order", ["bcyx", "byxc", "yxc", "cyx", "yx", "xyb", "bczyx", "bzyxc"])
def test_any_order_of_axes(tmp_path, order):
    package = load_package(doubling(tmp_path, order))
    proof = verify_package(package)
    assert proof.max_difference < 1e-6 < proof.allowed
    planes = frame(37, 50)  # no size that the package allows: padded, and cut off again
    got = OnnxModel(package).predict(planes).planes
    assert np.abs(got - 65535 * sigmoid(2 * normalised(planes))).max() < 1
    assert (package.contract.multiple_px, package.contract.halo_px) == (4, None)


def test_the_real_package(shared_data):
    package = load_package(shared_data / "bioimageio_nuclei_broad")
    proof = verify_package(package)
    assert proof.max_difference < 1e-5
    contract = package.contract
    assert contract.outputs[0].channel == "probability (predicted)"
    assert (contract.outputs[0].zero, contract.outputs[0].full_scale, contract.outputs[0].unit) == (0, 1, "1")
    assert (contract.pixel_size_um, contract.contrast, contract.halo_px) == (None, None, 32)
    assert "does not say its pixel size" in " ".join(proof.warnings)
    test_input = np.load(package.folder / "test_input.npy")[0]
    greys = test_input.astype(np.uint16)
    assert (greys == test_input).all()  # camera frames, as they are
    model = OnnxModel(package, threads=1)
    expected = 65535 * np.load(package.folder / "test_output.npy")[0]
    assert np.abs(model.predict(greys).planes - expected).max() < 1
    large = np.concatenate([greys, greys[:, ::-1]], 1)[:, :700, :490]
    assert model.predict(large).planes.shape == (1, 700, 490)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 9), (33, 32), (61, 150), (100, 40)])
def test_fixed_sizes_are_tiled_with_their_halo(tmp_path, height, width):
    """A graph for 32 x 32 px only, with a halo of 2 px: tiles meet without a seam, statistics are the frame's."""
    planes = frame(height, width)
    given = frame(32, 32).astype(np.float32)
    expected = blurred(normalised(given[0])).astype(np.float32)
    folder = foreign_package(
        tmp_path,
        float_blur_graph(32, 32),
        given[None],
        expected[None, None],
        inputs={"axes": foreign_axes("bcyx", 32), "preprocessing": NORMALISE},
        outputs={"axes": foreign_axes("bcyx", output=True, halo=2), "data": {"type": "float32", "range": [-4, 4]}},
    )
    package = load_package(folder)
    verify_package(package)
    got = OnnxModel(package, max_tile_px=64).predict(planes).planes[0] / 65535 * 8 - 4
    whole = normalised(planes[0])
    # Only where the frame is padded does the graph see mirrored pixels instead of its own zeros.
    right, below = (1 if size % 32 else 0 for size in (width, height))
    interior = np.s_[: height - below, : width - right]
    assert np.abs(got - blurred(whole))[interior].max() < 2e-4


def test_a_fixed_size_without_a_halo(tmp_path):
    planes = frame(32, 32).astype(np.float32)
    folder = foreign_package(
        tmp_path,
        doubling_graph([1, 1, 32, 32]),
        planes[None],
        2 * planes[None],
        inputs={"axes": foreign_axes("bcyx", 32)},
    )
    model = OnnxModel(load_package(folder))
    assert model.predict(frame(20, 32)).planes.shape == (1, 20, 32)
    with pytest.raises(ModelError, match=r"frames of 32 px and declares no halo.*33 px wide.*Crop the camera"):
        model.predict(frame(20, 33))


def test_sizes_that_begin_off_the_grid(tmp_path):
    """Sizes 20, 36, 52, ... with a halo of 3."""
    planes = frame(20, 36).astype(np.float32)
    expected = blurred(normalised(planes[0]))[None].astype(np.float32)
    folder = foreign_package(
        tmp_path,
        float_blur_graph(),
        planes[None],
        expected[None],
        inputs={"axes": foreign_axes("bcyx", {"min": 20, "step": 16}), "preprocessing": NORMALISE},
        outputs={"axes": foreign_axes("bcyx", output=True, halo=3), "data": {"type": "float32", "range": [-4, 4]}},
    )
    package = load_package(folder)
    frames = frame(100, 130)
    whole = OnnxModel(package).predict(frames).planes
    tiled = OnnxModel(package, max_tile_px=60).predict(frames).planes
    np.testing.assert_array_equal(whole, tiled)
    with pytest.raises(ModelError, match="max_tile_px 40 is too small"):
        OnnxModel(package, max_tile_px=40)


def test_several_outputs_and_several_planes(tmp_path):
    """A stack along z in, two channels out, softmax over them."""
    given = frame(8, 12, planes=3).astype(np.float32)[None, None] / 65535
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2], keepdims=0),
        helper.make_node("Neg", ["mean"], ["rest"]),
        helper.make_node("Concat", ["mean", "rest"], ["y"], axis=1),
    ]
    mean = given.mean(2)
    expected = np.exp(np.concatenate([mean, -mean], 1))
    expected /= expected.sum(1, keepdims=True)
    axes = [{"type": "batch"}, {"type": "channel", "channel_names": ["raw"]}]
    space = {"type": "space", "unit": "micrometer", "scale": 0.325}
    axes += [{"type": "space", "id": "z", "size": 3, "unit": "nanometer", "scale": 500}]
    axes += [{**space, "id": "y", "size": {"min": 4, "step": 4}}, {**space, "id": "x", "size": {"min": 4, "step": 4}}]
    out = foreign_axes("bcyx", output=True, channels=2, unit="micrometer", scale=0.325)
    out[1]["channel_names"] = ["nucleus", "membrane"]
    folder = foreign_package(
        tmp_path,
        float_graph(nodes, [1, 1, 3, "h", "w"], [1, 2, "h", "w"]),
        given,
        expected,
        inputs={"axes": axes, "preprocessing": [{"id": "scale_linear", "kwargs": {"gain": 1.0, "offset": 0.0}}]},
        outputs={"axes": out, "postprocessing": [{"id": "softmax"}]},
    )
    package = load_package(folder)
    verify_package(package)
    contract = package.contract
    assert (contract.planes.count, contract.planes.spacing_um, contract.pixel_size_um) == (3, 0.5, 0.325)
    assert [output.name for output in contract.outputs] == ["nucleus", "membrane"]
    assert {output.kind for output in contract.outputs} == {"class"}
    first, second = OnnxModel(package).predict(frame(9, 9, planes=3, dtype=np.uint8)).planes
    assert np.abs(first.astype(int) + second - 65535).max() <= 1


SCALES = {
    "stated range": ({"data": {"type": "float32", "range": [-10, 10]}}, (-10, 10), 0),
    "clip": ({"postprocessing": [{"id": "clip", "kwargs": {"min": 0, "max": 5}}]}, (0, 5), 0),
    "mask": ({"postprocessing": [{"id": "binarize", "kwargs": {"threshold": 0}}]}, (0, 1), 0),
    "half a range": ({"data": {"type": "float32", "range": [0, None]}}, (0, "max"), 1),
    "nothing": ({}, ("min", "max"), 1),
    "infinite": ({"data": {"type": "float32", "range": [float("-inf"), float("inf")]}}, ("min", "max"), 1),
}


@pytest.mark.parametrize(("outputs", "ends", "notes"), SCALES.values(), ids=SCALES.keys())
def test_what_black_and_white_stand_for(tmp_path, outputs, ends, notes):
    given = frame(8, 8).astype(np.float32)
    expected = 2 * normalised(given).astype(np.float32)
    stored = expected.clip(0, 5) if "clip" in str(outputs) else expected > 0 if "binarize" in str(outputs) else expected
    folder = foreign_package(
        tmp_path,
        doubling_graph([1, 1, "h", "w"]),
        given[None],
        stored[None],
        inputs={"preprocessing": NORMALISE},
        outputs=outputs,
    )
    package = load_package(folder)
    verify_package(package)
    (output,) = package.contract.outputs
    wanted = [{"min": expected.min(), "max": expected.max()}.get(end, end) for end in ends]
    np.testing.assert_allclose([output.zero, output.full_scale], wanted, rtol=1e-5)
    assert sum("range of mask" in note for note in package.contract.notes) == notes == ("test output" in output.meaning)
    got = OnnxModel(package).predict(given.astype(np.uint16)).planes
    stored = np.maximum(stored, output.zero)  # beyond its own range: cut off
    values = output.zero + got / 65535 * (output.full_scale - output.zero)
    np.testing.assert_allclose(values, stored, atol=1e-3)


def test_whole_numbers_stay_as_they_are(tmp_path):
    given = frame(8, 8, dtype=np.uint8)
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)
    model = float_graph([cast], [1, 1, "h", "w"], dtypes=(TensorProto.UINT8, TensorProto.INT64))
    labels = {"type": "uint8", "values": ["background", "nucleus"]}
    folder = foreign_package(
        tmp_path,
        model,
        given[None],
        given[None],
        inputs={"data": {"type": "uint8"}},
        outputs={"data": labels},
    )
    package = load_package(folder)
    verify_package(package)
    assert package.contract.input_dtype == "uint8"
    assert "nucleus" in package.contract.outputs[0].meaning
    model = OnnxModel(package)
    model.warm_up(30, 30)
    np.testing.assert_array_equal(model.predict(given).planes, given)
    np.testing.assert_array_equal(model.predict(given.astype(">u2")).planes, given)
    with pytest.raises(ModelError, match=r"takes uint8 images, but this frame goes up to 300.*8 bits"):
        model.predict(np.full((1, 8, 8), 300, np.uint16))


def test_statistics_of_the_input_behind_the_network(tmp_path):
    """A denoiser that gives its answer the brightness of the frame again."""
    given = frame(8, 8).astype(np.float32)
    post = [{"id": "scale_mean_variance", "kwargs": {"reference_tensor": "raw"}}]
    data = {"type": "float32", "range": [0, 65535]}
    folder = foreign_package(
        tmp_path,
        doubling_graph([1, 1, "h", "w"]),
        given[None],
        given[None],
        inputs={"preprocessing": NORMALISE},
        outputs={"postprocessing": post, "data": data},
    )
    package = load_package(folder)
    assert verify_package(package).max_difference < 1
    assert np.abs(OnnxModel(package).predict(frame(8, 8)).planes - given).max() <= 1


def test_a_model_that_predicts_nan_says_so(tmp_path):
    given = np.ones((1, 1, 8, 8), np.float32)
    model = float_graph([helper.make_node("Log", ["x"], ["y"])], [1, 1, "h", "w"])
    folder = foreign_package(tmp_path, model, given, np.zeros_like(given), outputs={"data": {"range": [0, 1]}})
    package = load_package(folder)
    verify_package(package)
    planes = np.ones((1, 8, 8), np.uint16)
    planes[0, 3, 3] = 0
    with pytest.raises(ModelError, match="NaN or infinity in 1 of 64 pixels"):
        OnnxModel(package).predict(planes)


def test_an_old_description_is_read_too(tmp_path):
    """Format 0.4, as StarDist's: axes as letters, modes, test tensors in lists of their own."""
    planes = frame(16, 24).astype(np.float32)
    low, high = np.percentile(planes, [1, 99.8])
    expected = 2 * ((planes - low) / (high - low)).astype(np.float32)
    layout = TensorLayout(("batch", "y", "x", "channel"), "channel")
    folder = foreign_package(tmp_path, doubling_graph([1, "h", "w", 1]), layout.tensor(planes), layout.tensor(expected))
    description = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    step = {
        "name": "scale_range",
        "kwargs": {"mode": "per_sample", "axes": "yx", "min_percentile": 1, "max_percentile": 99.8},
    }
    description |= {
        "format_version": "0.4.9",
        "inputs": [
            {
                "name": "raw",
                "axes": "byxc",
                "data_type": "float32",
                "data_range": [float("-inf"), float("inf")],
                "shape": {"min": [1, 8, 8, 1], "step": [0, 4, 4, 0]},
                "preprocessing": [step],
            }
        ],
        "outputs": [
            {
                "name": "mask",
                "axes": "byxc",
                "data_type": "float32",
                "data_range": [-1, 5],
                "halo": [0, 4, 4, 0],
                "shape": {"reference_tensor": "raw", "scale": [1, 1, 1, 0], "offset": [0, 0, 0, 0.5]},
            }
        ],
        "test_inputs": ["in.npy"],
        "test_outputs": ["out.npy"],
    }
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(description))
    package = load_package(folder)
    assert verify_package(package).max_difference < 1e-5
    assert (package.contract.halo_px, package.contract.multiple_px) == (4, 4)
    assert (package.contract.outputs[0].zero, package.contract.outputs[0].full_scale) == (-1, 5)
    fixed = {"name": "zero_mean_unit_variance", "kwargs": {"mode": "fixed", "axes": "yx", "mean": [0.0], "std": [2.0]}}
    description["inputs"][0]["preprocessing"] = [fixed]
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(description))
    assert "fixed_zero_mean_unit_variance (axis channel" in load_package(folder).contract.normalisation
    description["inputs"][0].pop("shape")
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(ModelError, match=r"0\.4 description is broken.*shape"):
        load_package(folder)


def test_what_is_unsaid_is_warned_of(tmp_path):
    plain = load_package(doubling(tmp_path / "plain"))
    (warning,) = plain.contract.warnings
    assert warning == (
        "the package does not say its pixel size, which contrast it was made for, what it was trained on, its scores, "
        "its limits"
    )
    assert plain.contract.id == "Nuclei-of-somebody-2024-11-05"
    square = {"type": "space", "unit": "micrometer", "size": {"min": 8, "step": 4}}
    axes = [*foreign_axes("bc"), {**square, "id": "y", "scale": 0.5}, {**square, "id": "x", "scale": 0.25}]
    out = foreign_axes("bcyx", output=True)
    out[2] |= {"scale": 0.5, "unit": "micrometer"}
    out[3] |= {"scale": 0.25, "unit": "micrometer"}
    odd = doubling(tmp_path / "odd", inputs={"axes": axes}, outputs={"axes": out}, training_data={"id": "some/data"})
    contract = load_package(odd).contract
    assert contract.training_data == "some/data"
    assert "not square" in contract.notes[0]
    small = {"preprocessing": [], "data": {"type": "float32", "range": [0, 1]}}
    assert "lie below 1" in load_package(doubling(tmp_path / "small", inputs=small)).contract.notes[0]
    unhashed = doubling(tmp_path / "unhashed", weights={"onnx": {"source": "weights.onnx"}})
    assert "no sha256" in load_package(unhashed).contract.notes[-1]


TOLERANCES = {
    "the format's default": (None, 1e-3, True),
    "too far for it": (None, 2e-2, False),
    "its own": ([{"absolute_tolerance": 0.1}], 2e-2, True),
    "of another output": ([{"absolute_tolerance": 0.1, "output_ids": ["else"]}], 2e-2, False),
    "of other weights": ([{"absolute_tolerance": 0.1, "weights_formats": ["torchscript"]}], 2e-2, False),
    "a few pixels": ([{"mismatched_elements_per_million": 1e6}], 0.5, True),
}


@pytest.mark.parametrize(("stated", "off", "accepted"), TOLERANCES.values(), ids=TOLERANCES.keys())
def test_the_packages_own_tolerance(tmp_path, stated, off, accepted):
    folder = doubling(tmp_path, config={"bioimageio": {"reproducibility_tolerance": stated}})
    expected = np.load(folder / "out.npy")
    np.save(folder / "out.npy", expected + np.float32(off))
    description = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    description["outputs"][0]["test_tensor"].pop("sha256")
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(description))
    if accepted:
        proof = verify_package(load_package(folder))
        np.testing.assert_allclose(proof.max_difference, off, rtol=1e-2)
    else:
        with pytest.raises(ModelError, match=r"does not reproduce: it differs by up to 0\.02"):
            verify_package(load_package(folder))


def _axes(side, **change):
    def edit(d):
        d[side][0]["axes"][2] |= change

    return edit


def _set(*path, to):
    def edit(d):
        for key in path[:-1]:
            d = d[key]
        d[path[-1]] = to

    return edit


REFUSED = {
    "two inputs": (lambda d: d["inputs"].append(d["inputs"][0]), "2 inputs"),
    "two outputs": (lambda d: d["outputs"].append(d["outputs"][0]), "2 outputs"),
    "no output": (_set("outputs", to=[]), "outputs"),
    "no inputs": (lambda d: d.pop("inputs"), r"inputs: Field required"),
    "inputs of another kind": (_set("inputs", to="raw"), "inputs"),
    "unknown operation": (_set("inputs", 0, "preprocessing", to=[{"id": "histogram_match"}]), "histogram_match"),
    "unknown argument": (_set("outputs", 0, "postprocessing", 0, "kwargs", to={"gain": 3}), r"gain.*Extra inputs"),
    "operation along no axis": (
        _set("inputs", 0, "preprocessing", 0, "kwargs", "axes", to=["z"]),
        "zero_mean_unit_variance works along z, but raw has the axes batch, channel, y, x",
    ),
    "finer output": (_axes("outputs", scale=0.5), "pixels 0.5 times"),
    "smaller output": (_axes("outputs", size={"tensor_id": "raw", "axis_id": "y", "offset": -8}), "-8 px longer"),
    "output of another size": (_axes("outputs", size=64), "64 px where the input has any size"),
    "output sized by its data": (_axes("outputs", size={"min": 1}), "known only afterwards"),
    "output sized by another tensor": (_axes("outputs", size={"tensor_id": "w", "axis_id": "y"}), "only afterwards"),
    "turned output": (_axes("outputs", size={"tensor_id": "raw", "axis_id": "x"}), "as long as x of the input"),
    "input sized by another axis": (_axes("inputs", size={"tensor_id": "raw", "axis_id": "x"}), r"depends on raw\.x"),
    "input without a size": (lambda d: d["inputs"][0]["axes"][2].pop("size"), "has no size"),
    "size of zero": (_axes("inputs", size=0), "size"),
    "absurd size": (_axes("inputs", size=10**9), "size"),
    "absurd step": (_axes("inputs", size={"min": 1, "step": 10**12}), "step"),
    "all halo": (lambda d: [_axes("inputs", size=32)(d), _axes("outputs", halo=16)(d)], "leaves nothing of 32 px"),
    "axis twice": (_set("inputs", 0, "axes", 2, "id", to="x"), "names an axis twice"),
    "no image": (_set("inputs", 0, to={"id": "raw", "axes": foreign_axes("bcy")}), "an image needs y and x"),
    "a series": (
        lambda d: d["inputs"][0]["axes"].append({"type": "time", "size": 5}),
        r"axes time \(5\).*more than one stack",
    ),
    "any number of planes": (
        lambda d: d["inputs"][0]["axes"].append({"type": "space", "id": "z", "size": {"min": 1, "step": 1}}),
        r"z \(any size\)",
    ),
    "a volume": (
        lambda d: d["outputs"][0]["axes"].append({"type": "space", "id": "z", "size": 5}),
        "along z, but the rig stores one image",
    ),
    "no channels": (_set("outputs", 0, "axes", 1, "channel_names", to=[]), "names 0 channels"),
    "two channels of one name": (_set("outputs", 0, "axes", 1, "channel_names", to=["a", "a"]), "name of its own"),
    "axes of another kind": (_set("inputs", 0, "axes", to="bcyx"), r"inputs\.0\.axes"),
    "unknown axis": (_set("inputs", 0, "axes", 1, "type", to="wavelength"), "'batch', 'channel'"),
    "format to come": (_set("format_version", to="0.6.0"), r"'0\.6\.0' is not read"),
    "test tensor elsewhere": (
        _set("outputs", 0, "test_tensor", "source", to="../../etc/passwd"),
        "outside the package",
    ),
    "wrong hash": (_set("weights", "onnx", "sha256", to="0" * 64), "damaged or another"),
    "weights not there": (_set("weights", "onnx", "source", to="w.onnx"), "which is not there"),
    "no ONNX": (lambda d: d["weights"].pop("onnx"), "got: pytorch_state_dict"),
    "tolerance of another kind": (
        _set("config", to={"bioimageio": {"reproducibility_tolerance": [{"absolute_tolerance": "much"}]}}),
        "reproducibility_tolerance: absolute_tolerance",
    ),
    "more channels than the graph": (
        _set("outputs", 0, "axes", 1, "channel_names", to=["a", "b"]),
        r"has shape \[1, 1, .*describes channel of 2|test output",
    ),
    "a fixed size that the graph has not": (_axes("inputs", size=64), "not one that the description allows"),
    "another type than the graph's": (
        _set("inputs", 0, "preprocessing", to=[{"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}}]),
        "takes float32, the package's preprocessing gives uint8",
    ),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_the_reason(tmp_path, change, reason):
    folder = doubling(tmp_path, size=None)
    file = folder / "bioimageio.yaml"
    description = yaml.safe_load(file.read_text())
    change(description)
    file.write_text(yaml.safe_dump(description))
    with pytest.raises(ModelError, match=reason) as caught:
        verify_package(load_package(folder))
    assert len(str(caught.value)) < 1500


def test_several_input_channels_are_fed_with_planes(tmp_path):
    given = frame(8, 12, planes=2).astype(np.float32)[None]
    mean = float_graph([helper.make_node("ReduceMean", ["x"], ["y"], axes=[1])], [1, 2, "h", "w"], [1, 1, "h", "w"])
    axes = foreign_axes("bcyx", channels=2)
    axes[1]["channel_names"] = ["below", "above"]
    data = {"type": "float32", "range": [0, 65535]}
    folder = foreign_package(
        tmp_path, mean, given, given.mean(1, keepdims=True), inputs={"axes": axes}, outputs={"data": data}
    )
    package = load_package(folder)
    verify_package(package)
    assert (package.contract.planes.count, package.contract.planes.spacing_um) == (2, None)
    assert "2 input channels (below, above) are fed with focal planes in rising order" in package.contract.notes[0]
    planes = frame(9, 9, planes=2)
    assert np.abs(OnnxModel(package).predict(planes).planes[0] - planes.mean(0)).max() < 0.6
