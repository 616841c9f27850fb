"""The tables of a run as a reader follows them: growing, torn, cut, compacted, begun anew, damaged, not there."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestain._errors import StoreError
from livestain.live import _row_blocks
from livestain.live.cells import CellRows
from livestain.measure._rows import read_rows
from livestain.measure.summary import SUMMARY_SCHEMA, SummaryTable, summarised
from livestain.measure.table import CELL_SCHEMA, CellTable, read_cells
from tests.test_table import rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Tables:
    """Both tables of a run of some images; cells live for `life` time points, and each leaves two daughters."""

    def __init__(self, folder: Path, *, images: int = 1, life: int = 4, mass_pg: float = 100.0) -> None:
        self.cells, self.summary = CellTable(folder), SummaryTable(folder)
        self.images, self.life, self.mass_pg = images, life, mass_pg

    def there(self, t: int, image: int) -> tuple[list[int], list[int]]:
        """Give cells and parents: cell n of generation g is there from g * life on, and so are 2 n and 2 n + 1."""
        generation = min(t // self.life, 4)
        cells = list(range(2**generation, 2 ** (generation + 1)))
        return ([*cells, 900 + image], [cell // 2 for cell in cells] + [0])  # and one that stays

    def grow(self, *times: int) -> Tables:
        for t in times:
            for image in range(self.images):
                cells, parents = self.there(t, image)
                n, masses = len(cells), self.mass_pg + t + np.arange(len(cells))
                states = ["live" if (t + i) % 3 else "dead" for i in range(n)]
                one = rows(n, t, cell=cells, parent=parents, image=[image] * n, state=states, dry_mass_pg=masses)
                self.cells.append(one)
                self.summary.append(summarised(one))
        return self

    def cut(self, t: int) -> None:
        """Drop the time points from t on, as a measurement that is resumed does."""
        for table, name in ((self.cells, "cells"), (self.summary, "summary")):
            table.truncate(sum(before < t for before in read_rows(table.path.parent, name)["t"].to_pylist()))

    def close(self) -> None:
        self.cells.close()
        self.summary.close()

    def compact(self) -> None:
        self.cells.compact()
        self.summary.compact()


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    found = Tables(tmp_path, images=2)
    yield found
    found.close()


def same(found: pa.Table, expected: pa.Table) -> None:
    assert found.schema.equals(expected.schema, check_metadata=False)
    for name in expected.column_names:
        a, b = (np.array(table[name].to_pylist()) for table in (found, expected))
        np.testing.assert_array_equal(a, b, err_msg=name)


def answers_as_the_table(reader: CellRows, folder: Path) -> None:
    """Hold every answer against the whole table, read in one go."""
    whole, summary = read_cells(folder), read_rows(folder, "summary")
    same(reader.summary(), summary)
    image, t, cell, parent = (whole[name].to_numpy() for name in ("image", "t", "cell", "parent"))
    for i, at in sorted(set(zip(image.tolist(), t.tolist(), strict=True))):
        same(reader.at(i, at), whole.filter((image == i) & (t == at)))
    for i, c in sorted(set(zip(image.tolist(), cell.tolist(), strict=True))):
        mine = (image == i) & (cell == c)
        for at in np.sort(t[mine])[[0, mine.sum() // 2, -1]].tolist():
            found = reader.history(i, c, at)
            assert found is not None
            same(found, whole.filter(mine))
        assert reader.history(i, c, int(t[mine].max()) + 1) is None
        assert set(reader.children(i, c)) == set(cell[(image == i) & (parent == c)].tolist())


FORMS = ("stream", "other batches", "parquet", "small groups")


def bring_into(form: str, folder: Path, size: int) -> None:
    """Give the tables of a folder another form; `size` is of batches and row groups, time points lie across them."""
    if form == "parquet":
        CellTable(folder).compact()
        SummaryTable(folder).compact()
    if form == "small groups":
        pq.write_table(read_cells(folder), folder / "cells.parquet", row_group_size=size)
        (folder / "cells.arrow").unlink()
    if form == "other batches":
        whole = read_cells(folder).combine_chunks()
        (folder / "cells.arrow").unlink()
        with CellTable(folder) as again:
            for batch in whole.to_batches(max_chunksize=size):
                again.append_batch(batch)


@settings(max_examples=20)
@given(
    form=st.sampled_from(FORMS),
    images=st.integers(1, 3),
    n_t=st.integers(1, 10),
    size=st.integers(1, 40),
    skipped=st.sets(st.integers(0, 9), max_size=3),
    read_bytes=st.sampled_from([300, 20_000, 1 << 19]),
)
def test_answers_as_the_whole_table_would(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    images: int,
    n_t: int,
    size: int,
    skipped: set[int],
    read_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("table")
    Tables(folder, images=images).grow(*(t for t in range(n_t) if t not in skipped)).close()
    bring_into(form, folder, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_row_blocks, "_READ_BYTES", read_bytes)
        answers_as_the_table(CellRows(folder), folder)


def test_reads_on_as_the_tables_grow(tmp_path: Path, tables: Tables) -> None:
    reader = CellRows(tmp_path)
    assert reader.there
    assert not reader.refresh()
    assert reader.at(0, 0).num_rows == 0
    for t in range(9):
        tables.grow(t)
        assert reader.at(1, t).num_rows == 0  # as of the last refresh
        assert reader.refresh()
        assert not reader.refresh()
        assert reader.summary()["t"].to_pylist()[-2:] == [t, t]
        answers_as_the_table(reader, tmp_path)


def test_a_few_columns_of_a_history(tmp_path: Path) -> None:
    Tables(tmp_path).grow(*range(6)).close()
    for form in ("stream", "parquet"):
        bring_into(form, tmp_path, 0)
        found = CellRows(tmp_path).history(0, 900, 3, ["state", "dry_mass_pg"])
        assert found is not None
        assert found.column_names == ["state", "dry_mass_pg"]
        same(found, read_cells(tmp_path).filter(pc.field("cell") == 900).select(["state", "dry_mass_pg"]))


def test_compacted_between_two_refreshes(tmp_path: Path, tables: Tables) -> None:
    tables.grow(*range(7))
    reader = CellRows(tmp_path)
    answers_as_the_table(reader, tmp_path)
    tables.grow(7, 8).compact()
    assert len(reader.history(0, 900, 3) or ()) == 9  # asked before the refresh, it knows the table as it is
    assert reader.refresh()
    answers_as_the_table(reader, tmp_path)
    assert not reader.refresh()


@pytest.mark.parametrize("left", [0, 1, 9, 16])
@pytest.mark.parametrize("more", [1, 9])
def test_cut_and_written_on_with_other_numbers(tmp_path: Path, tables: Tables, left: int, more: int) -> None:
    tables.grow(*range(7))
    reader = CellRows(tmp_path)
    answers_as_the_table(reader, tmp_path)
    t = read_cells(tmp_path)["t"].to_pylist()[2 * left]
    tables.cut(t)
    tables.mass_pg = 500.0
    tables.grow(*range(t, t + more))
    assert reader.at(0, t)["dry_mass_pg"].to_pylist()[0] == 500.0 + t  # without a refresh, too
    assert reader.refresh()
    answers_as_the_table(reader, tmp_path)


def test_resumed_behind_rows_that_were_cut_it_sees_them_come_again(tmp_path: Path, tables: Tables) -> None:
    tables.grow(*range(7))
    reader = CellRows(tmp_path)
    reader.at(0, 6)
    tables.cut(5)
    assert reader.refresh()
    assert reader.summary()["t"].to_pylist()[::2] == [0, 1, 2, 3, 4]
    assert reader.at(0, 5).num_rows == 0
    tables.grow(5, 6, 7)
    assert reader.refresh()
    answers_as_the_table(reader, tmp_path)


def test_measured_again_after_it_was_compacted(tmp_path: Path) -> None:
    Tables(tmp_path).grow(*range(7)).compact()
    reader = CellRows(tmp_path)
    answers_as_the_table(reader, tmp_path)
    again = Tables(tmp_path, mass_pg=500.0)
    again.cut(0)
    assert reader.refresh()
    assert (len(reader.summary()), reader.at(0, 3).num_rows) == (0, 0)
    again.grow(0, 1).close()
    assert reader.refresh()
    answers_as_the_table(reader, tmp_path)


def test_a_torn_end_is_left_for_later(tmp_path: Path) -> None:
    tables = Tables(tmp_path).grow(0, 1)
    ends = [table.path.stat().st_size for table in (tables.cells, tables.summary)]
    tables.grow(2)
    whole = [table.path.read_bytes() for table in (tables.cells, tables.summary)]
    tables.close()
    reader = None
    for share in (0.01, 0.3, 0.6, 0.99, 1.0):
        for table, end, data in zip((tables.cells, tables.summary), ends, whole, strict=True):
            table.path.write_bytes(data[: end + round(share * (len(data) - end))])
        reader = reader or CellRows(tmp_path)
        assert reader.refresh() is (share == 1)
        n = 2 + (share == 1)
        assert reader.summary()["t"].to_pylist() == list(range(n))
        assert [reader.at(0, t).num_rows for t in range(4)] == [2] * n + [0] * (4 - n)
        assert len(reader.history(0, 900, 0) or ()) == n


def test_a_daughter_whose_mother_is_known_late_is_hers(tmp_path: Path) -> None:
    with CellTable(tmp_path) as table:
        table.append(rows(2, 0, cell=[1, 7], parent=[0, 0]))
        table.append(rows(2, 1, cell=[7, 8], parent=[1, 1]))
    assert CellRows(tmp_path).children(0, 1) == (7, 8)


def test_a_run_that_was_not_measured(tmp_path: Path) -> None:
    reader = CellRows(tmp_path)
    assert (reader.there, reader.notes, reader.refresh()) == (False, (), False)
    assert reader.summary().schema.equals(SUMMARY_SCHEMA)
    assert reader.at(0, 0).schema.equals(CELL_SCHEMA)
    assert reader.history(0, 1, 0) is None
    assert reader.children(0, 1) == ()
    Tables(tmp_path).grow(0, 1).close()
    assert reader.refresh()
    assert reader.there
    answers_as_the_table(reader, tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    assert reader.refresh()
    assert not reader.there
    assert (len(reader.summary()), reader.at(0, 0).num_rows) == (0, 0)


def test_empty_tables(tmp_path: Path, tables: Tables) -> None:
    reader = CellRows(tmp_path)
    for change in (tables.compact, lambda: None):
        assert reader.there
        assert (len(reader.summary()), reader.at(0, 0).num_rows, reader.history(0, 1, 0)) == (0, 0, None)
        change()
        assert not reader.refresh()


def other_columns(folder: Path) -> None:
    for name in ("cells", "summary"):
        pq.write_table(pa.table({"t": [1]}), folder / f"{name}.parquet")


def no_parquet(folder: Path) -> None:
    for name in ("cells", "summary"):
        (folder / f"{name}.parquet").write_bytes(b"PAR1 what a crash has left")


def no_stream(folder: Path) -> None:
    for name in ("cells", "summary"):
        (folder / f"{name}.arrow").write_bytes(b"\x00" * 500)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (other_columns, "has the columns t, which this version"),
        (no_parquet, "cannot be read"),
        (no_stream, "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_noted_until_it_is_mended(tmp_path: Path, damage: Any, says: str) -> None:
    Tables(tmp_path).grow(0, 1).compact()
    reader = CellRows(tmp_path)
    answers_as_the_table(reader, tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    for name in ("cells.parquet", "summary.parquet"):
        shutil.copy(tmp_path / name, whole / name)
    damage(tmp_path)
    assert reader.refresh()
    assert len(reader.summary()) == 0
    assert len(reader.notes) == 2
    for name, note in zip(("summary", "cells"), reader.notes, strict=True):
        assert says in note
        assert name in note
        assert "livestain measure" in note
    with pytest.raises(StoreError, match=says):
        reader.at(0, 0)
    for name in ("cells", "summary"):
        (tmp_path / f"{name}.arrow").unlink(missing_ok=True)
        shutil.copy(whole / f"{name}.parquet", tmp_path / f"{name}.parquet")
    assert reader.refresh()
    assert reader.notes == ()
    answers_as_the_table(reader, tmp_path)


def test_all_that_the_summary_counts_is_there_while_somebody_writes(tmp_path: Path, tables: Tables) -> None:
    n_t = 150

    def write() -> None:
        tables.grow(*range(n_t))
        tables.compact()

    writer = threading.Thread(target=write)
    reader = CellRows(tmp_path)
    writer.start()
    rounds, alive = 0, True
    while alive or reader.refresh():
        alive = writer.is_alive()
        reader.refresh()
        assert reader.notes == ()
        counted = reader.summary().slice(max(0, len(reader.summary()) - 3)).to_pylist()
        for row in counted:
            assert reader.at(row["image"], row["t"]).num_rows == row["cells"]
            assert len(reader.history(row["image"], 900 + row["image"], row["t"]) or ()) >= row["t"] + 1
        rounds += bool(counted) and alive
    writer.join()
    assert rounds > 2
    assert len(reader.summary()) == 2 * n_t
    same(reader.summary(), read_rows(tmp_path, "summary"))
