"""Real decoders, every recipe, every door: the vectors of the specification, alone and in a batch."""

from __future__ import annotations

import copy
import functools
import os
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from st_llm2vec import RECIPES, TextEncoder, convert, load
from st_llm2vec.modules.formatter import UNLIMITED, InstructionFormatter
from st_llm2vec.modules.span_pooling import span_weights

from ..conftest import cosine_distance

pytestmark = pytest.mark.real

SAVED = "Given a question, retrieve passages that answer it:"
WORDS = (
    "the old clock in a hall struck seven and cats slept on 12 ships; (naïve) 北京 violin's maple \n \t <b> ...".split(
        " "
    )
)
OTHERS = ["Represent this short text", "Which of these 3?"]
UNTRAINED = [name for name in RECIPES if name != "nv-embed"]  # its pooling is random until it is trained
LAYOUTS = ("llm2vec", "e5-mistral", "prompteol-icl", "echo")
HALF = [("llm2vec", "smollm2"), ("llm2vec", "gemma3"), ("prompteol-icl", "smollm2"), ("e5-mistral", "gemma3")]
# In bfloat16 a text alone and in a batch differ by rounding, and so do this package, which attends in float32 on a CPU that
# is faster so, and plain Sentence Transformers. Bidirectional SmolLM2, untrained, amplifies it on texts of a
# few words, whose one or two sink tokens have norms that swing by a third: there only half of the texts are bounded.
DRIFT = 1e-2


def drawn_texts(count: int, recipe: str) -> list[str]:
    """Texts of one to 25 words, others for each recipe, some with blanks around them."""
    draws = random.Random(recipe)
    texts = [" ".join(draws.choices(WORDS, k=draws.choice((1, 2, 4, 8, 25)))) for _ in range(count)]
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
        rows = formatter([text], instruction, tokenizer, UNLIMITED)
        model = encoder.transformer.model
        readings = []
        for ids, pooled, read in zip(
            *(rows[name] for name in ("input_ids", "pooling_mask", "attention_mask")), strict=True
        ):
            ids, pooled = ids[read.bool()][None], pooled[read.bool()][None]
            output = model(input_ids=ids, use_cache=False, output_hidden_states=config.layer != -1)
            states = output.last_hidden_state if config.layer == -1 else output.hidden_states[config.layer]
            readings.append((span_weights(pooled, config.pooling).unsqueeze(-1) * states.float()).sum(1)[0])
        vectors.append(torch.stack(readings).mean(0))
    return torch.stack(vectors).numpy()


@pytest.mark.parametrize("recipe", UNTRAINED)
def test_float32_smollm2(smollm2: str, tmp_path: Path, recipe: str) -> None:
    check_every_door(smollm2, tmp_path, recipe)


@pytest.mark.parametrize(
    "recipe", [pytest.param(one, marks=() if one in LAYOUTS else pytest.mark.slow) for one in UNTRAINED]
)
def test_float32_gemma3(gemma3: str, tmp_path: Path, recipe: str) -> None:
    """Gemma's tokenizer takes seconds to load, so recipes that share a layout with another are for `make test-slow`."""
    check_every_door(gemma3, tmp_path, recipe)


