"""Pairs read from run folders, OME-Zarr and TIFFs: what is found, what is left out and why, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr

from livestain_models._errors import DataError
from livestain_models.data import Field, measure_scales, read_fields, to_units
from livestain_models.recipe import Data, PlanesWanted

ALL = slice(None)


def images(seed=0, size=64):
    """A nucleus is a dark disc in bright field and a bright one in fluorescence."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    nuclei = np.zeros((size, size))
    for cy, cx in rng.uniform(0, size, (6, 2)):
        nuclei = np.maximum(nuclei, (y - cy) ** 2 + (x - cx) ** 2 < 36)
    return rng.poisson(5000 * (1 - 0.2 * nuclei)).astype(np.uint16), rng.poisson(100 + 3000 * nuclei).astype(np.uint16)


def write_image(
    group, stacks, *, version="0.5", unit="micrometer", scale=0.325, channels=("BF", "Nuclei"), axes="tczyx"
):
    array = np.asarray(stacks, np.uint16)
    spatial = {axis: {"name": axis, "type": "space"} | ({"unit": unit} if unit else {}) for axis in "zyx"}
    ome = {
        "multiscales": [
            {
                "axes": [spatial.get(axis, {"name": axis}) for axis in axes],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {
                                "type": "scale",
                                "scale": [{"z": 1.5, "y": scale, "x": scale}.get(axis, 1.0) for axis in axes],
                            }
                        ],
                    }
                ],
            }
        ],
        "omero": {"channels": [{"label": label} for label in channels]},
    }
    group.attrs.update({"ome": ome | {"version": version}} if version == "0.5" else ome)
    group.create_array("0", data=array, chunks=(*[1] * (array.ndim - 2), 32, 32))


def run_of(folder, stacks, **more):
    root = zarr.open_group(folder / "images.ome.zarr", mode="w", zarr_format=3)
    for index, stack in enumerate(stacks):
        write_image(root.create_group(str(index)), stack, **more)
    return folder


def data(path, **changes):
    return Data(**({"pairs": str(path), "input": "BF", "targets": "Nuclei", "check_registration": False} | changes))


def one(found) -> Field:
    (field,) = found.fields
    return field


def test_a_run_folder_with_a_stain_in_the_middle_plane(tmp_path):
    light, stain = images()
    empty = np.zeros_like(stain)
    run_of(tmp_path / "run", [[[[light, light + 1, light + 2], [empty, stain, empty]]]])
    field = one(read_fields(data(tmp_path / "run")))
    assert (field.name, field.instrument, field.pixel_size_um, field.plane_spacing_um) == (
        "run/0",
        "unnamed",
        0.325,
        1.5,
    )
    assert (field.planes.shape, field.targets.shape) == ((3, 64, 64), (1, 1, 64, 64))
    rows, columns = slice(5, 50), slice(30, 41)
    np.testing.assert_array_equal(field.input((0, 2), rows, columns), np.stack([light, light + 2])[:, rows, columns])
    assert field.input((0,), rows, columns).dtype == np.uint16
    np.testing.assert_array_equal(field.target((0, 1, 2), rows, columns)[0], stain[rows, columns])
    part = field.crop(slice(8, 56), slice(16, 48)).crop(slice(1, 40), ALL)
    np.testing.assert_array_equal(part.planes[:, 2:5, 3:9], np.stack([light + z for z in range(3)])[:, 11:14, 19:25])
    np.testing.assert_array_equal(part.target((1,), ALL, ALL)[0], stain[9:48, 16:48])
    with pytest.raises(DataError, match="3 planes of transmitted light and 1 of the stain"):
        field.target_stack((0, 1, 2), rows, columns)


def test_a_stain_in_every_plane(tmp_path):
    light, stain = images()
    run_of(tmp_path / "run", [[[[light + z for z in range(4)], [stain + z for z in range(4)]]]])
    field = one(read_fields(data(tmp_path / "run")))
    assert field.targets.shape == (1, 4, 64, 64)
    window = (1, 2, 3)
    np.testing.assert_array_equal(field.target(window, ALL, ALL)[0], stain + 2)
    stack = field.target_stack(window, ALL, ALL)
    assert stack.shape == (1, 3, 64, 64)
    np.testing.assert_array_equal(stack[0], np.stack([stain + z for z in window]))


@pytest.mark.parametrize(
    ("version", "zarr_format", "axes"),
    [("0.5", 3, "tczyx"), ("0.4", 2, "tczyx"), ("0.4", 2, "cyx"), ("0.5", 3, "czyx")],
)
def test_any_ome_zarr(tmp_path, version, zarr_format, axes):
    light, stain = images()
    stack = np.stack([light, stain]).reshape([{"c": 2, "y": 64, "x": 64}.get(axis, 1) for axis in axes])
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    write_image(root, stack, version=version, axes=axes, unit="nanometer", scale=325.0)
    field = one(read_fields(data(tmp_path / "*.zarr")))
    assert (field.name, field.pixel_size_um) == ("a.zarr", pytest.approx(0.325))
    np.testing.assert_array_equal(field.input((0,), ALL, ALL)[0], light)


