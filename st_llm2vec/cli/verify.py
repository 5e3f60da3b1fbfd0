"""``st-llm2vec verify``: does this copy of a published model give what its authors published?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from st_llm2vec.cli.app import app
from st_llm2vec.cli.options import AsJson, Dtype, Revision, check_dtype, print_json, say_dtype
from st_llm2vec.console import output, plain_table, quiet, say

if TYPE_CHECKING:
    from st_llm2vec.encoder import TextEncoder
    from st_llm2vec.references import Verification


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
    """Compare a model that you have with the values its authors published; without MODEL, list what is known.

    The exit code is 1 where a value is farther away than the tolerance.
    """
    from st_llm2vec.references import ExpectedVectors, find_reference, references, verify_similarities, verify_vectors

    if model is None:
        names = list(references())
        print_json(names) if as_json else output.print("\n".join(names), highlight=False)
        return
    check_dtype(dtype)
    if expected is not None and reference is not None:
        raise ValueError("Give --expected or --reference, not both.")
    wanted = find_reference(reference or model) if expected is None else ExpectedVectors.read(expected)
    quiet()
    if not as_json:
        say(f"Loading {model} …")
        say_dtype(dtype, device)
    encoder = _open(model, recipe, {"mntp": mntp, "base": base}, dtype=dtype, device=device, revision=revision)
    if isinstance(wanted, ExpectedVectors):
        found = verify_vectors(encoder, wanted, tolerance)
    else:
        found = verify_similarities(encoder, wanted)
    print_json(found.to_dict()) if as_json else _show(found)
    if not found.passed:
        raise typer.Exit(1)


def _open(model: str, recipe: str | None, parts: dict[str, str | None], **options: Any) -> TextEncoder:
    """An encoder is loaded, a published checkpoint imported."""
    from st_llm2vec.checkpoints.load import load
    from st_llm2vec.checkpoints.manifest import MANIFEST_NAME
    from st_llm2vec.importing import from_published
    from st_llm2vec.importing.source import fetch

    revision = {"revision": options["revision"]} if options["revision"] else {}
    if fetch(model, revision).has(MANIFEST_NAME):
        return load(model, **options)
    return from_published(model, recipe, **parts, **options)


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
