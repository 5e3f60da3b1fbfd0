"""``st-llm2vec evaluate tasks`` and ``mteb``: how good an encoder's vectors of texts are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from st_llm2vec.cli.console import output, plain_table, progress_bar, quiet, say
from st_llm2vec.cli.evaluate import ATTENTIONS, evaluate, known_attention, opened
from st_llm2vec.cli.options import AsJson, Dtype, print_json, say_dtype

if TYPE_CHECKING:
    from st_llm2vec.evaluation.tasks import Task, TaskResult

GIB = 2**30
BASELINE = "baseline"
Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help="Encoders or decoders: folders or names.")]
Attention = Annotated[
    str,
    typer.Option(
        help=f"How a decoder attends: {', '.join(ATTENTIONS)}; encoders have their own.", callback=known_attention
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write the results here: .md or .json.")]
Results = dict[str, list["TaskResult"]]


def _known_output(file: Path | None) -> None:
    if file is not None and file.suffix.lower() not in (".md", ".json"):
        raise ValueError(f"--output {file} ends in neither .md nor .json.")


@evaluate.command()
def tasks(
    models: Models,
    task: Annotated[
        list[str],
        typer.Option("--task", help="A plan (YAML) of tasks, or NAME=KIND:FILE[,FILE...]; may be given several times."),
    ],
    attention: Attention = "bidirectional",
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many rows of each table, for a look.")] = None,
    baseline: Annotated[bool, typer.Option(help="Score TF-IDF too, or for words the most frequent label.")] = True,
    cache: Annotated[
        Path | None, typer.Option(help="Where results are kept.", show_default="~/.cache/st-llm2vec/tasks")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Compute kept results anew.")] = False,
    output_file: Output = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Score encoders on tasks in local files: similarity, classification, clustering, retrieval, reranking, pairs, words.

    Results are kept for an encoder and a task, so that an interrupted run goes on where it was.
    """
    quiet()
    _known_output(output_file)
    from st_llm2vec.evaluation.kept import default_cache
    from st_llm2vec.evaluation.task_plan import limited, parse_task
    from st_llm2vec.evaluation.tasks import Task, run_baseline

    read = [Task.read(limited(spec, limit)) for text in task for spec in parse_task(text)]
    cache = cache or default_cache("tasks")
    if not as_json:
        say_dtype(dtype)
        say(f"Results are kept in {cache}.")
        _say_unseen(read)
    results: Results = {BASELINE: [run_baseline(one) for one in read]} if baseline else {}
    for name, found in _run(models, read, attention, dtype, cache, again):
        results[name] = found
    written = {name: [asdict(one) for one in found] for name, found in results.items()}
    if output_file is not None:
        text = json.dumps(written, indent=2) if output_file.suffix.lower() == ".json" else _markdown(results)
        _write(output_file, text)
    if as_json:
        print_json({"models": written})
    else:
        _show(_rows(results))


@evaluate.command()
def mteb(
    models: Models,
    names: Annotated[
        list[str],
        typer.Option("--tasks", help="MTEB's name of a task or a benchmark, or `paper`: LLM2Vec's 15; several times."),
    ],
    attention: Attention = "bidirectional",
    cache: Annotated[
        Path | None, typer.Option(help="Where MTEB keeps results and resumes.", show_default="~/.cache/mteb")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in a batch.")] = 32,
    output_file: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write MTEB's results of one model, for `publish --results`.")
    ] = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Score encoders on MTEB's tasks, whose data comes from the Hugging Face Hub, with each task's instruction."""
    quiet()
    from st_llm2vec.evaluation.mteb_encoder import find_tasks, main_score, run_mteb

    if output_file is not None and len(set(models)) > 1:
        raise ValueError("--output holds the results of one model; give one model, or leave it out.")
    chosen = find_tasks(names)
    if not as_json:
        say_dtype(dtype)
    results: dict[str, list[dict[str, Any]]] = {}
    for name, encoder in opened(models, attention, dtype):
        results[name] = run_mteb(encoder, chosen, cache=cache, batch_size=batch_size, progress=not as_json)
    if output_file is not None:
        found = [one for model in results.values() for one in model]
        _write(output_file, json.dumps(found, indent=2))
    if as_json:
        print_json(results)
        return
    rows = [["task", *results]]
    for place, one in enumerate(chosen):
        rows.append([one.metadata.name, *(f"{main_score(found[place]):.2f}" for found in results.values())])
    _show(rows)


def _write(file: Path, text: str) -> None:
    from st_llm2vec.folder.disk_errors import disk_errors
    from st_llm2vec.folder.staging import replacing_file

    with disk_errors(file), replacing_file(file) as fresh:
        fresh.write_text(text + "\n", encoding="utf-8")


def _run(
    models: list[str], read: list[Task], attention: str, dtype: str | None, cache: Path, again: bool
) -> Iterator[tuple[str, list[TaskResult]]]:
    from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
    from st_llm2vec.evaluation.tasks import run_task

    for name, encoder in opened(models, attention, dtype):
        fingerprint = encoder_fingerprint(encoder)
        with progress_bar(f"Texts of {name}", sum(one.texts for one in read)) as advance:
            yield name, [run_task(encoder, one, cache, fingerprint, again, advance) for one in read]


def _say_unseen(read: list[Task]) -> None:
    for one in read:
        if one.unseen:
            named = ", ".join(f"{label} ({count})" for label, count in one.unseen.items())
            say(
                f"{one.spec.name}: labels that training does not have, which count as wrong, with their texts: {named}."
            )


def _rows(results: Results) -> list[list[str]]:
    """A header, a row for each task, and what it took."""
    tasks = next(iter(results.values()))
    rows = [["task", "score", *results]]
    for place, one in enumerate(tasks):
        rows.append([one.task, one.metric, *(f"{found[place].main:.2f}" for found in results.values())])
    rows.append(["time", "s", *(f"{sum(one.seconds for one in found):.1f}" for found in results.values())])
    peaks = (max(one.memory for one in found) / GIB for found in results.values())
    return [*rows, ["peak of the process", "GiB", *(f"{peak:.2f}" for peak in peaks)]]


def _markdown(results: Results) -> str:
    header, *rows = _rows(results)
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _show(rows: list[list[str]]) -> None:
    header, *rest = rows
    table = plain_table(*header)
    for column in table.columns[-(len(header) - 1) :]:
        column.justify, column.overflow = "right", "fold"
    for row in rest:
        table.add_row(*map(Text, row))
    output.print(table)
