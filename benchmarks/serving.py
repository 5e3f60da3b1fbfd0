"""Encoders in vLLM, llama.cpp and ONNX Runtime beside plain Sentence Transformers, and whether what is said of each is true.

    make test-serving                    # builds the environments, and runs this with ONNX Runtime and OpenAI's client
    python -m benchmarks.serving         # every row that is not there yet, then the table in docs/serving.md

Each row is an encoder, converted and saved in a process of its own and served from its folder with the command that its
verdict prints. Rows are kept in benchmarks/results/serving.jsonl; `--again` measures all anew. ST_LLM2VEC_VLLM and
ST_LLM2VEC_LLAMA_CPP name where the servers are; what is not there is marked as not run. It ends with an error if a verdict
and a measurement disagree.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept_rows import ROOT, Row, measure_rows, parse
from st_llm2vec import RECIPES, TextEncoder, convert, decoder_path, export_gguf, export_onnx
from st_llm2vec.encoding.dtype import processor_name
from st_llm2vec.layouts.special_tokens import special_tokens
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.texts import TEXTS
from st_llm2vec.serving.gguf_tokenizer import CannotExport
from st_llm2vec.serving.llama_cpp import find_llama_cpp, llama_cpp_vectors
from st_llm2vec.serving.verdicts import Verdict, verdicts
from tests.real.models import MODELS, NAMES
from tests.served.vllm_server import DoesNotStart, find_vllm, vllm_server

MODULE = "benchmarks.serving"
RESULTS = ROOT / "benchmarks" / "results" / "serving.jsonl"
FIELDS = ("decoder", "recipe")
TARGET = ROOT / "docs" / "serving.md"
MARKS = ("<!-- written by python -m benchmarks.serving: begin -->\n", "<!-- end -->\n")
DECODERS = {"box": "the decoder in the box", "smollm2": "SmolLM2-135M", "gemma3": "Gemma 3 270M"}
PROMPT = "Find the passage that answers:"
LONG = "the man was in the house and " * 40
READ = [*TEXTS, "  two blanks first", LONG]
SPELT_TEXTS = 20
SPELT = "special tokens that a text spells"
"""What a verdict says of texts that a server reads as control tokens, in any of its sentences."""
TOLERANCES = {"vLLM": 1e-5, "llama.cpp f32": 1e-4, "llama.cpp q8_0": None, "ONNX Runtime": 1e-5}
"""The largest cosine distance that counts as the same; 8 bits are measured only."""
NOT_RUN = ("Text Embeddings Inference", "SGLang", "Ollama")
"""Servers of which no package index has a build for a CPU: their verdicts are from their sources alone."""
RECIPES_SERVED = ("mean", "last-token", "llm2vec", "sgpt", "prompteol", "e5-mistral", "bge-en-icl")
"""The portable ones, but for those whose template alone differs."""
ON_REAL_DECODERS = ("mean", "last-token", "llm2vec")
SERVERS_SHOWN = (*TOLERANCES, *NOT_RUN)
Encode = Callable[[list[str]], np.ndarray]


def measure(name: str, recipe: str) -> Row:
    """One row: an encoder in every server."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "encoder"
        source = decoder_path() if name == "box" else str(MODELS / NAMES[name])
        prompts = {"query": PROMPT} if RECIPES[recipe].instruction_template is not None else {}
        encoder = convert(source, recipe, dtype=torch.float32, prompts=prompts, device="cpu", measure=False)
        encoder.save_pretrained(str(folder))
        said = {one.server: one for one in verdicts(encoder, folder)}
        expected = Expected(encoder, folder)
        cells = [
            *_vllm(said["vLLM"], folder, expected),
            *_llama_cpp(said["llama.cpp"], encoder, Path(place), expected),
            *_onnx(encoder, Path(place), expected),
            *(_cell(name, said[name], not_run=said[name].source) for name in NOT_RUN),
        ]
    machine = f"{processor_name()}, {torch.get_num_threads()} threads, Python {platform.python_version()}"
    return {
        "decoder": name,
        "recipe": recipe,
        "machine": machine,
        "seconds": round(time.perf_counter() - start),
        "cells": cells,
    }


