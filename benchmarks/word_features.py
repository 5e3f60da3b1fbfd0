"""Vectors of words for probes: as the package computes them, in a loop over sentences, and kept from an earlier run.

    python scripts/real_decoders.py            # brings the decoders
    python -m benchmarks.word_features         # every row that is not there yet, then docs/benchmarks/word_features.md

Each row runs in a process of its own, and is kept in benchmarks/results/word_features.jsonl: an interrupted run goes on.
`--again` measures all rows anew. Times are the processor's, so that what else a machine does counts little.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept_rows import ROOT, measure_rows, parse
from benchmarks.real_decoders import machine
from st_llm2vec import convert, decoder_path
from st_llm2vec.evaluation.word_features import word_features
from st_llm2vec.evaluation.word_files import read_labelled_words
from tests.real.models import MODELS, NAMES

MODULE = "benchmarks.word_features"
DATA = Path(os.environ.get("ST_LLM2VEC_DATA", ROOT.parent / "shared" / "data"))
RESULTS = ROOT / "benchmarks" / "results" / "word_features.jsonl"
TARGET = ROOT / "docs" / "benchmarks" / "word_features.md"
FIELDS = ("model", "sentences")
BOX = "decoder in the box"
REPEATS = 3
PAGE = """# Vectors of words: one pass a text, and none again

Written by `python -m benchmarks.word_features` on {machine}; nothing here is typed by hand. The first sentences of CoNLL-2000's
test file, untrained decoders in float32, bidirectional. *Loop*: each sentence alone through the decoder, its tokens averaged
word by word. *Features*: `word_features`, which `evaluate words` and tasks of the kind `words` use. *Kept*: the same call again,
which digests the weights and reads the file. Seconds of one core, the least of {repeats}. *Passes* are the sentences that went
through the decoder, for each sentence of the file. *Distance*: the largest cosine distance of a word's vectors by loop and by
features.

| model | sentences | loop, s | features, s | kept, s | loop / features | features / kept | passes, features | passes, kept | distance |
|---|---|---|---|---|---|---|---|---|---|"""


def measure(model: str, sentences: str) -> dict[str, Any]:
    """One row."""
    folder = decoder_path() if model == BOX else str(MODELS / NAMES[model])
    encoder = convert(folder, "llm2vec", dtype=torch.float32, device="cpu", measure=False)
    read = read_labelled_words(DATA / "words" / "conll2000-test.txt", "pos", int(sentences)).sentences
    passed: list[int] = []
    encoder.transformer.register_forward_pre_hook(
        lambda module, given: passed.append(len(given[0]["input_ids"])),
        prepend=True,  # before the rows of a batch are packed into one
    )
    seconds: dict[str, float] = {}
    passes: dict[str, float] = {}
    vectors: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        ways: dict[str, Callable[[], Any]] = {
            "loop": lambda: loop(encoder, read),
            "features": lambda: word_features(encoder, read),
            "kept": lambda: np.array(word_features(encoder, read, cache=cache)),
        }
        word_features(encoder, read, cache=cache)
        for way, run in ways.items():
            times = []
            for _ in range(REPEATS):
                passed.clear()
                begun = time.process_time()
                vectors[way] = run()
                times.append(time.process_time() - begun)
            seconds[way], passes[way] = min(times), sum(passed) / len(read)
    passes.pop("loop")  # calls the decoder, not the module that is counted
    assert np.array_equal(vectors["features"], vectors["kept"])
    about = {"model": model, "sentences": sentences, "machine": machine()}
    return {**about, "seconds": seconds, "passes": passes, "distance": distance(vectors["loop"], vectors["features"])}


@torch.inference_mode()
def loop(encoder: Any, sentences: list[list[str]]) -> Any:
    """What one writes first: a pass for each sentence, and the mean over the tokens of each word."""
    model, tokenizer = encoder.transformer.model, encoder.tokenizer
    vectors = []
    for words in sentences:
        read = tokenizer(" ".join(words), return_tensors="pt", return_offsets_mapping=True)
        states = model(read["input_ids"], attention_mask=read["attention_mask"]).last_hidden_state[0]
        start = 0
        for word in words:
            end = start + len(word)
            inside = [place for place, (a, b) in enumerate(read["offset_mapping"][0]) if a < end and b > start]
            vectors.append(states[inside].mean(dim=0).numpy())
            start = end + 1
    return np.stack(vectors)


def distance(first: Any, second: Any) -> float:
    """The largest cosine distance between rows."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float((1 - (first * second).sum(axis=1) / lengths).max())


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write the table."""
    lines = [PAGE.format(machine=rows[-1]["machine"], repeats=REPEATS), *map(_line, rows)]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(row: dict[str, Any]) -> str:
    loop_s, features, kept = (row["seconds"][way] for way in ("loop", "features", "kept"))
    cells = (row["model"], row["sentences"], f"{loop_s:.2f}", f"{features:.2f}", f"{kept:.2f}")
    ratios = (f"{loop_s / features:.1f}", f"{features / kept:.0f}")
    passes = (f"{row['passes']['features']:.2f}", f"{row['passes']['kept']:.2f}")
    return f"| {' | '.join((*cells, *ratios, *passes, format(row['distance'], '.0e')))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", default="100", help="how many sentences")
    given = parse(parser, measure, FIELDS)
    models = [BOX, *(name for name in NAMES if (MODELS / NAMES[name]).is_dir())]
    wanted = [(model, given.sentences) for model in models]
    measure_rows(MODULE, RESULTS, FIELDS, wanted, write_page, given.again)


if __name__ == "__main__":
    main()
