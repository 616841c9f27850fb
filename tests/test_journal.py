"""The journal: whole lines come back, torn ones are cut, damage is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestain._errors import StoreError
from livestain._journal import Journal, Tail, mend, read_header, read_lines

if TYPE_CHECKING:
    from pathlib import Path

HEADER = {"kind": "run", "format": 1}
LINES = [HEADER, *({"kind": "raw", "at": [0, t, 0, 0]} for t in range(5))]


def write(folder: Path, lines: list[dict[str, Any]] = LINES) -> Path:
    path = folder / "frames.jsonl"
    journal = Journal(path)
    journal.append(lines)
    journal.close()
    return path


@given(cut=st.integers(0, 400))
def test_wherever_the_file_is_cut_the_whole_lines_are_read_and_mend_keeps_just_them(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = write(tmp_path_factory.mktemp("journal"))
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = data.count(b"\n")
    assert list(read_lines(path)) == LINES[:whole]
    assert mend(path) == len(data) - (data.rfind(b"\n") + 1)
    assert list(read_lines(path)) == LINES[:whole]
    assert mend(path) == 0


def test_a_very_long_torn_line_is_cut_too(tmp_path: Path) -> None:
    path = write(tmp_path)
    with path.open("ab") as file:
        file.write(b"x" * 20_000)
    assert mend(path) == 20_000
    assert list(read_lines(path)) == LINES


def test_tail_gives_each_line_once_and_never_a_torn_one(tmp_path: Path) -> None:
    path = write(tmp_path, LINES[:2])
    tail = Tail(path)
    assert tail.read() == LINES[:2]
    assert tail.read() == []
    rest = json.dumps(LINES[2]).encode() + b"\n"
    with path.open("ab") as file:
        file.write(rest[:7])
        file.flush()
        assert tail.read() == []
        file.write(rest[7:])
    assert tail.read() == LINES[2:3]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin with a header"),
        (b'{"kind":"raw"}\n', "does not begin with a header"),
        (b'{"kind":"run","format":9}\n', "newer livestain"),
        (b"\x00\x01\x02\n", "line 1: not a journal line"),
    ],
)
def test_what_is_no_journal_is_said(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "frames.jsonl"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=says):
        read_header(path)


def test_a_folder_without_a_journal_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a run folder"):
        read_header(tmp_path / "frames.jsonl")


def test_damage_in_the_middle_is_named_by_its_line(tmp_path: Path) -> None:
    path = write(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"garbage\n", *lines[2:]]))
    with pytest.raises(StoreError, match="line 3: not a journal line"):
        list(read_lines(path))
