"""``st-llm2vec data generate``: synthetic training data by a chat model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from st_llm2vec.cli.console import facts, messages, output, plain_table, quiet, say, shorten
from st_llm2vec.cli.data import data
from st_llm2vec.cli.options import AsJson, Dtype, print_json

SECONDS_BETWEEN_LINES = 30
TIMEOUT = 300.0
# Options under headings of --help.
_what = partial(typer.Option, rich_help_panel="What is generated")
_model = partial(typer.Option, rich_help_panel="The chat model")
_asked = partial(typer.Option, rich_help_panel="How it is asked")


@data.command()
def generate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A decoder's folder; a name at --base-url; provider:name, with langchain; or package.module:object.",
        ),
    ],
    target: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the data; that of a run to go on with it.")
    ],
    preset: Annotated[str, _what(help="small, e5 or nv-embed.")] = "small",
    tasks: Annotated[int | None, _what(help="Change the preset: tasks to brainstorm.")] = None,
    examples: Annotated[int | None, _what(help="Change the preset: rows.")] = None,
    groups: Annotated[
        list[str] | None,
        _what(
            "--group",
            help="Change the preset: short-long, long-short, short-short, long-long, sts or bitext; may be given several times.",
        ),
    ] = None,
    languages: Annotated[
        list[str] | None,
        _what("--language", help="Change the preset: a language's name or code; may be given several times."),
    ] = None,
    near: Annotated[
        float | None, _what(help="Overlap from which on texts are nearly the same; 1 for the same only.")
    ] = None,
    most: Annotated[
        float | None, _what(help="Requests at the most, as a multiple of what none that fails would take.")
    ] = None,
    seed: Annotated[int | None, _what(help="Seed of what is drawn.")] = None,
    licence: Annotated[str | None, _what(help="Licence of the data, for the mixture.")] = None,
    base_url: Annotated[
        str | None, _model(help="An endpoint that speaks OpenAI's protocol: http://localhost:8000/v1.")
    ] = None,
    key_from: Annotated[str, _model(help="Environment variable with the endpoint's key.")] = "OPENAI_API_KEY",
    temperature: Annotated[float | None, _model(help="Temperature.", show_default="1, as E5's")] = None,
    top_p: Annotated[float | None, _model(help="Top-p.", show_default="1, as E5's")] = None,
    max_tokens: Annotated[
        int | None, _model(help="Longest answer in tokens.", show_default="the model's own; 1024 of a folder")
    ] = None,
    dtype: Dtype = "auto",
    concurrency: Annotated[int, _asked(min=1, help="Requests on their way at a time; of a folder, in one pass.")] = 8,
    per_second: Annotated[float | None, _asked(help="Requests that begin in a second at the most.")] = None,
    attempts: Annotated[int, _asked(min=1, help="Attempts before a request is given up.")] = 6,
    timeout: Annotated[
        float | None, _asked(help="Seconds that an answer may take.", show_default="300; no limit of a folder")
    ] = None,
    plain: Annotated[bool, _asked("--plain", help="Do not ask for JSON of a schema, where the model could.")] = False,
    seeded: Annotated[
        bool, _asked("--seeded", help="Send a seed with each request to an endpoint that takes one.")
    ] = False,
    price_read: Annotated[float | None, _asked(help="Price of a million tokens that the model reads.")] = None,
    price_written: Annotated[float | None, _asked(help="Price of a million tokens that it writes.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked, and ask nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Generate training data with a chat model, in two steps: it thinks of tasks, then of an example of each.

    The folder gets rows, the mixture that trains on them (`train --pairs FOLDER/mixture.yaml`) and a report. Every answer is kept
    as it comes: the same command goes on where it was stopped, and never pays twice for an answer.
    """
    quiet()
    from st_llm2vec.folder.disk_errors import disk_errors
    from st_llm2vec.synthetic import Asking, Prices, SyntheticSettings, generate_data, open_chat_model
    from st_llm2vec.synthetic.chat_models import LOCAL

    changes: dict[str, Any] = {
        "tasks": tasks,
        "examples": examples,
        "groups": groups or None,
        "languages": languages or None,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "near": near,
        "most": most,
        "seed": seed,
    }
    settings = SyntheticSettings.of(preset, **changes)
    if dry_run:
        _show_plan(settings, as_json)
        return
    opened = open_chat_model(
        model, settings, base_url=base_url, key_from=key_from, timeout=timeout or TIMEOUT, dtype=dtype
    )
    local = opened.kind == LOCAL
    asking = Asking(
        concurrency=concurrency,
        per_second=per_second,
        attempts=attempts,
        timeout=timeout or (None if local else TIMEOUT),
        structured=not plain,
        seeded=seeded or local,
    )
    priced = price_read is not None or price_written is not None
    prices = Prices(price_read or 0.0, price_written or 0.0) if priced else None
    try:
        with _shown_progress() as show, disk_errors(target):
            report = generate_data(opened, target, settings, asking, prices=prices, licence=licence, on_progress=show)
    except KeyboardInterrupt:
        say("Stopped. Every answer that came is kept: run the same command again, and it goes on from there.")
        raise typer.Exit(130) from None
    if as_json:
        print_json({"output": str(target), **report})
    else:
        output.print(_shown(report, target))


