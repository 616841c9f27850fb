"""The declared operations against their definitions, written out in numpy over a tensor with all its axes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from livestain_models._errors import ModelError
from livestain_models.processing import Around, describe_operations, operations_in, run_operations
from livestain_models.tensors import Sizes, TensorLayout

LAYOUT = TensorLayout(("batch", "channel", "y", "x"), "channel")


def image(channels=3, seed=0):
    """(C, H, W), values around 100, each channel brighter than the one before."""
    x = np.random.default_rng(seed).normal(100, 20, (channels, 13, 17))
    return (x + 50 * np.arange(channels)[:, None, None]).astype(np.float32)


def run(operation, x, layout=LAYOUT, others=None, **kwargs):
    (step, *_) = operations_in([{"id": operation, "kwargs": kwargs}], "float64", begin=False)
    return run_operations((step,), x, Around(layout, others or {}))


def percentile(x, q):
    """Linear interpolation between ranks, without numpy's own."""
    ranked = np.sort(x.ravel().astype(np.float64))
    rank = q / 100 * (ranked.size - 1)
    low = int(np.floor(rank))
    return ranked[low] + (rank - low) * (ranked[min(low + 1, ranked.size - 1)] - ranked[low])


def each(function, x):
    return np.stack([function(channel.astype(np.float64)) for channel in x])


