"""Pictures over time: each position's channels at a few time points, in one contrast, with scale bar and outlines."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from livestain._frame import Place
from livestain.live.lettering import write
from livestain.live.report.choice import channels_of, chosen_times, sample_time_s
from livestain.live.report.words import length_of_time
from livestain.live.scale_bar import with_scale_bar
from livestain.live.shown import auto_window, averaged, encode, outlines, rgb_of, tinted, to_8bit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain.live.run_folder import RunFolder
    from livestain.live.shown import Window

__all__ = ["MOST_POSITIONS", "Panel", "Pictures", "Position", "Strip", "draw_pictures"]

MOST_POSITIONS = 8
_MOST_TIMES = 5
_SIDE_PX = 420  # of a picture: five fit a printed page, and the file can be mailed
_OUTLINE_RGB = (255, 214, 10)  # yellow is in no stain's colour that we ship


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture as a data URI, or the sentence that says why there is none; when it was taken."""

    time: str
    point: str
    uri: str
    why: str
    alt: str


@dataclass(frozen=True, slots=True)
class Strip:
    """One channel over time."""

    title: str
    panels: tuple[Panel, ...]

    @property
    def why(self) -> str:
        """Why there is no picture at all; "" where there is one."""
        return "" if any(panel.uri for panel in self.panels) else "; ".join(sorted({p.why for p in self.panels}))


@dataclass(frozen=True, slots=True)
class Position:
    """One position's strips, and the name of the file that holds them all; "" where none has a picture."""

    name: str
    strips: tuple[Strip, ...]
    file: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """All pictures, what to say of them, and the technical channels: (names, why they are not pictured)."""

    positions: tuple[Position, ...]
    sentences: tuple[str, ...]
    technical: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Plane:
    """A plane averaged down, None where it is not there; and its time point."""

    t: int
    grey: NDArray[np.uint16] | None


def draw_pictures(run: RunFolder, folder: Path, images: Sequence[int]) -> Pictures:
    """Draw the pictures of some positions, and write one PNG of each position into `folder`.

    Parameters
    ----------
    run
        Only the planes that are drawn are read.
    folder
        For the PNG files; there already.
    images
        Numbers of the images to draw; at most `MOST_POSITIONS` are wise.
    """
    channels = channels_of(run)
    layout = run.layout
    factor = max(1, math.ceil(max(layout.height, layout.width) / _SIDE_PX))
    times = {image: chosen_times(run.there(image), channels.shown, _MOST_TIMES) for image in images}
    planes = {
        (image, c): [_Plane(t, _read(run, image, c, t, factor)) for t in times[image]]
        for image in images
        for c in channels.shown
    }
    windows = {c: _window([p for image in images for p in planes[image, c]]) for c in channels.shown}
    drawn = []
    for image in images:
        if not times[image]:
            continue
        rows = [_row(run, image, c, planes[image, c], windows[c], factor) for c in channels.shown]
        if found := _outlined(run, image, planes[image, channels.shown[0]], windows[channels.shown[0]], factor):
            rows.insert(1, found)
        name = run.position_names[image]
        strips = tuple(_strip(row, name) for row in rows)
        file = f"pictures{'-' + _file_name(image, name) if len(layout.images) > 1 else ''}.png"
        if all(strip.why for strip in strips):
            file = ""
        else:
            _montage(rows, name or run.name).save(folder / file)
        drawn.append(Position(name, strips, file))
    technical: dict[str, list[str]] = {}
    for name, why in channels.technical:
        technical.setdefault(why, []).append(name)
    grouped = tuple((", ".join(names), why) for why, names in technical.items())
    return Pictures(tuple(drawn), _sentences(run, images, factor), grouped)


