"""``st-llm2vec convert``: a decoder and a recipe, turned into an encoder in a folder."""

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
    ModelName,
    Overwrite,
    Prompts,
    Revision,
    check_target,
    pair,
    say_dtype,
    show_encoder,
)


@app.command()
def convert(
    decoder: ModelName,
    target: EncoderFolder,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A recipe's name or a YAML file.")] = "llm2vec",
    prompt: Prompts = None,
    max_length: MaxLength = None,
    dtype: Dtype = None,
    attn_implementation: Annotated[str | None, typer.Option(help="sdpa, eager or flash_attention_2.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe; the value is YAML."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="Warn where the recipe makes near-useless vectors untrained."),
    ] = True,
    revision: Revision = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Turn a decoder into a text encoder and save it."""
    overrides = _overrides(recipe, prompt or [], changes or [], max_length)
    check_target(decoder, target, overwrite)
    quiet()
    from st_llm2vec.conversion.convert import convert as convert_decoder

    if not as_json:
        say(f"Converting {decoder} with the recipe {recipe} …")
        say_dtype(dtype)
    encoder = convert_decoder(
        decoder,
        recipe,
        dtype=dtype,
        attn_implementation=attn_implementation,
        revision=revision,
        measure=measure,
        **overrides,
    )
    encoder.save(str(target))
    show_encoder(encoder, target, ("layout", "reason", "attention"), as_json)


def _overrides(recipe: str, prompts: list[str], changes: list[str], max_length: int | None) -> dict[str, Any]:
    """The recipe's fields that the options change, checked before anything slow begins."""
    from st_llm2vec.recipe.config import get_recipe

    base = get_recipe(recipe)
    overrides = dict(_changed_field(change) for change in changes)
    if max_length is not None:
        overrides["max_length"] = max_length
    try:
        if prompts:
            given = dict(pair("--prompt", one) for one in prompts)
            overrides["prompts"] = {**base.prompts, **overrides.get("prompts", {}), **given}
        base.replace(**overrides)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"The changes {overrides!r} do not fit the recipe {base.name!r}: {error}.") from error
    return overrides


def _changed_field(change: str) -> tuple[str, Any]:
    import yaml

    field, value = pair("--set", change)
    try:
        return field, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {change}: the value is not YAML ({' '.join(str(error).split())}).") from error
