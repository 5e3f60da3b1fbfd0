"""Where the time of encoding goes: matrix products, attention, everything element by element, and the rest.

    python -m benchmarks.where_time_goes              # docs/benchmarks/where_time_goes.{json,md}

Each encoder runs on one thread, once to warm up and once under PyTorch's profiler.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.encoding import DATA, FOLDERS, ROOT
from benchmarks.side_by_side.encoders import Encoder, PlainSentenceTransformers, ThisLibrary
from benchmarks.side_by_side.machine import command, describe_machine, sentence
from benchmarks.side_by_side.report import DOCS, write_page
from benchmarks.side_by_side.shapes import SHAPES, build, tokenizer
from benchmarks.side_by_side.texts import Source, Texts

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::")
ATTENTION = ("aten::_scaled_dot_product",)
DATASETS = {"short": "llm2vec", "long-tailed": "llm2vec", "demonstrations": "prompteol"}
KINDS = ("matrix products", "attention kernels", "element by element, copies", "Python, tokenisation, waiting")


def shares(encoder: Encoder, texts: list[str]) -> dict[str, Any]:
    """Seconds of one pass over the texts, and their shares by kind of work."""
    encoder.encode(texts)
    start = time.perf_counter()
    encoder.encode(texts)
    unobserved = time.perf_counter() - start
    with profile(activities=[ProfilerActivity.CPU]) as observed:
        start = time.perf_counter()
        encoder.encode(texts)
        seconds = time.perf_counter() - start
    spent = dict.fromkeys(KINDS, 0.0)
    for event in observed.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    spent[KINDS[3]] = max(0.0, seconds - sum(spent[kind] for kind in KINDS[:3]))
    return {"seconds": unobserved, "shares": {kind: spent[kind] / seconds for kind in KINDS}}


def kind_of(name: str) -> str:
    """Which kind of work an operation of the profiler is."""
    if name.startswith(PRODUCTS):
        return KINDS[0]
    if name.startswith(ATTENTION):
        return KINDS[1]
    compiled = name.startswith(("## Call CompiledFxGraph", "Torch-Compiled Region"))
    return KINDS[2] if compiled or name.startswith(("aten::", "st_llm2vec::")) else KINDS[3]


def page(found: dict[str, Any]) -> list[str]:
    """The page that docs/benchmarks/where_time_goes.md is."""
    lines = [
        "# Where the time goes",
        "",
        f"Written by `{found['command']}`.",
        f"Encoding in bfloat16 on one thread, shape `{found['shape']}`, under PyTorch's profiler; the seconds are those of a pass",
        "without it. What compiled layers do beside matrix products and attention counts as element by element.",
        "",
        sentence(found["machine"]),
        "",
        "| texts | encoder | s | " + " | ".join(KINDS) + " |",
        "|---" * 7 + "|",
    ]
    for row in found["results"]:
        cells = [f"{row['shares'][kind]:.0%}" for kind in KINDS]
        lines.append(f"| {row['texts']} | {row['encoder']} | {row['seconds']:.2f} | " + " | ".join(cells) + " |")
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--first", type=int, default=400, help="texts of each set")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, default=DOCS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    texts = Texts(Source(given.data), tokenizer())
    results = []
    for name, recipe in DATASETS.items():
        folder = str(build(given.shape, recipe, given.work))
        file = Path(texts.write(name, given.work / "texts")["file"])
        read = json.loads(file.read_text(encoding="utf-8"))["texts"][: given.first]
        encoders: dict[str, Encoder] = {
            "plain Sentence Transformers": PlainSentenceTransformers(folder, "bfloat16"),
            "this library": ThisLibrary(folder, "bfloat16"),
            "this library, compiled": ThisLibrary(folder, "bfloat16", compiled=True),
        }
        for label, encoder in encoders.items():
            results.append({"texts": f"{len(read)} {name}", "encoder": label, **shares(encoder, read)})
            print(results[-1], flush=True)
    asked = command("benchmarks.where_time_goes", FOLDERS, arguments)
    found = {"command": asked, "shape": given.shape, "machine": describe_machine(1), "results": results}
    write_page("where_time_goes", found, page(found), given.output)


if __name__ == "__main__":
    main()