DEFINITIONS = {
    "scale_linear": ({"gain": 2, "offset": -3}, lambda x: 2.0 * x - 3),
    "scale_linear along": (
        {"axis": "channel", "gain": [1, 2, 3], "offset": 0.5},
        lambda x: x * np.array([1, 2, 3])[:, None, None] + 0.5,
    ),
    "scale_linear short name": ({"axis": "c", "offset": [1, 2, 3]}, lambda x: x + np.array([1, 2, 3])[:, None, None]),
    "clip": ({"min": 90, "max": 120}, lambda x: np.minimum(np.maximum(x, 90), 120)),
    "clip below": ({"min": 100}, lambda x: np.where(x < 100, 100, x)),
    "sigmoid": ({}, lambda x: 1 / (1 + np.exp(-x))),
    "softmax": ({"axis": "channel"}, lambda x: np.exp(x - x.max(0)) / np.exp(x - x.max(0)).sum(0)),
    "softmax default": ({}, lambda x: np.exp(x - x.max(0)) / np.exp(x - x.max(0)).sum(0)),
    "zero_mean_unit_variance": (
        {"axes": ["channel", "y", "x"]},
        lambda x: (x - x.mean()) / (np.sqrt(((x - x.mean()) ** 2).mean()) + 1e-6),
    ),
    "zero_mean_unit_variance each": (
        {"axes": ["y", "x"], "eps": 0.1},
        lambda x: each(lambda c: (c - c.mean()) / (c.std() + 0.1), x),
    ),
    "zero_mean_unit_variance data set": (
        {"axes": ["batch", "y", "x"]},
        lambda x: each(lambda c: (c - c.mean()) / (c.std() + 1e-6), x),
    ),
    "zero_mean_unit_variance all": ({}, lambda x: (x - x.mean()) / (x.std() + 1e-6)),
    "fixed_zero_mean_unit_variance": ({"mean": 103.5, "std": 13.7}, lambda x: (x - 103.5) / (13.7 + 1e-6)),
    "fixed_zero_mean_unit_variance along": (
        {"axis": "channel", "mean": [100, 150, 200], "std": [1, 2, 4]},
        lambda x: (x - np.array([100, 150, 200])[:, None, None]) / np.array([1, 2, 4])[:, None, None],
    ),
    "scale_range": ({}, lambda x: (x - x.min()) / (x.max() - x.min() + 1e-6)),
    "scale_range percentiles": (
        {"axes": ["y", "x"], "min_percentile": 1, "max_percentile": 99.8, "eps": 0.01},
        lambda x: each(lambda c: (c - percentile(c, 1)) / (percentile(c, 99.8) - percentile(c, 1) + 0.01), x),
    ),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_as_defined(name):
    kwargs, definition = DEFINITIONS[name]
    x = image()
    before = x.copy()
    got = run(name.split()[0], x, **kwargs)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, definition(x.astype(np.float64)), rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(x, before)


def test_percentiles_of_clip_are_values_that_occur():
    x = np.arange(10, dtype=np.float32).reshape(1, 2, 5)
    got = run("clip", x, min_percentile=25, max_percentile=85)
    np.testing.assert_array_equal(got, np.clip(x, 2, 8))  # the inverted distribution: no interpolation


@given(
    seed=st.integers(0, 999),
    top=st.sampled_from([1, 4, 255, 65536]),
    dtype=st.sampled_from(["uint8", "uint16"]),
    low=st.floats(0, 60),
    high=st.floats(61, 100),
    axes=st.sampled_from([None, ["y", "x"], ["batch", "y", "x"]]),
)
def test_camera_frames_are_counted_instead_of_sorted(seed, top, dtype, low, high, axes):
    greys = np.random.default_rng(seed).integers(0, top, (2, 5, 7)).astype(dtype)
    for operation in ("scale_range", "clip"):
        kwargs = {"min_percentile": low, "max_percentile": high, "axes": axes}
        steps = operations_in([{"id": operation, "kwargs": kwargs}], "float64", begin=True)
        counted = run_operations(steps, greys, Around(LAYOUT))
        sorted_ = run_operations(steps, greys.astype(np.float64), Around(LAYOUT))
        np.testing.assert_allclose(counted, sorted_, rtol=1e-9, atol=1e-9)


def test_binarize():
    x = image()
    np.testing.assert_array_equal(run("binarize", x, threshold=100), x > 100)
    along = run("binarize", x, axis="channel", threshold=[100, 150, 1e9])
    assert along[0].any()
    assert not along[2].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64", "int32", "bool"])
def test_ensure_dtype_is_a_plain_cast(dtype):
    x = image() % 200
    np.testing.assert_array_equal(run("ensure_dtype", x, dtype=dtype), x.astype(dtype))


def test_nan_is_not_cast_to_a_number():
    x = np.full((1, 2, 2), np.nan, np.float32)
    with pytest.raises(ModelError, match="not finite"):
        run("ensure_dtype", x, dtype="uint8")


def test_another_tensors_statistics():
    x, raw = image(1), 10 * image(1, seed=1) + 7
    others = {"raw": (raw, LAYOUT)}
    got = run("scale_mean_variance", x, others=others, reference_tensor="raw", axes=["y", "x"])
    np.testing.assert_allclose([got.mean(), got.std()], [raw.mean(), raw.std()], rtol=1e-4)
    got = run("scale_range", x, others=others, reference_tensor="raw")
    np.testing.assert_allclose(got, (x - raw.min()) / (raw.max() - raw.min()), rtol=1e-4)
    with pytest.raises(ModelError, match=r"'else'.*known: raw"):
        run("scale_range", x, others=others, reference_tensor="else")


@settings(max_examples=50)
@given(
    seed=st.integers(0, 999),
    order=st.permutations(["batch", "channel", "y", "x"]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
)
def test_the_order_of_axes_changes_nothing(seed, order, dtype):
    x = image(2, seed).astype(dtype)
    layout = TensorLayout(tuple(order), "channel")
    tensor = layout.tensor(x)
    assert tensor.shape == tuple({"batch": 1, "channel": 2, "y": 13, "x": 17}[axis] for axis in order)
    np.testing.assert_array_equal(layout.view(tensor), x)
    for operation, kwargs in (("zero_mean_unit_variance", {"axes": ["y", "x"]}), ("softmax", {})):
        np.testing.assert_array_equal(run(operation, x, layout, **kwargs), run(operation, x, **kwargs))


def test_an_axis_of_one_counts_for_nothing():
    layout = TensorLayout(("batch", "z", "channel", "y", "x"), "channel")
    x = image()
    got = run("scale_range", x, layout, axes=["z", "y", "x"])
    np.testing.assert_array_equal(got, run("scale_range", x, axes=["y", "x"]))


@given(least=st.integers(1, 64), step=st.integers(1, 32), length=st.integers(1, 500), most=st.integers(64, 300))
def test_sizes_are_those_that_are_allowed(least, step, length, most):
    sizes = Sizes(least, step, None, 0)
    assert sizes.padded(length) >= length
    assert (sizes.padded(length) - least) % step == 0 == (sizes.tile(most) - least) % step
    assert sizes.padded(length) < length + step or sizes.padded(length) == least
    assert sizes.tile(most) <= most < sizes.tile(most) + step


CASTS = {
    "nothing declared": ([], ["ensure_dtype"]),
    "a cast at both ends": ([{"id": "sigmoid"}], ["ensure_dtype", "sigmoid", "ensure_dtype"]),
    "its own casts": ([{"id": "ensure_dtype", "kwargs": {"dtype": "float64"}}], ["ensure_dtype"]),
    "a mask is not cast": (
        [{"id": "binarize", "kwargs": {"threshold": 1}}],
        ["ensure_dtype", "binarize"],
    ),
}


@pytest.mark.parametrize(("steps", "expected"), CASTS.values(), ids=CASTS.keys())
def test_the_formats_implicit_casts(steps, expected):
    assert [operation.id for operation in operations_in(steps, "float32", begin=True)] == expected


REFUSED = {
    "unknown": {"id": "make_nice"},
    "no name": {"kwargs": {}},
    "not a mapping": "sigmoid",
    "unknown argument": {"id": "sigmoid", "kwargs": {"gain": 2}},
    "no percentile": {"id": "scale_range", "kwargs": {"max_percentile": 0.99}},
    "falling percentiles": {"id": "scale_range", "kwargs": {"min_percentile": 60, "max_percentile": 50}},
    "value and percentile": {"id": "clip", "kwargs": {"min": 1, "min_percentile": 1}},
    "clip to nothing": {"id": "clip", "kwargs": {}},
    "no such type": {"id": "ensure_dtype", "kwargs": {"dtype": "float16"}},
    "no reference": {"id": "scale_mean_variance", "kwargs": {}},
    "not a number": {"id": "scale_linear", "kwargs": {"gain": float("nan")}},
    "kwargs of another kind": {"id": "scale_linear", "kwargs": [1]},
}


@pytest.mark.parametrize("step", REFUSED.values(), ids=REFUSED.keys())
def test_refused(step):
    with pytest.raises(ValidationError):
        operations_in([step], "float32", begin=True)


def test_values_that_do_not_fit_the_axis():
    with pytest.raises(ModelError, match="2 values along 'channel', which has size 3"):
        run("scale_linear", image(), axis="channel", gain=[1, 2])
    with pytest.raises(ModelError, match="size 1"):
        run("binarize", image(), axis="batch", threshold=[1, 2])


def test_said_in_one_line():
    steps = [{"id": "scale_range", "kwargs": {"axes": ["y", "x"], "max_percentile": 99}}, {"id": "sigmoid"}]
    said = describe_operations(operations_in(steps, "float32", begin=False))
    assert said == "scale_range (axes ['y', 'x'], max_percentile 99.0), sigmoid, ensure_dtype (dtype float32)"
