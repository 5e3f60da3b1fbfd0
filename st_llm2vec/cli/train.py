"""``st-llm2vec train``: from a decoder to a trained encoder, stage by stage."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import output, quiet, say
from st_llm2vec.cli.options import AsJson, Dtype, pair, print_json


@app.command()
def train(
    target: Annotated[Path, typer.Option("--output", "-o", help="Folder for the trained encoder.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A decoder or an encoder: a folder or a name on the Hub.")
    ] = None,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="What to train; see `st-llm2vec recipes`.")] = "llm2vec",
    texts: Annotated[
        str | None,
        typer.Option(
            help="Texts for MNTP and SimCSE: a file or a Hub dataset.",
            show_default="those of --pairs, or else as in the paper",
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="Query, positive and negatives for supervised training, instead of SimCSE: a file, a Hub dataset or a mixture."
        ),
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="A YAML file with stages; see training_scripts/configs.")] = None,
    until: Annotated[
        str | None, typer.Option(help="The stage to stop after; the same command without it goes on from there.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each stage.", show_default="the paper's")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", help="Learning rate of each stage.", show_default="the paper's")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows in a step, on each device.", show_default="the paper's")
    ] = None,
    dtype: Dtype = None,
    evaluation: Annotated[
        str | None,
        typer.Option(
            "--eval",
            help="Pairs of sentences with scores, to evaluate on: stsb, an STS file or a Hub dataset; the best "
            "checkpoint is kept.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change the plan: training.bf16=true, stages.0.training.max_steps=100."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train an encoder: convert, then MNTP, then SimCSE or pairs, or the stages of a plan.

    Run the same command again to continue an interrupted run. Several GPUs: accelerate launch -m st_llm2vec train ...
    """
    from accelerate import PartialState

    from st_llm2vec.training.pipeline import (
        build_stages,
        default_plan,
        evaluate_on,
        override,
        read_plan,
        read_value,
    )
    from st_llm2vec.training.run_plan import run_stages, what_is_kept, what_is_left
    from st_llm2vec.training.settings import check_names

    quiet()
    if plan is not None and (texts is not None or pairs is not None):
        raise ValueError("A plan names its own data; leave --texts and --pairs out, or change it with --set.")
    settings = read_plan(plan) if plan is not None else default_plan(recipe, texts, pairs)
    given = {
        "training.max_steps": steps,
        "training.learning_rate": learning_rate,
        "training.per_device_train_batch_size": batch_size,
        "dtype": dtype,
    }
    typed = {key: read_value(text) for key, text in (pair("--set", one) for one in changes or [])}
    for key, value in [*((key, value) for key, value in given.items() if value is not None), *typed.items()]:
        settings = override(settings, key, value)
    if evaluation is not None:
        settings = evaluate_on(settings, evaluation)
    stages = build_stages(settings, target, model)
    if until is not None:
        names = [stage.called for stage in stages]
        check_names([until], names, f"--until {until} cannot be done")
        stages = stages[: names.index(until) + 1]
        target = Path(stages[-1].output)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the trainer's own log lines
            encoder = run_stages(stages, (lambda message: None) if as_json else say)
    except KeyboardInterrupt:
        if PartialState().is_main_process:
            say(f"Stopped. {what_is_kept(stages)} Run the same command again, and it goes on from there.")
        raise typer.Exit(130) from None
    if not PartialState().is_main_process:
        return
    records: list[dict[str, Any]] = encoder.manifest.stages if encoder.manifest is not None else []
    if as_json:
        print_json({"output": str(target), "dimension": encoder.get_embedding_dimension(), "stages": records})
        return
    _show(records, target)
    if left := what_is_left(stages):
        say(left)


def _show(records: list[dict[str, Any]], target: Path) -> None:
    for record in records:
        if "steps" not in record:
            output.print(f"{record['name']}: as it was imported", soft_wrap=True, markup=False)
            continue
        loss = "" if record["last_loss"] is None else f", last loss {record['last_loss']:.3f}"
        score = f", {_score(found)}" if (found := record.get("evaluation")) else ""
        output.print(f"{record['name']}: {record['steps']} steps{loss}{score}", soft_wrap=True, markup=False)
    output.print(f"The encoder is in {target}", soft_wrap=True, markup=False)


def _score(found: dict[str, Any]) -> str:
    before = "" if found["before"] is None else f" {found['before']:.4f} before and"
    return f"{found['metric']}{before} {found['after']:.4f} after step {found['step']}"
