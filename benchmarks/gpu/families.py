"""Whether rows without padding give what padded batches give, for the families that people use."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import Demonstration, accelerate, convert
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.tolerances import VECTORS
from tests.tiny_decoders import tiny_decoder
from tests.tiny_tokenizers import TRAINING_TEXT, tiny_tokenizer

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt2")
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
}
WINDOW = 48
DEMONSTRATIONS = (Demonstration("12 ships left the harbour", "Leaving"), Demonstration("A man plays", "Music"))
RECIPES: dict[str, dict[str, Any]] = {"llm2vec": {}, "prompteol": {"demonstrations": DEMONSTRATIONS}}
TEXTS = 96
LIMITS = {"float32": VECTORS.full, "bfloat16": VECTORS.half}
"""Largest cosine distance between a text's vectors from a row and from a padded batch on one device."""


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """A row for each family, recipe and type."""
    rows = []
    for family in FAMILIES[:2] if given.tiny else FAMILIES:
        decoder = write_decoder(family, given.work / "families" / family)
        for recipe, changes in RECIPES.items():
            folder = decoder.with_name(f"{family}-{recipe}")
            convert(str(decoder), recipe, device="cpu", measure=False, **changes).save(str(folder))
            exact = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True).encode(texts())
            for dtype in LIMITS:
                rows.append({"family": family, "recipe": recipe, **compared(folder, dtype, given.device, exact)})
    return {"rows": rows, "problems": [problem for row in rows for problem in problems(row)]}


def write_decoder(family: str, folder: Path) -> Path:
    """A small decoder with heads of 64, which GPU kernels have, and a window shorter than the texts where it has one."""
    config = tiny_decoder(family).config
    options = {**SIZES, **({"sliding_window": WINDOW} if getattr(config, "sliding_window", None) else {})}
    tiny_decoder(family, vocab_size=512, **options).save_pretrained(folder)
    tokenizer = tiny_tokenizer("byte-level+bos")
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    return folder


def texts() -> list[str]:
    """Texts of one word to about 200 tokens."""
    words, draws = " ".join(TRAINING_TEXT).split(), random.Random(0)
    return [" ".join(draws.choices(words, k=1 + at % 60)) for at in range(TEXTS)]


def compared(folder: Path, dtype: str, device: str, exact: np.ndarray) -> dict[str, Any]:
    """Encode through plain Sentence Transformers, padded, and without padding; ``exact`` is float32 on a CPU."""
    options = {"device": device, "model_kwargs": {"dtype": getattr(torch, dtype)}, "trust_remote_code": True}
    model = SentenceTransformer(str(folder), **options)  # written by `save` above; some versions need its modules
    padded = model.encode(texts())
    accelerate(model)
    packed = model.encode(texts())
    alone = np.concatenate([model.encode([text]) for text in texts()[:TEXTS:8]])
    return {
        "dtype": dtype,
        "rows against padded": largest_cosine_distance(packed, padded),
        "padded against exact": largest_cosine_distance(padded, exact),
        "rows against exact": largest_cosine_distance(packed, exact),
        "alone against rows": largest_cosine_distance(alone, packed[:TEXTS:8]),
    }


def problems(row: dict[str, Any]) -> list[str]:
    """A sentence for a row of the table whose vectors are too far from the padded ones."""
    limit = LIMITS[row["dtype"]]
    allowed = max(limit, 2 * row["padded against exact"])  # where rounding alone moves the padded ones further
    if max(row["rows against padded"], row["rows against exact"]) <= allowed:
        return []
    return [
        f"{row['family']}, {row['recipe']}, {row['dtype']}: {row['rows against padded']:.1e} from the padded vectors; "
        f"{allowed:.0e} is allowed."
    ]
