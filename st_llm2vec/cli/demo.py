"""``st-llm2vec demo``: the whole way once, or a page to try recipes on."""

from __future__ import annotations

import importlib.util
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import messages, output, quiet, say
from st_llm2vec.cli.options import Dtype, Overwrite, check_target, say_dtype

HOST, PORT = "127.0.0.1", 7860


@app.command()
def demo(
    keep: Annotated[
        Path | None, typer.Option(help="Folder to keep the encoder in.", show_default="a temporary one")
    ] = None,
    decoder: Annotated[
        list[str] | None,
        typer.Option(
            help="Another decoder; with --web several, and saved encoders.", show_default="the one in the box"
        ),
    ] = None,
    overwrite: Overwrite = False,
    web: Annotated[bool, typer.Option("--web", help="Serve a page to compare recipes on texts of your own.")] = False,
    host: Annotated[
        str | None, typer.Option(help="Where the page listens; 0.0.0.0 is every network.", show_default=HOST)
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The page's port; 0 is any.", show_default=str(PORT))
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    dtype: Dtype = None,
) -> None:
    """Convert, search, save, load without this package, and compare; or serve a page where recipes stand side by side."""
    from st_llm2vec.assets import decoder_path

    decoders = decoder or [decoder_path()]
    if web:
        if keep is not None:
            raise ValueError("--keep is not for --web, which saves nothing. Use `st-llm2vec convert`.")
        _serve(decoders, host or HOST, PORT if port is None else port, browser, dtype)
        return
    given = {"--host": host, "--port": port, "--dtype": dtype, "--open": browser or None}
    for option, value in given.items():
        if value is not None:
            raise ValueError(f"{option} is for the page: add --web.")
    if len(decoders) > 1:
        raise ValueError("The demo shows one decoder; --web compares several.")
    if keep is not None:
        check_target(decoders[0], keep, overwrite)
    quiet()
    from st_llm2vec.cli.walkthrough import run_demo

    run_demo(decoders[0], keep, output)


def _serve(names: list[str], host: str, port: int, browser: bool, dtype: str | None) -> None:
    """Load the models, so that those that cannot be loaded are refused here, and serve the page."""
    if any(importlib.util.find_spec(package) is None for package in ("starlette", "uvicorn")):
        raise ValueError('The page needs Starlette and uvicorn: `pip install "st-llm2vec[web]"`.')
    quiet()
    from st_llm2vec.playground.models import FIRST, Models
    from st_llm2vec.playground.server import is_loopback, serve_page

    say_dtype(dtype)
    models = Models(names, dtype)
    for model in (*models.decoders, *models.encoders):
        say(f"Loading {model}")
        with models.opened(model, FIRST[0] if model in models.decoders else None):
            pass
    if not is_loopback(host):
        messages.print(
            f"The page listens at {host}: whoever reaches this machine there can use it and make it compute. It has no "
            "password, and what is typed crosses the network unencrypted.",
            style="yellow",
            soft_wrap=True,
        )

    def ready(address: str) -> None:
        output.print(f"The page is at {address} (Ctrl+C ends it).", soft_wrap=True)
        if browser:
            webbrowser.open(address)

    serve_page(models, host, port, ready)
