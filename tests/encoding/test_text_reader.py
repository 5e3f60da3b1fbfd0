"""What goes into ``encode``: an instruction for each text, in every form; and what comes out for each token."""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

import st_llm2vec
from st_llm2vec import RECIPES, TextEncoder, accelerate, convert
from st_llm2vec.encoding import batches, inference
from st_llm2vec.encoding.batches import free_memory
from st_llm2vec.encoding.inputs import read_call
from st_llm2vec.layouts.message import chat_template_for
from st_llm2vec.modules.formatter import InstructionFormatter
from st_llm2vec.recipe.template import Template

from ..conftest import TEXTS, cosine_distance
from ..stand_ins import stand_in, stand_in_tokenizer

KINDS = {"llm2vec": "text", "e5-mistral": "message", "echo": "custom"}
INSTRUCTIONS = ["Find the passage that answers:", "Name it", "", "Answer the Query:", "Instruct: twice"]
WORDS = "the old clock in a hall struck seven ; cats slept on 12 ships".split()
DRAWN = random.Random(7)
MANY = [" ".join(DRAWN.choices(WORDS, k=1 + number * 7 % 19)) for number in range(40)]
DEALT = DRAWN.choices(INSTRUCTIONS, k=40)
SAVED = {"query": "Find it:", "document": "A passage:"}
Encoders = Callable[..., TextEncoder]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Encoders:
    """Encoders of stand-ins with real tokenizer classes, left-padded, in float32; tests leave them as they are."""

    @cache
    def make(recipe: str, kind: str = "smollm2") -> TextEncoder:
        folder = stand_in(kind, tmp_path_factory.mktemp(kind), torch.float32, max_position_embeddings=256)
        prompts = SAVED if RECIPES[recipe].instruction_template is not None else {}
        return convert(folder, recipe, padding_side="left", prompts=prompts)

    return make


@pytest.mark.parametrize("kind", ["smollm2", "gemma"])
@pytest.mark.parametrize("recipe", KINDS)
def test_an_instruction_for_each_text_in_every_form(encoders: Encoders, recipe: str, kind: str) -> None:
    encoder = encoders(recipe, kind)
    if kind == "smollm2":
        assert encoder.layout == KINDS[recipe]
    alone = np.stack([encoder.encode(text, prompt=one) for text, one in zip(MANY, DEALT, strict=True)])
    assert cosine_distance(encoder.encode(MANY), alone) > 1e-3, "the instructions matter"
    pairs = list(zip(DEALT, MANY, strict=True))
    for found in (
        encoder.encode(MANY, prompt=DEALT),
        encoder.encode(MANY, prompt=tuple(DEALT), batch_size=1),
        encoder.encode(np.array(MANY), prompt=np.array(DEALT), convert_to_tensor=True).numpy(),
        encoder.encode([list(pair) for pair in pairs]),
        encoder.encode(pairs, prompt=""),
        encoder.encode([{"text": text, "instruction": one or None} for one, text in pairs]),
        encoder.encode_query(MANY, prompt=DEALT),
        encoder.encode_document(pairs),
        encoder.encode_query(sentences=pairs),
    ):
        assert cosine_distance(found, alone) < 1e-6


