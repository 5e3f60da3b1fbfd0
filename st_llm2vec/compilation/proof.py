"""The proof that stock preprocessing reads and pools the same tokens as the specification."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedTokenizerBase

from st_llm2vec.modules.instruction import UNLIMITED, InstructionFormatter
from st_llm2vec.recipes import EncoderConfig

PROOF_INSTRUCTIONS = (
    "Retrieve stories that match the query:",
    "Given a question, retrieve passages that answer it",
    "Find the capital.",
    "Represent this (short) text",
    "Which of these 3",
    "the cat sat on a",
    "Étant donné une question :",
)
PROOF_TEXTS = (
    "Once upon a time there was a little girl.",
    "a",
    "I",
    "the man was in the house",
    "12 drummers, 3.5 kg",
    "(brackets) first",
    '"Quoted," she said: "yes."',
    "'s apostrophe",
    "...and dots",
    "- a dash",
    "#hashtag @name",
    "http://example.org/a?b=c",
    "élan vital",
    "北京是中国的首都",
    "اللغة العربية",
    "🙂 an emoji",
    "_ underscore",
    "two\nlines",
    "\ttab first",
    " leading blank",
    "UPPER CASE",
    "camelCaseWord",
    "x" * 70,
    "word " * 30 + "end",
)


class CannotSay(Exception):
    """An arrangement of stock modules cannot express the encoder; the message says why."""


def tokenizer_of(transformer: Transformer, name: str = "The model") -> PreTrainedTokenizerBase:
    """The tokenizer of a text model, which must be a fast one."""
    tokenizer = transformer.tokenizer
    if tokenizer is None or not tokenizer.is_fast:
        raise ValueError(f"{name} has no fast tokenizer (tokenizer.json), which exact spans need.")
    return tokenizer


def prove_same_tokens(
    transformer: Transformer,
    config: EncoderConfig,
    formatter: InstructionFormatter,
    include_prompt: bool = True,
    dropped: Sequence[int] = (),
) -> None:
    """Compare stock preprocessing with the specification on a battery of instructions and texts.

    Args:
        transformer: The stock ``Transformer``, prepared.
        config: The encoder.
        formatter: The specification.
        include_prompt: Whether the stock pooling counts the prompt in.
        dropped: Token ids that stock modules leave out of the mean.

    Raises:
        CannotSay: If any token, or what is pooled, differs.
    """
    instructions: list[str] = [""]
    if formatter.instruction_template is not None:
        instructions += [*PROOF_INSTRUCTIONS, *filter(None, map(formatter.bare_instruction, config.prompts.values()))]
    with _without_truncation(transformer):
        for instruction, text in itertools.product(instructions, PROOF_TEXTS):
            expected = formatter([text], instruction, tokenizer_of(transformer), UNLIMITED)
            found = _stock_tokens(transformer, text, instruction, include_prompt, dropped)
            where = f"{text[:40]!r} with instruction {instruction!r}"
            if not torch.equal(expected["input_ids"], found["input_ids"]):
                raise CannotSay(f"the tokens differ for {where}")
            if not torch.equal(_effective(expected["pooling_mask"], config), _effective(found["pooling_mask"], config)):
                raise CannotSay(f"other tokens are pooled for {where}")


@contextmanager
def _without_truncation(transformer: Transformer) -> Iterator[None]:
    """Compare whole strings, however short the encoder's own limit is."""
    limit = transformer.max_seq_length
    transformer.max_seq_length = UNLIMITED
    try:
        yield
    finally:
        transformer.max_seq_length = limit
        transformer._prompt_length_mapping.clear()


def _stock_tokens(
    transformer: Transformer, text: str, instruction: str, include_prompt: bool, dropped: Sequence[int]
) -> dict[str, torch.Tensor]:
    """What stock modules read and pool for one text."""
    prompt = instruction if "message" in transformer.modality_config or not instruction else f"{instruction} "
    features = transformer.preprocess([text], prompt=prompt or None)
    mask = features["attention_mask"].clone()
    if not include_prompt:
        mask[:, : features.get("prompt_length") or 0] = 0
    for token in dropped:
        mask[features["input_ids"] == token] = 0
    return {"input_ids": features["input_ids"], "pooling_mask": mask}


def _effective(mask: torch.Tensor, config: EncoderConfig) -> torch.Tensor:
    """The tokens that decide the vector: all that are pooled, or the last of them."""
    if config.pooling == "last_token":
        return mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
    return mask
