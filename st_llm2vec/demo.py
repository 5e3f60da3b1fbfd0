"""The whole way in half a minute: convert, search, save, load without this package, compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from st_llm2vec.assets import decoder_path
from st_llm2vec.console import describe_probe, shorten
from st_llm2vec.conversion import convert
from st_llm2vec.encoder import TextEncoder

RECIPE = "llm2vec"
CORPUS = Path(__file__).parent / "assets" / "corpus.jsonl"
QUERIES = (
    "How did sailors find their way on the open sea?",
    "birds that fly south before the winter",
    "How is a violin made?",
    "Where does the light of the moon come from?",
    "a doctor comes to see a sick child",
)
SHOWN = 3
TOLERANCE = 1e-6

# Runs with -I, so that neither the current folder nor PYTHONPATH brings this package back, and then makes sure of it.
PLAIN_READER = """
import importlib.abc, json, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "st_llm2vec":
            raise ModuleNotFoundError("st_llm2vec is kept out here", name=name)

sys.meta_path.insert(0, Refuse())
request = json.load(sys.stdin)
sys.path.extend(entry for entry in request["path"] if entry not in sys.path)
try:
    import st_llm2vec
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("st_llm2vec could be imported, so the comparison would prove nothing.")

import numpy
from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer(request["folder"], trust_remote_code=request["trust_remote_code"])
numpy.save(request["output"], encoder.encode(request["texts"], show_progress_bar=False))
"""


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
        elsewhere = encode_without_package(folder, [*texts, *QUERIES], Path(temporary) / "vectors.npy", custom)
    distance = largest_cosine_distance(vectors, elsewhere)
    loader = "SentenceTransformer with trust_remote_code" if custom else "plain SentenceTransformer"
    if not distance <= TOLERANCE:
        raise ValueError(
            f"The vectors do not agree: the largest cosine distance over {len(vectors)} texts is {distance:.1e}, more than "
            f"{TOLERANCE:.0e} ({loader}, st_llm2vec not importable)."
        )
    line = f"Vectors agree: the largest cosine distance over {len(vectors)} texts is {distance:.1e} "
    console.print(Text.assemble("\n", (line, "bold green"), f"({loader}, st_llm2vec not importable)."))


def encode_without_package(folder: Path, texts: list[str], output: Path, trust_remote_code: bool) -> np.ndarray:
    """Encode with ``SentenceTransformer`` in a process of its own, offline, where this package cannot be imported.

    Args:
        folder: The saved encoder.
        texts: The texts.
        output: A file for the vectors.
        trust_remote_code: Whether the folder's own module file may run, which custom layouts need.

    Returns:
        The vectors, of shape ``(texts, dimension)``.

    Raises:
        ValueError: If the folder cannot be read there.
    """
    request = {
        "folder": str(folder.absolute()),
        "texts": texts,
        "output": str(output),
        "trust_remote_code": trust_remote_code,
        "path": [entry for entry in sys.path if Path(entry).is_absolute()],
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN_READER],
        input=json.dumps(request),
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ValueError(f"SentenceTransformer could not read {folder} without st_llm2vec: {reason}")
    return np.load(output)


def largest_cosine_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The largest cosine distance between rows of the same number.

    Example:
        >>> largest_cosine_distance(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]]))
        0.04
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    distances = 1 - (first * second).sum(axis=1) / lengths
    return float(np.maximum(distances, 0).max().round(15))


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
