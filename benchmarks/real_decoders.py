"""Two real decoders, recipe by recipe: layout, exactness by door, load time, texts per second, memory.

    python scripts/real_decoders.py            # brings the decoders
    python -m benchmarks.real_decoders         # every row that is not there yet, then docs/real_decoders.md

Each row runs in a process of its own, and is kept in benchmarks/results/real_decoders.jsonl: an interrupted run goes on.
`--again` measures all rows anew.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept_rows import ROOT, in_process, measure_rows, parse
from st_llm2vec import RECIPES
from st_llm2vec.encoding.dtype import processor_name
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.tolerances import VECTORS
from tests.real.models import MODELS, NAMES
from tests.real.test_doors import SAVED, decoder_of, drawn_texts, specified

MODULE = "benchmarks.real_decoders"
RESULTS = ROOT / "benchmarks" / "results" / "real_decoders.jsonl"
FIELDS = ("decoder", "recipe", "dtype")
TARGET = ROOT / "docs" / "real_decoders.md"
IN_BFLOAT16 = ("llm2vec", "prompteol-icl")  # bidirectional and causal; the others read otherwise, not compute
SENTENCES = 64
TEXTS = 8
INTRODUCTION = """# Two real decoders, recipe by recipe

Written by `python -m benchmarks.real_decoders` on {machine}; nothing here is typed by hand.

`smollm2` is SmolLM2-135M-Instruct and `gemma3` Gemma 3 270M. Both come from 4-bit GGUF files in the package index, whose weights
`scripts/real_decoders.py` brings back to bfloat16: real weights, with the rounding of four bits in them. Scores of the original
ones will differ somewhat.

Each row converts the decoder, saves it, loads it and compares {texts} texts of 1 to 25 words with the specification:
a direct pass of each text alone, over the tokens that the decoder's own tokenizer gives. **Exact** means a cosine
distance under 1e-6, over texts without an instruction and with a saved one. In bfloat16, two passes of one model differ
by rounding, so its rows, one bidirectional recipe and one causal, give distances to the float32 specification. *Alone* is
the largest distance between a text alone and in a batch. Load is `st_llm2vec.load`; texts per second are for {sentences}
short sentences; memory is the peak of the process that loaded and encoded.

In bfloat16 memory and `load` agree to the bit when their batches are the same. A text alone and in a batch do not, since
products of other sizes round in another order (*alone*), and nor does plain Sentence Transformers, whose attention is
computed in bfloat16 where this package computes it in float32, if that is faster on the processor. Bidirectional SmolLM2,
untrained, amplifies such differences on texts of a few words: in its upper layers one or two tokens have norms several
times those of the others, and which of them attracts the attention swings with the rounding, so that a single text can be
far from itself. Encode in float32 where it matters.
"""


def measure(name: str, recipe: str, dtype: str) -> dict[str, Any]:
    """One row, in this process; what needs the float32 decoder beside it is measured in another (``--exact``)."""
    from st_llm2vec import load

    with tempfile.TemporaryDirectory() as folder:
        exact = json.loads(in_process(MODULE, "--exact", name, recipe, dtype, folder))
        start = time.perf_counter()
        encoder = load(Path(folder) / "saved", device="cpu")
        seconds = time.perf_counter() - start
        sentences = [f"{number} ships left the harbour, and the clock struck seven." for number in range(SENTENCES)]
        encoder.encode(sentences[:8])
        start = time.perf_counter()
        encoder.encode(sentences)
        rate = SENTENCES / (time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = {"decoder": name, "recipe": recipe, "dtype": dtype, "machine": machine()}
    return {**row, **exact, "load_seconds": seconds, "texts_per_second": rate, "peak_gib": peak}


def exactness(name: str, recipe: str, dtype: str, folder: str) -> dict[str, Any]:
    """Convert and save the encoder, and hold what each door gives against the specification."""
    from sentence_transformers import SentenceTransformer

    from st_llm2vec import convert, load

    decoder = str(MODELS / NAMES[name])
    instructed = RECIPES[recipe].instruction_template is not None
    prompts = {"query": SAVED} if instructed else {}
    options = {"prompts": prompts, "device": "cpu", "measure": False}
    encoder = convert(decoder, recipe, dtype=getattr(torch, dtype), **options)
    encoder.save_pretrained(f"{folder}/saved")
    texts = drawn_texts(TEXTS, recipe)
    told = ["", SAVED] if instructed else [""]
    doors = {
        "memory": encoder,
        "load": load(f"{folder}/saved", device="cpu"),
        "plain": SentenceTransformer(f"{folder}/saved", trust_remote_code=encoder.layout == "custom", device="cpu"),
    }
    tokenizer = decoder_of(decoder)[1]
    alone = [np.stack([encoder.encode(text, prompt=one) for text in texts]) for one in told]
    full = encoder if dtype == "float32" else convert(decoder, recipe, dtype=torch.float32, **options)
    meant = [specified(full, tokenizer, texts, [one] * len(texts)) for one in told]
    found = {
        door: max(largest_cosine_distance(_encode(model, texts, one), meant[at]) for at, one in enumerate(told))
        for door, model in doors.items()
    }
    drift = max(largest_cosine_distance(encoder.encode(texts, prompt=one), alone[at]) for at, one in enumerate(told))
    return {"layout": encoder.layout, "distances": found, "alone": drift}


def _encode(model: Any, texts: list[str], instruction: str) -> np.ndarray:
    return model.encode_query(texts) if instruction else model.encode(texts)


def machine() -> str:
    """The processor, and how much of it."""
    return f"{processor_name()}, {torch.get_num_threads()} threads, Python {platform.python_version()}"


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write docs/real_decoders.md."""
    lines = [INTRODUCTION.format(machine=rows[-1]["machine"], texts=TEXTS, sentences=SENTENCES)]
    for name, folder in NAMES.items():
        lines.append(f"## {folder}\n")
        lines.append("| recipe | layout | type | memory | load | plain | alone | load, s | texts/s | memory, GiB |")
        lines.append("|---" * 10 + "|")
        for row in (one for one in rows if one["decoder"] == name):
            distances = " | ".join(_cell(row["distances"][door], row["dtype"]) for door in ("memory", "load", "plain"))
            speed = f"{row['load_seconds']:.1f} | {row['texts_per_second']:.0f} | {row['peak_gib']:.1f}"
            alone = _cell(row["alone"], row["dtype"])
            lines.append(f"| {row['recipe']} | {row['layout']} | {row['dtype']} | {distances} | {alone} | {speed} |")
        lines.append("")
    TARGET.write_text("\n".join(lines), encoding="utf-8")


def _cell(distance: float, dtype: str) -> str:
    return "exact" if distance < VECTORS.full and dtype == "float32" else f"{distance:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exact", nargs=4, help=argparse.SUPPRESS)
    given = parse(parser, measure, FIELDS)
    if given.exact:
        print(json.dumps(exactness(*given.exact)))
        return
    recipes = [recipe for recipe in RECIPES if recipe != "nv-embed"]  # its pooling is random until it is trained
    wanted = [(name, recipe, "float32") for name in NAMES for recipe in recipes]
    wanted += [(name, recipe, "bfloat16") for name in NAMES for recipe in IN_BFLOAT16]
    measure_rows(MODULE, RESULTS, FIELDS, wanted, write_page, given.again)


if __name__ == "__main__":
    main()
