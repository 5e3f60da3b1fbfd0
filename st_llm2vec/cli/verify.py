"""``st-llm2vec verify``: is a folder what was saved, and does a copy of a published model give what its authors published?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import output, plain_table, quiet, say
from st_llm2vec.cli.options import AsJson, Dtype, Revision, print_json, say_dtype

if TYPE_CHECKING:
    from st_llm2vec.folder.encoder import TextEncoder
    from st_llm2vec.importing.checkpoint import Checkpoint
    from st_llm2vec.importing.references import Reference, Verification


@app.command()
def verify(
    model: Annotated[
        str | None, typer.Argument(help="An encoder, or a published checkpoint: a folder or a name on the Hub.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Compare with what was published for this model.", show_default="for MODEL")
    ] = None,
    expected: Annotated[
        Path | None, typer.Option(help="Compare with vectors in a JSON file: texts, instruction, documents, queries.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Largest cosine distance from the vectors of --expected.")] = 1e-6,
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="For checkpoints, as in import.")] = None,
    mntp: Annotated[str | None, typer.Option(help="For LLM2Vec checkpoints, as in import.")] = None,
    base: Annotated[str | None, typer.Option(help="For adapters, as in import.")] = None,
    dtype: Dtype = None,
    device: Annotated[str | None, typer.Option(help="Device, e.g. cuda.", show_default="chosen")] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Verify an encoder's folder, or compare a published model with its authors' values; without MODEL, list what is known.

    The weights, tokenizer and settings of an encoder's folder are compared, bit by bit, with what was saved, its modules and
    its attention with what it says of itself. The exit code is 1 where something differs, or is farther from the authors'
    values than the tolerance.
    """
    from st_llm2vec.importing.checkpoint import fetch
    from st_llm2vec.importing.references import ExpectedVectors, references, verify_similarities, verify_vectors

    if model is None:
        names = list(references())
        print_json(names) if as_json else output.print("\n".join(names), highlight=False)
        return
    if expected is not None and reference is not None:
        raise ValueError("Give --expected or --reference, not both.")
    checkpoint = fetch(model, {"revision": revision} if revision else {})
    wanted = _wanted(checkpoint, reference) if expected is None else ExpectedVectors.read(expected)
    quiet()
    if not as_json:
        say(f"Loading {model} …")
        say_dtype(dtype, device)
    parts: dict[str, Any] = {"mntp": mntp, "base": base}
    encoder = _open(checkpoint, recipe, parts, dtype=dtype, device=device, revision=revision)
    if wanted is None:
        print_json({"model": model, **_of_itself(encoder), "passed": True}) if as_json else _show_folder(model, encoder)
        return
    if isinstance(wanted, ExpectedVectors):
        found = verify_vectors(encoder, wanted, tolerance)
    else:
        found = verify_similarities(encoder, wanted)
    print_json(found.to_dict()) if as_json else _show(found)
    if not found.passed:
        raise typer.Exit(1)


def _wanted(checkpoint: Checkpoint, reference: str | None) -> Reference | None:
    """The published values to compare with; none for an encoder's folder that is to be held against itself."""
    from st_llm2vec.importing.references import find_reference

    try:
        return find_reference(reference or checkpoint.name)
    except ValueError:
        if reference is None and checkpoint.has("modules.json"):
            return None
        raise


def _open(checkpoint: Checkpoint, recipe: str | None, parts: dict[str, Any], **options: Any) -> TextEncoder:
    """An encoder is loaded, and held against what was saved; a published checkpoint is imported."""
    from st_llm2vec.folder.load import load
    from st_llm2vec.folder.manifest_file import MANIFEST_NAME
    from st_llm2vec.importing import detect_recipe, from_published

    if checkpoint.has(MANIFEST_NAME):
        return load(checkpoint.name, verify=None, **options)
    if recipe is None and checkpoint.has("modules.json"):
        try:
            detect_recipe(checkpoint)
        except ValueError:
            return load(checkpoint.name, **options)
    return from_published(checkpoint.name, recipe, **parts, **options)


def _of_itself(encoder: TextEncoder) -> dict[str, Any]:
    """What was held against each other when the encoder was loaded, all of which agreed."""
    from st_llm2vec.folder.check_loaded import compares_base

    manifest = encoder.manifest
    adapters = getattr(encoder.transformer.model, "peft_config", None) or {}
    return {
        "checksums": sorted(manifest.checksums) if manifest is not None else [],
        "manifest": manifest is not None,
        "recipe": manifest.config.name if manifest is not None else None,
        "weights": sum(1 for _ in encoder.parameters()),
        "base_compared": compares_base(encoder),
        "base": next((one.base_model_name_or_path for one in adapters.values()), None),
    }


def _show_folder(model: str, encoder: TextEncoder) -> None:
    found = _of_itself(encoder)
    if found["checksums"]:
        say(f"sha256: {', '.join(found['checksums'])} are what was saved, to the bit.")
    else:
        say("sha256: there is no checksum; an earlier version or plain Sentence Transformers saved the folder.")
    if found["base_compared"]:
        say(f"base: {found['base']} holds the weights that the adapter was saved on, by the fingerprint that was kept.")
    elif found["base"]:
        say(f"sha256: the adapter's base, {found['base']}, is not part of the folder and was not compared.")
    say(f"weights: {found['weights']} tensors, none missing, none unused, all finite.")
    if found["manifest"]:
        say(f"modules: they are what st_llm2vec.json says of the recipe {found['recipe']}.")
    else:
        say("modules: there is no st_llm2vec.json to hold them against.")
    output.print(Text(f"{model} is what it says.", style="bold green"), soft_wrap=True)


def _show(found: Verification) -> None:
    table = plain_table("value", "published", "here", "difference", "")
    for one in found.comparisons:
        difference = abs(one.found - one.expected)
        verdict = Text("agrees", style="green") if one.passed else Text("differs", style="bold red")
        table.add_row(one.what, f"{one.expected:.4f}", f"{one.found:.4g}", f"{difference:.1e}", verdict)
    output.print(table)
    answer = "agrees" if found.passed else "does not agree"
    line = f"It {answer} with {found.reference} ({found.source}; tolerance {found.tolerance:g})."
    output.print(Text(line, style="bold green" if found.passed else "bold red"), soft_wrap=True)
