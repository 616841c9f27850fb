"""What is learned besides the stains: distance maps, masks and classes, made from hand-drawn nuclei."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from livestain_models._errors import DataError
from livestain_models.data import read_fields
from livestain_models.data.scales import Scale
from livestain_models.learned import classes_of, distance_map, with_learned
from livestain_models.objects import segment, segment_around
from livestain_models.recipe import Classes, Recipe
from tests.training_pairs import PIXEL_SIZE_UM, field, recipe, write_pairs

if TYPE_CHECKING:
    from pathlib import Path

TWO_DYES = [{"name": name, "channel": f"{name.lower()}/{{field}}.tif"} for name in ("Nuclei", "Membrane")]


def disc(shape: tuple[int, int], centre: tuple[int, int], radius: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def test_every_object_rises_to_one_whatever_its_size() -> None:
    labels = np.zeros((64, 96), np.int32)
    labels[disc(labels.shape, (30, 20), 5)] = 1
    labels[disc(labels.shape, (32, 65), 20)] = 2
    found = distance_map(labels)
    assert found.dtype == np.float16
    assert (found[labels == 0] == 0).all()
    for number, centre in ((1, (30, 20)), (2, (32, 65))):
        assert found[centre] == 1 == found[labels == number].max()
        assert 0 < found[labels == number].min() < 0.3
    # Half way to the edge it is about a half, in both.
    assert found[30, 17] == pytest.approx(0.5, abs=0.1)
    assert found[32, 55] == pytest.approx(0.5, abs=0.1)


def test_touching_neighbours_are_parted_by_a_valley() -> None:
    labels = np.zeros((20, 40), np.int32)
    labels[5:15, 5:20] = 3
    labels[5:15, 20:35] = 7  # labels need not be 1, 2, ...
    found = distance_map(labels).astype(float)
    across = found[10]
    assert across[12] == across[27] == 1
    assert across[19] == across[20] == pytest.approx(0.2, abs=1e-3)  # 1 px of 5
    assert (found[:, :20] == found[:, 39:19:-1]).all()


def test_neighbours_that_lie_in_one_anothers_box_are_parted_too() -> None:
    row, column = np.mgrid[:24, :24]
    labels = np.where(row > column, 1, 2)  # touching along the diagonal
    found = distance_map(labels).astype(float)
    assert found[row == column].max() < 0.2 < found[6, 17]
    for number in (1, 2):
        assert found[labels == number].max() == 1


def test_an_object_at_the_frame_ends_there() -> None:
    labels = np.zeros((16, 16), np.int32)
    labels[:8, :8] = 1
    found = distance_map(labels).astype(float)
    assert found[0, 0] == found[7, 7] == found[0, 7] == pytest.approx(0.25)
    np.testing.assert_array_equal(found[:8, :8], found[:8, :8][::-1, ::-1])


def test_no_object_no_distance() -> None:
    assert not distance_map(np.zeros((8, 8), np.int32)).any()


RATIOS: dict[str, tuple[float, int]] = {"live": (0.05, 1), "injured": (0.2, 2), "dead": (0.8, 3), "very dead": (3.0, 3)}


@pytest.mark.parametrize("kind", RATIOS)
def test_nuclei_are_sorted_by_the_ratio_of_the_dyes(kind: str) -> None:
    ratio, expected = RATIOS[kind]
    nuclei = np.zeros((20, 30), np.int32)
    nuclei[4:10, 4:10], nuclei[12:18, 14:24] = 1, 2
    whole = np.where(nuclei == 1, 100.0, np.where(nuclei == 2, 400.0, 0.0))
    dead = np.where(nuclei == 1, 100.0 * ratio, np.where(nuclei == 2, 400 * 0.01, 7.0))
    found = classes_of(whole, dead, nuclei, Classes(all_cells="a", dead_cells="b"))
    assert found.dtype == np.uint8
    assert (found[nuclei == 0] == 0).all()
    assert (found[nuclei == 1] == expected).all()
    assert (found[nuclei == 2] == 1).all()


def test_a_frame_without_nuclei_has_no_classes() -> None:
    empty = np.zeros((8, 8))
    assert not classes_of(empty, empty, empty.astype(int), Classes(all_cells="a", dead_cells="b")).any()


def fields_of(folder: Path, **changes: Any) -> tuple[list[Any], Recipe]:
    chosen = Recipe.model_validate(recipe(write_pairs(folder, 2), **changes))
    return list(read_fields(chosen.data).fields), chosen


def learned(folder: Path, **changes: Any) -> tuple[list[Any], Any, list[str]]:
    fields, chosen = fields_of(folder, **changes)
    scales = {fields[0].instrument: (Scale(100, 3000),) * len(chosen.data.targets)}
    said: list[str] = []
    return *with_learned(fields, scales, chosen, said.append), said


def test_targets_come_as_stains_then_distances_then_mask(tmp_path: Path) -> None:
    everything = slice(None), slice(None)
    both = [TWO_DYES[0], TWO_DYES[1] | {"distance_map": True}]
    fields, scales, said = learned(tmp_path / "distance", data__targets=both)
    nuclei, membrane, distance = fields[0].target((0,), *everything)
    np.testing.assert_array_equal(nuclei, field(0)["nuclei"])
    np.testing.assert_array_equal(membrane, field(0)["membrane"])
    np.testing.assert_array_equal(distance, distance_map(segment(field(0)["membrane"], PIXEL_SIZE_UM)))
    assert [scale.reference for scale in scales[fields[0].instrument]] == [3000, 3000, 1]
    assert said == ["finding the objects of 2 fields"]

    fields, scales, _ = learned(tmp_path / "lupi", mode="lupi")
    nuclei, mask = fields[0].target((0,), *everything)
    assert set(np.unique(mask)) == {0, 1}
    assert nuclei[mask == 1].mean() > 3 * nuclei[mask == 0].mean()
    assert len(scales[fields[0].instrument]) == 2


def test_hidden_dyes_come_last_and_whole_cells_grow_from_their_nuclei(tmp_path: Path) -> None:
    everything = slice(None), slice(None)
    cells = TWO_DYES[1] | {"distance_map": {"name": "Cells", "seeds": "Nuclei"}}
    dye = {"name": "Dye", "channel": "membrane/{field}.tif", "shown": False}
    classes = {"all_cells": "Nuclei", "dead_cells": "Dye", "injured_ratio": 0.1, "dead_ratio": 5.0}
    targets = [dye, TWO_DYES[0] | {"distance_map": True}, cells]
    fields, scales, said = learned(tmp_path / "pairs", data__targets=targets, data__classes=classes)
    nuclei, membrane, of_nuclei, of_cells, hidden = fields[0].target((0,), *everything)
    np.testing.assert_array_equal(nuclei, field(0)["nuclei"])
    np.testing.assert_array_equal(hidden, membrane)
    seeds = segment(field(0)["nuclei"], PIXEL_SIZE_UM)
    np.testing.assert_array_equal(of_nuclei, distance_map(seeds))
    found = segment_around(seeds, field(0)["membrane"], PIXEL_SIZE_UM)
    np.testing.assert_array_equal(of_cells, distance_map(found))
    assert [scale.reference for scale in scales[fields[0].instrument]] == [3000, 3000, 1, 1, 3000]
    np.testing.assert_array_equal(fields[0].labels > 0, seeds > 0)
    assert [line.split(" ")[0] for line in said] == ["nuclei", "finding"]


def test_a_plain_recipe_adds_nothing(tmp_path: Path) -> None:
    fields, _, said = learned(tmp_path / "pairs")
    assert fields[0].targets.shape[0] == 1
    assert said == []


def test_classes_by_two_dyes_say_their_shares(tmp_path: Path) -> None:
    dyes = {"all_cells": "Nuclei", "dead_cells": "Membrane", "injured_ratio": 0.1, "dead_ratio": 5.0}
    fields, _, said = learned(tmp_path / "pairs", mode="viability", data__targets=TWO_DYES, data__classes=dyes)
    assert said[0].startswith("nuclei by the dyes: ")
    assert "injured" in said[0]
    labels = fields[0].labels
    assert set(np.unique(labels)) <= {0, 1, 2}
    nuclei = segment(field(0)["nuclei"], PIXEL_SIZE_UM)
    np.testing.assert_array_equal(labels > 0, nuclei > 0)


def test_labels_of_another_meaning_are_refused(tmp_path: Path) -> None:
    fields, chosen = fields_of(tmp_path / "pairs", mode="viability", data__classes={"labels": "classes/{field}.tif"})
    assert [one.name for one in with_learned(fields, {}, chosen, print)[0]] == [one.name for one in fields]
    with pytest.raises(DataError, match=r"has no class labels"):
        with_learned([replace(fields[0], labels=None)], {}, chosen, print)
    with pytest.raises(DataError, match=r"class labels are \[7\].*1 live, 2 injured"):
        with_learned([replace(fields[0], labels=np.full((96, 96), 7))], {}, chosen, print)