def _show_plan(settings: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from st_llm2vec.synthetic.groups import GROUPS
    from st_llm2vec.synthetic.plan import brainstorm_request, example_request

    tasks, rows = settings.tasks_of(), settings.rows_of()
    asked = {name: -(-count // settings.tasks_per_request) for name, count in tasks.items()}
    prompts = {}
    for name in rows:
        group = GROUPS[name]
        first = [brainstorm_request(group, 0, settings).prompt] if group.two_steps else []
        prompts[name] = [*first, example_request(group, 0, ["..."] if group.two_steps else [], settings).prompt]
    if as_json:
        plan = {"settings": asdict(settings), "tasks": tasks, "rows": rows, "prompts": prompts}
        print_json({**plan, "requests": sum(asked.values()) + sum(rows.values())})
        return
    table = plain_table("group", "requests for tasks", "tasks", "requests for rows")
    for name, count in rows.items():
        table.add_row(name, f"{asked.get(name, 0):,}", f"{tasks.get(name, 0):,}", f"{count:,}")
    texts = [Text("\n\n".join(those), style="dim") for those in prompts.values()]
    said = f"{sum(asked.values()) + sum(rows.values()):,} requests if none fails, {settings.most:g} times as many at the most."
    output.print(Group(table, "", said, *(Padding(text, (1, 0, 0, 2)) for text in texts)))


@contextmanager
def _shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar where standard error is a terminal, and elsewhere a line now and then."""
    if not messages.is_terminal:
        yield _lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True) as bar:
        shown: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in shown:
                shown[what] = bar.add_task(f"Asking for {what}")
            bar.update(shown[what], completed=done, total=total)

        yield show


def _lines() -> Callable[[str, int, int], None]:
    last = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"{done:,} of {total:,} requests for {what}")

    return show


def _shown(report: dict[str, Any], target: Path) -> RenderableType:
    """What was asked and what is left of it, with rows to look at."""
    table = plain_table("group", "step", "requests", "no answer", "gave nothing", "left out", "kept", "wanted")
    for step in ("tasks", "examples"):
        for name, one in report[step].items():
            counts = (one["requests"], one["unanswered"])
            reasons = [
                ", ".join(f"{count:,} {why}" for why, count in one[key].items()) for key in ("unreadable", "left out")
            ]
            table.add_row(
                name, step, *(f"{count:,}" for count in counts), *reasons, f"{one['kept']:,}", f"{one['wanted']:,}"
            )
    tokens = report["tokens"]
    said: dict[str, RenderableType] = {
        "rows": f"{report['rows']:,} of {report['wanted']:,}, from {report['requests']:,} requests",
        "tokens": f"{tokens.get('input', 0):,} read, {tokens.get('output', 0):,} written"
        + (f", not counted of {tokens['uncounted answers']:,} answers" if "uncounted answers" in tokens else ""),
    }
    if report["cost"] is not None:
        said["cost"] = f"{report['cost']:,.2f}"
    errors = report["this call"]["errors"]
    if errors:
        said["errors that passed"] = ", ".join(f"{count:,} of {name}" for name, count in errors.items())
    if report["unanswered"]:
        said["no answer"] = f"{report['unanswered']:,} requests; the same command makes them again"
    if report["made with"]["languages told by"] is None:
        said["languages"] = "not looked at: pip install py3langid"
    blocks: list[RenderableType] = [table, "", facts(said)]
    for name, one in report["examples"].items():
        for row in one["samples"][:1]:
            texts = [f"{key:<12}{shorten(str(row[key]), 100)}" for key in _columns(row)]
            blocks.append(Padding(Text("\n".join([name, *texts]), style="dim"), (1, 0, 0, 0)))
    return Group(*blocks, "", Text(f"Train on them: st-llm2vec train --pairs {target / 'mixture.yaml'} ..."))


def _columns(row: dict[str, Any]) -> list[str]:
    return [name for name in ("instruction", "query", "positive", "negative") if name in row]
