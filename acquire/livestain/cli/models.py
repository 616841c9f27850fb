"""`livestain models train | export | score | verify | list | show | learning-curve | instruments | recipes`."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table

from livestain._errors import LivestainError, ModelError
from livestain.cli.common import INTERRUPTED, console
from livestain.cli.recipes import (
    chosen_recipe,
    parts_beside,
    recipe_beside,
    recipe_of_training,
    shipped_recipes,
    training_folder,
    training_side,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from livestain_models.package import Package

__all__ = ["app"]

app = typer.Typer(
    name="models",
    help="Train, score, export and inspect model packages; most of it needs: pip install 'livestain[cpu,train]'",
    no_args_is_help=True,
    rich_markup_mode=None,
)
RecipeFile = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.", show_default=False)
]
PackageName = Annotated[
    str, typer.Argument(metavar="PACKAGE", help="A package's folder, or the name of a shipped one.", show_default=False)
]
DataOption = Annotated[
    list[str] | None, typer.Option("--data", help="Pairs, not the recipe's; quote a *; may be given several times.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, e.g. --set train.steps=500.")
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, ...")]


@app.command()
def train(
    recipe: RecipeFile,
    out: Annotated[Path | None, typer.Option(help="Folder of this training; the recipe's id if not given.")] = None,
    data: DataOption = None,
    settings: Settings = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare patches.")] = 0,
) -> None:
    """Train a recipe, or go on with a training that was interrupted.

    Example: livestain models train my_recipe.yaml
    Several GPUs: torchrun --nproc-per-node 4 -m livestain models train my_recipe.yaml
    """
    chosen = chosen_recipe(recipe, data, settings)
    folder = out or Path(f"{chosen.id}-training")
    with _Stop() as stop:
        trained = training_side("train").train(
            chosen, folder, say=_say, stop=lambda: stop.asked, device=device, workers=workers
        )
    if not trained.finished:
        _say(f"stopped at step {trained.step}; the same command goes on from there")
        raise typer.Exit(INTERRUPTED)
    if os.environ.get("RANK", "0") != "0":
        return  # the first of several processes speaks
    _say(f"\n{folder}: best validation score {trained.score:.4f}; what it sees: {folder / 'preview.png'}")
    _say(f"next: livestain models export {folder} --out {chosen.id}")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="The folder of a training.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the package; replaces one that is there.", show_default=False)],
    *,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Also measured in bfloat16, for newer CPUs with OpenVINO.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also with weights in half precision, for GPUs.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also quantised to 8 bits, for CPUs.")] = False,
    score_it: Annotated[bool, typer.Option("--score/--no-score", help="Score it on the recipe's test part.")] = True,
) -> None:
    """Export a training as a model package: ONNX, parity proven, scored on the test part.

    Example: livestain models export my-model-training --out my-model --int8
    """
    if bf16:
        _refuse_where_no_bf16_can_be_measured()
    exporting = training_side("export")
    package = exporting.export_checkpoint(checkpoint, out)
    recipe = recipe_of_training(checkpoint)
    # bf16 last: it alone depends on this computer.
    precisions = [name for name, asked in (("fp16", fp16), ("int8", int8), ("bf16", bf16)) if asked]
    if score_it or precisions:
        recipe = training_side("scoring").fitted(recipe, package.contract)
        parts = parts_beside(training_folder(checkpoint) / "recipe.yaml")
        data = training_side("prepared").prepare(recipe, _say, parts)
    if score_it:
        table = training_side("scoring").on_test_part(package.contract, recipe, data, _predictor(package)).table()
        _say(table.text())
        package = exporting.with_scores(package, table, recipe)
    for precision in precisions:
        package = training_side("precisions").add_precision(package, precision, recipe, data, _predictor, _say)
    _show(package)


def _refuse_where_no_bf16_can_be_measured() -> None:
    from livestain.runtimes.openvino import processor_without_bf16

    if name := processor_without_bf16():
        raise ModelError(
            f"--bf16: this processor ({name}) does not compute in bf16. Leave it out, or export elsewhere."
        )


@app.command()
def score(
    package: PackageName,
    recipe: Annotated[str | None, typer.Option(help="Recipe whose data and test part to score on.")] = None,
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for scores.json, scores.md and pictures.")] = None,
    settings: Settings = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a package on real images, beside baselines that understand nothing of them.

    With --recipe alone its test part is scored; with --data all of these images.

    Example: livestain models score my-model --data "pairs/*" --out report
    """
    found = _load(package)
    if recipe is None:
        recipe = recipe_beside(data)
    chosen = chosen_recipe(recipe, data, settings)
    scoring = training_side("scoring")
    chosen = scoring.fitted(chosen, found.contract)
    say = _be_silent if as_json else _say  # what is said on the way would spoil JSON
    if data:
        trial = scoring.on_all(found.contract, chosen, _predictor(found), say)
    else:
        ready = training_side("prepared").prepare(chosen, say, parts_beside(Path(recipe)))
        trial = scoring.on_test_part(found.contract, chosen, ready, _predictor(found))
    table = trial.table()
    if out is not None:
        report = training_side("report")
        kept = "all images of" if data else "the test part of"
        about = f"{found.fingerprint}, scored on {kept} {', '.join(data or [recipe])}."
        outputs, contrast = found.contract.outputs, chosen.data.contrast
        report.write_report(out, table, trial.scored(), trial.pixel_size_um, outputs, contrast=contrast, about=about)
    typer.echo(json.dumps(table.as_json()) if as_json else table.text())
    if out is not None and not as_json:
        _say(f"\nreport    {out / 'scores.md'}")


