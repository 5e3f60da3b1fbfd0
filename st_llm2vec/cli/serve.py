"""``st-llm2vec serve``: an encoder behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import quiet
from st_llm2vec.cli.options import EncoderName


@app.command()
def serve(
    encoder: EncoderName,
    host: Annotated[str, typer.Option(help="Where it listens; 0.0.0.0 is every network of the machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port.")] = 8000,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Answer OpenAI's clients at /v1/embeddings with an encoder's vectors; the models are "query" and "document"."""
    if importlib.util.find_spec("litserve") is None:
        raise ValueError("Serving needs the package litserve: `pip install st-llm2vec[serve]`.")
    quiet()
    from st_llm2vec.inspection import is_encoder
    from st_llm2vec.serving.openai_server import build_server

    if not is_encoder(encoder):
        raise ValueError(f"{encoder} is no encoder: no modules.json was found there. `st-llm2vec convert` makes one.")
    build_server(encoder, accelerator).run(host=host, port=port, generate_client_file=False)
