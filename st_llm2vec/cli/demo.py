"""``st-llm2vec demo``: the whole way once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import output, quiet
from st_llm2vec.cli.options import check_target


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
        check_target(decoder, keep)
    quiet()
    from st_llm2vec.cli.walkthrough import run_demo

    run_demo(decoder, keep, output)
