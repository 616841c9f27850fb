"""What becomes of planes before they are looked at: windows, colours, averages, outlines, scale bars, files."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from livestain.live.lettering import text_width, write
from livestain.live.plane_stack import PlaneStack
from livestain.live.scale_bar import bar_length_um, length_text, with_scale_bar
from livestain.live.shown import (
    auto_window,
    averaged,
    blend_colours,
    blended,
    encode,
    outlines,
    rgb_of,
    tinted,
    to_8bit,
)
from livestain.live.times import time_stamp

WHITE, GREEN, RED = (255, 255, 255), (0, 255, 0), (255, 0, 0)


def plane_of(value: int, side: int = 64) -> np.ndarray:
    return np.full((side, side), value, np.uint16)


def one_bright_cell() -> np.ndarray:
    plane = np.random.default_rng(0).integers(90, 110, (1024, 1024)).astype(np.uint16)
    plane[100:120, 100:120] = 20_000  # 0.04 % of the pixels
    return plane


@pytest.mark.parametrize(
    ("plane", "shown"),
    [
        (plane_of(0), 0),  # empty is black
        (plane_of(9000), 128),  # flat is grey: neither dark nor bright
        (plane_of(65535), 128),
        (plane_of(3, side=1), None),
    ],
)
def test_a_window_of_a_flat_plane_makes_no_structure(plane: np.ndarray, shown: int | None) -> None:
    low, high = auto_window(plane)
    assert high - low >= 16
    assert shown is None or (to_8bit(plane, (low, high)) == shown).all()


def test_a_window_leaves_out_hot_pixels_but_not_a_single_cell() -> None:
    random = np.random.default_rng(0)
    plane = random.integers(1000, 2000, (512, 512)).astype(np.uint16)
    plane[tuple(random.integers(0, 512, (2, 260)))] = 65535  # 0.1 % of the pixels
    low, high = auto_window(plane)
    assert 1000 <= low < 1020
    assert 1980 < high <= 2000
    low, high = auto_window(one_bright_cell())
    assert (to_8bit(one_bright_cell(), (low, high))[200:, 200:] < 3).all()  # the noise beside the cell stays dark


def test_several_planes_have_one_window_for_all() -> None:
    dark, bright = (
        np.random.default_rng(i).integers(*span, (64, 64)).astype(np.uint16)
        for i, span in enumerate([(100, 200), (900, 1000)])
    )
    low, high = auto_window(dark, bright)
    assert low < 110
    assert high > 990


def test_a_window_is_stretched_to_8_bits() -> None:
    plane = np.array([[0, 100, 101, 150, 199, 200, 65535]], np.uint16)
    assert to_8bit(plane, (100, 200)).tolist() == [[0, 0, 3, 128, 252, 255, 255]]
    with pytest.raises(ValueError, match="from a lower to a higher grey level, got 5 to 5"):
        to_8bit(plane, (5, 5))


@given(st.integers(1, 17), st.integers(1, 17), st.integers(1, 6))
def test_averages_are_those_of_whole_and_of_cut_blocks(height: int, width: int, factor: int) -> None:
    plane = np.random.default_rng(height * width).integers(0, 65536, (height, width)).astype(np.uint16)
    found = averaged(plane, factor)
    assert found.dtype == plane.dtype
    assert found.shape == (math.ceil(height / factor), math.ceil(width / factor))
    for (y, x), value in np.ndenumerate(found):
        block = plane[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        assert abs(value - block.mean()) <= 0.5


def test_averages_of_the_brightest_plane_do_not_overflow() -> None:
    assert (averaged(plane_of(65535, side=512), 256) == 65535).all()
    with pytest.raises(ValueError, match="by a factor from 1 to 256, got 0"):
        averaged(plane_of(1), 0)


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 4), min_size=1, max_size=4))
def test_colours_add_up_and_end_at_white(channels: list[tuple[int, int, int, int]]) -> None:
    planes = [np.full((70, 3), grey, np.uint16) for grey, *_ in channels]
    rgb = blended(planes, [(0, 255)] * len(planes), [colour for _, *colour in channels])
    assert rgb.shape == (70, 3, 3)
    for i in range(3):
        exact = min(255, sum(grey * colour[i] / 255 for grey, *colour in channels))
        assert (abs(rgb[..., i].astype(float) - exact) <= 0.5 * len(channels)).all()


def test_a_bright_field_is_dimmed_beneath_colours_only() -> None:
    assert blend_colours(["FFFFFF"]) == [WHITE]
    assert blend_colours(["FFFFFF", "00ff00"]) == [(150, 150, 150), GREEN]
    grey = np.array([[0, 100]], np.uint8)
    assert tinted(grey, RED).tolist() == [[[0, 0, 0], [100, 0, 0]]]
    with pytest.raises(ValueError, match=r"six hexadecimal digits such as 00BFFF, got '#fff'"):
        rgb_of("#fff")


def test_outlines_lie_where_ids_change() -> None:
    labels = np.array([[0, 0, 0, 0], [0, 7, 7, 9], [0, 7, 7, 9], [0, 0, 0, 0]], np.uint32)
    assert outlines(labels).astype(int).tolist() == [[0, 1, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]


def test_pictures_are_encoded_as_jpeg_or_without_loss() -> None:
    y, x = np.mgrid[:64, :96]
    rgb = np.stack([x, y, x + y], axis=-1).astype(np.uint8)
    for image in (rgb, rgb[..., 0]):
        for quality, kind, off in ((85, "JPEG", 12), (95, "JPEG", 6), (None, "PNG", 0)):
            with Image.open(io.BytesIO(encode(image, quality))) as picture:
                assert picture.format == kind
                assert abs(np.asarray(picture).astype(int) - image).max() <= off
    with pytest.raises(ValueError, match="from 1 to 95, got 0"):
        encode(rgb, 0)


LENGTHS = [
    # (width in um, bar in um, its label)
    (166.4, 20, "20 \u00b5m"),
    (5, 1, "1 \u00b5m"),
    (0.6, 0.1, "100 nm"),
    (2.5, 0.5, "500 nm"),
    (10, 2, "2 \u00b5m"),
    (25, 5, "5 \u00b5m"),
    (13_000, 2000, "2 mm"),
    (4_999, 500, "500 \u00b5m"),
    (5_000, 1000, "1 mm"),
    (0.005, 0.001, "1 nm"),
]


@pytest.mark.parametrize(("width_um", "bar_um", "label"), LENGTHS)
def test_a_scale_bar_is_round_and_fits_a_fifth(width_um: float, bar_um: float, label: str) -> None:
    assert bar_length_um(width_um) == pytest.approx(bar_um, rel=1e-12)
    assert length_text(bar_length_um(width_um)) == label


@given(st.floats(1e-4, 1e7))
def test_no_longer_round_bar_fits(width_um: float) -> None:
    length_um = bar_length_um(width_um)
    assert length_um <= 0.2 * width_um * (1 + 1e-6)
    assert 2.5 * length_um > 0.2 * width_um * (1 - 1e-6)


@pytest.mark.parametrize("side", [100, 512, 1999])
def test_the_bar_is_drawn_as_long_as_it_says(side: int) -> None:
    black = np.zeros((side, side, 3), np.uint8)
    drawn = with_scale_bar(black, 0.325)
    assert not black.any()
    rows = drawn.min(axis=2) == 255
    longest = max(row.sum() for row in rows)
    assert longest == round(bar_length_um(side * 0.325) / 0.325)
    assert rows[: side // 2].sum() == 0


@pytest.mark.parametrize("pixel_size_um", [0, -1, math.nan, math.inf])
def test_there_is_no_bar_without_a_pixel_size(pixel_size_um: float) -> None:
    with pytest.raises(ValueError, match="without a pixel size draw none"):
        with_scale_bar(np.zeros((64, 64, 3), np.uint8), pixel_size_um)


def test_letters_that_the_font_lacks_are_written_plainly() -> None:
    def written(text: str) -> np.ndarray:
        picture = Image.new("RGB", (300, 60), (90, 90, 90))
        write(picture, (5, 40), text, 24)
        return np.asarray(picture)

    assert (written("Zellr\u00e4nder \u6838") == written("Zellrander ?")).all()
    micro, u = written("5 \u00b5m"), written("5 um")
    assert (micro == written("5 \u03bcm")).all()
    assert (micro != u).any()
    assert (micro[:41] == u[:41]).mean() > 0.99  # its tail is all that differs
    assert text_width("5 \u00b5m", 24) == text_width("5 um", 24)


STAMPS = [
    # (time, longest time, text)
    (3.24, 40, "3.2 s"),
    (75, 600, "1 min 15 s"),
    (59.7, 600, "1 min 00 s"),
    (11_100, 80_000, "3 h 05 min"),
    (3599.9, 80_000, "1 h 00 min"),
    (0, 90_000, "0 d 00 h 00 min"),
    (183_900, 400_000, "2 d 03 h 05 min"),
    (math.nan, 60, "time not known"),
]


@pytest.mark.parametrize(("time_s", "longest_s", "text"), STAMPS)
def test_times_are_written_for_people(time_s: float, longest_s: float, text: str) -> None:
    assert time_stamp(time_s, longest_s) == text


INDEX = st.one_of(st.integers(-2, 1), st.slices(2))


@given(
    key=st.one_of(
        INDEX,
        st.tuples(INDEX),
        st.tuples(INDEX, INDEX),
        st.tuples(INDEX, INDEX, INDEX, INDEX),
        st.just(...),
        st.tuples(st.just(...), INDEX),
    )
)
def test_a_stack_of_planes_is_read_like_an_array(key: object) -> None:
    whole = np.arange(2 * 2 * 2 * 2, dtype=np.uint16).reshape(2, 2, 2, 2)
    stack = PlaneStack(whole.shape, np.uint16, lambda t, z: None if (t, z) == (1, 0) else whole[t, z])
    expected = whole.copy()
    expected[1, 0] = 0  # where there is no plane
    assert (np.asarray(stack) == expected).all()
    found = stack[key]
    assert found.shape == expected[key].shape
    assert found.dtype == np.uint16
    assert (found == expected[key]).all()


def test_a_stack_reads_no_more_than_is_looked_at() -> None:
    asked: list[tuple[int, ...]] = []

    def read(*index: int) -> None:
        asked.append(index)

    stack = PlaneStack((10_000, 3, 8, 8), np.uint16, read)
    stack[7, 1]
    stack[-1, :, 2:4, 5]
    assert asked == [(7, 1), (9999, 0), (9999, 1), (9999, 2)]
    for key in ((0, 0, 0, 0, 0), 10_000, [1, 2], None):
        with pytest.raises(IndexError):
            stack[key]
