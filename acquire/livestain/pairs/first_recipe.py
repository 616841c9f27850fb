"""Writes the first training recipe beside collected pairs: filled in, and explained in plain words."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import TYPE_CHECKING

from livestain._errors import StoreError
from livestain.pairs.pair_check import TOLERANCE_UM
from livestain_models._errors import RecipeError
from livestain_models.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livestain._layout import Layout
    from livestain.pairs.plan import PairsPlan

__all__ = ["RECIPE_NAME", "differences_from_recipe", "write_first_recipe"]

RECIPE_NAME = "recipe.yaml"
_PLANES_AT_MOST = 5
_PATCH_PX = 192

_TEXT = """\
# How to make a model that predicts {targets} from {contrast}.
#
# `livestain collect` wrote this file on {day} and never touches it again: change what you like. Then, best on a
# computer with a graphics card,
#
#     livestain models train {path}
#
# A line that begins with # is an explanation, or a setting that is switched off: take its # away to switch it on.

# Name and version of the model: letters, digits, "-", "_" and ".", no spaces.
id: {id}
version: "0.1.0"

data:
  # Where the pairs are: every run folder beside this file. What you collect on other afternoons joins by itself.
  pairs: "{pattern}"

  # The channel of transmitted light, by its name on the microscope, and what kind of contrast it is.
  input: {input}
  contrast: {contrast_}

  # The real stains to learn. `name` is what the model will call its prediction, `channel` the name on the microscope,
  # `color` how viewers show it. Take out a line to leave that stain out.
  targets:
{target_lines}

  # How many focal planes of {input_} the model looks at. This is what the microscope has to take later, each time,
  # wherever the model is used: 1 is quickest and gentlest for cells, more see better. With `windows: all` a model of
  # fewer planes than you took learns from each part of the stack, and then stands a focus that is a little off.
  planes: {{count: {count}, step: 1, windows: centre}}

  # Size of a pixel in the sample, in micrometres. It is in the images already; leave it.
  pixel_size_um: {pixel_size_um:g}

  # Some positions are kept away from the training, to see how good the model really is on what it never saw:
  # 0.2 is a fifth. Never look at these to choose settings; `validation` is for that.
{split_lines}

  # Pairs whose stain lies more than this beside {input_} (in micrometres) are left out, and said to be.
  check_registration: true
  tolerance_um: {tolerance_um:g}

# The training itself. More steps take longer and learn more, up to a point: 3000 are a good first try.
train:
  steps: 3000
  # Side of the squares that are cut from the images, in pixels: a multiple of 16, and no longer
  # than the images' shorter side.
  patch_px: {patch_px}
  # If the memory of the graphics card does not suffice, halve this.
  batch: 8

# A larger network sees more and is slower at the microscope; 16 is quick, 32 better if you have many positions.
network: {{base: 16}}

# For whoever gets the model from you. Say which cells, which dye, living or fixed, which objective.
training_data: {training_data}
# intended_use: "..."
# limitations: "..."
"""

_BY_FIELD = """\
  split: {by: field, validation: 0.1, test: 0.2}
  # With several microscopes (rig.instrument), test on one that the model never saw:
  # split: {by: instrument, validation: 0.1, test: ["name of that microscope"]}"""

_BY_COLUMNS = """\
  # There are too few positions for that, so each is cut into strips: one to learn from, one to choose, one to test.
  # With three positions or more, better: split: {by: field, validation: 0.1, test: 0.2}
  split: {by: columns, validation: 0.15, test: 0.25}"""


def write_first_recipe(
    folder: Path, plan: PairsPlan, layout: Layout, *, n_positions: int, instrument: str | None
) -> tuple[Path, bool]:
    """Write `recipe.yaml` into the folder of all collected runs, unless there is one.

    Parameters
    ----------
    folder
        In which the run folders lie.
    plan, layout
        What was acquired.
    n_positions
        How many of the positions give pairs.
    instrument
        The microscope's name.

    Returns
    -------
    tuple
        The file, and whether it was written now.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    path = folder / RECIPE_NAME
    text = _fill_in(path, plan, layout, n_positions, instrument)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return path, False
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}.") from error
    return path, True


def _fill_in(path: Path, plan: PairsPlan, layout: Layout, n_positions: int, instrument: str | None) -> str:
    stains = " and ".join(plan.targets)
    colors = (f", color: {_quoted(plan.colors[t])}" if t in plan.colors else "" for t in plan.targets)
    taken = min(len(plan.planes_of(plan.input, image.n_z)) for image in layout.images)
    side_px = min(layout.height, layout.width)
    return _TEXT.format(
        targets=stains,
        contrast=plan.contrast,
        day=date.today().isoformat(),
        path=path,
        id=_quoted(_slug(f"{'-'.join(plan.targets)}-from-{plan.contrast}")),
        pattern="*",
        input=_quoted(plan.input),
        contrast_=_quoted(plan.contrast),
        input_=plan.input,
        target_lines="\n".join(
            f"    - {{name: {_quoted(target)}, channel: {_quoted(target)}{color}}}"
            for target, color in zip(plan.targets, colors, strict=True)
        ),
        count=min(taken, _PLANES_AT_MOST),
        pixel_size_um=layout.pixel_size_um,
        split_lines=_BY_FIELD if n_positions >= 3 else _BY_COLUMNS,
        tolerance_um=TOLERANCE_UM,
        patch_px=max(32, min(_PATCH_PX, side_px // 16 * 16)),
        training_data=_quoted(f"Pairs of {plan.contrast} and {stains} taken on {instrument or 'one microscope'}."),
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a YAML string, whatever stands in it


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "model"


def differences_from_recipe(path: Path, plan: PairsPlan, layout: Layout) -> Iterator[str]:
    """Say, as sentences, where a recipe that was there before does not fit what was collected now."""
    try:
        data = load_recipe(path).data
    except RecipeError as error:
        yield f"the recipe does not load: {error}"
        return
    if data.input != plan.input:
        yield f"{path} learns from channel {data.input!r}; this run has {plan.input!r}."
    if data.contrast != plan.contrast:
        yield f"{path} says that the input is {data.contrast}; the rig says {plan.contrast}."
    if lacking := [target.source for target in data.targets if target.source not in plan.targets]:
        yield f"{path} learns {', '.join(lacking)}, which this run did not take."
    if data.pixel_size_um and abs(data.pixel_size_um / layout.pixel_size_um - 1) > 0.1:
        yield (
            f"{path} is for pixels of {data.pixel_size_um:g} um; this run has {layout.pixel_size_um:g} um. Collect "
            "into another folder (--out) for a model of its own."
        )
    taken = min(len(plan.planes_of(plan.input, image.n_z)) for image in layout.images)
    if (data.planes.count - 1) * data.planes.step + 1 > taken:
        yield f"{path} wants {data.planes.count} focal planes in steps of {data.planes.step}; this run took {taken}."
