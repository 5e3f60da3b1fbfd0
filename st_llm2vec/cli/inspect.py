"""``st-llm2vec inspect`` and ``st-llm2vec recipes``: what a model is, and what it could become."""

from __future__ import annotations

from typing import Annotated

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import encoder_inspection_view, inspection_view, output, quiet, recipes_view, say
from st_llm2vec.cli.options import AsJson, ModelName, Revision, print_json


@app.command()
def inspect(
    model: ModelName,
    measure: Annotated[
        bool | None,
        typer.Option(
            "--measure/--no-measure",
            help="Read built-in sentences with attention freed, and score every recipe on them, untrained.",
            show_default="for a minute, if a GPU is there or the model is small",
        ),
    ] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a model is, what its attention can be, and what each recipe would make of it; or what an encoder is."""
    quiet()
    from st_llm2vec.inspection import inspect_encoder, inspect_model, is_encoder

    progress = (lambda step: None) if as_json else say
    hub = {"revision": revision} if revision is not None else {}
    if is_encoder(model, **hub):
        encoder = inspect_encoder(model, progress=progress, **hub)
        print_json(encoder.to_dict()) if as_json else output.print(encoder_inspection_view(encoder))
        return
    found = inspect_model(model, measure=measure, revision=revision, progress=progress)
    if as_json:
        print_json(found.to_dict())
    else:
        output.print(inspection_view(found))


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the recipes."""
    if as_json:
        from st_llm2vec.recipe.config import RECIPES

        print_json({name: recipe.to_dict() for name, recipe in RECIPES.items()})
    else:
        output.print(recipes_view())
