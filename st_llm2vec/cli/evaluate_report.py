"""``st-llm2vec evaluate report``: models beside each other on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from st_llm2vec.cli.console import output, progress_bar, quiet, say
from st_llm2vec.cli.evaluate import evaluate, known_attention, opened, without_attention
from st_llm2vec.cli.evaluate_tasks import Models
from st_llm2vec.cli.options import AsJson, Dtype, print_json, say_dtype


@evaluate.command()
def report(
    models: Models,
    folder: Annotated[
        Path, typer.Option("--output", "-o", "--report", help="Folder for report.html, report.md and report.json.")
    ],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="A plan (YAML) of tasks, or NAME=KIND:FILE[,FILE...]; may be given several times."),
    ] = None,
    attention: Annotated[
        str,
        typer.Option(
            help="How a decoder attends: causal, bidirectional, or both; encoders have their own.",
            callback=known_attention,
        ),
    ] = "both",
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many rows of each table, for a look.")] = None,
    mteb: Annotated[
        list[str] | None,
        typer.Option("--mteb", help="MTEB's name of a task or a benchmark, or `paper`; MTEB keeps its results itself."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where results are kept.", show_default="~/.cache/st-llm2vec/tasks")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Compute kept results anew.")] = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Write a page of models against tasks, with plots of their layers, of future tokens, and of where they put texts.

    `evaluate MODEL... --report FOLDER` does the same. The page needs no network. Results are kept for an encoder and a task,
    so that an interrupted run goes on where it was.
    """
    quiet()
    from st_llm2vec.reporting.svg import require_plots

    require_plots()
    if folder.is_file():
        raise ValueError(f"--output {folder} is a file; give a folder for the report.")
    from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
    from st_llm2vec.evaluation.kept import default_cache
    from st_llm2vec.evaluation.mteb_encoder import find_tasks, run_mteb
    from st_llm2vec.evaluation.task_plan import limited, parse_task
    from st_llm2vec.evaluation.tasks import Task
    from st_llm2vec.reporting.measure import begin_report, look_inside, measure_model, steps
    from st_llm2vec.reporting.page import write_report

    read = [Task.read(limited(spec, limit)) for text in task or () for spec in parse_task(text)]
    chosen = find_tasks(mteb) if mteb else []
    made = begin_report(read)
    cache = cache or default_cache("tasks")
    if not as_json:
        say_dtype(dtype)
        say(f"Results are kept in {cache}.")
    for name, encoder in opened(models, attention, dtype):
        with progress_bar(f"Looking at {name}", steps(made)) as advance:
            kept: Any = (cache, encoder_fingerprint(encoder), again, advance)
            made.models.append(measure_model(encoder, name, made, *kept))
            made.models[-1].mteb.extend(run_mteb(encoder, chosen) if chosen else [])
            bare = without_attention(name)
            if bare not in made.insides:
                made.insides[bare] = look_inside(encoder, *kept)
    page = write_report(made, folder)
    if as_json:
        print_json(made.to_dict())
    else:
        output.print(f"Open {page} in a browser.", markup=False, soft_wrap=True)
