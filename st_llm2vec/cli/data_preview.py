"""``st-llm2vec data preview``: what a model will read of training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from st_llm2vec.cli.console import facts, output, plain_table, quiet, say, shorten
from st_llm2vec.cli.data import Folder, Sources, data
from st_llm2vec.cli.options import AsJson, print_json

if TYPE_CHECKING:
    from st_llm2vec.data import TrainingSource
    from st_llm2vec.data.preview import ReadText
    from st_llm2vec.encoding.text_reader import TextReader

POOLED = "black on green"
BREAKS = str.maketrans({"\n": "⏎", "\t": "⇥", "\r": "␍"})


@data.command()
def preview(
    mixture: Annotated[
        str, typer.Argument(metavar="DATA", help="A mixture, or a file or Hub dataset of pairs or texts.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="What will read it: an encoder, or a decoder.")],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="How a decoder is converted.")] = "llm2vec",
    rows: Annotated[int, typer.Option(min=0, help="Rows of each source to show token by token.")] = 2,
    evaluation: Annotated[
        list[str] | None,
        typer.Option("--eval", help="Data that is evaluated on, to look for in training; may be given several times."),
    ] = None,
    near: Annotated[
        float, typer.Option(min=0.1, max=1, help="Texts are nearly the same from this overlap of their letters on.")
    ] = 0.8,
    limit: Annotated[int, typer.Option(min=1, help="Rows of each source to count on, drawn at random.")] = 10_000,
    folder: Folder = None,
    source: Sources = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model reads of data, token by token with what is pooled; lengths, cut texts, repetitions and leaks."""
    quiet()
    encoder = _opened(model, recipe)
    held_out = _held_out(evaluation or [])
    described = []
    for one in _sources(mixture, folder, source, limit):
        if not as_json:
            say(f"Reading {one.label}")
        described.append(_describe(one, encoder, rows, near, held_out))
    if as_json:
        print_json({"model": model, "sources": [_plain(one) for one in described]})
        return
    output.print(Text.assemble(("green", POOLED), " is pooled; ⏎ is a line break."))
    for found in described:
        output.print(_shown(found))


def _opened(model: str, recipe: str) -> TextReader:
    from st_llm2vec.conversion.convert import convert
    from st_llm2vec.folder.load import load
    from st_llm2vec.inspection import is_encoder

    return load(model) if is_encoder(model) else convert(model, recipe, measure=False)


def _sources(name: str, folder: Path | None, only: list[str] | None, limit: int) -> list[TrainingSource]:
    from st_llm2vec.data import TrainingSource, read_dataset, read_mixture
    from st_llm2vec.data.mixture import is_mixture

    if is_mixture(name):
        found = read_mixture(name, folder=folder, only=only).sources
    else:
        table = read_dataset(name)
        texts = "text" in table.column_names and "label" not in table.column_names
        found = [TrainingSource(path=name, task="texts" if texts else None)]
    for one in found:
        one.limit = min(one.limit or limit, limit)
    return found


def _held_out(names: list[str]) -> dict[str, list[str]]:
    from st_llm2vec.data import read_dataset
    from st_llm2vec.data.preview import texts_of

    found = {name: texts_of(read_dataset(name)) for name in names}
    empty = next((name for name, texts in found.items() if not texts), None)
    if empty is not None:
        raise ValueError(f"{empty} has no column of texts to look for in training.")
    return found


def _describe(
    source: TrainingSource, encoder: TextReader, rows: int, near: float, held_out: dict[str, list[str]]
) -> dict[str, Any]:
    from st_llm2vec.data.preview import describe_leaks, describe_repetitions, describe_rows
    from st_llm2vec.data.training_data import TrainingData, build_texts, build_training_data

    read = TrainingData(build_texts([source])) if source.task == "texts" else build_training_data([source])
    table: Any = read.dataset
    return {
        "name": source.label,
        "count": len(table),
        **describe_rows(encoder, table, read.prompts, rows),
        "repetitions": describe_repetitions(table, near),
        "leaks": {name: describe_leaks(table, texts, near) for name, texts in held_out.items()},
    }


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "rows": [{name: one.to_dict() for name, one in row.items()} for row in found["rows"]]}


def _shown(found: dict[str, Any]) -> RenderableType:
    blocks: list[RenderableType] = [Text.assemble((found["name"], "bold"), f"  {found['count']:,} rows")]
    for row in found["rows"]:
        blocks.append(Padding(facts({name: _tokens(one) for name, one in row.items()}), (1, 0, 0, 2)))
    table = plain_table("tokens in", "mean", "median", "95 %", "longest", f"cut at {found['limit']}")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, one in found["columns"].items():
        figures = [f"{one[key]:,.0f}" for key in ("mean", "median", "95 %", "longest")]
        table.add_row(name, *figures, f"{one['cut']:.1%}")
    blocks.append(Padding(table, (1, 0, 0, 2)))
    again = found["repetitions"]
    said: dict[str, RenderableType] = {
        "repeated": f"{again['queries']:,} first texts, {again['pairs']:,} whole pairs; {again['near']:,} pairs of first "
        "texts are nearly the same",
        **{f"of {name}": _leak(one) for name, one in found["leaks"].items()},
    }
    return Group(*blocks, Padding(facts(said), (1, 0, 1, 2)))


def _leak(leak: dict[str, Any]) -> RenderableType:
    count, exact, near = leak["texts"], leak["exact"], leak["near"]
    lines = [
        f"{exact:,} of {count:,} texts are in training ({exact / count:.1%}), {near:,} more nearly ({near / count:.1%})"
    ]
    lines += [f"{share:.2f}  {shorten(text, 60)} ~ {shorten(known, 60)}" for text, known, share in leak["samples"][:4]]
    return Text("\n".join(lines), style="yellow" if exact or near else "")


def _tokens(read: ReadText) -> Text:
    """The tokens with a thin bar between them, the pooled ones marked."""
    line = Text()
    for at, (token, pooled) in enumerate(zip(read.tokens, read.pooled, strict=True)):
        line.append("│" if at else "", style="dim")
        line.append(token.translate(BREAKS), style=POOLED if pooled else "")
    if read.cut:
        line.append(f"  … {read.cut} tokens cut", style="yellow")
    return line
