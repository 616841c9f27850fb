"""Movies of a run: what they show, that players can show it, what is left out and said, and what is refused."""

from __future__ import annotations

import dataclasses
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import livestain
from livestain._errors import LivestainError, StoreError
from livestain._frame import Place
from livestain.live import movie as movie_module
from livestain.live._movie_files import write_gif, write_mp4
from livestain.live.movie import make_movie
from livestain.live.run_folder import RunFolder
from livestain.measure.labels import LabelImages
from tests import model_builders
from tests.conftest import PIXEL_SIZE_UM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

av = pytest.importorskip("av")

BF, NUCLEI, PREDICTED = 0, 1, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two positions of five time points and three planes; true nuclei at every second time point only."""
    here = tmp_path_factory.mktemp("movie")
    package = model_builders.package(here / "model", pixel_size_um=PIXEL_SIZE_UM)
    experiment = livestain.Experiment.model_validate(
        {
            "rig": livestain.load_rig("simulated").model_copy(
                update={"properties": [("Camera", "Width", 131), ("Camera", "Height", 97)]}
            ),
            "sequence": {
                "channels": [{"config": "BF", "exposure": 1}, {"config": "Nuclei", "exposure": 1, "acquire_every": 2}],
                "time_plan": {"interval": 0, "loops": 5},
                "z_plan": {"range": 2, "step": 1},
                "stage_positions": [{"x": 0, "y": 0, "name": "left"}, {"x": 300, "y": 0, "name": "right"}],
            },
            "stains": [{"model": str(package.folder), "channel": "BF", "provider": "cpu"}],
        }
    )
    return livestain.run_experiment(experiment, here / "run").folder


@pytest.fixture
def run(folder: Path) -> RunFolder:
    return RunFolder(folder)


def frames_of(path: Path) -> list[np.ndarray]:
    if path.suffix == ".mp4":
        with av.open(str(path)) as file:
            return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    with Image.open(path) as file:
        found = []
        for i in range(file.n_frames):
            file.seek(i)
            found.append(np.asarray(file.convert("RGB")))
        return found


@pytest.mark.parametrize("name", ["movie.mp4", "movie.GIF"])
def test_every_time_point_is_a_picture_of_what_is_on_disk(run: RunFolder, tmp_path: Path, name: str) -> None:
    seen: list[tuple[int, int]] = []
    made = make_movie(run, tmp_path / name, channels=["BF"], on_progress=lambda n, of: seen.append((n, of)))
    (tmp_path / name).rename(tmp_path / name.lower())
    frames = frames_of(tmp_path / name.lower())
    assert made.n_pictures == len(frames) == 5
    assert seen == [(n, 5) for n in range(1, 6)]
    assert made.left_out == ()
    assert [path.name for path in tmp_path.iterdir()] == [name.lower()]  # nothing half-written is left
    height, width = frames[0].shape[:2]
    assert (height % 2, width % 2) == (0, 0)
    assert 256 <= width < 2 * 256  # enlarged, for its letters
    plane = run.plane(Place(0, 2, BF, 1))
    assert plane is not None
    rows, columns = slice(height // 4, height // 2), slice(width // 3, width)  # without letters
    enlarged = np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height)))[rows, columns]
    shown = frames[2][rows, columns].mean(axis=2)
    assert np.corrcoef(enlarged.ravel(), shown.ravel())[0, 1] > 0.97


def test_an_mp4_is_what_browsers_and_powerpoint_play(run: RunFolder, tmp_path: Path) -> None:
    path = make_movie(run, tmp_path / "a.mp4", fps=12.5, width_px=401).path
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12.5
        assert (stream.width, stream.height) == (400, 296)
        assert stream.codec_context.colorspace == 1  # BT.709
    raw = path.read_bytes()
    assert raw.index(b"moov") < raw.index(b"mdat")  # plays while it is loading


def test_a_gif_goes_on_for_ever_at_its_speed(run: RunFolder, tmp_path: Path) -> None:
    with Image.open(make_movie(run, tmp_path / "a.gif", fps=4).path) as file:
        assert (file.info["loop"], file.info["duration"]) == (0, 250)
    with pytest.raises(LivestainError, match="at most 50 pictures a second, got 60"):
        make_movie(run, tmp_path / "b.gif", fps=60)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize("write", [write_mp4, write_gif])
def test_colours_and_white_letters_survive(tmp_path: Path, write: Any) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    colours = [(0, 191, 255), (255, 140, 0), (90, 90, 90), (0, 200, 83)]
    for i, colour in enumerate(colours):
        picture[:, 24 * i : 24 * i + 24] = colour
    picture[56:64, 0:16] = 255
    path = tmp_path / ("a.mp4" if write is write_mp4 else "a.gif")
    write(path, [picture] * 3, 10, *([[picture[:40]]] if write is write_gif else []))
    last = frames_of(path)[-1]
    for i, colour in enumerate(colours):
        assert abs(last[30, 24 * i + 12].astype(int) - colour).max() <= 6
    assert last[60, 6].min() >= 240


@pytest.mark.parametrize("n_colours", [1, 2, 5, 300])
def test_a_gif_of_few_colours_is_whole(tmp_path: Path, n_colours: int) -> None:
    grey = (np.arange(40 * 60).reshape(40, 60) % n_colours * 255 // n_colours).astype(np.uint8)
    pictures = [np.repeat(np.roll(grey, i)[..., None], 3, axis=2) for i in range(3)]
    write_gif(tmp_path / "a.gif", pictures, 10, pictures)
    frames = frames_of(tmp_path / "a.gif")
    assert len(frames) == 3
    for frame, picture in zip(frames, pictures, strict=True):
        assert abs(frame.astype(int) - picture).max() <= 4  # Pillow looks colours up with six bits a channel


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)

    def pictures(n: int) -> Iterator[np.ndarray]:
        for i in range(n):
            yield np.roll(noise, i, axis=0)

    def peak(n: int) -> int:
        tracemalloc.start()
        assert write_gif(tmp_path / "a.gif", pictures(n), 10, [noise]) == n
        assert write_mp4(tmp_path / "a.mp4", pictures(n), 10) == n
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2)  # what is loaded once
    assert peak(100) < peak(10) + 2 * noise.nbytes


def test_the_contrast_is_one_throughout(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    real = movie_module.blended

    def spy(planes: Any, windows: Any, colours: Any) -> Any:
        used.append(tuple(windows))
        return real(planes, windows, colours)

    monkeypatch.setattr(movie_module, "blended", spy)
    make_movie(run, tmp_path / "a.mp4")
    assert len(used) == 5
    assert len(set(used)) == 1


def test_time_points_without_a_channel_are_left_out_and_said(run: RunFolder, tmp_path: Path) -> None:
    made = make_movie(run, tmp_path / "a.gif", channels=["Nuclei", "Nuclei (predicted)"])
    assert (made.n_pictures, made.left_out) == (3, (1, 3))
    assert "2 time points are left out, because a channel is missing there: 1, 3" in made.notes
    assert make_movie(run, tmp_path / "b.gif", channels=["Nuclei"], every=2).left_out == ()
    with pytest.raises(LivestainError, match="has no time point with Nuclei so far, so there is nothing to show"):
        make_movie(_without(run, NUCLEI), tmp_path / "c.gif", channels=["Nuclei"])


def _without(run: RunFolder, c: int) -> Any:
    """Give the run as it was before channel `c` came."""

    class Earlier(RunFolder):
        def there(self, image: int) -> np.ndarray:
            found = super().there(image)
            found[:, c] = False
            return found

    return Earlier(run.path)


def test_a_plane_that_cannot_be_read_is_left_out_and_said(folder: Path, tmp_path: Path) -> None:
    class Damaged(RunFolder):
        def plane(self, place: Place) -> Any:
            return None if place.t == 2 else super().plane(place)

    made = make_movie(Damaged(folder), tmp_path / "a.mp4")
    assert (made.n_pictures, made.left_out) == (4, (2,))
    assert any(note.startswith("1 time point is left out") for note in made.notes)
    assert len(frames_of(made.path)) == 4


def test_positions_planes_and_a_missing_scale_are_said(run: RunFolder, tmp_path: Path) -> None:
    notes = make_movie(run, tmp_path / "left.gif", channels=["BF"]).notes
    assert notes == ("position left; there is 1 more: --position right", "focal plane 1, the middle one of 3")
    make_movie(run, tmp_path / "right.gif", position="right", channels=["BF"])
    assert (tmp_path / "left.gif").read_bytes() != (tmp_path / "right.gif").read_bytes()
    run.layout = dataclasses.replace(run.layout, pixel_size_um=0)
    notes = make_movie(run, tmp_path / "bare.gif").notes
    assert "the pixel size is not known, so there is no scale bar" in notes


def test_outlines_of_the_cells_are_drawn(run: RunFolder, tmp_path: Path) -> None:
    def yellow(name: str, run: RunFolder) -> tuple[int, tuple[str, ...]]:
        made = make_movie(run, tmp_path / name, channels=["BF"], outlined=True, position="right", width_px=262)
        return int((frames_of(made.path)[1] == (255, 235, 0)).all(axis=2).sum()), made.notes

    count, notes = yellow("without.gif", run)
    assert count == 0
    assert f"the cells were not measured, so there are no outlines: livestain measure {run.path}" in notes
    labels = np.zeros((97, 131), np.uint32)
    labels[40:60, 50:80] = 7
    LabelImages(run.path, run.layout).write(1, 1, labels, labels)
    count, notes = yellow("with.gif", RunFolder(run.path))
    assert abs(count - 2 * (40 + 60)) <= 4  # once around, at twice the size
    assert not any("outlines" in note for note in notes)


REFUSALS = [
    # (name, arguments, what is said)
    ("a.avi", {}, r"written as \.mp4 or \.gif, got 'a\.avi'"),
    ("a", {}, r"written as \.mp4 or \.gif, got 'a'"),
    ("there.gif", {}, r"there\.gif is there already\. Choose another name, or write over it: --overwrite"),
    ("no/folder/a.gif", {}, r"folder is not a folder"),
    ("a.gif", {"channels": ["BF", "Actin"]}, r"has no channel 'Actin'\. It has: BF, Nuclei, Nuclei \(predicted\)"),
    ("a.gif", {"position": "middle"}, r"has no position 'middle'\. It has: left, right"),
    ("a.gif", {"fps": 0}, "0.1 to 120 pictures a second, got 0"),
    ("a.gif", {"every": 0}, "time point can be shown, got 0"),
    ("a.gif", {"width_px": 5000}, "64 to 4096 pixels wide, got 5000"),
]


@pytest.mark.parametrize(("name", "arguments", "said"), REFUSALS)
def test_what_cannot_be_made_is_refused(
    run: RunFolder, tmp_path: Path, name: str, arguments: dict[str, Any], said: str
) -> None:
    (tmp_path / "there.gif").write_text("somebody's")
    with pytest.raises(LivestainError, match=said):
        make_movie(run, tmp_path / name, **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["there.gif"]
    assert (tmp_path / "there.gif").read_text() == "somebody's"


def test_a_file_is_replaced_when_asked(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_text("old")
    make_movie(run, tmp_path / "a.gif", overwrite=True)
    assert len(frames_of(tmp_path / "a.gif")) == 5


def test_without_pyav_the_command_that_installs_it_is_named(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(LivestainError, match=r'pip install "livestain\[movie\]"; or write a \.gif'):
        make_movie(run, tmp_path / "a.mp4")
    assert make_movie(run, tmp_path / "a.gif").n_pictures == 5


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        make_movie(RunFolder(tmp_path / "gone"), tmp_path / "a.gif")
