"""Tables on disk: kills at any byte, resuming, compaction, and what is written for others."""

from __future__ import annotations

import inspect
import logging
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestain._errors import LivestainError, StoreError
from livestain.measure._rows import extent, read_rows
from livestain.measure.summary import SummaryTable, summarised
from livestain.measure.table import CELL_SCHEMA, CellTable, provenance_of, read_cells, write_anndata, write_csv

if TYPE_CHECKING:
    from pathlib import Path


def rows(n: int, t: int = 0, **columns: Any) -> dict[str, Any]:
    found: dict[str, Any] = {name: [math.nan] * n for name in CELL_SCHEMA.names}
    found |= {"position": ["A1"] * n, "image": [0] * n, "t": [t] * n, "time_s": [60.0 * t] * n, "parent": [0] * n}
    found |= {"cell": np.arange(1, n + 1), "mass_method": ["given"] * n, "state": ["live"] * n, "reason": [""] * n}
    states = columns.get("state", found["state"])
    found["dead_belief"] = [float(state == "dead") if state else math.nan for state in states]
    found |= {"at_border": np.zeros(n, bool), "gap": np.zeros(n, bool), "dry_mass_pg": 100.0 * np.arange(n) + t}
    return found | columns


def values(table: pa.Table) -> list[tuple[int, int, str]]:
    return list(zip(*(table[name].to_pylist() for name in ("t", "cell", "state")), strict=True))


STATES = st.lists(st.sampled_from(["live", "injured", "dead", ""]), min_size=1, max_size=5)


@settings(max_examples=60)
@given(batches=st.lists(STATES, max_size=5), share=st.floats(0, 1))
def test_cut_at_any_byte_a_prefix_of_whole_batches_is_left(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], share: float
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    with CellTable(folder) as table:
        ends = [(table.path.stat().st_size, 0)]
        for t, states in enumerate(batches):
            table.append(rows(len(states), t, state=states))
            ends.append((table.path.stat().st_size, table.n_rows))
    whole = values(read_cells(folder))
    assert [state for *_, state in whole] == [state for states in batches for state in states]
    cut = round(share * ends[-1][0])
    with table.path.open("ab") as file:
        file.truncate(cut)
    expected = max((n for end, n in ends if end <= cut), default=0)
    if cut >= ends[0][0]:
        assert values(read_cells(folder)) == whole[:expected]
        assert extent(table.path).n_rows == expected
    with CellTable(folder) as again:  # goes on behind the tear
        assert again.n_rows == expected
        again.append(rows(1, 99, state=["dead"]))
    assert values(read_cells(folder)) == [*whole[:expected], (99, 1, "dead")]


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), data=st.data())
def test_truncated_to_any_row_and_resumed_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    compacted = data.draw(st.booleans())
    with CellTable(folder) as table:
        for t, n in enumerate(sizes):
            table.append(rows(n, t))
        if compacted:
            table.compact()
    whole = values(read_cells(folder))
    at = data.draw(st.integers(0, len(whole)))
    with CellTable(folder) as again:
        again.truncate(at)
        assert values(read_cells(folder)) == whole[:at]
        for t, cell, state in whole[at:]:
            again.append(rows(1, t, cell=[cell], state=[state]))
    assert values(read_cells(folder)) == whole
    assert not table.parquet_path.exists()


def test_a_torn_end_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with CellTable(tmp_path) as table:
        table.append(rows(3))
        table.append(rows(2, 1))
    with table.path.open("ab") as file:
        file.truncate(table.path.stat().st_size - 5)
    with caplog.at_level(logging.WARNING, "livestain"):
        assert len(read_cells(tmp_path)) == 3
    assert "not written to its end" in caplog.text
    assert extent(table.path).torn_bytes > 0