class Expected:
    """What plain Sentence Transformers gives from the saved folder, and how far a server is from it."""

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        plain = SentenceTransformer(str(folder), device="cpu")
        spelt = [f"they said {token} twice" for token in list(special_tokens(encoder.tokenizer))[:SPELT_TEXTS]]
        prompt = plain.prompts.get("query") or ""
        self.sent = {"documents": READ, "queries": [prompt + text for text in READ], "spelt": spelt}
        self.vectors = {
            "documents": plain.encode_document(READ, batch_size=2),
            "queries": plain.encode_query(READ, batch_size=2),
            "spelt": plain.encode_document(spelt),
        }

    def distances(self, encode: Encode) -> dict[str, float]:
        """The largest cosine distances."""
        return {name: largest_cosine_distance(self.vectors[name], encode(texts)) for name, texts in self.sent.items()}


def _cell(server: str, verdict: Verdict, **further: Any) -> Row:
    return {"server": server, "outcome": verdict.outcome, "reason": verdict.reason, **further}


def _vllm(verdict: Verdict, folder: Path, expected: Expected) -> Iterator[Row]:
    if find_vllm() is None:
        yield _cell("vLLM", verdict, not_run="vLLM is not at hand")
        return
    import openai

    command = verdict.command or f"vllm serve {folder} --runner pooling --dtype float32"
    try:
        with vllm_server(command, folder.parent / "vllm.log") as url:
            client = openai.OpenAI(base_url=url, api_key="none", timeout=300, max_retries=0)

            def encode(texts: list[str]) -> np.ndarray:
                answer = client.embeddings.create(model=str(folder), input=texts)
                return np.asarray([one.embedding for one in answer.data])

            yield _cell("vLLM", verdict, **expected.distances(encode))
    except DoesNotStart as error:
        yield _cell("vLLM", verdict, refused=str(error).strip().splitlines()[-1])


def _llama_cpp(verdict: Verdict, encoder: TextEncoder, place: Path, expected: Expected) -> Iterator[Row]:
    at_hand = find_llama_cpp()
    for kind in ("f32", "q8_0"):
        name = f"llama.cpp {kind}"
        try:
            file = export_gguf(encoder, place / f"{kind}.gguf", kind)  # type: ignore[arg-type]
        except CannotExport as error:
            yield _cell(name, verdict, refused=str(error))
            continue
        if at_hand is None:
            yield _cell(name, verdict, not_run="node-llama-cpp is not at hand")
            continue
        sent = [text for texts in expected.sent.values() for text in texts]
        found = dict(zip(sent, llama_cpp_vectors(file, sent, at_hand), strict=True))
        yield _cell(
            name, verdict, **expected.distances(lambda texts, found=found: np.stack([found[one] for one in texts]))
        )


def _onnx(encoder: TextEncoder, place: Path, expected: Expected) -> Iterator[Row]:
    from st_llm2vec.serving.onnx_export import OnnxEncoder

    said = {"server": "ONNX Runtime", "reason": ""}
    try:
        graph = OnnxEncoder(export_onnx(encoder, place / "onnx"))
    except CannotExport as error:
        yield {**said, "outcome": "wrong", "refused": str(error)}
        return
    found = {
        "documents": graph.encode(READ, batch_size=2),
        "queries": graph.encode(READ, "query", batch_size=2),
        "spelt": graph.encode(expected.sent["spelt"]),
    }
    distances = {name: largest_cosine_distance(expected.vectors[name], found[name]) for name in found}
    yield {**said, "outcome": "exact", **distances}