def test_wells_time_points_and_what_was_never_written(tmp_path):
    light, stain = images()
    nothing = np.zeros_like(light)
    root = zarr.open_group(tmp_path / "plate" / "images.ome.zarr", mode="w", zarr_format=3)
    write_image(root.create_group("A/1/0"), [[[light], [stain]], [[nothing], [nothing]], [[light], [nothing]]])
    write_image(root.create_group("B/2/0"), [[[light], [np.full_like(stain, 7)]], [[light], [stain]]])
    found = read_fields(data(tmp_path / "plate"))
    assert [(field.name, field.place) for field in found.fields] == [
        ("plate/A/1/0/t0", "plate/A/1/0"),
        ("plate/B/2/0/t1", "plate/B/2/0"),
    ]
    assert [str(left) for left in found.left_out] == [
        "plate/A/1/0/t1: BF was never written",
        "plate/A/1/0/t2: Nuclei was never written",
        "plate/B/2/0/t0: Nuclei is constant at 7",
    ]


def test_what_collect_found_is_honoured(tmp_path):
    light, stain = images(size=96)
    moved = np.roll(stain, (3, -5), (0, 1))  # lies 3 px lower and 5 px further left
    run = run_of(tmp_path / "run", [[[[light], [moved]]], [[[light], [stain]]]])
    (run / "pairs.json").write_text(
        json.dumps({"instrument": "scope-2", "shift_px": {"Nuclei": [3, -5]}, "left_out": {"1": "out of focus"}})
    )
    found = read_fields(data(run, targets=[{"name": "DNA", "channel": "Nuclei"}]))
    field = one(found)
    assert field.instrument == "scope-2"
    assert field.size_px == (93, 91)
    np.testing.assert_array_equal(field.target((0,), ALL, ALL)[0], stain[:93, 5:])
    np.testing.assert_array_equal(field.input((0,), ALL, ALL)[0], light[:93, 5:])
    assert [str(left) for left in found.left_out] == ["run/1: out of focus"]


def write_tiffs(folder, count=2, **more):
    for kind in ("bf", "dna"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        for kind, image in zip(("bf", "dna"), images(number), strict=True):
            tifffile.imwrite(folder / kind / f"{number}.tif", image, **more)
    return folder


def tiffs(folder, **changes):
    return data(
        folder,
        **(
            {
                "input": "bf/{field}.tif",
                "targets": [{"name": "DNA", "channel": "dna/{field}.tif"}],
                "pixel_size_um": 0.5,
            }
            | changes
        ),
    )


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_folders_of_tiffs(tmp_path, compression):
    folder = write_tiffs(tmp_path / "set", compression=compression)
    tifffile.imwrite(folder / "bf" / "lonely.tif", images()[0])
    found = read_fields(tiffs(folder))
    assert [field.name for field in found.fields] == ["set/0", "set/1"]
    assert [str(left) for left in found.left_out] == ["set/lonely: there is no dna/lonely.tif"]
    np.testing.assert_array_equal(found.fields[1].target((0,), slice(3, 9), ALL)[0], images(1)[1][3:9])


@pytest.mark.parametrize(
    ("written", "pixel_um"),
    [
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, 0.25),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm"}}, 0.2),
        ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (96, 96), "resolutionunit": "INCH"}, 7.0),  # a screen's, so the recipe's word holds
        ({}, 7.0),
    ],
)
def test_pixel_sizes_of_tiffs(tmp_path, written, pixel_um):
    folder = write_tiffs(tmp_path / "set", 1, **written)
    assert one(read_fields(tiffs(folder, pixel_size_um=7.0))).pixel_size_um == pytest.approx(pixel_um)


def test_a_single_field_of_several_planes_and_labels(tmp_path):
    light, stain = images()
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([light, light + 1, light + 2]), photometric="minisblack")
    tifffile.imwrite(tmp_path / "stain.tif", stain.astype(np.float32))
    tifffile.imwrite(tmp_path / "classes.tif", (stain > 1000).astype(np.uint8) * 3)
    recipe = data(tmp_path, input="stack.tif", targets="stain.tif", pixel_size_um=1, classes={"labels": "classes.tif"})
    field = one(read_fields(recipe))
    assert (field.planes.shape, field.name) == ((3, 64, 64), tmp_path.name)
    labels = field.labels_of(slice(2, 9), ALL)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, (stain[2:9] > 1000) * 3)


