"""What the documentation names is so: commands and options, links, fields, and the columns of every table."""

from __future__ import annotations

import functools
import importlib.util
import re
from typing import TYPE_CHECKING, Any, get_args

import pytest
import typer
from typer.testing import CliRunner
from useq import MDAEvent

from livestain._engine import _journal_meta
from livestain._experiment import Measure, Optics, Output, Rig, Stain
from livestain._frame import Frame, Job, Place, Stained
from livestain._lines import missing_line, raw_line, stain_line, stained_line
from livestain.cli.main import app
from livestain.measure.summary import SUMMARY_SCHEMA
from livestain.measure.table import CELL_SCHEMA
from livestain_models.recipe import Recipe
from tests import documents
from tests.documents import RESULTS, RIG_GUIDE, ROOT, words

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

# ------------------------------------------------------------------------------------------ the command line


@functools.cache
def tree() -> dict[str, Any]:
    """Every command of livestain by its name, "models train" among them."""
    group: Any = typer.main.get_command(app)
    models = group.commands["models"]
    shown = {name: command for name, command in group.commands.items() if name != "models" and not command.hidden}
    return shown | {f"models {name}": command for name, command in models.commands.items()}


@pytest.mark.parametrize("name", sorted(tree()))
def test_a_command_is_in_the_readme_and_its_help_has_an_example(name: str) -> None:
    readme = ROOT / "README.md"
    said = [code for _, code in (*documents.inline_code(readme), *documents.commands_of(readme))]
    # `livestain models list`, `show PACKAGE`: the second leaves out what it shares with the first.
    called = [f"livestain {name}", name.removeprefix("models ") if name.startswith("models ") else f"livestain {name}"]
    assert any(re.match(rf"{one}\b", code) for one in called for code in said), f"README.md lacks livestain {name}"
    help_text = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"}).output
    assert f"Example: livestain {name}" in help_text


@pytest.mark.parametrize("document", documents.all_markdown(), ids=lambda document: str(document.relative_to(ROOT)))
def test_commands_and_options_that_are_named_exist(document: Path) -> None:
    for block, command in documents.commands_of(document):
        check_named(command, str(block))
    on_line = (0, "")
    for line, code in documents.inline_code(document):
        where = f"{document.name}:{line}: {code}"
        if code.startswith(("livestain ", "python -m ")):
            check_named(code, where)
            on_line = (line, code)
        elif code.startswith("--") and on_line[0] == line:  # | `livestain stats RUN` | ... `--json` ... |
            check_named(f"{on_line[1]} {code}", where)


def check_named(command: str, where: str) -> None:
    """Hold a command against what there is: its name, and the name of every option."""
    program, *given = words(command)
    if program == "python" and given[0] == "-m":
        assert module_exists(given[1]), where
    if program != "livestain" or not given or given[0].startswith("-") or given[:2] in (["models"], ["models", "..."]):
        return
    name = " ".join(given[: 2 if given[0] == "models" else 1]).rstrip(",")
    assert name in tree(), f"{where}: there is no such command"
    options = {o for parameter in tree()[name].params for o in (*parameter.opts, *parameter.secondary_opts)}
    unknown = {word for word in given if word.startswith("--")} - options - {"--help"}
    assert not unknown, f"{where}: {name} has no {', '.join(unknown)}"


def module_exists(name: str) -> bool:
    if name.startswith("benchmarks"):
        return (ROOT / f"{name.replace('.', '/')}.py").is_file()
    return importlib.util.find_spec(name) is not None


# ------------------------------------------------------------------------------------------ links


@pytest.mark.parametrize("document", documents.all_markdown(), ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in documents.links(document):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name}: {link}"
        if anchor:
            assert anchor in documents.anchors(target), f"{document.name}: {link}"


# ------------------------------------------------------------------------------------------ fields


SECTIONS = {"rig": Rig, "optics": Optics, "output": Output, "stains": Stain, "measure": Measure} | {
    name: Recipe.model_fields[name].annotation for name in ("data", "augment", "network", "loss", "train")
}
FILES = {"cfg", "md", "py", "yaml"}  # `train.py` is no field of train


@pytest.mark.parametrize("document", documents.documents(), ids=lambda document: document.name)
def test_fields_that_are_named_exist(document: Path) -> None:
    for line, code in documents.inline_code(document):
        section, _, field = code.partition(":")[0].partition(".")
        if section in SECTIONS and re.fullmatch(r"[a-z_.]+", field) and field.partition(".")[0] not in FILES:
            fields: Any = getattr(SECTIONS[section], "model_fields", {})
            assert field.partition(".")[0] in fields, f"{document.name}:{line}: {code}"


def test_the_rig_guide_explains_the_light_and_names_every_provider() -> None:
    rows = documents.table_after(RIG_GUIDE, "The rig: what a .cfg cannot say")
    assert [row[0].strip("`") for row in rows] == list(Optics.model_fields)
    providers = get_args(Stain.model_fields["provider"].annotation)
    assert set(providers) <= {code for _, code in documents.inline_code(RIG_GUIDE)}


def test_the_buffers_of_the_rig_guide_are_the_defaults() -> None:
    text = RIG_GUIDE.read_text(encoding="utf-8")
    assert f"`output.write_buffer_mb` ({Output().write_buffer_mb})" in " ".join(text.split())
    assert f"`rig.circular_buffer_mb` ({Rig.model_fields['circular_buffer_mb'].default}," in " ".join(text.split())


# ------------------------------------------------------------------------------------------ results.md


UNITS = {"_um": "um", "_um2": "um2", "_pg": "pg", "_s": "s", "_ml_per_g": "mL/g"}
KINDS = {"dictionary<values=string, indices=int8, ordered=0>": "string"}


@pytest.mark.parametrize(("heading", "schema"), [("Cells", CELL_SCHEMA), ("Time points", SUMMARY_SCHEMA)])
def test_the_tables_of_columns_match_the_schemas(heading: str, schema: pa.Schema) -> None:
    rows = documents.table_after(RESULTS, heading)
    assert [row[0].strip("`") for row in rows] == schema.names
    for name, kind, unit, meaning in rows:
        field = schema.field(name.strip("`"))
        assert kind == KINDS.get(str(field.type), str(field.type)), name
        suffix = max((s for s in UNITS if field.name.endswith(s)), key=len, default="")
        if suffix:
            assert unit == UNITS[suffix], name
        assert meaning, name


def test_the_table_of_the_journal_has_every_field() -> None:
    place, event = Place(0, 0, 0, 0), MDAEvent(exposure=1)
    metas = [_journal_meta(event, {"position": {"x": 0}, "images_remaining_in_buffer": 0}), _journal_meta(event, {})]
    frames = [Frame(place, None, 0, 0.0, meta) for meta in metas]  # type: ignore[arg-type]
    job = Job(0, (place,), (place,), tuple(frames))
    lines = [raw_line(frame, 0, 0) for frame in frames]
    lines += [missing_line(place, "why"), stain_line(job, "pending", "why")]
    lines += [stained_line(Stained(job, None, "CPU", 0.0, 0.0, 0), 0, [0])]  # type: ignore[arg-type]
    written: dict[str, set[str]] = {}
    for line in lines:
        written.setdefault(line["kind"], set()).update(line)
    written["raw"].add("recovered")
    documented = documents.fields_of_journal()
    assert {kind: documented[kind] for kind in written} == written
