"""``st-llm2vec publish``: an encoder, verified, on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import facts, output, plain_table, quiet, say
from st_llm2vec.cli.options import AsJson, EncoderName, print_json

if TYPE_CHECKING:
    from st_llm2vec.publishing import Publication


@app.command()
def publish(
    encoder: EncoderName,
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Where to publish it.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; it is made if it is not there.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request.")] = False,
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="The repository may hold something already.")] = False,
    replace_card: Annotated[
        bool, typer.Option("--replace-card", help="Replace a model card that is there; it is kept otherwise.")
    ] = False,
    card: Annotated[Path | None, typer.Option(help="A model card of your own.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Evaluation results for the card: a JSON file, MTEB's own too.")
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            help="The decoder's name on the Hub, org/name, if a local copy was converted; it is not looked up."
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="The licence.", show_default="that of the base model")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="The commit's first line.")] = None,
    max_shard_size: Annotated[str, typer.Option(help="Largest file of weights.")] = "5GB",
    check: Annotated[
        bool, typer.Option("--check", help="Run `st-llm2vec check` too; its table goes into the card.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write and verify, list files and sizes, upload nothing.")
    ] = False,
    keep: Annotated[Path | None, typer.Option("--output", "-o", help="Keep the published folder here too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Publish an encoder: adapters merged, verified in a fresh process without this package, in one commit.

    The token is that of `hf auth login`, or HF_TOKEN.
    """
    quiet()
    from st_llm2vec.publishing import publish as publish_encoder

    try:
        published = publish_encoder(
            encoder,
            repo_id,
            private=private or None,
            revision=revision,
            create_pr=create_pr,
            exist_ok=exist_ok,
            replace_model_card=replace_card,
            model_card_file=card,
            results=results,
            base_model=base_model,
            license=licence,
            commit_message=message,
            max_shard_size=max_shard_size,
            check_all=check,
            dry_run=dry_run,
            output=keep,
            progress=(lambda step: None) if as_json else say,
        )
    except KeyboardInterrupt:
        say(
            f"Stopped. {repo_id} holds all of it or nothing of it, since one commit brings it in the end. Run the same command "
            "again, with --exist-ok if it is there; what has arrived is not sent twice."
        )
        raise typer.Exit(130) from None
    if as_json:
        print_json(published.to_dict())
    else:
        _show(published, encoder, base_model, keep)


def _show(published: Publication, encoder: str, base_model: str | None, kept: Path | None) -> None:
    table = plain_table("file", "size")
    table.columns[1].justify = "right"
    for name, size in published.files.items():
        table.add_row(name, decimal(size))
    output.print(table)
    rows = {
        "in all": f"{len(published.files)} files, {decimal(sum(published.files.values()))}",
        "model card": published.card,
        "vectors": f"agree to {published.check.distance:.1e}, {published.check.tolerance:.0e} is allowed, over {published.check.texts} "
        "texts (plain SentenceTransformer, st_llm2vec not importable)",
        "attention": published.check.probe.describe(),
        "published": published.url or f"nothing: this was a dry run for {published.repo_id}",
    }
    if base_model is not None and published.url is None:
        rows["base model"] = f"{base_model}, believed: it was not looked up on the Hub"
    if kept is not None:
        rows["kept in"] = str(kept)
    rows["serve it with"] = f"st-llm2vec serve {published.repo_id if published.url else encoder}"
    if published.removed:
        rows["removed"] = ", ".join(published.removed)
    output.print(facts(dict(rows)))