@pytest.mark.parametrize("recipe", KINDS)
def test_neighbours_instructions_change_nothing_in_any_window(
    encoders: Encoders, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoders(recipe)
    whole = encoder.encode(MANY, prompt=DEALT)
    turned = encoder.encode(MANY[::-1], prompt=DEALT[::-1])[::-1]
    assert cosine_distance(turned, whole) < 1e-6
    monkeypatch.setattr(inference, "TOKENIZED_AT_ONCE", 3)
    monkeypatch.setattr(inference, "WINDOW", 7)
    monkeypatch.setattr(batches, "CPU_TOKENS", 20)
    assert cosine_distance(encoder.encode(MANY, prompt=DEALT), whole) < 1e-6


def test_texts_of_several_instructions_share_batches_where_they_can(encoders: Encoders) -> None:
    encoder = encoders("e5-mistral")
    batches = []
    handle = encoder.transformer.register_forward_pre_hook(lambda *_: batches.append(1))
    try:
        encoder.encode([[f"Number {number}", "a cat"] for number in range(40)])
    finally:
        handle.remove()
    assert len(batches) < 10


@pytest.mark.parametrize("recipe", KINDS)
def test_none_is_the_saved_instruction_and_an_empty_one_is_none(encoders: Encoders, recipe: str) -> None:
    encoder = encoders(recipe)
    for encode in (encoder.encode, encoder.encode_query, encoder.encode_document):
        prompts = [None, "", "Name it", None, ""]
        alone = np.stack([encode(text, prompt=one) for text, one in zip(TEXTS, prompts, strict=True)])
        assert cosine_distance(encode(TEXTS, prompt=prompts), alone) < 1e-6
    named = encoder.encode(TEXTS, prompt_name="query", prompt=[None, "", None, None, None])
    assert cosine_distance(named[[0, 2]], encoder.encode_query(TEXTS)[[0, 2]]) < 1e-6
    assert cosine_distance(named[1:2], encoder.encode(TEXTS[1:2])) < 1e-6


def test_the_hosts_options_hold_for_instructed_texts(encoders: Encoders) -> None:
    encoder = encoders("llm2vec")
    whole = encoder.encode(MANY, prompt=DEALT)
    short = encoder.encode(MANY, prompt=DEALT, truncate_dim=16, normalize_embeddings=True)
    assert cosine_distance(short, whole[:, :16]) < 1e-6
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5)
    assert encoder.encode(MANY, prompt=DEALT, precision="binary").shape == (40, 8)
    assert all(isinstance(one, torch.Tensor) for one in encoder.encode(MANY, prompt=DEALT, convert_to_numpy=False))
    assert encoder.encode({"text": "a cat", "instruction": "Name it"}).shape == (64,)
    assert encoder.encode("a cat", prompt=["Name it"]).shape == (64,)
    assert encoder.encode([], prompt=[]).shape == (0,)
    column = Dataset.from_dict({"text": MANY})["text"]
    assert cosine_distance(encoder.encode(column, prompt=DEALT), whole) < 1e-6


def test_instructions_stay_with_their_texts_in_several_processes(encoders: Encoders) -> None:
    encoder = encoders("llm2vec")
    queues: list[Any] = [Queue(), Queue()]
    worker = Thread(target=TextEncoder._multi_process_worker, args=("cpu", encoder, *queues), daemon=True)
    worker.start()  # the host's own worker, in a thread, which needs no second start of Python
    pool: Any = {"input": queues[0], "output": queues[1], "processes": [worker]}
    found = encoder.encode(MANY, prompt=DEALT, pool=pool, chunk_size=7)
    assert cosine_distance(found, encoder.encode(MANY, prompt=DEALT)) < 1e-6


