"""Makes a movie of one position, as MP4 or GIF: channels in their colours, scale bar, time, one contrast throughout."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from livestain._errors import LivestainError
from livestain._frame import Place
from livestain.live._movie_files import check_av, even, write_gif, write_mp4
from livestain.live.first_channels import settled_windows, shown_first
from livestain.live.lettering import text_px, text_width, write
from livestain.live.scale_bar import with_scale_bar
from livestain.live.shown import auto_window, blend_colours, blended, outlines, rgb_of
from livestain.live.times import time_stamp, times_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from livestain.live.run_folder import RunFolder

__all__ = ["Movie", "make_movie"]

_WIDEST_PX = {".mp4": 1920, ".gif": 640}  # of a movie whose width was not asked for; a GIF is for an e-mail
_NARROWEST_PX = 256  # below that the names of the channels do not fit
_EXAMPLES = 8  # time points that the contrast and a GIF's palette are chosen from
_OUTLINE_RGB = (255, 235, 0)


@dataclass(frozen=True, slots=True)
class Movie:
    """What was written: the file, its pictures, the time points left out, and what its reader should know."""

    path: Path
    n_pictures: int
    left_out: tuple[int, ...]
    notes: tuple[str, ...]


def make_movie(
    run: RunFolder,
    out: Path,
    *,
    position: str | None = None,
    channels: Sequence[str] = (),
    fps: float = 10,
    every: int = 1,
    outlined: bool = False,
    width_px: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Movie:
    """Write the time points of one position that are on disk now.

    Parameters
    ----------
    run
        May still be growing.
    out
        .mp4 (needs PyAV) or .gif.
    position
        By its name; the first one without.
    channels
        By their names; without, the first one of the camera and the stains that were predicted. Of several focal planes
        the middle one is shown.
    fps
        Pictures a second.
    every
        Show every so many-th time point.
    outlined
        Draw the outlines of the cells, where they were measured.
    width_px
        Of the pictures; the camera's without, at most 1920 (a GIF: 640).
    overwrite
        Whether a file that is there may be replaced.
    on_progress
        Called with the number of pictures written, and of all.

    Raises
    ------
    LivestainError
        An unknown ending, position or channel, a file that is there, a missing library, no time point that has the
        channels, or a disk that refuses.
    """
    ending = _checked_ending(out, overwrite=overwrite, fps=fps, every=every, width_px=width_px)
    image = _image_of(run, position)
    chosen = _channels_of(run, channels)
    there = run.there(image)
    z = there.shape[2] // 2
    wanted = range(0, len(there), every)
    whole = [t for t in wanted if there[t, chosen, z].all()]
    if not whole:
        names = ", ".join(run.layout.channels[c].name for c in chosen)
        raise LivestainError(f"{run.path} has no time point with {names} so far, so there is nothing to show.")
    scene = _Scene(run, image, z, chosen, whole, _width(run.layout.width, ending, width_px), outlined=outlined)
    left_out = [t for t in wanted if t not in set(whole)]
    pictures = _counted(scene, whole, left_out, on_progress)
    n = _written(out, ending, pictures, fps, scene)
    return Movie(out, n, tuple(sorted(left_out)), _notes(run, image, z, left_out, outlined=outlined))


class _Scene:
    """Draws the time points of one position, all in the same contrast."""

    def __init__(
        self, run: RunFolder, image: int, z: int, chosen: list[int], whole: list[int], width: int, *, outlined: bool
    ) -> None:
        self._run, self._image, self._z, self._chosen, self._outlined = run, image, z, chosen, outlined
        channels = [run.layout.channels[c] for c in chosen]
        self._size = width, max(1, round(run.layout.height * width / run.layout.width))
        self._pixel_um = run.layout.pixel_size_um * run.layout.width / width
        self._colours = blend_colours([channel.color for channel in channels])
        self._legend = [(channel.name, rgb_of(channel.color)) for channel in channels]
        self._times_s = times_s(run, image)
        self._longest_s = float(np.nanmax([0.0, *self._times_s[whole]]))
        self._examples = sorted({whole[i * (len(whole) - 1) // max(1, _EXAMPLES - 1)] for i in range(_EXAMPLES)})
        settled = settled_windows(run.header, run.layout.channels)
        self._windows = [settled.get(c) or auto_window(*self._readable(c)) for c in chosen]

    def draw(self, t: int) -> NDArray[np.uint8] | None:
        """Draw a time point, (Y, X, 3) uint8 of even sides; None where a plane cannot be read."""
        planes = [self._run.plane(Place(self._image, t, c, self._z)) for c in self._chosen]
        readable = [plane for plane in planes if plane is not None]
        if len(readable) < len(planes):
            return None
        picture = Image.fromarray(blended(readable, self._windows, self._colours))
        rgb = even(np.asarray(picture.resize(self._size, Image.Resampling.BOX)))
        if self._outlined:
            rgb = self._with_outlines(rgb, t)
        return self._lettered(rgb, t)

    def examples(self) -> list[NDArray[np.uint8]]:
        """Draw some time points from the first to the last."""
        return [picture for t in self._examples if (picture := self.draw(t)) is not None]

    def _readable(self, c: int) -> list[NDArray[np.uint16]]:
        planes = [self._run.plane(Place(self._image, t, c, self._z)) for t in self._examples]
        if not (readable := [plane for plane in planes if plane is not None]):
            raise LivestainError(
                f"no plane of {self._run.path} can be read. `livestain check {self._run.path}` says why."
            )
        return readable

    def _with_outlines(self, rgb: NDArray[np.uint8], t: int) -> NDArray[np.uint8]:
        labels = self._run.labels("cells", self._image, t)
        if labels is None:
            return rgb
        # The labels at the movie's size, so that an outline is one pixel wide there.
        rows, columns = (np.arange(n) * m // n for n, m in zip(self._size[::-1], labels.shape, strict=True))
        drawn = rgb.copy()
        drawn[even(outlines(labels[np.ix_(rows, columns)]))] = _OUTLINE_RGB
        return drawn

    def _lettered(self, rgb: NDArray[np.uint8], t: int) -> NDArray[np.uint8]:
        if self._pixel_um > 0:
            rgb = with_scale_bar(rgb, self._pixel_um)
        height, width = rgb.shape[:2]
        px = text_px(height, width)
        edge = max(6, px * 2 // 3)
        picture = Image.fromarray(rgb)
        write(picture, (edge, edge + px), time_stamp(self._times_s[t], self._longest_s), px)
        for row, (name, colour) in enumerate(reversed(self._legend)):
            at = width - edge - text_width(name, px), height - edge - row * round(1.3 * px)
            write(picture, at, name, px, colour)
        return np.asarray(picture)


def _checked_ending(out: Path, *, overwrite: bool, fps: float, every: int, width_px: int | None) -> str:
    ending = out.suffix.lower()
    if ending not in _WIDEST_PX:
        raise LivestainError(f"Movies are written as .mp4 or .gif, got {out.name!r}. Name the file so.")
    if ending == ".mp4":
        check_av()
    if out.exists() and not overwrite:
        raise LivestainError(f"{out} is there already. Choose another name, or write over it: --overwrite.")
    if not out.absolute().parent.is_dir():
        raise LivestainError(
            f"{out.absolute().parent} is not a folder, so {out.name} cannot be written there. Make it."
        )
    if not 0.1 <= fps <= 120:
        raise LivestainError(f"A movie shows 0.1 to 120 pictures a second, got {fps:g}.")
    if every < 1:
        raise LivestainError(f"Every first, second, ... time point can be shown, got {every}. Give 1 or more.")
    if width_px is not None and not 64 <= width_px <= 4096:
        raise LivestainError(f"A movie is 64 to 4096 pixels wide, got {width_px}.")
    return ending


def _image_of(run: RunFolder, position: str | None) -> int:
    names = run.position_names
    if position is None:
        return 0
    if position not in names:
        there = ", ".join(name for name in names if name) or "only one, without a name: leave it out"
        raise LivestainError(f"{run.path} has no position {position!r}. It has: {there}.")
    return names.index(position)


def _channels_of(run: RunFolder, names: Sequence[str]) -> list[int]:
    layout = run.layout
    if not names:
        return shown_first(run.header, run.layout.channels)
    numbers = [layout.channel(name) for name in names]
    if unknown := [name for name, number in zip(names, numbers, strict=True) if number is None]:
        there = ", ".join(channel.name for channel in layout.channels)
        raise LivestainError(f"{run.path} has no channel {unknown[0]!r}. It has: {there}.")
    return [number for number in dict.fromkeys(numbers) if number is not None]


def _width(own: int, ending: str, asked: int | None) -> int:
    """Give the movie's width: as asked; else the camera's, a small one enlarged by a whole number."""
    enlarged = own * math.ceil(_NARROWEST_PX / own)
    return asked or min(enlarged, _WIDEST_PX[ending])


def _counted(
    scene: _Scene, whole: list[int], left_out: list[int], on_progress: Callable[[int, int], None] | None
) -> Iterator[NDArray[np.uint8]]:
    for number, t in enumerate(whole, 1):
        picture = scene.draw(t)
        if picture is None:
            left_out.append(t)
        else:
            yield picture
        if on_progress is not None:
            on_progress(number, len(whole))


def _written(out: Path, ending: str, pictures: Iterator[NDArray[np.uint8]], fps: float, scene: _Scene) -> int:
    part = out.with_name(out.name + ".part")
    try:
        n = write_mp4(part, pictures, fps) if ending == ".mp4" else write_gif(part, pictures, fps, scene.examples())
        part.replace(out)
    except OSError as error:
        raise LivestainError(f"cannot write {out}: {error.strerror or error}. Choose another place.") from error
    finally:
        part.unlink(missing_ok=True)
    return n


def _notes(run: RunFolder, image: int, z: int, left_out: list[int], *, outlined: bool) -> tuple[str, ...]:
    notes = []
    if others := [name for i, name in enumerate(run.position_names) if i != image]:
        more = "is 1" if len(others) == 1 else f"are {len(others)}"
        notes.append(f"position {run.position_names[image]}; there {more} more: --position {shlex.quote(others[0])}")
    if run.layout.images[image].n_z > 1:
        notes.append(f"focal plane {z}, the middle one of {run.layout.images[image].n_z}")
    if left_out:
        shown = ", ".join(map(str, sorted(left_out)[:10])) + (", ..." if len(left_out) > 10 else "")
        points = "1 time point is" if len(left_out) == 1 else f"{len(left_out)} time points are"
        notes.append(f"{points} left out, because a channel is missing there: {shown}")
    if run.layout.pixel_size_um <= 0:
        notes.append("the pixel size is not known, so there is no scale bar")
    if outlined and run.labels("cells", image, 0) is None:
        notes.append(f"the cells were not measured, so there are no outlines: livestain measure {run.path}")
    return tuple(notes)
