"""The command line: ``st-llm2vec convert``, ``inspect``, ``encode``, ``recipes`` and ``demo``."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from st_llm2vec import __version__
from st_llm2vec.console import (
    encoder_view,
    fail,
    inspection_view,
    output,
    progress_bar,
    quiet,
    recipes_view,
    say,
    vectors_view,
)

if TYPE_CHECKING:
    from st_llm2vec.corpus_io import Corpus
    from st_llm2vec.encoder import TextEncoder

DTYPES = ("float32", "float16", "bfloat16")
PREVIEW = 20
BATCHES_PER_CHUNK = 16


class SentenceGroup(TyperGroup):
    """Commands whose errors are one sentence on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            if ctx.params.get("debug"):
                raise
            fail(str(error))
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=SentenceGroup,
    help="Turn any decoder-only language model into a text encoder for Sentence Transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to standard output.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """Handle what all commands share."""


@app.command()
def convert(
    decoder: Annotated[str, typer.Argument(help="A folder or a name on the Hugging Face Hub.")],
    target: Annotated[Path, typer.Option("--output", "-o", help="Folder for the encoder.")],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A recipe's name or a YAML file.")] = "llm2vec",
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TEXT", help='A bare instruction: query="Find the answer:".')
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Longest input in tokens, template included.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help=f"Weights' type: {', '.join(DTYPES)}.", show_default="as stored")
    ] = None,
    attn_implementation: Annotated[str | None, typer.Option(help="sdpa, eager or flash_attention_2.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe; the value is YAML."),
    ] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Turn a decoder into a text encoder and save it."""
    overrides = _overrides(recipe, prompt or [], changes or [], max_length)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"--dtype {dtype} is not one of {', '.join(DTYPES)}.")
    _check_target(decoder, target)
    quiet()
    from st_llm2vec.conversion import convert as convert_decoder

    if not as_json:
        say(f"Converting {decoder} with the recipe {recipe} …")
    encoder = convert_decoder(
        decoder, recipe, dtype=dtype, attn_implementation=attn_implementation, revision=revision, **overrides
    )
    encoder.save(str(target))
    if not as_json:
        output.print(encoder_view(encoder, str(target)))
        return
    assert encoder.manifest is not None
    _print_json(
        {
            "output": str(target),
            "dimension": encoder.get_embedding_dimension(),
            "layout": encoder.manifest.layout,
            "reason": encoder.manifest.reason,
            "attention": encoder.manifest.attention,
            "config": encoder.manifest.config.to_dict(),
        }
    )


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A folder or a name on the Hugging Face Hub.")],
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a model is, what its attention can be, and what each recipe would make of it."""
    quiet()
    from st_llm2vec.inspection import inspect_model

    found = inspect_model(model, revision=revision)
    if as_json:
        _print_json(found.to_dict())
    else:
        output.print(inspection_view(found))


@app.command()
def encode(
    encoder: Annotated[str, typer.Argument(help="An encoder's folder or its name on the Hugging Face Hub.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Texts.", show_default=False)] = None,
    source: Annotated[
        str | None, typer.Option("--input", "-i", help="A .txt, .jsonl or .parquet file, or - for standard input.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of a .jsonl or .parquet file.", show_default="text")
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .npy, .safetensors or .parquet file.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="A bare instruction.")] = None,
    prompt_name: Annotated[str | None, typer.Option(help="Name of one of the encoder's own prompts.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in a batch.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Encode texts: arguments, the lines of a file or of standard input, or a column of a table.

    Rows stay rows: an empty line is an empty text and has a vector too.

    Without --output the first texts and the beginnings of their vectors are shown.
    A .safetensors file holds the tensor "embeddings", a .parquet file the columns of the input and "embedding".
    """
    from st_llm2vec.corpus_io import open_corpus
    from st_llm2vec.vector_io import check_output

    if prompt is not None and prompt_name is not None:
        raise ValueError("Give --prompt or --prompt-name, not both.")
    if target is not None:
        check_output(target)
    corpus = open_corpus(texts or [], source, column)
    quiet()
    from st_llm2vec.checkpoints.load import load

    loaded = load(encoder)
    options = {"prompt": prompt, "prompt_name": prompt_name, "batch_size": batch_size, "show_progress_bar": False}
    if target is not None:
        _encode_to_file(loaded, corpus, target, options, as_json)
    else:
        _encode_to_screen(loaded, corpus, options, as_json)


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the recipes."""
    if as_json:
        from st_llm2vec.recipes import RECIPES

        _print_json({name: recipe.to_dict() for name, recipe in RECIPES.items()})
    else:
        output.print(recipes_view())


@app.command()
def demo(
    keep: Annotated[
        Path | None, typer.Option(help="Folder to keep the encoder in.", show_default="a temporary one")
    ] = None,
    decoder: Annotated[str | None, typer.Option(help="Another decoder.", show_default="the one in the box")] = None,
) -> None:
    """Convert, search, save, load without this package, and compare."""
    from st_llm2vec.assets import decoder_path

    decoder = decoder or decoder_path()
    if keep is not None:
        _check_target(decoder, keep)
    quiet()
    from st_llm2vec.demo import run_demo

    run_demo(decoder, keep, output)


# Steps --------------------------------------------------------------------------------------------------


def _encode_to_file(encoder: TextEncoder, corpus: Corpus, target: Path, options: dict[str, Any], as_json: bool) -> None:
    from st_llm2vec.vector_io import open_output

    dimension = encoder.get_embedding_dimension() or 0
    rows = 0
    with progress_bar("Encoding", corpus.count()) as advance, open_output(target, corpus, dimension) as writer:
        for chunk in corpus.chunks(BATCHES_PER_CHUNK * options["batch_size"]):
            writer.write(chunk, encoder.encode(chunk.texts, **options))
            rows += len(chunk.texts)
            advance(len(chunk.texts))
        if not rows:
            raise ValueError(f"{corpus.name} holds no texts, so nothing was written.")
    if as_json:
        _print_json({"output": str(target), "rows": rows, "dimension": dimension})
    else:
        output.print(f"{rows:,} vectors of {dimension} dimensions in {target}", soft_wrap=True, markup=False)


def _encode_to_screen(encoder: TextEncoder, corpus: Corpus, options: dict[str, Any], as_json: bool) -> None:
    chunks = corpus.chunks(BATCHES_PER_CHUNK * options["batch_size"] if as_json else PREVIEW)
    texts = [text for chunk in (chunks if as_json else itertools.islice(chunks, 1)) for text in chunk.texts]
    if not texts:
        raise ValueError(f"{corpus.name} holds no texts.")
    vectors = encoder.encode(texts, **options)
    if as_json:
        _print_json({"dimension": vectors.shape[1], "vectors": vectors.astype("float32").tolist()}, indent=None)
        return
    total = corpus.count()
    if total is None and next(chunks, None) is None:
        total = len(texts)
    output.print(vectors_view(texts, vectors, total))


def _overrides(recipe: str, prompts: list[str], changes: list[str], max_length: int | None) -> dict[str, Any]:
    """The recipe's fields that the options change, checked before anything slow begins."""
    from st_llm2vec.recipes import get_recipe

    base = get_recipe(recipe)
    overrides = dict(_changed_field(change) for change in changes)
    if max_length is not None:
        overrides["max_length"] = max_length
    try:
        if prompts:
            given = dict(_pair("--prompt", one) for one in prompts)
            overrides["prompts"] = {**base.prompts, **overrides.get("prompts", {}), **given}
        base.replace(**overrides)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"The changes {overrides!r} do not fit the recipe {base.name!r}: {error}.") from error
    return overrides


def _changed_field(change: str) -> tuple[str, Any]:
    import yaml

    field, value = _pair("--set", change)
    try:
        return field, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {change}: the value is not YAML ({' '.join(str(error).split())}).") from error


def _check_target(decoder: str, target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; give a folder for the encoder.")
    if target.is_dir() and Path(decoder).is_dir() and target.samefile(decoder):
        raise ValueError(f"{target} is the decoder's own folder, which the encoder would overwrite; give another one.")


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{option} {text!r} is not of the form NAME=VALUE.")
    return name, value


def _print_json(data: Any, indent: int | None = 2) -> None:
    typer.echo(json.dumps(data, ensure_ascii=False, indent=indent))