@pytest.mark.parametrize(
    ("inputs", "prompt", "message"),
    [
        (["a", "b"], ["x"], "prompt holds 1 instructions for 2 texts; give one for each"),
        ("a", ["x", "y"], "prompt holds 2 instructions for 1 texts"),
        (["a"], 5, "prompt=5 is int; give an instruction"),
        (["a", "b"], ["x", 5], "Instruction 1 is 5; an instruction is a text"),
        (["a"], ["x\ud800"], r"Instruction 0 .* holds '\\ud800' at character 1"),
        (["a"], "\udc00", r"prompt .* holds '\\udc00' at character 0"),
        ([["x", "a"]], "y", "instructions of their own, and the prompt 'y'"),
        ([["x", "a"]], ["y"], "instructions of their own"),
        ([["x", "a"], "b"], None, "Row 1 of the batch is 'b'"),
        (["b", ["x", "a"]], None, "Row 0 of the batch is 'b'"),
        ([["x"]], None, r"Row 0 of the batch is .*\[instruction, text\]"),
        ([["x", "a", 0]], None, r"Row 0 of the batch is .*\[instruction, text\]"),
        ([["x", None]], None, "Row 0 of the batch"),
        (["a", None], None, "Row 1 is NoneType 'None'; a text is expected"),
        (["a", float("nan")], None, "Row 1 is float 'nan'"),
        ([b"a"], None, "Row 0 is bytes"),
        (5, None, "Row 0 is int '5'"),
        (["a", "b\ud800c"], None, r"Row 1 holds '\\ud800' at character 1: half of a surrogate pair"),
        ([["x", "a"], ["x", "\udfff"]], None, r"row 1 holds '\\udfff'"),
        ({"role": "user", "content": "a"}, None, "Row 0 is a chat's message, .* Give the text alone"),
        (["a", [{"role": "user", "content": "a"}]], None, "Row 1 is a chat's message"),
        ([[5, 6], [7]], ["x", "y"], r"Row 0 is '\[5, 6\]'; where each has an instruction"),
    ],
)
@pytest.mark.parametrize("recipe", KINDS)
def test_what_cannot_be_read_is_a_sentence(
    encoders: Encoders, recipe: str, inputs: Any, prompt: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoders(recipe).encode(inputs, prompt=prompt)


@pytest.mark.parametrize("recipe", KINDS)
def test_a_mapping_with_a_text_alone_is_the_text(encoders: Encoders, recipe: str) -> None:
    encoder, told = encoders(recipe), "Name the animal:"
    expected = encoder.encode("who rang the bell?", prompt=told)
    for given in ({"text": "who rang the bell?"}, [{"text": "who rang the bell?"}]):
        assert cosine_distance(encoder.encode(given, prompt=told).reshape(expected.shape), expected) < 1e-6
    read, meant = (encoder.preprocess([one], prompt=told) for one in ({"text": "who rang?"}, "who rang?"))
    assert read["input_ids"].tolist() == meant["input_ids"].tolist()


def test_numpy_strings_are_texts(encoders: Encoders) -> None:
    for recipe in KINDS:
        encoder = encoders(recipe)
        expected = encoder.encode(["a cat", "the sea"], prompt="Name it")
        given = np.array(["a cat", "the sea"])
        for texts in (given, list(given), [given[0], "the sea"], np.array(["a cat", "the sea"], dtype=object)):
            assert cosine_distance(encoder.encode(texts, prompt=np.str_("Name it")), expected) < 1e-6
        assert cosine_distance(encoder.encode(np.array("a cat"), prompt="Name it")[None], expected[:1]) < 1e-6
        assert encoder._rendering(encoder.transformer, ["a cat"], None, {}) or encoder.layout == "custom"
    assert all(type(text) is str for text in read_call(given, None, lambda: None)[0])


@pytest.mark.parametrize("recipe", ["prompteol", "bare"])
def test_a_recipe_without_instructions_refuses_them(encoders: Encoders, decoder: str, recipe: str) -> None:
    if recipe == "bare":
        encoder = convert(decoder, {"name": "bare", "template": "{bos}{text}"})
        assert encoder.layout == "text"
    else:
        encoder = encoders(recipe)
    plain = encoder.encode(["a cat", "the sea"])
    assert cosine_distance(encoder.encode([["", "a cat"], ["", "the sea"]]), plain) < 1e-6
    assert cosine_distance(encoder.encode(["a cat", "the sea"], prompt=[None, ""]), plain) < 1e-6
    for inputs, prompt in ((["a"], "Find it:"), (["a", "b"], ["", "Find it:"]), ([["", "a"], ["Find it:", "b"]], None)):
        with pytest.raises(ValueError, match="takes no instruction, and 'Find it:' was given. Encode without a prompt"):
            encoder.encode(inputs, prompt=prompt)
    if recipe == "prompteol":
        manifest, encoder.manifest = encoder.manifest, None
        try:
            with pytest.raises(ValueError, match="takes no instruction"):
                encoder.encode(["a"], prompt="Find it:")
        finally:
            encoder.manifest = manifest


def test_plain_sentence_transformers_refuse_a_list_in_a_chat_template(encoders: Encoders) -> None:
    encoder = encoders("e5-mistral")
    plain = SentenceTransformer(modules=list(encoder), device="cpu")
    with pytest.raises(Exception, match="must be one string"):
        plain.encode(["a", "b"], prompt=["x", "y"])
    assert cosine_distance(plain.encode(["a"], prompt="x"), encoder.encode(["a"], prompt="x")) < 1e-6


@pytest.mark.parametrize("output_value", ["sentence_embedding", "token_embeddings"])
def test_an_accelerated_plain_encoder_refuses_rows_with_an_instruction(encoders: Encoders, output_value: Any) -> None:
    """As it does before it is accelerated; it would glue the bare instruction to the text."""
    plain = accelerate(SentenceTransformer(modules=list(encoders("llm2vec")), device="cpu"))
    with pytest.raises(ValueError, match="has an instruction of its own"):
        plain.encode([{"text": "a cat", "instruction": "Find it:"}, "a dog"], output_value=output_value)


def test_an_accelerated_plain_encoder_refuses_a_list(encoders: Encoders) -> None:
    plain = accelerate(SentenceTransformer(modules=list(encoders("llm2vec")), device="cpu"))
    with pytest.raises(ValueError, match="is no single instruction"):
        plain.encode(["a", "b"], prompt=["x", "y"])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("recipe", [*KINDS, "prompteol"])
def test_token_embeddings_are_those_of_the_texts_own_tokens(encoders: Encoders, recipe: str, side: str) -> None:
    encoder = encoders(recipe)
    dealt = DEALT[:5] if recipe != "prompteol" else [""] * 5
    encoder.tokenizer.padding_side = side
    try:
        together = encoder.encode(TEXTS, prompt=dealt, output_value="token_embeddings")
        everything = encoder.encode(TEXTS, prompt=dealt, output_value=None)
        vectors = encoder.encode(TEXTS, prompt=dealt)
        for place, (text, one) in enumerate(zip(TEXTS, dealt, strict=True)):
            ids = encoder.preprocess([text], prompt=one)["input_ids"][0]
            alone = encoder.encode(text, prompt=one, output_value="token_embeddings")
            found = everything[place]
            assert torch.equal(found["input_ids"], ids) and bool(found["attention_mask"].all())
            assert len(together[place]) == len(alone) == len(ids) == len(found["token_embeddings"])
            assert torch.allclose(together[place], alone, atol=1e-5)
            assert torch.equal(found["token_embeddings"], together[place])
            assert cosine_distance(found["sentence_embedding"].numpy(), vectors[place]) < 1e-6
    finally:
        encoder.tokenizer.padding_side = "left"


def test_a_vector_as_long_as_the_padded_batch_is_whole(encoders: Encoders) -> None:
    encoder = encoders("prompteol")
    width = encoder.get_embedding_dimension()
    overhead = encoder.preprocess([""])["input_ids"].shape[1]
    found = encoder.encode(["a", " a" * (width - overhead)], output_value=None)
    assert len(found[1]["attention_mask"]) == width
    assert [len(one["sentence_embedding"]) for one in found] == [width, width]


def test_blocks_give_their_own_tokens_too(encoders: Encoders) -> None:
    encoder = encoders("llm2vec")
    blocks = [[5, 6, 7, 8], [9, 10]]
    assert [len(one) for one in encoder.encode(blocks, output_value="token_embeddings")] == [4, 2]


@pytest.mark.parametrize("recipe", KINDS)
def test_settings_of_the_processor_hold_for_a_call(encoders: Encoders, recipe: str) -> None:
    encoder = encoders(recipe)
    limit, texts = encoder.max_seq_length, ["cat " * 60, "a cat"]
    short = encoder.encode(texts, processing_kwargs={"text": {"max_length": 40, "truncation": True}})
    encoder.max_seq_length = 40
    try:
        expected = encoder.encode(texts)
    finally:
        encoder.max_seq_length = limit
    assert cosine_distance(short, expected) < 1e-6
    assert cosine_distance(short[:1], encoder.encode(texts[:1])) > 1e-6
    with pytest.raises(ValueError, match="leave no room"):
        encoder.encode(texts, prompt="word " * 30, processing_kwargs={"text": {"max_length": 20}})


STRANGE = [
    "Answer the Query:",
    "Instruct: something",
    "Instruct: A.\nQuery:",
    "Instruct: A.\nQuery: ",
    "Instruct: A. Query:",
    "Instruct:",
    "Query:",
    "Instruct: Query:",
    "Instruct: \nQuery:",
    "Instruct: Instruct: A.\nQuery:\nQuery:",
    "<instruct>A.\n<query>",
    "<instruct>A.",
    "A.\n<query>",
    "<|user|>\nA.\n<|embed|>",
    "Find the <query>",
    "",
    "  \n ",
]


@pytest.mark.parametrize("recipe", [name for name, one in RECIPES.items() if one.instruction_template is not None])
def test_formatter_and_chat_template_unwrap_alike(recipe: str) -> None:
    formatter = InstructionFormatter(**RECIPES[recipe].formatter_config())
    templates = [formatter.template, cast("Template", formatter.instruction_template)]
    if any(one.copies > 1 or not one.pools_everything or one.joins_the_instruction for one in templates):
        pytest.skip("it has no chat template")
    tokenizer = stand_in_tokenizer("smollm2")
    tokenizer.chat_template = chat_template_for(formatter, "")
    assert formatter.instruction_template is not None
    own = "".join(formatter.instruction_template.around_instruction())
    for given in [*STRANGE, own, f"{own}{own}", *(one.join(formatter.wrapping()) for one in ("B", " ", ""))]:
        bare = formatter.bare_instruction(given)
        template = formatter.instruction_template if bare else formatter.template
        system = [{"role": "system", "content": given}] if given else []
        messages = [*system, {"role": "user", "content": "a cat"}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False)
        end = tokenizer.eos_token if template.eos else ""
        assert rendered == template.render("a cat", bare)[0] + end, given


@pytest.mark.parametrize("recipe", ["e5-mistral", "gritlm", "bge-en-icl"])
def test_two_instructions_are_two_vectors(recipe: str) -> None:
    formatter = InstructionFormatter(**RECIPES[recipe].formatter_config())
    before, after = formatter.wrapping()
    assert before and after
    assert formatter.bare_instruction(f"{before}Find it.{after}") == "Find it."
    for kept in (f"Answer the{after}", f"{before}something", "Answer the Query:", f"{before}".strip(), after.strip()):
        assert formatter.bare_instruction(kept) == kept.strip()


@pytest.mark.parametrize("template", ["{instruction} Query: {text}", "Instruct: {instruction} {text}"])
def test_words_on_one_side_are_the_instructions_own(template: str) -> None:
    """Nobody can tell them from the words that a caller would have wrapped it in."""
    formatter, tokenizer = InstructionFormatter("{text}", template), stand_in_tokenizer("smollm2")
    tokenizer.chat_template = chat_template_for(formatter, "")
    for given in ("Answer the Query:", "Instruct: something"):
        messages = [{"role": "system", "content": given}, {"role": "user", "content": "a cat"}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False)
        assert formatter.bare_instruction(given) == given
        assert rendered == template.format(instruction=given, text="a cat")


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_encoding_on_other_systems(encoders: Encoders, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """Each of them simulated on all of them, so what a system lacks may be missing already."""
    encoder, known = encoders("llm2vec"), getattr(os, "sysconf", None)

    def of_macos(name: str) -> int:
        if known is None or name == "SC_AVPHYS_PAGES":
            raise ValueError("unrecognized configuration name")
        return known(name)

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    if system == "darwin":
        monkeypatch.setattr(os, "sysconf", of_macos, raising=False)
    else:
        for name in ("sysconf", "sysconf_names", "fork", "getuid", "killpg"):
            monkeypatch.delattr(os, name, raising=False)
    assert encoder.encode(MANY, prompt=DEALT).shape == (40, 64)
    assert len(encoder.encode(MANY[:2], output_value="token_embeddings")) == 2
    assert free_memory(torch.device("cpu")) > 2**20


def test_the_package_names_nothing_that_other_systems_lack() -> None:
    lacking = r"\bimport (fcntl|pwd|grp|termios)\b|\bos\.(sysconf|fork|getuid|killpg|sched_getaffinity)\b"
    sources = Path(st_llm2vec.__file__).parent.rglob("*.py")
    found = [path.name for path in sources if re.search(lacking, path.read_text(encoding="utf-8"))]
    assert found == []
