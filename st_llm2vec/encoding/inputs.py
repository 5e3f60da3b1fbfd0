"""What an encoder reads: texts, texts with an instruction each, and blocks of token ids."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from st_llm2vec.modules.instructed import carries_instruction, own_characters, split_instructed
from st_llm2vec.modules.padding import pad_rows

TOKENIZING = threading.RLock()
"""Held while texts are tokenised: between two steps of a call a fast tokenizer keeps how it cuts and pads, for all threads."""


def is_block(one: Any) -> bool:
    """Whether an input is a block: a list of token ids, an empty one included."""
    return isinstance(one, list) and all(type(token) is int for token in one)


def block_features(
    blocks: Sequence[Any], prompt: Any, tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> dict[str, Tensor]:
    """Pad blocks of token ids at the tokenizer's padding side.

    Args:
        blocks: Rows of token ids, possibly of different lengths, special tokens included.
        prompt: Must be empty: nothing can be put before token ids.
        tokenizer: The tokenizer that made the ids.
        max_length: Longest block that the encoder reads; ``None`` for no limit.

    Returns:
        ``input_ids``, ``attention_mask`` and ``pooling_mask`` (every token of the block), each of shape
        ``(batch, tokens)``.

    Raises:
        ValueError: If a row is no block, is empty, too long, or of another vocabulary; or there is a prompt.

    Example:
        >>> from transformers import AutoTokenizer; from st_llm2vec import decoder_path
        >>> block_features([[5, 6, 7], [8]], None, AutoTokenizer.from_pretrained(decoder_path()), 512)["attention_mask"].tolist()
        [[1, 1, 1], [1, 0, 0]]
    """
    if prompt:
        raise ValueError(f"Blocks of token ids take no instruction, and {prompt!r} was given; leave their column out.")
    for row, block in enumerate(blocks):
        _check_block(row, block, len(tokenizer), max_length)
    return pad_rows([(block, [1] * len(block)) for block in blocks], tokenizer)


def _check_block(row: int, block: Any, vocabulary: int, max_length: int | None) -> None:
    if not is_block(block):
        raise ValueError(
            f"Row {row} of the batch is {str(block)[:40]!r}; the first row is a block, a list of token ids, so that all "
            "of the column must be."
        )
    if not block:
        raise ValueError(f"Row {row} of the batch is a block without any token; leave empty blocks out of the dataset.")
    if max_length is not None and len(block) > max_length:
        raise ValueError(
            f"A block has {len(block)} tokens and the encoder reads {max_length} at most. Pack with "
            f"block_size={max_length}, or raise the encoder's max_seq_length."
        )
    if min(block) < 0 or max(block) >= vocabulary:
        raise ValueError(
            f"A block holds the token ids {min(block)} to {max(block)}; the encoder's tokenizer has 0 to "
            f"{vocabulary - 1}. Pack the texts with this encoder's tokenizer."
        )


def read_call(inputs: Sequence[Any], prompt: Any, saved: Callable[[], str | None]) -> tuple[list[Any], str | None]:
    """Read the inputs and the prompt of a call of ``encode``.

    Args:
        inputs: Texts; texts with an instruction each, ``[instruction, text]``; or what only the host reads.
        prompt: One instruction for all texts; one for each of them, where ``None`` is the saved one; or ``None``.
        saved: Gives the saved instruction that the call would have without any.

    Returns:
        The inputs, and one instruction for all of them; where instructions differ, rows
        ``{"text": str, "instruction": str}``, and an empty one.

    Raises:
        ValueError: If an input cannot be read, the instructions are not as many as the texts, or an instruction is no
            text.

    Example:
        >>> read_call(["a cat", "the sea"], ["Name it:", None], lambda: None)
        ([{'text': 'a cat', 'instruction': 'Name it:'}, {'text': 'the sea', 'instruction': ''}], '')
        >>> read_call([["Name it:", "a cat"]], None, lambda: "Find it:")
        (['a cat'], 'Name it:')
    """
    texts, instructions = _apart(readable(inputs), prompt, saved)
    if instructions is None or isinstance(instructions, str):
        return texts, instructions
    if len(set(instructions)) == 1:
        return texts, instructions[0]
    made = zip(texts, instructions, strict=True)
    return [{"text": text, "instruction": instruction} for text, instruction in made], ""


def readable(inputs: Sequence[Any], of: str = "") -> list[Any]:
    """Refuse what no encoder reads, by its row; NumPy's strings become Python's, and ``{"text": str}`` its text.

    Args:
        inputs: Texts, or what else an encoder reads: rows in lists, tuples and mappings.
        of: Of what these are the rows, for messages.

    Returns:
        The same inputs.

    Raises:
        ValueError: If an input is nothing that can be read.
    """
    rows: list[Any] = [one if type(one) is str else _plain(one) for one in inputs]
    for number, row in enumerate(rows):
        if isinstance(row, str):
            require_unicode(row, f"Row {number}{of}")
        elif _is_chat(row):
            raise ValueError(
                f"Row {number}{of} is a chat's message, {str(row)[:40]!r}; an encoder reads texts. Give the text alone, and what "
                "a system message would say as the instruction: prompt=, or [instruction, text]."
            )
        elif not isinstance(row, list | tuple | dict) or (is_block(row) and not is_block(rows[0])):
            raise ValueError(
                f"Row {number}{of} is {type(row).__name__} {str(row)[:40]!r}; a text is expected, or [instruction, text]. "
                "Convert it, or leave it out."
            )
    return rows


def _carry_instructions(inputs: Sequence[Any]) -> bool:
    return any(type(one) is not str and carries_instruction(one) for one in inputs)


def _plain(one: Any) -> Any:
    if isinstance(one, np.ndarray) and one.ndim == 0:
        one = one.item()
    if isinstance(one, Mapping) and set(one) == {"text"}:
        one = one["text"]
    return own_characters(one) if isinstance(one, str) else one


def _is_chat(row: Any) -> bool:
    first = row[0] if isinstance(row, list | tuple) and row else row
    return isinstance(first, Mapping) and "role" in first


def require_unicode(text: str, what: str) -> None:
    """Raise if a text holds half of a surrogate pair.

    Args:
        text: The text.
        what: What it is, for the message.

    Raises:
        ValueError: If it does.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds {text[error.start]!r} at character {error.start}: half of a surrogate pair, which is no "
            "character and no tokenizer reads. Decode the text anew, or leave such halves out: "
            'text.encode("utf-8", "replace").decode().'
        ) from None


