"""``st-llm2vec embed``: a corpus of any size into a folder of shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import messages, output, quiet, say
from st_llm2vec.cli.options import DTYPE_HELP, AsJson, EncoderName, Revision, print_json, say_dtype

if TYPE_CHECKING:
    from st_llm2vec.corpus import Progress

SECONDS_BETWEEN_LINES = 30
# Options under headings of --help.
_corpus = partial(typer.Option, rich_help_panel="The corpus")
_vectors = partial(typer.Option, rich_help_panel="The vectors")
_machine = partial(typer.Option, rich_help_panel="The machine")


@app.command()
def embed(
    encoder: EncoderName,
    target: Annotated[Path, typer.Option("--output", "-o", help="Folder for the shards; that of a job to resume it.")],
    inputs: Annotated[
        list[Path] | None,
        _corpus(
            "--input",
            "-i",
            help="A Parquet, JSON lines, CSV or text file, compressed or not, or a folder; may be given several times.",
        ),
    ] = None,
    dataset: Annotated[str | None, _corpus(help="A dataset on the Hub or on disk.")] = None,
    config: Annotated[str | None, _corpus(help="The dataset's configuration.")] = None,
    split: Annotated[str | None, _corpus(help="The dataset's split.", show_default="train")] = None,
    dataset_revision: Annotated[str | None, _corpus(help="The dataset's branch, tag or commit.")] = None,
    column: Annotated[str | None, _corpus(help="Column of texts.", show_default="text")] = None,
    id_column: Annotated[str | None, _corpus(help="Column of ids.", show_default="row numbers, from 0")] = None,
    max_chars: Annotated[int, _corpus(help="Longer texts are left out and recorded.")] = 1_000_000,
    too_long: Annotated[
        str, _corpus(help="Texts of more tokens than the encoder reads: truncate or skip.")
    ] = "truncate",
    task: Annotated[str, _vectors("--as", help="document or query: whose saved prompt is used.")] = "document",
    prompt: Annotated[str | None, _vectors(help="A bare instruction in place of the saved one.")] = None,
    prompt_name: Annotated[str | None, _vectors(help="Name of one of the encoder's own prompts.")] = None,
    truncate_dim: Annotated[int | None, _vectors(help="Keep only the first dimensions (Matryoshka).")] = None,
    normalize: Annotated[bool, _vectors(help="Give vectors length one.")] = False,
    precision: Annotated[
        str, _vectors(help="float32, float16, bfloat16 (safetensors only), int8, uint8, binary or ubinary.")
    ] = "float32",
    calibration_rows: Annotated[int, _vectors(help="First texts that give the ranges of int8 and uint8.")] = 4096,
    file_format: Annotated[str, _vectors("--format", help="parquet or safetensors.")] = "parquet",
    shard_rows: Annotated[int, _vectors(help="Rows of the corpus in a shard.")] = 10_000,
    batch_size: Annotated[int, _machine(help="Texts in a batch.")] = 32,
    dtype: Annotated[str | None, _machine(help=DTYPE_HELP, show_default="as stored")] = None,
    attn_implementation: Annotated[str | None, _machine(help="sdpa, eager or flash_attention_2.")] = None,
    devices: Annotated[
        list[str] | None,
        _machine("--device", help="May be given several times: one process for each.", show_default="all GPUs"),
    ] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Embed a corpus of any size into a folder of shards with ids.

    Memory holds one shard, so it stays the same. The same command goes on where it was stopped, even by a power cut, and
    gives the same folder. Rows without a text, and texts that are too long, are recorded in the folder rejected/.
    """  # fmt: skip
    from st_llm2vec.corpus import EmbeddingSettings, embed_corpus, open_corpus

    settings = EmbeddingSettings(
        encoder=encoder,
        revision=revision,
        dtype=dtype,
        attn_implementation=attn_implementation,
        task=task,
        prompt=prompt,
        prompt_name=prompt_name,
        batch_size=batch_size,
        truncate_dim=truncate_dim,
        normalize=normalize,
        precision=precision,
        calibration_rows=calibration_rows,
        too_long=too_long,
        max_chars=max_chars,
        shard_rows=shard_rows,
        file_format=file_format,
    )
    quiet()
    source = open_corpus(
        inputs,
        dataset=dataset,
        config=config,
        split=split,
        revision=dataset_revision,
        column=column,
        id_column=id_column,
    )
    if not as_json:
        say(f"Embedding {source.name} with {encoder} …")
        say_dtype(dtype, devices[0] if devices else None)
    try:
        with _shown_progress() as show:
            summary = embed_corpus(source, target, settings, devices=devices, on_progress=show)
    except KeyboardInterrupt:
        say("Stopped. What is done is kept: run the same command again, and it goes on from there.")
        raise typer.Exit(130) from None
    if as_json:
        print_json({"output": str(target), **summary})
        return
    left_out = f"; {summary['rejected']:,} rows were left out" if summary["rejected"] else ""
    cut = f"; {summary['truncated']:,} texts were truncated" if summary["truncated"] else ""
    recorded = f" ({target / 'rejected'})" if left_out or cut else ""
    text = f"{summary['embedded']:,} vectors in {summary['shards']:,} shards in {target}{left_out}{cut}{recorded}"
    output.print(text, soft_wrap=True, markup=False)


@contextmanager
def _shown_progress() -> Iterator[Callable[[Progress], None]]:
    """A bar where standard error is a terminal, and elsewhere a line now and then."""
    if not messages.is_terminal:
        yield _lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("Embedding"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=messages, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.rows, total=progress.total, description=_speed(progress))

        yield show


def _lines() -> Callable[[Progress], None]:
    """A line at the beginning, which says how much earlier runs have done, and then one now and then."""
    last: float | None = None

    def show(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if last is not None and now - last < SECONDS_BETWEEN_LINES:
            return
        total = f" of {progress.total:,}" if progress.total is not None else ""
        speed = " are done" if last is None else f", {_speed(progress)}"
        say(f"{progress.rows:,}{total} rows{speed}")
        last = now

    return show


def _speed(progress: Progress) -> str:
    speed = f"{progress.texts_per_second:,.0f} texts/s, {progress.tokens_per_second:,.0f} tokens/s"
    return speed if progress.seconds_left is None else f"{speed}, {_duration(progress.seconds_left)} left"


def _duration(seconds: float) -> str:
    """Two units, which are enough: 3 d 4 h, 2 h 5 min, 1 min 10 s."""
    left: Any = round(seconds)
    for unit, next_unit, size, next_size in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if left >= size:
            return f"{left // size} {unit} {left % size // next_size} {next_unit}"
    return f"{left} s"
