"""What preprocessing costs on short texts: this package, stock preprocessing, and the tokenizer alone.

    python -m benchmarks.preprocessing

All read the same strings, interleaved in one process; token ids and masks are compared first. "The tokenizer alone" gets
the strings with instruction and template already around the texts, and gives padded tensors: what is left if rendering
cost nothing. Custom encoders have no stock preprocessing. Results go to docs/benchmarks/preprocessing.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SentenceTransformer

from benchmarks.embed_memory import NOUNS, VERBS
from st_llm2vec import InstructionFormatter, TextEncoder, convert, decoder_path
from st_llm2vec.encoding.dtype import processor_name

RECIPES = ("llm2vec", "sgpt", "prompteol", "e5-mistral", "bge-en-icl-few-shot", "echo", "nv-embed", "gritlm")
INSTRUCTION = "Retrieve passages that answer the question:"
OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
Way = Callable[[list[str]], Any]


def short_texts(number: int) -> list[str]:
    """Sentences of a dozen words, always the same ones."""
    words, texts = random.Random(0), []
    for index in range(number):
        first, second, third = words.sample(NOUNS, 3)
        texts.append(f"The old {first} {words.choice(VERBS)} the {second} near a quiet {third}, number {index}.")
    return texts


def rendered(encoder: TextEncoder, prompt: str | None, texts: list[str]) -> list[str]:
    """The strings that the encoder's tokenizer reads."""
    assert encoder.manifest is not None
    if encoder.layout == "text":
        return [f"{prompt} {text}" if prompt else text for text in texts]
    if encoder.layout == "message":
        system = [{"role": "system", "content": prompt}] if prompt else []
        chats = [[*system, {"role": "user", "content": text}] for text in texts]
        return encoder.tokenizer.apply_chat_template(chats, tokenize=False)
    formatter = InstructionFormatter(**encoder.manifest.config.formatter_config())
    template = formatter.instruction_template if prompt else formatter.template
    return [template.render(text, formatter.bare_instruction(prompt))[0] for text in texts]


def ways(encoder: TextEncoder, prompt: str | None, texts: list[str]) -> dict[str, Way]:
    """The ways to tokens, each from a batch of texts."""
    strings = dict(zip(texts, rendered(encoder, prompt, texts), strict=True))
    special = encoder.layout == "text"
    tokenizer = encoder.tokenizer
    found: dict[str, Way] = {
        "here": lambda batch: encoder.preprocess(batch, prompt=prompt),
        "tokenizer": lambda batch: tokenizer(
            [strings[text] for text in batch],
            add_special_tokens=special,
            padding=True,
            truncation=True,
            return_tensors="pt",
        ),
    }
    if encoder.layout != "custom":
        saved = f"{prompt} " if prompt and encoder.layout == "text" else prompt
        found["stock"] = lambda batch: SentenceTransformer.preprocess(encoder, batch, prompt=saved)
    return found


def measure(recipe: str, prompt: str | None, texts: list[str], batch_size: int, rounds: int) -> dict[str, Any]:
    """Texts per second of each way: medians over interleaved rounds."""
    encoder = convert(decoder_path(), recipe, device="cpu")
    batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    found = ways(encoder, prompt, texts)
    if "stock" in found:
        ours, theirs = found["here"](batches[0]), found["stock"](batches[0])
        if any(not torch.equal(ours[name], theirs[name]) for name in ("input_ids", "attention_mask")):
            raise SystemExit(f"{recipe}: the tokens differ from those of stock preprocessing.")
    tokens = sum(int(found["here"](batch)["attention_mask"].sum()) for batch in batches)
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, way in found.items():
            begin = time.perf_counter()
            for batch in batches:
                way(batch)
            seconds[name].append(time.perf_counter() - begin)
    rates = {name: len(texts) / statistics.median(times) for name, times in seconds.items()}
    return {
        "recipe": recipe,
        "layout": encoder.layout,
        "instruction": prompt is not None,
        "tokens_per_text": tokens / len(texts),
        "texts_per_second": rates,
        "against_stock": rates["here"] / rates["stock"] if "stock" in rates else None,
        "against_tokenizer": rates["here"] / rates["tokenizer"],
    }


def write(results: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write the JSON and the table."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "preprocessing.json").write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n")
    lines = [
        "# Preprocessing of short texts",
        "",
        "Written by `python -m benchmarks.preprocessing`: from texts to padded tensors, in texts per second. Stock",
        "preprocessing is that of Sentence Transformers on the same encoder, with the same tokens; custom encoders have",
        'none. "Tokenizer alone" reads strings with template and instruction already around the texts.',
        f"{settings['texts']:,} texts in batches of {settings['batch_size']}, {settings['cores']} cores, "
        f"transformers {settings['transformers']}, {settings['machine']}; medians of {settings['rounds']} interleaved "
        "rounds.",
        "",
        "| recipe | layout | instruction | tokens per text | stock | here | ratio | tokenizer alone | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        rates = row["texts_per_second"]
        stock = f"{rates['stock']:,.0f}" if "stock" in rates else "–"
        gain = f"{row['against_stock']:.2f}" if "stock" in rates else "–"
        lines.append(
            f"| {row['recipe']} | {row['layout']} | {'yes' if row['instruction'] else 'no'} | "
            f"{row['tokens_per_text']:.0f} | {stock} | {rates['here']:,.0f} | {gain} | {rates['tokenizer']:,.0f} | "
            f"{row['against_tokenizer']:.2f} |"
        )
    (OUTPUT / "preprocessing.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=2_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    given = parser.parse_args()
    texts, results = short_texts(given.texts), []
    for recipe in given.recipes:
        prompts = (None,) if recipe.startswith("prompteol") else (None, INSTRUCTION)
        results += [measure(recipe, prompt, texts, given.batch_size, given.rounds) for prompt in prompts]
    settings = {
        "texts": given.texts,
        "batch_size": given.batch_size,
        "rounds": given.rounds,
        "cores": os.cpu_count(),
        "transformers": transformers.__version__,
        "machine": processor_name(),
    }
    write(results, settings)
    print((OUTPUT / "preprocessing.md").read_text())


if __name__ == "__main__":
    main()