def broken(tmp_path, case):
    light, stain = images()
    folder = tmp_path / "set"
    if case == "empty":
        folder.mkdir()
    elif case != "nothing":
        write_tiffs(folder, 1)
    bf, dna = folder / "bf" / "0.tif", folder / "dna" / "0.tif"
    changes = {
        "size": lambda: tifffile.imwrite(dna, stain[:32]),
        "int32": lambda: tifffile.imwrite(bf, light.astype(np.int32)),
        "nan": lambda: tifffile.imwrite(dna, np.where(stain > 2000, np.nan, stain).astype(np.float32)),
        "colour": lambda: tifffile.imwrite(bf, np.zeros((64, 64, 3), np.uint8), photometric="rgb"),
        "no tiff": lambda: bf.write_bytes(b"not an image"),
        "constant": lambda: tifffile.imwrite(bf, np.full_like(light, 9)),
    }
    changes.get(case, lambda: None)()
    return folder


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("nothing", {}, "set matches nothing"),
        ("empty", {}, "set is empty"),
        (
            "pattern",
            {"input": "light/{field}.tif"},
            r"no file in it matches data.input 'light/\{field\}.tif'. It holds bf/0.tif",
        ),
        ("size", {}, r"\(H, W\) = \(64, 64\) and \(32, 64\) in .*bf/0.tif, .*dna/0.tif"),
        ("int32", {}, "is int32; cameras give uint8 or uint16"),
        ("nan", {}, "pixels that are NaN or infinite"),
        ("colour", {}, "one grey image or a stack of focal planes"),
        ("no tiff", {}, "cannot be read as TIFF"),
        ("constant", {}, "No usable pair is left; 1 were left out:\n  set/0: bf/{field}.tif is constant at 9"),
        ("pixels", {"pixel_size_um": None}, "Write data.pixel_size_um"),
    ],
)
def test_what_is_refused(tmp_path, case, changes, message):
    with pytest.raises(DataError, match=message):
        read_fields(tiffs(broken(tmp_path, case), **changes))


def test_refused_zarrs(tmp_path):
    light, stain = images()
    run = run_of(tmp_path / "run", [[[[light], [stain]]]])
    with pytest.raises(DataError, match="no channel 'DAPI'; it has BF, Nuclei"):
        read_fields(data(run, targets="DAPI"))
    with pytest.raises(DataError, match="Two fields have the name run/0"):
        read_fields(data(run, pairs=[str(run), str(tmp_path / "r*")]))
    run_of(tmp_path / "other", [[[[light], [stain]]]], scale=0.65)
    with pytest.raises(DataError, match=r"Pixel sizes differ: run/0 has 0.325 um, other/0 has 0.65 um"):
        read_fields(data(tmp_path / "*"))
    zarr.open_group(tmp_path / "empty" / "images.ome.zarr", mode="w", zarr_format=3)
    with pytest.raises(DataError, match="holds no image"):
        read_fields(data(tmp_path / "empty"))
    run_of(tmp_path / "unknown", [[[[light], [stain]]]], scale=1.0, unit=None)
    with pytest.raises(DataError, match="pixel_size_um"):
        read_fields(data(tmp_path / "unknown"))


@pytest.mark.parametrize(
    ("depth", "wanted", "windows"),
    [
        (1, {}, [(0,)]),
        (5, {}, [(2,)]),
        (4, {}, [(2,)]),  # where a channel without a stack is acquired
        (5, {"count": 3}, [(1, 2, 3)]),
        (4, {"count": 2}, [(2, 3)]),
        (13, {"count": 3, "step": 3}, [(3, 6, 9)]),
        (4, {"count": 4}, [(0, 1, 2, 3)]),
        (4, {"count": 3, "windows": "all"}, [(0, 1, 2), (1, 2, 3)]),
        (5, {"count": 2, "step": 3, "windows": "all"}, [(0, 3), (1, 4)]),
    ],
)
def test_windows(depth, wanted, windows):
    light, stain = images()
    field = Field.of_arrays("a", np.stack([light] * depth), stain[None, None], pixel_size_um=1)
    assert field.windows(PlanesWanted(**wanted)) == windows


def test_a_stack_too_thin():
    light, stain = images()
    field = Field.of_arrays("thin", light[None], stain[None, None], pixel_size_um=1)
    with pytest.raises(DataError, match="thin has 1 focal planes, but 3 in steps of 2 need 5"):
        field.windows(PlanesWanted(count=3, step=2))


def test_scales_are_measured_by_instrument():
    light, stain = images()
    fields = [
        Field.of_arrays(str(gain), light[None], (stain * gain)[None, None], pixel_size_um=1, instrument=f"x{gain}")
        for gain in (1, 4)
    ]
    scales = measure_scales(fields, ["Nuclei"])
    units = [to_units(field.target((0,), ALL, ALL), scales[field.instrument]) for field in fields]
    np.testing.assert_allclose(units[0], units[1], atol=1e-5)
    assert np.percentile(units[0][0, ::4, ::4], 10) == pytest.approx(0, abs=1e-6)
    with pytest.raises(DataError, match="Nuclei of unnamed"):
        measure_scales(
            [Field.of_arrays("flat", light[None], np.full((1, 1, 64, 64), 9.0), pixel_size_um=1)], ["Nuclei"]
        )


def test_reading_needs_no_torch():
    code = "import sys, livestain_models.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