@app.command()
def verify(package: PackageName) -> None:
    """Hold a package against itself: hashes, contract, graph, and whether its test output is reproduced.

    Example: livestain models verify my-model
    """
    from livestain_models.verify import verify_package

    warnings: dict[str, None] = {}
    for precision in _load(package).contract.precisions:
        asked = _load(package, precision)
        try:
            predict = _predictor(asked) if precision == "bf16" else None
        except ModelError as error:  # not every processor can
            warnings[f"{asked.fingerprint} was not verified: {error}"] = None
            continue
        found = verify_package(asked, predict=predict)
        digits = ".0f" if found.unit == "grey levels" else ".3g"
        _say(
            f"{found.fingerprint}\n  the test output is reproduced: largest difference {found.max_difference:{digits}} "
            f"{found.unit} (allowed: {found.allowed:{digits}})"
        )
        warnings |= dict.fromkeys(found.warnings)
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)


@app.command("list")
def list_packages(
    folders: Annotated[list[Path] | None, typer.Argument(help="Packages, or folders that hold packages.")] = None,
) -> None:
    """List the shipped packages, and those in the folders given.

    Example: livestain models list my-models/
    """
    from livestain_models.card import describe_package
    from livestain_models.package import zoo

    sources: list[str | Path] = [*zoo(), *_packages_in(folders or [])]
    for source in sources:
        try:
            row = describe_package(_load(source))
        except ModelError as error:
            lines = [str(source), f"cannot be used: {error}"]
        else:
            seen = ", ".join(row[name] for name in ("planes", "pixel size", "contrast"))
            lines = [f"{source}, version {row['version']}, {row['size']}", row["outputs"], f"from {seen}"]
        console.print(lines[0], style="bold", soft_wrap=True)
        for line in lines[1:]:
            console.print(Padding(line, (0, 0, 0, 4)))


@app.command()
def show(package: PackageName) -> None:
    """Say what a package does, what it was trained on, how well it does, and where not to use it.

    Example: livestain models show nuclei-demo
    """
    _show(_load(package))


@app.command("learning-curve")
def learning_curve(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(help="Folder for the trainings, curve.json and curve.png.")],
    sizes: Annotated[str, typer.Option(help="Numbers of training fields.")] = "4,8,16,32",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each size.")] = 2,
    data: DataOption = None,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Say how much data is enough: train on 4, 8, 16, ... fields, and what doubling the data would bring.

    Example: livestain models learning-curve my_recipe.yaml --out curve --set train.steps=800
    """
    chosen = chosen_recipe(recipe, data, settings)
    counts = _numbers(sizes)
    with _Stop() as stop:
        curve = training_side("studies").study_learning_curve(
            chosen, out, counts, range(seeds), say=_say, stop=lambda: stop.asked, device=device
        )
    _say(f"\n{curve}\n\n{out / 'curve.png'}")


@app.command()
def instruments(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(help="Folder for the trainings and instruments.md.")],
    data: DataOption = None,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Leave one instrument out at a time, to see how a model does on a microscope that it never saw.

    Example: livestain models instruments my_recipe.yaml --out instruments
    """
    chosen = chosen_recipe(recipe, data, settings)
    with _Stop() as stop:
        table = training_side("studies").study_instruments(
            chosen, out, say=_say, stop=lambda: stop.asked, device=device
        )
    _say(f"\n{table}")


@app.command()
def recipes(
    copy_to: Annotated[Path | None, typer.Option(help="Folder to copy them into, to change them there.")] = None,
) -> None:
    """List the shipped recipes, one for each kind of model; or copy them.

    Example: livestain models recipes --copy-to my-recipes
    """
    for file in shipped_recipes():
        first = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        if copy_to is None:
            _say(f"{file.name.removesuffix('.yaml'):22} {first}")
        else:
            copy_to.mkdir(parents=True, exist_ok=True)
            target = copy_to / file.name
            if target.exists():
                raise LivestainError(f"{target} exists; it was left as it is. Give another folder.")
            target.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
            _say(str(target))


class _Stop:
    """Turns Ctrl-C and SIGTERM into a question that the training asks after each step; a second one interrupts."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        _say("stopping after this step; once more stops at once")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _be_silent(_: str) -> None:
    pass


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise LivestainError(f"--sizes takes whole numbers with commas between, e.g. 4,8,16, got {text!r}.") from error


def _load(source: str | Path, precision: Any = "fp32") -> Package:
    from livestain_models.package import load_package

    return load_package(source, precision)


def _packages_in(folders: list[Path]) -> list[Path]:
    found = []
    for folder in folders:
        inner = {entry.parent for name in ("rdf.yaml", "bioimageio.yaml") for entry in folder.glob(f"*/{name}")}
        found += sorted(inner) or [folder]
    return found


def _show(package: Package) -> None:
    from livestain_models.card import describe_package

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in describe_package(package).items():
        table.add_row(key, value)
    table.add_row("folder", str(package.folder))
    console.print(table)


def _predictor(package: Package) -> Callable[[np.ndarray], np.ndarray]:
    """Give the very prediction that the microscope runs: any frame size, tiles without seams."""
    from livestain._stain import OnnxModel

    model = OnnxModel(package, "auto")
    return lambda planes: model.predict(planes).planes
