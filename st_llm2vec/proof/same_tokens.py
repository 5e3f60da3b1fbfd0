"""The proof that stock preprocessing reads and pools the same tokens as the specification, after a reload too."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedTokenizerBase

from st_llm2vec.modules.formatter import UNLIMITED, InstructionFormatter
from st_llm2vec.proof.texts import FEW_TEXTS, INSTRUCTIONS, TEXTS
from st_llm2vec.recipe.config import EncoderConfig
from st_llm2vec.recipe.poolings import POOLINGS


class CannotSay(Exception):
    """An arrangement of stock modules cannot express the encoder; the message says why."""


def stock_pooling(config: EncoderConfig) -> str:
    """What the stock ``Pooling`` calls an encoder's pooling.

    Raises:
        CannotSay: If it has none like it.
    """
    rule = POOLINGS.get(config.pooling)
    if rule is None or rule.stock is None:
        raise CannotSay(f"the stock pooling has no {config.pooling}")
    return rule.stock


def tokenizer_of(transformer: Transformer, name: str = "The model") -> PreTrainedTokenizerBase:
    """The tokenizer of a text model, which must be a fast one."""
    tokenizer = transformer.tokenizer
    if tokenizer is None or not tokenizer.is_fast:
        raise ValueError(f"{name} has no fast tokenizer (tokenizer.json), which exact spans need.")
    return tokenizer


@dataclass(frozen=True)
class Specification:
    """Which tokens each text becomes, and which of them are pooled.

    Args:
        config: The encoder.
        formatter: Its templates.
        tokenizer: The decoder's own tokenizer, as it is before anything is done to it.
    """

    config: EncoderConfig
    formatter: InstructionFormatter
    tokenizer: PreTrainedTokenizerBase

    @property
    def own_instructions(self) -> list[str]:
        """The instructions of the encoder's prompts."""
        return list(filter(None, map(self.formatter.bare_instruction, self.config.prompts.values())))

    @property
    def instructions(self) -> list[str]:
        """No instruction, those of the proof, and the encoder's own."""
        if self.formatter.instruction_template is None:
            return [""]
        return list(dict.fromkeys(["", *INSTRUCTIONS, *self.own_instructions]))

    @property
    def texts_of_special_tokens(self) -> list[str]:
        """Texts that hold the tokenizer's own special tokens, where these are text."""
        if not self.config.split_special_tokens:
            return []
        known = self.tokenizer
        found = dict.fromkeys(filter(None, (known.bos_token, known.eos_token, *known.all_special_tokens[:4])))
        return [text for token in found for text in (token, f"one{token} two{token}{token}three")]


class Case(NamedTuple):
    """A text with an instruction, and the prompt by which stock modules are told it."""

    text: str
    instruction: str
    prompt: str


def prove_same_tokens(
    transformer: Transformer,
    specification: Specification,
    cases: Iterable[Case],
    include_prompt: bool = True,
    dropped: Sequence[int] = (),
) -> None:
    """Compare stock preprocessing with the specification.

    Args:
        transformer: The stock ``Transformer``, prepared.
        specification: What it is to read and pool.
        cases: What to compare on.
        include_prompt: Whether the stock pooling counts the prompt in.
        dropped: Token ids that stock modules leave out of the mean.

    Raises:
        CannotSay: If any token, or what is pooled, differs.
    """
    by_prompt: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_prompt[case.prompt].append(case)
    with _without_truncation(transformer):
        for prompt, group in by_prompt.items():
            expected = _specified(specification, specification.tokenizer, group)
            found = _stock_tokens(transformer, [case.text for case in group], prompt, include_prompt, dropped)
            for case, meant, read in zip(group, expected, found, strict=True):
                where = f"{case.text[:40]!r} with instruction {case.instruction!r}"
                if meant.ids != read.ids:
                    raise CannotSay(f"the tokens differ for {where}")
                if _effective(meant.pooled, specification.config) != _effective(read.pooled, specification.config):
                    raise CannotSay(f"other tokens are pooled for {where}")


def prove_same_reading(transformer: Transformer, specification: Specification) -> None:
    """Compare what the formatter makes of texts with a module's tokenizer and with the decoder's own.

    Both read the same strings, so that every text and every instruction is tried, and not every pair of them.

    Args:
        transformer: The module, as its folder gives it.
        specification: What it is to read and pool.

    Raises:
        ValueError: If any token differs.
    """
    own = specification.tokenizer
    texts = (*TEXTS, *specification.texts_of_special_tokens)
    cases = [Case(text, "", "") for text in texts]
    cases += [Case(text, told, "") for told, text in itertools.product(specification.instructions, FEW_TEXTS)]
    with torch.device("cpu"):  # modules may be made without weights, on "meta"
        expected, found = (_specified(specification, one, cases) for one in (own, tokenizer_of(transformer)))
    read_cases = (case for case in cases for _ in specification.formatter.readings)
    for case, meant, read in zip(read_cases, expected, found, strict=True):
        if meant != read:
            raise ValueError(
                f"The tokenizer, a {type(own).__name__}, reads {case.text[:40]!r} otherwise once it is saved and loaded, "
                "so that a saved encoder would give other vectors. Save the tokenizer to a folder, load it from there, "
                "see that it reads as it should, and convert with that."
            )


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


class _Row(NamedTuple):
    """The tokens of a text, without padding, and which of them are pooled."""

    ids: list[int]
    pooled: list[int]


def _specified(specification: Specification, tokenizer: PreTrainedTokenizerBase, cases: Sequence[Case]) -> list[_Row]:
    texts, instructions = [case.text for case in cases], [case.instruction for case in cases]
    features = specification.formatter(texts, instructions, tokenizer, UNLIMITED)
    return [
        _Row(ids[read].tolist(), pooled[read].tolist())
        for ids, pooled, read in zip(
            features["input_ids"], features["pooling_mask"], features["attention_mask"].bool(), strict=True
        )
    ]


def _stock_tokens(
    transformer: Transformer, texts: list[str], prompt: str, include_prompt: bool, dropped: Sequence[int]
) -> list[_Row]:
    """What stock modules read and pool."""
    features = transformer.preprocess(texts, prompt=prompt or None)
    skipped = 0 if include_prompt else features.get("prompt_length") or 0
    rows = []
    for ids, read in zip(features["input_ids"], features["attention_mask"].bool(), strict=True):
        kept = ids[read].tolist()
        rows.append(_Row(kept, [int(at >= skipped and token not in dropped) for at, token in enumerate(kept)]))
    return rows


def _effective(pooled: list[int], config: EncoderConfig) -> Any:
    """The tokens that decide the vector: all that are pooled, or the last of them."""
    if config.pooling == "last_token":
        return max((at for at, one in enumerate(pooled) if one), default=None)
    return pooled
