"""Special tokens around a text: those that the tokenizer adds, and those that a template's own words hold."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerBase

from st_llm2vec.recipe.template import Span

OwnTokens = tuple[re.Pattern[str], dict[str, int]]


def special_ids_around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer itself puts before a text (usually BOS or nothing) and after it (usually nothing)."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    special = tokenizer("a")["input_ids"]
    for start in range(len(special) - len(plain) + 1):
        if special[start : start + len(plain)] == plain:
            return list(special[:start]), list(special[start + len(plain) :])
    return [], []


def leading_special_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the tokenizer itself puts before a text."""
    return special_ids_around(tokenizer)[0]


def special_tokens_in(words: str, tokenizer: PreTrainedTokenizerBase) -> OwnTokens | None:
    """A pattern of the special tokens in some words, with the blanks that belong to them, and their ids."""
    found = {
        token.content: (index, token)
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special and token.content in words
    }
    if not found:
        return None
    alternatives = [
        (r"\s*" if token.lstrip else "") + f"({re.escape(content)})" + (r"\s*" if token.rstrip else "")
        for content, (_, token) in sorted(found.items(), key=lambda one: -len(one[0]))
    ]
    return re.compile("|".join(alternatives)), {content: index for content, (index, _) in found.items()}


def split_at_special_tokens(body: str, words: list[Span], own: OwnTokens | None) -> list[tuple[int, int, int | None]]:
    """The parts of a string: each special token in the given words, with its id, and what stands between them."""
    if own is None:
        return [(0, len(body), None)]
    pattern, ids = own
    parts: list[tuple[int, int, int | None]] = []
    end = 0
    for span in words:
        for match in pattern.finditer(body, *span):
            if end < match.start():
                parts.append((end, match.start(), None))
            parts.append((*match.span(), ids[match[match.lastindex or 0]]))
            end = match.end()
    return [*parts, (end, len(body), None)] if end < len(body) else parts
