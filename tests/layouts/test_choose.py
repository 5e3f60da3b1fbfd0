"""Stock modules are taken where they give the same tokens, and only there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import WordWeights

from st_llm2vec import RECIPES, convert
from st_llm2vec.modules import BidirectionalTransformer, InstructionFormatter
from tests.tiny_tokenizers import TOKENIZERS

from ..conftest import INSTRUCTION, TEXTS, SameVectors, cosine_distance, crossed
from ..promises import Promise

ODD_TEXTS = [*TEXTS, "...dots", "(brackets)", "'quoted'", "Étude", "the the", "  two blanks first", "#tag", "9 lives"]


@pytest.mark.promise(Promise.EXACT_SPAN)
@pytest.mark.parametrize(
    ("kind", "recipe"),
    crossed(TOKENIZERS, [name for name in RECIPES if name != "nv-embed"], ("llm2vec",)),
)
def test_the_vectors_are_those_of_the_specification(
    tiny: Callable[..., str], tmp_path: Path, recipe: str, kind: str, same_vectors: SameVectors
) -> None:
    """Whatever was chosen gives what the formatter and span pooling give, saved and reloaded too."""
    folder = tiny("llama", kind, max_position_embeddings=384)
    instructed = RECIPES[recipe].instruction_template is not None
    prompts = {"query": INSTRUCTION, "document": "Represent the story"} if instructed else {}
    encoder = convert(folder, recipe, prompts=prompts)
    config = encoder.manifest.config
    encoder.save_pretrained(str(tmp_path / "saved"))
    plain = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=encoder.manifest.layout == "custom")

    from st_llm2vec.conversion.decoder import load_transformer
    from st_llm2vec.modules import MeanOfReadings, SpanPooling, set_attention

    transformer = load_transformer(folder, None, None, {})
    set_attention(transformer.model, config.attention)
    transformer.tokenizer.padding_side = config.padding_side
    transformer.max_seq_length = encoder.max_seq_length
    module = BidirectionalTransformer.from_transformer(transformer, config.attention, config.formatter_config())
    pooling = SpanPooling(module.get_embedding_dimension(), config.pooling)
    readings = [MeanOfReadings(len(config.readings))] if len(config.readings) > 1 else []
    specification = SentenceTransformer(modules=[module, pooling, *readings])

    for model in (encoder, plain):
        same_vectors(model.encode(ODD_TEXTS), specification.encode(ODD_TEXTS))
        for name, call in (("query", model.encode_query), ("document", model.encode_document)):
            expected = specification.encode(ODD_TEXTS, prompt=prompts.get(name))
            same_vectors(call(ODD_TEXTS), expected)
            if prompts:
                same_vectors(model.encode(ODD_TEXTS, prompt=model.prompts[name]), expected)
            if name == "query" and prompts:
                glued = (
                    model is plain and encoder.manifest.layout == "prefix"
                )  # such prompts are passed with their blank
                told = f"{prompts[name]} " if glued else prompts[name]
                same_vectors(model.encode(TEXTS, prompt=told), expected[: len(TEXTS)])
                same_vectors(model.encode(ODD_TEXTS, prompt_name=name), expected)


def test_bos_is_weighed_out_only_where_there_is_one(tiny: Callable[..., str]) -> None:
    with_bos = convert(tiny("llama", "metaspace+bos"), "llm2vec")
    without = convert(tiny("llama", "byte-level"), "llm2vec")
    assert [type(m) for m in with_bos].count(WordWeights) == 1
    assert [type(m) for m in without].count(WordWeights) == 0
    assert type(with_bos[0]) is type(without[0]) is Transformer


def test_tokens_that_span_words_are_noticed(shared_data: Path) -> None:
    encoder = convert(shared_data / "models/tinystories-656k", "llm2vec")
    assert encoder.manifest.layout == "custom"
    assert "other tokens are pooled" in encoder.manifest.reason


@pytest.mark.parametrize("name", ["gpt2", pytest.param("qwen2", marks=pytest.mark.slow)])
def test_real_byte_level_tokenizers_are_portable(shared_data: Path, tiny: Callable[..., str], name: str) -> None:
    from transformers import AutoTokenizer

    from tests.tiny_decoders import tiny_decoder

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / name)
    decoder = tiny_decoder("llama", vocab_size=len(tokenizer))
    encoder = convert(decoder, "llm2vec", tokenizer=tokenizer, prompts={"query": INSTRUCTION})
    assert encoder.manifest.layout == "text"
    assert convert(decoder, "prompteol", tokenizer=tokenizer).manifest.layout == "message"


@pytest.mark.parametrize(
    ("recipe", "prompt"),
    crossed(["llm2vec", "e5-mistral", "echo", "sgpt"], [f"  {INSTRUCTION}  ", f"{INSTRUCTION}\n", " ", "\n"], ("\n",)),
)
def test_blanks_around_an_instruction_do_not_matter(decoder: str, recipe: str, prompt: str) -> None:
    encoder = convert(decoder, recipe)
    expected = encoder.encode(TEXTS, prompt=prompt.strip() or None)
    assert cosine_distance(encoder.encode(TEXTS, prompt=prompt), expected) < 1e-6


def test_texts_that_begin_like_a_saved_instruction_are_left_alone(decoder: str) -> None:
    with_prompt = convert(decoder, "llm2vec", prompts={"query": "Represent the story"})
    without = convert(decoder, "llm2vec")
    for text in ("Represent the storybook cover", "Represent the story", "Represent the story: in French"):
        assert cosine_distance(with_prompt.encode(text), without.encode(text)) < 1e-6
    longer = with_prompt.encode(TEXTS, prompt="Represent the story: in French")
    assert cosine_distance(longer, without.encode(TEXTS, prompt="Represent the story: in French")) < 1e-6


def test_the_reason_is_told(decoder: str) -> None:
    assert "stands twice" in convert(decoder, "echo").manifest.reason
    assert "latent attention" in convert(decoder, "nv-embed", latent_attention={"num_latents": 2}).manifest.reason
    assert "length" in convert(decoder, "llm2vec", normalize=False).manifest.reason


def test_a_long_instruction_leaves_room_for_nothing_else(decoder: str) -> None:
    formatter = InstructionFormatter("{text}", "{instruction} {text}")
    tokenizer = convert(decoder, "llm2vec").tokenizer
    with pytest.raises(ValueError, match="Shorten the instruction"):
        formatter(["text"], "word " * 40, tokenizer, 20)