def _read(run: RunFolder, image: int, c: int, t: int, factor: int) -> NDArray[np.uint16] | None:
    """Read the focal plane in the middle of those that are there."""
    planes = np.flatnonzero(run.there(image)[t, c])
    if not planes.size:
        return None
    plane = run.plane(Place(image, t, c, int(planes[planes.size // 2])))
    return None if plane is None else averaged(plane, factor)


def _window(planes: Sequence[_Plane]) -> Window | None:
    there = [plane.grey for plane in planes if plane.grey is not None]
    return auto_window(np.stack(there)) if there else None


# ---------------------------------------------------------------------- one row of pictures

_Stamp = tuple[str, str]  # "3 h 20 min", "time point 11"
_Cell = tuple[_Stamp, "NDArray[np.uint8] | None", str]  # when, picture, why there is none
_Row = tuple[str, list[_Cell]]


def _row(run: RunFolder, image: int, c: int, planes: Sequence[_Plane], window: Window | None, factor: int) -> _Row:
    channel = run.layout.channels[c]
    cells: list[_Cell] = []
    for plane in planes:
        if plane.grey is None or window is None:
            cells.append((_stamp(run, image, plane.t), None, _why_not(run, image, c, plane.t)))
            continue
        rgb = tinted(to_8bit(plane.grey, window), rgb_of(channel.color))
        cells.append((_stamp(run, image, plane.t), _barred(rgb, run.layout.pixel_size_um * factor), ""))
    contrast = run.experiment.rig.channels.get(channel.name) if run.experiment else None
    kind = f" ({contrast.contrast})" if contrast and contrast.contrast else ""
    return f"{channel.name}{kind}", cells


def _why_not(run: RunFolder, image: int, c: int, t: int) -> str:
    if run.there(image)[t, c].any():
        return "on disk, but cannot be read: see Warnings"
    return "no prediction: still owed" if run.layout.channels[c].predicted else "not taken at this time point"


def _outlined(run: RunFolder, image: int, planes: Sequence[_Plane], window: Window | None, factor: int) -> _Row | None:
    """Draw the cells' outlines on the first channel; None where no cell was measured."""
    cells: list[_Cell] = []
    for plane in planes:
        labels = run.labels("cells", image, plane.t)
        if labels is None or plane.grey is None or window is None:
            cells.append((_stamp(run, image, plane.t), None, "not measured"))
            continue
        rgb = tinted(to_8bit(plane.grey, window), (255, 255, 255))
        edges = _coarser(outlines(labels), factor)[: rgb.shape[0], : rgb.shape[1]]
        rgb[edges] = _OUTLINE_RGB
        cells.append((_stamp(run, image, plane.t), _barred(rgb, run.layout.pixel_size_um * factor), ""))
    if all(picture is None for _, picture, _ in cells):
        return None
    return f"{run.layout.channels[0].name} with the outlines of the cells that were measured", cells


def _coarser(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    """Give a mask of blocks in which any pixel is set."""
    height, width = (math.ceil(n / factor) for n in mask.shape)
    padded = np.zeros((height * factor, width * factor), np.bool_)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return np.asarray(padded.reshape(height, factor, width, factor).any(axis=(1, 3)))


def _barred(rgb: NDArray[np.uint8], pixel_size_um: float) -> NDArray[np.uint8]:
    return with_scale_bar(rgb, pixel_size_um) if pixel_size_um > 0 else rgb


def _stamp(run: RunFolder, image: int, t: int) -> _Stamp:
    times = sample_time_s(run, image)
    seconds = float(times[t]) if t < len(times) else math.nan
    return "start" if seconds == 0 else length_of_time(seconds), f"time point {t + 1}"


def _strip(row: _Row, position: str) -> Strip:
    title, cells = row
    where = f", {position}" if position else ""
    return Strip(
        title,
        tuple(
            Panel(*when, "" if picture is None else _uri(picture), why, f"{title}{where}, {', '.join(when)}")
            for when, picture, why in cells
        ),
    )


def _uri(rgb: NDArray[np.uint8]) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode(rgb, 82)).decode()


# ---------------------------------------------------------------------- the file for talks


def _montage(rows: Sequence[_Row], title: str) -> Image.Image:
    shapes = [picture.shape for _, cells in rows for _, picture, _ in cells if picture is not None]
    height, width = max((s[0] for s in shapes), default=120), max((s[1] for s in shapes), default=240)
    columns = max(len(cells) for _, cells in rows)
    gap, line = 10, 24
    sheet = Image.new("RGB", (columns * (width + gap) + gap, line + 8 + len(rows) * (height + 2 * line + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    _black(sheet, (gap, line), title, 17)
    for i, (name, cells) in enumerate(rows):
        top = line + 8 + i * (height + 2 * line + gap)
        _black(sheet, (gap, top + 18), name, 15)
        for k, (when, picture, why) in enumerate(cells):
            left = gap + k * (width + gap)
            if picture is None:
                pen.rectangle((left, top + line, left + width - 1, top + line + height - 1), outline=(190, 190, 190))
                _black(sheet, (left + 8, top + line + height // 2), why, 12)
            else:
                sheet.paste(Image.fromarray(picture), (left, top + line))
            _black(sheet, (left, top + line + height + 16), ", ".join(when), 12)
    return sheet


def _black(sheet: Image.Image, at: tuple[int, int], text: str, px: int) -> None:
    """Write dark on white: the lettering's dark edge alone."""
    mask = Image.new("RGB", (sheet.width, px * 2), "black")
    write(mask, (at[0], px + px // 3), text, px)
    ink = Image.new("RGB", mask.size, (34, 34, 34))
    sheet.paste(ink, (0, at[1] - px - px // 3), mask.convert("L"))


def _file_name(image: int, name: str) -> str:
    return f"{image}-" + (re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60].strip("-.") or "position")


def _sentences(run: RunFolder, images: Sequence[int], factor: int) -> tuple[str, ...]:
    layout = run.layout
    said = []
    if len(layout.images) > len(images):
        said.append(
            f"{len(images)} of {len(layout.images):,} positions are shown, evenly chosen; all are in the run folder."
        )
    said.append("Each channel has one contrast, the same at all times and positions shown: brightness can be compared.")
    if factor > 1:
        said.append(f"Pictures are averaged down {factor} times; the run folder has the full resolution.")
    if any(layout.images[image].n_z > 1 for image in images):
        said.append("Of several focal planes the one in the middle is shown.")
    if layout.pixel_size_um <= 0:
        said.append(
            f"The pixel size is not known, so there is no scale bar: a field is {layout.width} \u00d7 {layout.height} "
            "pixels."
        )
    measure = run.experiment.measure if run.experiment else None
    if measure is not None and measure.interval_s is not None:
        said.append(
            f"Times are those of the sample, {length_of_time(measure.interval_s)} from one time point to the next, as "
            "the experiment says (measure.interval_s)."
        )
    else:
        said.append("Times count from the first frame of the run.")
    return tuple(said)
