"""``st-llm2vec import``: a published checkpoint of another project, brought home as an encoder in a folder."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import quiet, say
from st_llm2vec.cli.options import (
    AsJson,
    Dtype,
    EncoderFolder,
    MaxLength,
    Overwrite,
    Prompts,
    Revision,
    check_target,
    pair,
    say_dtype,
    show_encoder,
)


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A folder or a name on the Hugging Face Hub.")],
    target: EncoderFolder,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="What it was made with.", show_default="seen from its files")
    ] = None,
    mntp: Annotated[
        str | None,
        typer.Option(
            help="LLM2Vec: folder or name of the MNTP adapter, which stands between --base and SOURCE.",
            show_default="the one published beside it",
        ),
    ] = None,
    no_mntp: Annotated[bool, typer.Option("--no-mntp", help="LLM2Vec: the adapter stands on no MNTP adapter.")] = False,
    base: Annotated[
        str | None,
        typer.Option(
            help="Folder or name of the decoder below all adapters; for LLM2Vec give --mntp too, if it is a local copy.",
            show_default="the one that the adapter names",
        ),
    ] = None,
    prompt: Prompts = None,
    max_length: MaxLength = None,
    dtype: Dtype = None,
    revision: Revision = None,
    allow_pickles: Annotated[
        bool, typer.Option("--allow-pickles", help="Read weights from a pickle where there are no safetensors.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Import a checkpoint of LLM2Vec, NV-Embed, GritLM, E5-Mistral, Echo, bge-en-icl or SGPT; none of its code is run."""
    if mntp is not None and no_mntp:
        raise ValueError("Give --mntp or --no-mntp, not both.")
    check_target(source, target, overwrite)
    options: dict[str, Any] = {"dtype": dtype, "revision": revision, "allow_pickles": allow_pickles}
    if prompt:
        options["prompts"] = dict(pair("--prompt", one) for one in prompt)
    if max_length is not None:
        options["max_length"] = max_length
    quiet()
    from st_llm2vec.importing import from_published

    if not as_json:
        say(f"Importing {source} …")
        say_dtype(dtype)
    encoder = from_published(source, recipe, mntp=False if no_mntp else mntp, base=base, **options)
    encoder.save(str(target))
    show_encoder(encoder, target, ("layout", "base", "stages"), as_json)