def test_readable_after_a_kill_with_every_acknowledged_batch(tmp_path: Path) -> None:
    code = (  # not this whole file, which would take seconds to import
        "from __future__ import annotations\n"
        "import math; from pathlib import Path; import numpy as np\n"
        "from livestain.measure.table import CELL_SCHEMA, CellTable\n"
        f"{inspect.getsource(rows)}\n"
        f"table = CellTable(Path({str(tmp_path)!r}))\n"
        "for t in range(10**6):\n"
        "    table.append(rows(50, t)); print(t, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for t in range(20):
            assert process.stdout.readline() == f"{t}\n"
            assert len(read_cells(tmp_path)) >= 50 * (t + 1)  # while it is written
    finally:
        process.kill()
        rest, _ = process.communicate()
    last = int(rest.split()[-1]) if rest.split() else 19
    table = read_cells(tmp_path)
    assert len(table) % 50 == 0
    assert len(table) // 50 in (last + 1, last + 2)  # what was printed, and perhaps one more
    assert table["t"].to_pylist() == [t for t in range(len(table) // 50) for _ in range(50)]


def test_others_read_the_stream_while_it_grows(tmp_path: Path) -> None:
    table = CellTable(tmp_path, {"pixel_size_um": 0.5})
    table.append(rows(3, state=["live", "dead", ""]))
    with pa.OSFile(str(table.path)) as source:
        found = pa.ipc.open_stream(source).read_all()
    assert found["state"].to_pylist() == ["live", "dead", ""]
    assert provenance_of(found.schema) == {"version": 1, "pixel_size_um": 0.5}
    table.close()


def test_compacted_it_is_one_parquet_file_with_the_same_rows(tmp_path: Path) -> None:
    table = CellTable(tmp_path, {"pixel_size_um": 0.5})
    for t in range(30):
        table.append(rows(7, t, state=[["live", "dead", ""][(t + i) % 3] for i in range(7)]))
    before = read_cells(tmp_path)
    path = table.compact()
    assert not table.path.exists()
    assert pq.ParquetFile(path).num_row_groups == 1
    assert values(pq.read_table(path)) == values(before)
    after = read_cells(tmp_path)
    assert after.schema.equals(before.schema, check_metadata=False)
    assert provenance_of(after.schema) == provenance_of(before.schema)
    np.testing.assert_array_equal(after["dry_mass_pg"], before["dry_mass_pg"])


def test_a_kill_between_parquet_and_stream_loses_nothing(tmp_path: Path) -> None:
    table = CellTable(tmp_path)
    table.append(rows(4))
    stream = table.path.read_bytes()
    table.compact()
    table.path.write_bytes(stream)
    assert len(read_cells(tmp_path)) == 4
    with CellTable(tmp_path) as again:
        again.append(rows(2, 1))
    assert len(read_cells(tmp_path)) == 6
    assert not again.parquet_path.exists()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"mass": [1.0, 2.0]}, r"\['mass'\] unknown"),
        ({"cell": [1, 2, 3]}, "do not fit"),
        ({"cell": [1.5, 2.5]}, "do not fit"),
        ({"position": [1, 2]}, "do not fit"),
        ({"position": ["A1", None]}, "value is missing"),
        ({"t": [0, 2**31]}, "do not fit"),
    ],
)
def test_rows_that_do_not_fit_are_refused_whole(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    with CellTable(tmp_path) as table:
        table.append(rows(2))
        with pytest.raises(StoreError, match=says):
            table.append(rows(2, 1) | columns)
    assert len(read_cells(tmp_path)) == 2


def test_errors_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no run folder"):
        read_cells(tmp_path)
    (tmp_path / "frames.jsonl").touch()
    with pytest.raises(StoreError, match="livestain measure"):
        read_cells(tmp_path)
    with CellTable(tmp_path) as table, pytest.raises(StoreError, match="behind row 5"):
        table.truncate(5)
    table.path.write_bytes(pa.schema([("x", pa.int8())]).serialize().to_pybytes())
    with pytest.raises(StoreError, match="Measure the run anew"):
        CellTable(tmp_path)


@pytest.mark.parametrize("compacted", [False, True])
def test_a_damaged_beginning_is_said_and_nothing_is_thrown_away(tmp_path: Path, compacted: bool) -> None:
    with CellTable(tmp_path) as table:
        table.append(rows(3))
        if compacted:
            table.compact()
    path = table.parquet_path if compacted else table.path
    damaged = b"\0" * 64 + path.read_bytes()[64:-8] + b"\0" * 8
    path.write_bytes(damaged)
    for open_it in (read_cells, CellTable):
        with pytest.raises(StoreError, match="does not begin as a table"):
            open_it(tmp_path)
    assert path.read_bytes() == damaged


def test_a_table_that_has_just_begun_is_said_to_have_no_columns_yet(tmp_path: Path) -> None:
    (tmp_path / "cells.arrow").touch()
    with pytest.raises(StoreError, match="does not begin as a table"):
        read_cells(tmp_path)
    with CellTable(tmp_path) as table:
        table.append(rows(1))
    assert len(read_cells(tmp_path)) == 1


class Lost:
    """A file on a drive that goes away in the middle of a write."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: memoryview) -> int:
        self._file.write(data[: len(data) // 2])
        raise OSError(5, "Input/output error")

    def truncate(self, size: int) -> None:
        raise OSError(5, "Input/output error")


def test_no_row_is_written_behind_half_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = CellTable(tmp_path)
    table.append(rows(2))
    whole = table._file
    monkeypatch.setattr(table, "_file", Lost(whole))
    with pytest.raises(StoreError, match="cannot write the table"):
        table.append(rows(2, 1))
    monkeypatch.setattr(table, "_file", whole)  # the drive is there again
    with pytest.raises(StoreError, match="ends in half of what was written last"):
        table.append(rows(2, 2))
    table.close()
    with CellTable(tmp_path) as again:
        again.append(rows(2, 3))
    assert read_cells(tmp_path)["t"].to_pylist() == [0, 0, 3, 3]


@pytest.mark.parametrize("compacted", [False, True])
def test_csv_has_the_same_rows(tmp_path: Path, compacted: bool) -> None:
    table = CellTable(tmp_path)
    table.append(rows(2, reason=["no phase", 'a "quoted", one']))
    table.append(rows(1, 1, state=["dead"]))
    if compacted:
        table.compact()
    table.close()
    write_csv(tmp_path, tmp_path / "cells.csv")
    found = pyarrow.csv.read_csv(tmp_path / "cells.csv")
    assert found.column_names == CELL_SCHEMA.names
    assert values(found) == values(read_cells(tmp_path))
    assert found["reason"].to_pylist()[1] == 'a "quoted", one'


def test_anndata_has_rows_as_observations(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    with CellTable(tmp_path, {"pixel_size_um": 0.5}) as table:
        table.append(rows(3))
    write_anndata(tmp_path, tmp_path / "cells.h5ad")
    found = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert found.shape[0] == 3
    np.testing.assert_array_equal(found[:, "dry_mass_pg"].X.ravel(), [0, 100, 200])
    assert list(found.obs["cell"]) == [1, 2, 3]
    assert '"pixel_size_um": 0.5' in found.uns["livestain"]


def test_anndata_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(LivestainError, match=r"livestain\[anndata\]"):
        write_anndata(tmp_path, tmp_path / "cells.h5ad")


# ---------------------------------------------------------------------- the summary


def test_a_time_point_in_one_row(tmp_path: Path) -> None:
    cells = rows(
        6,
        3,
        state=["live", "live", "injured", "dead", "", "live"],
        dry_mass_pg=[100.0, 200.0, 300.0, 60.0, math.nan, math.nan],
        dry_mass_sd_pg=[3.0, 4.0, 12.0, 84.0, math.nan, math.nan],
        at_border=[False, False, False, True, False, False],
        gap=[False] * 5 + [True],
        reason=["", "", "viability: no class", "", "dry mass: no phase; viability: no class", "cell: not seen"],
    )
    row = {name: column[0] for name, column in summarised(cells).items()}
    assert (row["cells"], row["live"], row["injured"], row["dead"], row["unknown"]) == (6, 3, 1, 1, 1)
    assert row["viability"] == pytest.approx(4 / 5)  # an injured cell is viable
    assert 0 < row["viability_low"] < 4 / 5 < row["viability_high"] < 1
    # the dead one is cut by the border, so its mass is a part of one
    assert row["total_dry_mass_pg"] == pytest.approx(660)
    assert row["total_dry_mass_sd_pg"] == pytest.approx(math.sqrt(3**2 + 4**2 + 12**2 + 84**2))
    assert row["median_dry_mass_pg"] == pytest.approx(200)
    assert (row["cells_at_border"], row["cells_without_mass"], row["gaps"]) == (1, 2, 1)
    assert row["why_without_mass"] == "no phase (1); not seen (1)"
    with SummaryTable(tmp_path) as table:
        table.append(summarised(cells))
        table.append(summarised(cells | {"t": [4] * 6}))
    assert read_rows(tmp_path, "summary")["t"].to_pylist() == [3, 4]
    write_csv(tmp_path, tmp_path / "summary.csv", "summary")


def test_nothing_is_made_up_where_nothing_is_known() -> None:
    row = {name: column[0] for name, column in summarised(rows(2, state=["", ""], dry_mass_pg=[math.nan] * 2)).items()}
    for name in ("viability", "viability_low", "viability_high", "total_dry_mass_pg", "median_dry_mass_pg"):
        assert math.isnan(row[name]), name


def test_a_time_point_without_cells_is_a_row_of_its_own(tmp_path: Path) -> None:
    empty = {name: [] for name in CELL_SCHEMA.names}
    found = summarised(empty, position="A1", image=0, t=5, time_s=300.0, reason="nothing stands out")
    row = {name: column[0] for name, column in found.items()}
    assert (row["cells"], row["dead"], row["t"], row["reason"]) == (0, 0, 5, "nothing stands out")
    assert math.isnan(row["viability"])
    with pytest.raises(LivestainError, match="position"):
        summarised(empty)


@pytest.mark.slow
def test_a_week_of_rows_is_compacted_with_flat_memory(tmp_path: Path) -> None:
    with CellTable(tmp_path) as table:
        for t in range(10_000):
            table.append(rows(200, t))
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    table.compact()
    assert len(pq.ParquetFile(table.parquet_path).read(["t"])) == 2_000_000
    assert (pool.max_memory() or 0) - before < 150e6
