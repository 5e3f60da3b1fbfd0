"""Random texts with random instructions: how many vectors differ from door to door, for each tokenizer class.

    python scripts/real_decoders.py          # brings the two real decoders; without them, stand-ins only
    python -m benchmarks.random_texts        # writes docs/random_texts.md

Each row runs in a process of its own, and is kept in benchmarks/results/random_texts.jsonl: an interrupted run goes on.
`--again` measures all rows anew.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from typing import Any

import numpy as np
import torch

from benchmarks.kept_rows import ROOT, measure_rows, parse
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.tolerances import VECTORS
from tests.real.models import MODELS, NAMES
from tests.stand_ins import STAND_INS, stand_in

RESULTS = ROOT / "benchmarks" / "results" / "random_texts.jsonl"
FIELDS = ("decoder", "recipe")
TARGET = ROOT / "docs" / "random_texts.md"
RECIPES = ("llm2vec", "sgpt", "e5-mistral", "echo", "gritlm", "bge-en-icl")
ON_REAL_ONES = ("llm2vec", "e5-mistral", "echo")  # a recipe for each layout
TEXTS, INSTRUCTIONS, LIMIT = 600, 8, VECTORS.full
TEXT_PIECES, INSTRUCTION_PIECES = 5, 4
PIECES = (
    "the old clock in a hall struck seven and cats slept on 12 ships naïve Étude 北京 東京タワー привет שלום 🙂 maple's "
    "e.g. (so) [x] {y} <b> </p> http://a.io/?q=1 #3 -- ... ; : , ! ? 3.14 1,000 A I x_y CamelCase \\n \t \n  "
).split(" ")
WAYS = {
    "load": "`st_llm2vec.load`, a list of instructions",
    "plain, by name": '`encode(texts, prompt_name="...")`, plain Sentence Transformers',
    "plain, by value": '`encode(texts, prompt=model.prompts["..."])`, plain',
    "plain, bare": "`encode(texts, prompt=instruction)`, a saved instruction without a blank at its end, plain; every other "
    "one ends in a colon",
    "plain, unsaved": "the same with an instruction that was never saved, with a blank at its end, plain",
    "unsaved": "the same through `st_llm2vec.load`",
}
INTRODUCTION = """# Random texts, random instructions, every door

Written by `python -m benchmarks.random_texts`; nothing here is typed by hand.

Each row converts a decoder in float32 with {instructions} random saved instructions, saves it, deals {texts} random texts
(words, scripts, digits, tags, tabs, line breaks, blanks at both ends) one of them each, and counts the vectors that are
further than {limit:.0e} (cosine distance) from those of the encoder in memory. In brackets: the largest distance. Ways
of calling:

| column | call |
|---|---|
{ways}