def _apart(rows: list[Any], prompt: Any, saved: Callable[[], str | None]) -> tuple[list[Any], str | list[str] | None]:
    """The texts, and the instruction of all, or that of each."""
    if _carry_instructions(rows):
        texts, instructions = split_instructed(rows, prompt)
        for number, text in enumerate(texts):
            require_unicode(text, f"The text of row {number}")
            require_unicode(instructions[number], f"The instruction of row {number}")
        return texts, instructions
    if prompt is None or isinstance(prompt, str):
        return rows, prompt if prompt is None else _instruction(prompt, "prompt")
    return rows, _one_for_each(rows, prompt, saved)


def _instruction(given: Any, what: str) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{what} is {given!r}; an instruction is a text, or a list of one for each text is given.")
    require_unicode(given, f"{what} {ascii(given)[:60]}")
    return own_characters(given)


def _one_for_each(texts: list[Any], prompts: Any, saved: Callable[[], str | None]) -> list[str]:
    """The instruction of each text."""
    if isinstance(prompts, bytes | dict | set) or not hasattr(prompts, "__iter__"):
        raise ValueError(
            f"prompt={prompts!r} is {type(prompts).__name__}; give an instruction, a list of one for each text, or None."
        )
    given = list(prompts)
    if len(given) != len(texts):
        raise ValueError(
            f"prompt holds {len(given)} instructions for {len(texts)} texts; give one for each text, or one string."
        )
    unread = next((number for number, text in enumerate(texts) if not isinstance(text, str)), None)
    if unread is not None:
        raise ValueError(
            f"Row {unread} is {str(texts[unread])[:40]!r}; where each has an instruction of its own, all must be texts."
        )
    default = saved() or "" if any(one is None for one in given) else ""
    return [_instruction(default if one is None else one, f"Instruction {number}") for number, one in enumerate(given)]


def with_one_instruction(inputs: Sequence[Any], prompt: Any, one_only: bool) -> tuple[Sequence[Any], str | None]:
    """Read the instructions of a batch as the modules can.

    Args:
        inputs: Texts, or texts with an instruction each.
        prompt: One instruction for all texts, or one for each of them.
        one_only: Whether the encoder's modules know one instruction for a whole batch only.

    Returns:
        The inputs, and one instruction for all; or, where instructions differ, pairs of instruction and text, and
        ``None``.

    Raises:
        ValueError: If a row is not instructed and another is, there is a prompt too, or there are several instructions
            where only one can be.

    Example:
        >>> rows = [{"text": "a cat", "instruction": "Name it:"}, {"text": "the sea", "instruction": "Name it:"}]
        >>> with_one_instruction(rows, None, one_only=True)
        (['a cat', 'the sea'], 'Name it:')
    """
    texts, instructions = _apart(readable(inputs, " of the batch"), prompt, lambda: None)
    if instructions is None or isinstance(instructions, str):
        return texts, instructions
    found = list(dict.fromkeys(instructions))
    if len(found) == 1:
        return texts, found[0] or None
    if one_only:
        raise ValueError(
            f"One batch has the instructions {found[0]!r} and {found[1]!r}. This encoder is made of stock modules, whose "
            "pooling knows one instruction for a whole batch: use one dataset for each instruction, and "
            "build_training_data(..., blended=False), which never mixes them in a batch."
        )
    return list(zip(instructions, texts, strict=True)), None
