from __future__ import annotations

import pytest

from st_llm2vec.modules.formatter import InstructionFormatter
from st_llm2vec.modules.special_tokens import leading_special_ids
from tests.tiny_tokenizers import TOKENIZERS

from ..conftest import INSTRUCTION, TEXTS
from ..promises import Promise

SPAN = InstructionFormatter("{bos}{pool}{text}{/pool}", "{bos}{instruction}{pool} {text}{/pool}")
ECHO = InstructionFormatter("{bos}Say: {text} Again:{pool} {text}{/pool}{eos}")
QUOTED = InstructionFormatter('{bos}This sentence : "{text}" means in one word:"')


def pooled(features, tokenizer, row: int = 0) -> str:
    ids = features["input_ids"][row][features["pooling_mask"][row] == 1]
    return tokenizer.decode(ids).strip()


@pytest.mark.promise(Promise.EXACT_SPAN)
@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_span_is_the_text(tokenizers, kind: str, side: str) -> None:
    tokenizer = tokenizers[kind]
    tokenizer.padding_side = side
    for instruction in ("", INSTRUCTION):
        features = SPAN(TEXTS, instruction, tokenizer, 128)
        for row, text in enumerate(TEXTS):
            assert pooled(features, tokenizer, row) == text


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_whole_string_is_tokenized_at_once(tokenizers, kind: str) -> None:
    tokenizer = tokenizers[kind]
    for text in TEXTS:
        whole = tokenizer(f'This sentence : "{text}" means in one word:"')["input_ids"]
        assert QUOTED([text], None, tokenizer, 128)["input_ids"][0].tolist() == whole


def test_instructions_may_differ_by_row(tokenizers) -> None:
    tokenizer = tokenizers["byte-level+bos"]
    instructions = [INSTRUCTION, None, "Find it.", "", INSTRUCTION]
    together = SPAN(TEXTS, instructions, tokenizer, 128)
    for row, (text, instruction) in enumerate(zip(TEXTS, instructions, strict=True)):
        alone = SPAN([text], instruction, tokenizer, 128)
        kept = together["attention_mask"][row] == 1
        assert together["input_ids"][row][kept].tolist() == alone["input_ids"][0].tolist()
        assert together["pooling_mask"][row][kept].tolist() == alone["pooling_mask"][0].tolist()


@pytest.mark.promise(Promise.EXACT_SPAN)
@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", ["word " * 200, "x" * 900, "北京是中国的首都" * 60, "🙂" * 90])
def test_truncation_cuts_the_text_and_nothing_else(tokenizers, kind: str, text: str) -> None:
    tokenizer = tokenizers[kind]
    suffix = tokenizer('" means in one word:"', add_special_tokens=False)["input_ids"][-5:]
    features = QUOTED([text], None, tokenizer, 60)
    assert 50 < features["input_ids"].shape[1] <= 60
    assert features["input_ids"][0, -5:].tolist() == suffix
    rendered = tokenizer.decode(features["input_ids"][0], skip_special_tokens=True)
    assert rendered.replace(" ", "").startswith('Thissentence:"')


@pytest.mark.promise(Promise.EXACT_SPAN)
@pytest.mark.parametrize("kind", ["byte-level+bos", "metaspace+bos"])
def test_both_copies_are_cut_alike(tokenizers, kind: str) -> None:
    tokenizer = tokenizers[kind]
    text = "the clock struck seven and the cat slept on " * 20
    features = ECHO([text], None, tokenizer, 70)
    ids = features["input_ids"][0]
    assert len(ids) <= 70
    assert ids[-1] == tokenizer.eos_token_id
    assert features["pooling_mask"][0, -1] == 0
    first, second = tokenizer.decode(ids, skip_special_tokens=True).replace("Say:", "").split("Again:")
    assert first.strip() == second.strip() == pooled(features, tokenizer)
    assert text.startswith(second.strip())


def test_a_template_longer_than_the_limit_is_refused(tokenizers) -> None:
    with pytest.raises(ValueError, match="no room for the text: max_length=8"):
        QUOTED(["a text"], None, tokenizers["byte-level+bos"], 8)


@pytest.mark.promise(Promise.EXACT_SPAN)
def test_a_token_that_straddles_the_border_belongs_to_the_text(tokenizers) -> None:
    tokenizer = tokenizers["byte-level"]
    glued = InstructionFormatter(" th{pool}{text}{/pool}")
    features = glued(["e old clock"], None, tokenizer, 64)
    assert tokenizer.decode(features["input_ids"][0, :1]) == " the"
    assert features["pooling_mask"][0].tolist() == [1] * features["input_ids"].shape[1]


def test_bos_and_eos_are_the_tokenizers_own(tokenizers) -> None:
    formatter = InstructionFormatter("{bos}{text}{eos}")
    with_bos = formatter(["Hello"], None, tokenizers["metaspace+bos"], 32)["input_ids"][0].tolist()
    without = formatter(["Hello"], None, tokenizers["metaspace"], 32)["input_ids"][0].tolist()
    assert with_bos == [1, *without]
    assert without[-1] == tokenizers["metaspace"].eos_token_id
    assert leading_special_ids(tokenizers["metaspace+bos"]) == [1]
    assert leading_special_ids(tokenizers["metaspace"]) == []


def test_an_empty_text_without_tokens_is_read_but_not_pooled(tokenizers) -> None:
    features = SPAN(["", "Hello"], None, tokenizers["byte-level"], 32)
    assert features["attention_mask"][0].sum() == 1
    assert features["pooling_mask"][0].sum() == 0


def test_wrapped_instructions_are_unwrapped() -> None:
    formatter = InstructionFormatter("{text}", "Instruct: {instruction}\nQuery: {text}")
    for given in ("Find it.", " Find it. ", "Instruct: Find it.\nQuery: ", "Instruct: Find it.\nQuery:"):
        assert formatter.bare_instruction(given) == "Find it."


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no slot", "no {text} slot"),
        ("{text}{mystery}", "unknown slot {mystery}"),
        ("{pool}{text}", "one {pool} and one {/pool}"),
        ("{/pool}{text}{pool}", "closes {/pool} before"),
        ("a{bos}{text}", "at its very start"),
        ("{text}{eos}!", "at its very end"),
        ("{instruction}{text}", "cannot have an {instruction} slot"),
    ],
)
def test_malformed_templates_are_refused_in_a_sentence(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        InstructionFormatter(template)


def test_a_method_without_instructions_refuses_one(tokenizers) -> None:
    with pytest.raises(ValueError, match="no place for an instruction"):
        QUOTED(["Hello"], "Find it", tokenizers["byte-level"], 64)
    with pytest.raises(ValueError, match="2 texts but 1 instructions"):
        SPAN(["a", "b"], ["Find it"], tokenizers["byte-level"], 64)
