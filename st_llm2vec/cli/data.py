"""``st-llm2vec data``: the data that training reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import facts, output, plain_table, quiet, shorten
from st_llm2vec.cli.options import AsJson, print_json

if TYPE_CHECKING:
    from st_llm2vec.data import Mixture, TrainingSource

data = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(data, name="data", help="Look at training data, make hard negatives for it, and generate it.")

MixtureName = Annotated[str, typer.Argument(metavar="MIXTURE", help="A YAML file of sources; see `data list`.")]
Folder = Annotated[
    Path | None, typer.Option(help="What the mixture's paths are relative to.", show_default="the file's folder")
]
Sources = Annotated[
    list[str] | None, typer.Option("--source", help="Take this source only; may be given several times.")
]


@data.command("list")
def list_mixtures(as_json: AsJson = False) -> None:
    """List the mixtures that come with the package, with the licences of their sources. Reads no data."""
    from st_llm2vec.data import named_mixtures, read_mixture

    found = {name: read_mixture(name) for name in named_mixtures()}
    if as_json:
        print_json({name: _described(mixture) for name, mixture in found.items()})
        return
    for name, mixture in found.items():
        output.print(Text.assemble((name, "bold"), f"  {mixture.description}"))
        table = plain_table("source", "task", "read from", "licence")
        for one in mixture.sources:
            table.add_row(one.label, one.task, Text(one.hub or _relative(one)), Text(one.licence or "not named"))
        output.print(table, "")


@data.command()
def show(mixture: MixtureName, folder: Folder = None, source: Sources = None, as_json: AsJson = False) -> None:
    """Read a mixture as training does: rows, columns, instructions and in-batch negatives of each source."""
    quiet()
    from st_llm2vec.data import read_mixture

    found = read_mixture(mixture, folder=folder, only=source)
    described = [_read(one) for one in found.sources]
    if as_json:
        print_json({"mixture": str(found.file), "description": found.description, "sources": described})
        return
    for one in described:
        output.print(_shown(one))


def _read(source: TrainingSource) -> dict[str, Any]:
    """What a source gives, with its first row."""
    from st_llm2vec.data.training_data import TrainingData, build_texts, build_training_data

    texts = source.task == "texts"
    read = TrainingData(build_texts([source])) if texts else build_training_data([source])
    rows: Any = read.dataset
    return {
        "name": source.label,
        "task": source.task,
        "rows": len(rows),
        "columns": rows.column_names,
        "prompts": read.prompts,
        "in_batch_negatives": bool(source.in_batch_negatives),
        "first": rows[0],
    }


def _described(mixture: Mixture) -> dict[str, Any]:
    fields = ("task", "hub", "licence", "query_instruction", "note")
    sources = [
        {"name": one.label, "path": _relative(one), **{name: getattr(one, name) for name in fields}}
        for one in mixture.sources
    ]
    return {"description": mixture.description, "sources": sources}


def _relative(source: TrainingSource) -> str:
    """The path of a source as its mixture writes it, where it is below the working directory."""
    path = Path(str(source.path))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _shown(one: dict[str, Any]) -> RenderableType:
    """A source: a line of figures, and its first row with the instructions."""
    negatives = max(0, len(one["columns"]) - 2)
    switch = "on" if one["in_batch_negatives"] else "off"
    line = (
        f"  {one['task'] or 'no task'}, {one['rows']:,} rows, {negatives} hard negatives, in-batch negatives {switch}"
    )
    rows: dict[str, RenderableType] = {}
    for column, text in list(one["first"].items())[:3]:
        rows[column] = Text.assemble((f"{one['prompts'].get(column, '')} ".lstrip(), "cyan"), shorten(str(text), 200))
    return Group(Text.assemble((one["name"], "bold"), line), Padding(facts(rows), (0, 0, 1, 2)))