def check_every_door(decoder: str, tmp_path: Path, recipe: str) -> None:
    """Hold each door's vectors against the specification."""
    model, tokenizer = decoder_of(decoder)
    takes_instructions = RECIPES[recipe].instruction_template is not None
    prompts = {"query": SAVED} if takes_instructions else {}
    encoder = convert(copy.deepcopy(model), recipe, tokenizer=tokenizer, prompts=prompts, device="cpu", measure=False)
    encoder.save_pretrained(str(tmp_path / "saved"))
    custom = encoder.layout == "custom"
    plain = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=custom, device="cpu")
    assert type(plain[0]).__module__.startswith("sentence_transformers.") != custom
    doors = [encoder, load(tmp_path / "saved", verify=True, device="cpu"), plain]
    texts = drawn_texts(4, recipe)
    bare = specified(encoder, tokenizer, texts, [""] * len(texts))
    for door in doors:
        assert cosine_distance(door.encode(texts), bare) < 1e-6
        assert cosine_distance(door.encode(texts[3]), bare[3]) < 1e-6
    query = specified(encoder, tokenizer, texts, [SAVED] * len(texts)) if takes_instructions else bare
    # The adapters read what `load` gives: once for each layout
    for documents, first, second in by_adapters(str(tmp_path / "saved"), texts) if recipe in LAYOUTS else ():
        assert cosine_distance(documents, bare) < 1e-6
        assert cosine_distance(np.stack([first, second]), query[:2]) < 1e-6
    if not takes_instructions:
        return
    dealt = random.Random(recipe).choices([SAVED, *OTHERS], k=len(texts))
    told = specified(encoder, tokenizer, texts, dealt)
    begun = [  # "\n", "\t" and "<b>" are tokens by themselves in Gemma
        at for at, text in enumerate(texts) if text.lstrip(" ")[:1] not in "\n\t<"
    ]
    for door in doors:
        # Sentence Transformers alone puts a prompt before the text as it is, with no template around it.
        said = plain.prompts["query"] if door is plain and encoder.layout == "prefix" else SAVED
        assert cosine_distance(door.encode_query(texts), query) < 1e-6
        assert cosine_distance(door.encode([texts[at] for at in begun], prompt=said), query[begun]) < 1e-6
    for door in doors[:2]:
        assert cosine_distance(door.encode(texts, prompt=dealt), told) < 1e-6
        assert cosine_distance(door.encode([list(pair) for pair in zip(dealt, texts, strict=True)]), told) < 1e-6


def by_adapters(name: str, texts: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The texts as documents and the first two as queries, by each adapter that is installed."""
    if installed("langchain_st_llm2vec"):
        from langchain_st_llm2vec import STLLM2VecEmbeddings

        langchain = STLLM2VecEmbeddings(model=name, device="cpu")
        first, second = (np.array(langchain.embed_query(text)) for text in texts[:2])
        yield np.array(langchain.embed_documents(texts)), first, second
    if installed("llama_index.embeddings.st_llm2vec"):
        from llama_index.embeddings.st_llm2vec import STLLM2VecEmbedding

        llama_index = STLLM2VecEmbedding(name, device="cpu")
        first, second = (np.array(llama_index.get_query_embedding(text)) for text in texts[:2])
        yield np.array(llama_index.get_text_embedding_batch(texts)), first, second


def installed(module: str) -> bool:
    """Whether an adapter is here; `make test-real` installs both and says so, and a missing one is then an error."""
    if os.environ.get("ST_LLM2VEC_ADAPTERS"):
        return True
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize(("recipe", "name"), HALF)
def test_bfloat16(request: pytest.FixtureRequest, tmp_path: Path, recipe: str, name: str) -> None:
    folder = request.getfixturevalue(name)
    prompts = {"query": SAVED} if RECIPES[recipe].instruction_template is not None else {}
    encoder = convert(folder, recipe, prompts=prompts, device="cpu", measure=False)
    assert encoder.transformer.model.dtype == torch.bfloat16
    encoder.save_pretrained(str(tmp_path / "saved"))
    loaded = load(tmp_path / "saved", verify=True, device="cpu")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    texts = drawn_texts(4, recipe)
    alone, again, elsewhere = (
        np.stack([door.encode_query(text) for text in texts]) for door in (encoder, loaded, plain)
    )
    assert cosine_distance(again, alone) < 1e-6
    batches = [door.encode_query(texts) for door in (encoder, plain)]
    for vectors in (elsewhere, *batches):
        drift = [cosine_distance(*pair) for pair in zip(vectors, alone, strict=True)]
        assert np.median(drift) < DRIFT
        if (recipe, name) != ("llm2vec", "smollm2"):
            assert max(drift) < DRIFT
