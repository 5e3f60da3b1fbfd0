from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from st_llm2vec import TextEncoder, convert
from st_llm2vec.encoding.rendering import PLACE, puts_text_verbatim
from st_llm2vec.layouts.message import READS_MESSAGES, chat_template_for
from st_llm2vec.modules.formatter import InstructionFormatter
from st_llm2vec.proof.texts import TEXTS as PROOF_TEXTS
from st_llm2vec.recipe.config import RECIPES
from tests.conftest import but_first
from tests.tiny_decoders import tiny_decoder
from tests.tiny_tokenizers import TOKENIZERS

STOCK = ("llm2vec", "sgpt", "prompteol", "prompteol-icl", "prompteol-knowledge", "e5-mistral", "bge-en-icl-few-shot")
TEXTS = (
    *PROOF_TEXTS,
    "",
    " ",
    "\n",
    "trailing blanks  \t",
    "</s>",
    "a <s> b </s> <unk> <pad> <|endoftext|> <|im_end|>",
    "{{ x }} {% if y %} {text} {instruction} {# no #}",
    "&lt;b&gt; <b>html</b> 'quotes' \"double\" \\n \\",
    "e\u0301 composed é, \u200b zero width, \ufeff BOM, \u00a0 no-break",
    "\U0001f469\u200d\U0001f4bb family \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "https://example.org/picture.png",
    "data:image/png;base64,AAAA",
    "https://www.youtube.com/watch?v=1",
)
PROMPTS = (
    None,
    "",
    "Retrieve stories that match the query:",
    "  blanks around it  ",
    "Étant donné </s> {{ x }}",
    "one",
)


def stock(encoder: TextEncoder, texts: list[Any], prompt: Any = None, **options: Any) -> dict[str, Any]:
    """What the encoder gives when stock preprocessing does it."""
    kept, encoder._rendering = encoder._rendering, lambda *_: None  # type: ignore[assignment]
    try:
        return encoder.preprocess(texts, prompt=prompt, **options)
    finally:
        encoder._rendering = kept


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
        else:
            assert found[name] == value, name


def takes_instruction(encoder: TextEncoder) -> bool:
    assert encoder.manifest is not None
    return encoder.manifest.config.instruction_template is not None


def compare(encoder: TextEncoder, fast: bool = True) -> None:
    """Both ways over all texts, alone and in a batch, with every prompt, at both sides."""
    assert encoder.layout in ("text", "message")
    for side, prompt in itertools.product(("left", "right"), PROMPTS if takes_instruction(encoder) else PROMPTS[:2]):
        encoder.tokenizer.padding_side = side
        for batch in (list(TEXTS), *([text] for text in TEXTS)):
            assert_equal(encoder.preprocess(batch, prompt=prompt), stock(encoder, batch, prompt))
        ready = encoder._rendering(encoder.transformer, list(TEXTS), prompt, {})
        assert (ready is not None) is fast


@pytest.fixture(scope="module")
def encoders(decoder: str) -> dict[str, TextEncoder]:
    return {name: convert(decoder, name) for name in STOCK}


@pytest.mark.parametrize("recipe", STOCK)
def test_every_stock_recipe_reads_what_stock_preprocessing_reads(encoders: dict[str, TextEncoder], recipe: str):
    encoder = encoders[recipe]
    side = encoder.tokenizer.padding_side
    compare(encoder)
    encoder.tokenizer.padding_side = side


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("recipe", but_first(["llm2vec", "e5-mistral"]))
def test_every_kind_of_tokenizer(tiny: Callable[..., str], recipe: str, kind: str):
    encoder = convert(tiny("llama", kind, max_position_embeddings=512), recipe)
    if encoder.layout == "custom":
        pytest.skip(f"{recipe} is custom with this tokenizer")
    compare(encoder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
@pytest.mark.parametrize("recipe", ["llm2vec", "prompteol", "e5-mistral"])
def test_tokenizers_of_full_size(shared_data: Path, name: str, recipe: str):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / name)
    tokenizer.model_max_length = 512
    encoder = convert(tiny_decoder("llama", vocab_size=len(tokenizer)), recipe, tokenizer=tokenizer)
    assert encoder.layout != "custom"
    compare(encoder)


@pytest.mark.parametrize("recipe", STOCK)
@pytest.mark.parametrize("length", [40, 64, 65, 66, 67, 68, 69, 70])
def test_texts_around_the_longest_input(encoders: dict[str, TextEncoder], recipe: str, length: int):
    encoder = encoders[recipe]
    for prompt in (None, "Find the fable.") if takes_instruction(encoder) else (None,):
        overhead = encoder.preprocess([""], prompt=prompt)["input_ids"].shape[1]
        for batch in (["cat " * length], ["cat " * length, "short", ""]):
            for options in ({}, {"max_length": overhead + 64}, {"max_length": overhead + 64, "task": "document"}):
                assert_equal(
                    encoder.preprocess(batch, prompt=prompt, **options), stock(encoder, batch, prompt, **options)
                )


@pytest.mark.parametrize("recipe", ["llm2vec", "e5-mistral"])
def test_a_changed_limit_is_seen(encoders: dict[str, TextEncoder], recipe: str):
    encoder = encoders[recipe]
    limit, batch = encoder.max_seq_length, ["cat " * 40, "short"]
    encoder.preprocess(batch, prompt="Find it, please:")
    encoder.max_seq_length = 20
    try:
        features = encoder.preprocess(batch, prompt="Find it, please:")
        assert features["input_ids"].shape[1] == 20
        assert_equal(features, stock(encoder, batch, "Find it, please:"))
    finally:
        encoder.max_seq_length = limit


