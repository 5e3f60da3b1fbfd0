"""``st-llm2vec evaluate layers``: which layer a recipe should pool."""

from __future__ import annotations

from math import isnan
from typing import Annotated

import typer

from st_llm2vec.cli.console import output, plain_table, progress_bar, quiet
from st_llm2vec.cli.evaluate import evaluate
from st_llm2vec.cli.options import AsJson, Dtype, ModelName, print_json, say_dtype


@evaluate.command()
def layers(
    model: ModelName,
    dev: Annotated[str, typer.Option(help="Pairs of sentences with scores to choose by: a file, or `stsb`.")],
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="What a decoder becomes; an encoder is what it is.")
    ] = "prompteol",
    limit: Annotated[int, typer.Option(min=2, help="Take the first pairs only.")] = 500,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Score every layer in one pass, as if the recipe pooled it. Choose by a dev set: this is a setting like any other."""
    quiet()
    from st_llm2vec.conversion.convert import convert
    from st_llm2vec.demonstrations.candidates import read_scored_pairs
    from st_llm2vec.evaluation.layer_choice import layer_scores
    from st_llm2vec.folder.load import load
    from st_llm2vec.inspection import is_encoder

    pairs = read_scored_pairs(dev, limit)
    if not as_json:
        say_dtype(dtype)
    known = is_encoder(model)
    encoder = load(model, dtype=dtype) if known else convert(model, recipe, dtype=dtype, measure=False)
    with progress_bar(f"Layers of {model}", 2 * len(pairs)) as advance:
        scores = layer_scores(encoder, pairs.first, pairs.second, pairs.scores, advance=advance)
    found = {-1 - place: score for place, score in enumerate(scores)}
    best = max((layer for layer in found if not isnan(found[layer])), key=lambda layer: found[layer])
    if as_json:
        written = {str(layer): None if isnan(score) else score for layer, score in found.items()}
        print_json({"model": model, "dev": dev, "pairs": len(pairs), "spearman": written, "best": best})
        return
    table = plain_table("layer", "Spearman", "")
    for layer, score in found.items():
        place = "the model's output" if layer == -1 else "the embeddings" if layer == -len(found) else ""
        table.add_row(str(layer), f"{score:.1f}", f"best; {place}".rstrip("; ") if layer == best else place)
    output.print(table)
    if best != -1 and not known:
        output.print(f"st-llm2vec convert {model} --recipe {recipe} --set layer={best} --output FOLDER", markup=False)
