"""A text as the model reads it, token by token: what is the text's, what the template's, and what is pooled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from st_llm2vec.data.preview import ReadText, read_text
from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.modules.formatter import UNLIMITED, InstructionFormatter
from st_llm2vec.playground.comparison import Question, takes_instruction

TEXT = "{text}"
SHOWN_FIRST, SHOWN_LAST = 300, 100
BREAKS = str.maketrans({"\n": "⏎", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True)
class Token:
    """A token on the page.

    Args:
        text: How it is written.
        id: Its number in the vocabulary.
        pooled: Whether the vector is made of it.
        own: Whether it has a character of the text, and is not the template's or the instruction's.
    """

    text: str
    id: int
    pooled: bool
    own: bool


@dataclass(frozen=True)
class Reading:
    """A text as the model reads it.

    Args:
        name: ``"Query"`` or ``"Passage 1"`` and so on.
        tokens: Its tokens; of a long text the first and the last.
        hidden: How many behind the first ``SHOWN_FIRST`` are not shown.
        cut: How many tokens did not fit into the longest input.
        count: How many are read.
        pooled: How many of these are pooled.
    """

    name: str
    tokens: tuple[Token, ...]
    hidden: int
    cut: int
    count: int
    pooled: int


def readings(encoder: TextReader, question: Question) -> Iterator[Reading]:
    """Read the query and the passages as ``encode_query`` and ``encode_document`` do.

    Args:
        encoder: The encoder.
        question: The texts.
    """
    saved = encoder.saved_instruction(task="query")
    instruction = (question.instruction if takes_instruction(encoder) else None) or saved
    yield _reading(encoder, "Query", question.query, instruction)
    documents = encoder.saved_instruction(task="document")
    for number, passage in enumerate(question.passages, 1):
        yield _reading(encoder, f"Passage {number}", passage, documents)


def own_tokens(encoder: TextReader, text: str, instruction: str | None, read: ReadText) -> list[bool]:
    """Which tokens have a character of the text, by the recipe's template.

    Each of the text's copies is marked as what is pooled in turn, and :class:`InstructionFormatter` says which tokens it has.

    Args:
        encoder: The encoder.
        text: The text.
        instruction: Its bare instruction.
        read: The text as the encoder reads it.

    Returns:
        One for each token; where the recipe is unknown or reads other tokens than the encoder, all but special tokens.
    """
    special = set(encoder.tokenizer.all_special_ids)
    unknown = [one not in special for one in read.ids]
    if encoder.manifest is None:
        return unknown
    written = encoder.manifest.config.formatter_config()
    told = instruction and instruction.strip() and written["instruction_template"] is not None
    template = written["instruction_template" if told else "template"].replace("{pool}", "").replace("{/pool}", "")
    before, *after = template.split(TEXT)
    found = [False] * len(read.ids)
    for copy in range(len(after)):
        marked = before + "".join(
            ("{pool}{text}{/pool}" if at == copy else TEXT) + words for at, words in enumerate(after)
        )
        formatter = InstructionFormatter(
            written["template"] if told else marked,
            marked if told else None,
            split_special_tokens=encoder.tokenizer.split_special_tokens,
        )
        features = formatter(
            [text], instruction if told else None, encoder.tokenizer, encoder.max_seq_length or UNLIMITED
        )
        there = features["attention_mask"][0].bool()
        if features["input_ids"][0][there].tolist() != read.ids:
            return unknown
        found = [
            one or bool(more) for one, more in zip(found, features["pooling_mask"][0][there].tolist(), strict=True)
        ]
    return found


def _reading(encoder: TextReader, name: str, text: str, instruction: str | None) -> Reading:
    read = read_text(encoder, text, instruction)
    own = own_tokens(encoder, text, instruction, read)
    rows = zip(read.tokens, read.ids, read.pooled, own, strict=True)
    tokens = tuple(Token(token.translate(BREAKS), one, pooled, ours) for token, one, pooled, ours in rows)
    hidden = max(0, len(tokens) - SHOWN_FIRST - SHOWN_LAST)
    shown = tokens[:SHOWN_FIRST] + tokens[SHOWN_FIRST + hidden :]
    return Reading(name, shown, hidden, read.cut, len(tokens), sum(read.pooled))
