"""Encoding at the sizes of Sheared-LLaMA-1.3B and Llama-2-7B, with random weights, beside plain Sentence Transformers."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from benchmarks import encoding
from benchmarks.llm2vec_environment import DEFAULT
from benchmarks.side_by_side.flops import matmul_parameters
from benchmarks.side_by_side.measure import disagreements
from benchmarks.side_by_side.shapes import SHAPES, tokenizer
from benchmarks.side_by_side.texts import Source, Texts

CONTENDERS = ["plain-bfloat16", "plain-large", "ours-bfloat16", "ours-compiled"]
DATASETS = {
    "tiny": ["short", "demonstrations"],
    "1.3b": ["short", "long-tailed", "long", "demonstrations"],
    "7b": ["long-tailed"],
}
COUNTS = {"short": 4000, "long-tailed": 2000, "long": 256, "demonstrations": 1000}
FEWER = {"7b": {"long-tailed": 1000}}


def measure(given: argparse.Namespace, shape: str) -> dict[str, Any]:
    """All sets of texts on one shape, in turns in one process."""
    shape = "tiny" if given.tiny else shape
    texts = Texts(Source(given.data), tokenizer())
    if not given.tiny:
        counts = {**COUNTS, **FEWER.get(shape, {})}
        texts.makers |= {
            "short": lambda: texts.captions(counts["short"]),
            "long-tailed": lambda: texts.long_tailed(counts["long-tailed"]),
            "long": lambda: texts.long(counts["long"]),
            "demonstrations": lambda: texts.captions(counts["demonstrations"], seed=4),
        }
    sizes = asdict(SHAPES[shape])
    parameters = matmul_parameters(sizes) + sizes["vocab_size"] * sizes["hidden_size"]
    found: dict[str, Any] = {"shapes": {shape: {**sizes, "parameters": parameters}}}
    found |= {"texts": {}, "results": [], "missing": [], "loading": []}
    settings = argparse.Namespace(**vars(given), contenders=CONTENDERS, llm2vec=DEFAULT, in_process=True)
    for recipe in dict.fromkeys(encoding.RECIPE_OF[name] for name in DATASETS[shape]):
        named = [name for name in DATASETS[shape] if encoding.RECIPE_OF[name] == recipe]
        encoding.measure_recipe(settings, shape, recipe, named, texts, found)
    absent = [f"{one['shape']}, {one['dataset']}, {one['contender']}: {one['reason']}" for one in found["missing"]]
    return {**found, "problems": [*disagreements(found["results"]), *absent]}
