"""Real decoders, every recipe, every door: the vectors of the specification, alone and in a batch."""

from __future__ import annotations

import copy
import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from st_llm2vec import RECIPES, TextEncoder, convert, load
from st_llm2vec.modules.instruction import UNLIMITED, InstructionFormatter
from st_llm2vec.modules.pooling import span_weights

from ..conftest import cosine_distance

pytestmark = pytest.mark.real

SAVED = "Given a question, retrieve passages that answer it:"
WORDS = (
    "the old clock in a hall struck seven and cats slept on 12 ships; (naïve) 北京 violin's maple \n \t <b> ...".split(
        " "
    )
)
DRAWN = random.Random(0)
OTHERS = ["Represent this short text", "Which of these 3?"]
HALF = [("llm2vec", "smollm2"), ("llm2vec", "gemma3"), ("prompteol-icl", "smollm2"), ("e5-mistral", "gemma3")]
# Two passes of one model in bfloat16 differ by rounding, with the batch. Bidirectional SmolLM2, untrained, is the worst.
BFLOAT16 = {"smollm2": 6e-2, "gemma3": 1e-2}


def drawn_texts(count: int) -> list[str]:
    """Texts of one to 25 words, some with blanks around them."""
    texts = [" ".join(DRAWN.choices(WORDS, k=DRAWN.choice((1, 2, 4, 8, 25)))) for _ in range(count)]
    return [f" {text} " if number % 7 == 3 else text for number, text in enumerate(texts)]


@functools.cache
def decoder_of(folder: str) -> tuple[Any, Any]:
    """A decoder in float32 and its own tokenizer, read once for all recipes."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return AutoModel.from_pretrained(folder, dtype=torch.float32), tokenizer


@torch.no_grad()
def specified(encoder: TextEncoder, tokenizer: Any, texts: list[str], instructions: list[str]) -> np.ndarray:
    """Each text's vector by the specification, from a pass of its own."""
    config = encoder.manifest.config
    formatter = InstructionFormatter(**config.formatter_config())
    vectors = []
    for text, instruction in zip(texts, instructions, strict=True):
        row = formatter([text], instruction, tokenizer, UNLIMITED)
        model = encoder.transformer.model
        output = model(input_ids=row["input_ids"], use_cache=False, output_hidden_states=config.layer != -1)
        states = output.last_hidden_state if config.layer == -1 else output.hidden_states[config.layer]
        vectors.append((span_weights(row["pooling_mask"], config.pooling).unsqueeze(-1) * states.float()).sum(1)[0])
    return torch.stack(vectors).numpy()


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "nv-embed"])
def test_float32(real_decoder: str, tmp_path: Path, recipe: str) -> None:
    model, tokenizer = decoder_of(real_decoder)
    takes_instructions = RECIPES[recipe].instruction_template is not None
    prompts = {"query": SAVED} if takes_instructions else {}
    encoder = convert(copy.deepcopy(model), recipe, tokenizer=tokenizer, prompts=prompts, device="cpu")
    encoder.save_pretrained(str(tmp_path / "saved"))
    loaded = load(tmp_path / "saved", verify=True, device="cpu")
    custom = encoder.layout == "custom"
    plain = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=custom, device="cpu")
    assert type(plain[0]).__module__.startswith("sentence_transformers.") != custom
    texts = drawn_texts(10)
    dealt = DRAWN.choices([SAVED, *OTHERS], k=len(texts)) if takes_instructions else [""] * len(texts)
    bare, told = (specified(encoder, tokenizer, texts, one) for one in ([""] * len(texts), dealt))
    for door in (encoder, loaded, plain):
        assert cosine_distance(door.encode(texts), bare) < 1e-6
        assert cosine_distance(door.encode(texts[5]), bare[5]) < 1e-6
    if not takes_instructions:
        return
    query = specified(encoder, tokenizer, texts, [SAVED] * len(texts))
    begun = [
        at for at, text in enumerate(texts) if text.lstrip(" ")[:1] not in "\n\t<"
    ]  # tokens by themselves in Gemma
    for door in (encoder, loaded, plain):
        assert cosine_distance(door.encode_query(texts), query) < 1e-6
        assert cosine_distance(door.encode([texts[at] for at in begun], prompt=SAVED), query[begun]) < 1e-6
    for door in (encoder, loaded):
        assert cosine_distance(door.encode(texts, prompt=dealt), told) < 1e-6
        assert cosine_distance(door.encode([list(pair) for pair in zip(dealt, texts, strict=True)]), told) < 1e-6


@pytest.mark.parametrize(("recipe", "name"), HALF)
def test_bfloat16(request: pytest.FixtureRequest, tmp_path: Path, recipe: str, name: str) -> None:
    folder = request.getfixturevalue(name)
    prompts = {"query": SAVED} if RECIPES[recipe].instruction_template is not None else {}
    encoder = convert(folder, recipe, prompts=prompts, device="cpu", measure=False)
    assert encoder.transformer.model.dtype == torch.bfloat16
    encoder.save_pretrained(str(tmp_path / "saved"))
    loaded = load(tmp_path / "saved", verify=True, device="cpu")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    texts = drawn_texts(8)
    together = encoder.encode_query(texts)
    alone = np.stack([encoder.encode_query(text) for text in texts])
    assert cosine_distance(loaded.encode_query(texts), together) < 1e-6
    assert cosine_distance(alone, together) < BFLOAT16[name]
    assert cosine_distance(plain.encode_query(texts), together) < BFLOAT16[name]