def test_a_changed_template_is_seen(decoder: str):
    encoder, batch = convert(decoder, "e5-mistral"), ["  Blanks around it.  ", "b"]
    encoder.preprocess(batch)
    encoder.tokenizer.chat_template = encoder.tokenizer.chat_template.replace("turn.text -", "turn.text | trim -")
    assert encoder._rendering(encoder.transformer, batch, None, {}) is None
    assert_equal(encoder.preprocess(batch), stock(encoder, batch))
    encoder.tokenizer.chat_template = READS_MESSAGES + "{{- 'Now: ' -}}{{- turn.text -}}{{- eos_token -}}"
    assert encoder._rendering(encoder.transformer, batch, None, {}) is not None
    assert_equal(encoder.preprocess(batch), stock(encoder, batch))
    encoder.tokenizer.eos_token = encoder.tokenizer.bos_token
    assert_equal(encoder.preprocess(batch), stock(encoder, batch))


def test_another_tokenizer_is_seen(decoder: str):
    encoder = convert(decoder, "prompteol")
    before = encoder.preprocess(["A text."])["input_ids"]
    encoder.transformer.processor = copy.deepcopy(encoder.tokenizer)
    encoder.tokenizer.chat_template = READS_MESSAGES + "{{- turn.text -}}"
    assert encoder.preprocess(["A text."])["input_ids"].shape[1] < before.shape[1]


@pytest.mark.parametrize(
    ("batch", "options"),
    [
        (["a text", {"text": "in a mapping"}], {}),
        (["a text"], {"processing_kwargs": {"text": {"padding": "max_length", "max_length": 16}}}),
    ],
)
def test_other_inputs_and_options_take_the_stock_way(
    encoders: dict[str, TextEncoder], batch: list[Any], options: dict[str, Any]
):
    encoder = encoders["e5-mistral"]
    assert encoder._rendering(encoder.transformer, batch, None, options) is None
    assert_equal(encoder.preprocess(batch, **options), stock(encoder, batch, **options))


def test_settings_of_the_module_take_the_stock_way(decoder: str):
    encoder, batch = convert(decoder, "e5-mistral"), ["cat " * 30, "b"]
    encoder.transformer.processing_kwargs = {"text": {"padding": "max_length", "max_length": 16}}
    assert encoder.preprocess(batch)["input_ids"].shape == (2, 16)
    encoder.transformer.processing_kwargs = {}
    encoder.transformer.document_length = 12
    assert encoder.preprocess(batch, task="document")["input_ids"].shape == (2, 12)


def test_a_prompt_that_holds_the_mark_takes_the_stock_way(encoders: dict[str, TextEncoder]):
    encoder, prompt = encoders["e5-mistral"], f"A strange {PLACE} instruction."
    assert encoder._rendering(encoder.transformer, ["a"], prompt, {}) is None
    batch = ["a text", PLACE]
    assert_equal(encoder.preprocess(batch, prompt=prompt), stock(encoder, batch, prompt))
    assert_equal(encoder.preprocess(batch), stock(encoder, batch))


def test_an_instruction_is_refused_as_before(encoders: dict[str, TextEncoder]):
    for _ in range(2):
        with pytest.raises(Exception, match="takes no instruction"):
            encoders["prompteol"].preprocess(["a text"], prompt="An instruction:")


def test_instructions_of_texts_are_read_too(encoders: dict[str, TextEncoder]):
    encoder = encoders["e5-mistral"]
    batch = [{"text": text, "instruction": "Find it:"} for text in ("one", "another")]
    assert_equal(encoder.preprocess(batch), stock(encoder, ["one", "another"], "Find it:"))


def test_copies_and_pickles_read_the_same(encoders: dict[str, TextEncoder]):
    encoder = encoders["e5-mistral"]
    expected = encoder.preprocess(["a text"], prompt="Find it:")
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert_equal(other.preprocess(["a text"], prompt="Find it:"), expected)


def test_the_templates_of_every_recipe_are_recognised():
    for config in RECIPES.values():
        formatter = InstructionFormatter(**config.formatter_config())
        if formatter.template.copies == 1:
            assert puts_text_verbatim(chat_template_for(formatter, "<s>"))


@pytest.mark.parametrize(
    "body",
    [
        "{{- turn.text | trim -}}",
        "{{- turn.text + '!' -}}",
        "{{- turn['text'] -}}",
        "{%- if 'secret' in turn.text -%}{{- 'x' -}}{%- endif -%}{{- turn.text -}}",
        "{%- if turn.text -%}{{- turn.text -}}{%- endif -%}",
        "{%- set turn.text = 'other' -%}{{- turn.text -}}",
        "{%- set other = turn -%}{{- other.text -}}",
        "{%- filter upper -%}{{- turn.text -}}{%- endfilter -%}",
        "{%- for message in messages -%}{{- turn.text -}}{%- endfor -%}",
        "{{- messages[0]['content'] -}}{{- turn.text -}}",
        "{{- turn.text -}}{%- if -%}",
    ],
)
def test_templates_that_do_more_with_a_text_are_not_taken(body: str):
    assert not puts_text_verbatim(READS_MESSAGES + body)
    assert not puts_text_verbatim("{%- set turn = namespace(text='x') -%}{{- turn.text -}}")
