"""The whole way in half a minute: convert, search, save, load without this package, compare."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from st_llm2vec.assets import decoder_path
from st_llm2vec.cli.console import describe_probe, shorten
from st_llm2vec.conversion.convert import convert
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.fresh_process import read_without_package
from st_llm2vec.proof.tolerances import VECTORS

RECIPE = "llm2vec"
CORPUS = Path(__file__).parents[1] / "assets" / "corpus.jsonl"
QUERIES = (
    "How did sailors find their way on the open sea?",
    "birds that fly south before the winter",
    "How is a violin made?",
    "Where does the light of the moon come from?",
    "a doctor comes to see a sick child",
)
SHOWN = 3


def run_demo(decoder: str, keep: Path | None, console: Console) -> None:
    """Show what the package does, step by step, and check its main promise.

    Args:
        decoder: The decoder's folder or name.
        keep: Where to keep the encoder; a temporary folder if not given.
        console: Where to print.

    Raises:
        ValueError: If the saved encoder cannot be read without this package, or gives other vectors there.
    """
    passages = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    texts = [passage["text"] for passage in passages]
    encoder = _convert(decoder, console)

    started = time.perf_counter()
    vectors = encoder.encode([*texts, *QUERIES], show_progress_bar=False)
    seconds = time.perf_counter() - started
    _step(console, 2, "Encode", f"{len(texts)} short passages and {len(QUERIES)} queries in {seconds:.1f} s.")
    _step(console, 3, "Search", f"The {SHOWN} nearest passages to each query, by cosine.")
    _show_results(passages, vectors[: len(texts)], vectors[len(texts) :], console)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(keep or Path(temporary) / "encoder")
        encoder.save(str(folder))
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        where = f" in {folder}" if keep else ""
        _step(console, 4, "Save", f"A complete folder of {size:.1f} MB{where}.")
        _step(
            console,
            5,
            "Load elsewhere",
            "A new process, in which st_llm2vec cannot be imported, encodes the same texts …",
        )
        assert encoder.manifest is not None
        custom = encoder.manifest.layout == "custom"
        elsewhere = read_without_package(folder, [*texts, *QUERIES], trust_remote_code=custom).vectors[0]
    distance = largest_cosine_distance(vectors, elsewhere)
    loader = "SentenceTransformer with trust_remote_code" if custom else "plain SentenceTransformer"
    if not distance <= VECTORS.full:
        raise ValueError(
            f"The vectors do not agree: the largest cosine distance over {len(vectors)} texts is {distance:.1e}, more than "
            f"{VECTORS.full:.0e} ({loader}, st_llm2vec not importable)."
        )
    line = f"Vectors agree: the largest cosine distance over {len(vectors)} texts is {distance:.1e} "
    console.print(Text.assemble("\n", (line, "bold green"), f"({loader}, st_llm2vec not importable)."))


def _convert(decoder: str, console: Console) -> TextEncoder:
    encoder = convert(decoder, RECIPE)
    manifest = encoder.manifest
    assert manifest is not None
    own = decoder == decoder_path()
    transformer: Any = encoder[0]
    parameters = sum(parameter.numel() for parameter in transformer.parameters())
    name = "the decoder in the box" if own else decoder
    _step(
        console,
        1,
        "Convert",
        f"{name[0].upper()}{name[1:]} ({manifest.base['architecture']}, {parameters:,} parameters) with the recipe {RECIPE}.",
    )
    _note(console, f"Attention, proven: {describe_probe(manifest.attention)}.")
    _note(console, f"Modules: {' → '.join(type(module).__name__ for module in encoder)}.")
    if own:
        _note(console, "It is tiny and has had no training as an encoder, so expect hits and misses.")
    return encoder


def _show_results(passages: list[dict[str, str]], corpus: np.ndarray, queries: np.ndarray, console: Console) -> None:
    for query, scores in zip(QUERIES, queries @ corpus.T, strict=True):  # of length one, so these are cosines
        console.print(Text(f"\n   {query}", "bold"))
        for row in np.argsort(-scores)[:SHOWN]:
            title = f"{passages[row]['title']:<20}  "
            text = shorten(passages[row]["text"], console.width - 34)
            console.print(Text.assemble(f"   {scores[row]:.3f}  ", (title, "cyan"), (text, "dim")), soft_wrap=True)
    console.print()


def _step(console: Console, number: int, name: str, text: str) -> None:
    console.print(Text.assemble((f"{number}  {name}  ", "bold"), text))


def _note(console: Console, text: str) -> None:
    console.print(Text(f"   {text}", style="dim"))