What is not 0 is said in [spans.md](spans.md): in the layout `text`, plain Sentence Transformers sees instruction and text
as one string. A saved instruction of less than five words that ends in a letter or a digit cannot be told from the start of
a text there, so `convert` and `save` warn of it. Through this package, and by the saved prompts' names, every vector is the
same.
"""


def drawn(count: int, most: int, generator: random.Random) -> list[str]:
    """Different strings of 1 to ``most`` pieces."""
    found: dict[str, None] = {}
    while len(found) < count:
        text = " ".join(generator.choices(PIECES, k=generator.randint(1, most)))
        if text.strip():
            found[text] = None
    return list(found)


TINY = "tiny-"  # before the name of a stand-in, since one of them is called as the decoder that it stands for


def _tiny(decoder: str, folder: str) -> str:
    return stand_in(decoder.removeprefix(TINY), folder, torch.float32, max_position_embeddings=512)


def measure(decoder: str, recipe: str) -> dict[str, Any]:
    """Convert, save, and count for each way of calling."""
    from sentence_transformers import SentenceTransformer

    from st_llm2vec import convert, load

    generator = random.Random(recipe)
    texts = drawn(TEXTS, TEXT_PIECES, generator)
    instructions = [one.strip() for one in drawn(2 * INSTRUCTIONS, INSTRUCTION_PIECES, generator)]
    prompts = {f"task{number}": one + ":" * (number % 2) for number, one in enumerate(instructions[:INSTRUCTIONS])}
    saved, unsaved = list(prompts.values()), [one + ":" for one in instructions[INSTRUCTIONS:]]
    at = np.array([generator.randrange(INSTRUCTIONS) for _ in texts])
    with tempfile.TemporaryDirectory() as folder:
        path = str(MODELS / NAMES[decoder]) if decoder in NAMES else _tiny(decoder, f"{folder}/tiny")
        options: dict[str, Any] = {"prompts": prompts, "dtype": torch.float32, "device": "cpu", "measure": False}
        encoder = convert(path, recipe, **options)
        encoder.save_pretrained(f"{folder}/saved")
        ours = load(f"{folder}/saved", device="cpu")
        plain = SentenceTransformer(f"{folder}/saved", trust_remote_code=encoder.layout == "custom", device="cpu")

        def grouped(calls: list[dict[str, str]]) -> np.ndarray:
            vectors = np.zeros((TEXTS, encoder.get_embedding_dimension()))
            for number, call in enumerate(calls):
                chosen = np.flatnonzero(at == number)
                vectors[chosen] = plain.encode([texts[one] for one in chosen], **call)
            return vectors

        meant, other = (encoder.encode(texts, prompt=[told[one] for one in at]) for told in (saved, unsaved))
        found = {
            "load": (ours.encode(texts, prompt=[saved[one] for one in at]), meant),
            "plain, by name": (grouped([{"prompt_name": name} for name in prompts]), meant),
            "plain, by value": (grouped([{"prompt": plain.prompts[name]} for name in prompts]), meant),
            "plain, bare": (grouped([{"prompt": one} for one in saved]), meant),
            "plain, unsaved": (grouped([{"prompt": f"{one} "} for one in unsaved]), other),
            "unsaved": (ours.encode(texts, prompt=[unsaved[one] for one in at]), other),
        }
    row: dict[str, Any] = {"decoder": decoder, "recipe": recipe, "layout": encoder.layout}
    row["tokenizer"] = (
        type(encoder.tokenizer).__name__
        if decoder in NAMES
        else STAND_INS[decoder.removeprefix(TINY)].tokenizer.__name__
    )
    for way, pair in found.items():
        distances = [largest_cosine_distance(one, other) for one, other in zip(*pair, strict=True)]
        row[way] = [sum(distance > LIMIT for distance in distances), max(distances)]
    return row


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write docs/random_texts.md."""
    ways = "\n".join(f"| {way} | {call} |" for way, call in WAYS.items())
    lines = [INTRODUCTION.format(instructions=INSTRUCTIONS, texts=TEXTS, limit=LIMIT, ways=ways)]
    lines += ["| decoder | tokenizer | recipe | layout | " + " | ".join(WAYS) + " |", "|---" * (4 + len(WAYS)) + "|"]
    for row in rows:
        name = NAMES.get(row["decoder"], f"tiny: `{row['decoder'].removeprefix(TINY)}`")
        cells = [f"{count} ({worst:.0e})" if count else "0" for count, worst in (row[way] for way in WAYS)]
        lines.append("| " + " | ".join([name, row["tokenizer"], row["recipe"], row["layout"], *cells]) + " |")
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parse(parser, measure, FIELDS)
    real = [name for name, folder in NAMES.items() if (MODELS / folder).is_dir()]
    wanted = [(decoder, recipe) for decoder in real for recipe in ON_REAL_ONES]
    wanted += [(TINY + decoder, recipe) for decoder in STAND_INS for recipe in RECIPES]
    measure_rows("benchmarks.random_texts", RESULTS, FIELDS, wanted, write_page, given.again)


if __name__ == "__main__":
    main()