def disagreement(cell: Row) -> str | None:
    """What of a verdict a measurement contradicts.

    Args:
        cell: An encoder in a server.

    Returns:
        A sentence; ``None`` if they agree, or nothing was measured.
    """
    if "not_run" in cell:
        return None
    said, tolerance = cell["outcome"], TOLERANCES[cell["server"]]
    if "refused" in cell:
        return None if said == "wrong" else f"{said}, but it was refused: {cell['refused']}"
    if tolerance is None:
        return None
    same = {name: cell[name] < tolerance for name in ("documents", "queries", "spelt")}
    if said == "wrong":
        return "wrong, but it gives the same vectors" if same["documents"] and same["queries"] else None
    if not same["documents"]:
        return f"{said}, but documents are {cell['documents']:.0e} away"
    if same["queries"] == (said == "documents only"):
        return f"{said}, but queries are {cell['queries']:.0e} away"
    if same["spelt"] == (SPELT in cell["reason"].lower()):
        return f"texts that spell special tokens are {cell['spelt']:.0e} away, against what is said of them"
    return None


def table(rows: list[Row]) -> str:
    """The table of docs/serving.md, as Markdown."""
    lines = [
        f"Largest cosine distance to plain Sentence Transformers in float32, over {len(READ)} texts as documents, the same with a "
        "prompt as queries (where the recipe takes one), and texts that spell special tokens: documents / queries / special "
        "tokens. *Flagged*: the verdict says so before anyone serves it; without more, of the texts that spell special tokens. "
        f"*Refused*: no file is written. Measured on {rows[-1]['machine']}.\n",
        "| recipe | decoder | " + " | ".join(SERVERS_SHOWN) + " |",
        "|---" * (2 + len(SERVERS_SHOWN)) + "|",
    ]
    for row in rows:
        cells = {cell["server"]: cell for cell in row["cells"]}
        said = " | ".join(_said(cells[server]) for server in SERVERS_SHOWN)
        lines.append(f"| `{row['recipe']}` | {DECODERS[row['decoder']]} | {said} |")
    sources = {cell["server"]: cell["not_run"] for row in rows for cell in row["cells"] if cell["server"] in NOT_RUN}
    lines += ["", "Not run, and judged by their sources:", ""]
    lines += [f"- {server}: `{source}`" for server, source in sources.items()]
    return "\n".join(lines) + "\n"


def _said(cell: Row) -> str:
    if "not_run" in cell:
        return f"not run; said to be {cell['outcome']}"
    if "refused" in cell:
        return "refused"
    found = " / ".join(f"{cell[name]:.0e}" for name in ("documents", "queries", "spelt"))
    if cell["outcome"] in ("exact", "needs this command"):
        return f"{found} (flagged)" if SPELT in cell["reason"].lower() else found
    return f"{found} (flagged: {cell['outcome']})"


def write_page(rows: list[Row]) -> None:
    """Put the table between its marks in docs/serving.md."""
    page = TARGET.read_text(encoding="utf-8")
    before, rest = page.split(MARKS[0])
    after = rest.split(MARKS[1], 1)[1]
    TARGET.write_text(before + MARKS[0] + table(rows) + MARKS[1] + after, encoding="utf-8")


def wanted() -> list[tuple[str, ...]]:
    """The rows, recipe by recipe."""
    return [
        (name, recipe) for recipe in RECIPES_SERVED for name in DECODERS if name == "box" or recipe in ON_REAL_DECODERS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parse(parser, measure, FIELDS)
    measure_rows(MODULE, RESULTS, FIELDS, wanted(), write_page, given.again)
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    wrong = [
        f"{row['decoder']}, {row['recipe']}, {cell['server']}: {found}"
        for row in rows
        for cell in row["cells"]
        if (found := disagreement(cell))
    ]
    if wrong:
        raise SystemExit("\n".join(["Verdicts and measurements disagree:", *wrong]))


if __name__ == "__main__":
    main()
