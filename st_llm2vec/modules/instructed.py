"""Texts that carry an instruction of their own, told from plain ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

INSTRUCTED_KEYS = {"instruction", "text"}


def carries_instruction(row: Any) -> bool:
    """Whether an input is meant as a text with an instruction.

    Args:
        row: The input.

    Returns:
        True for ``{"instruction": ..., "text": ...}``, and for lists and tuples of strings such as
        ``[instruction, text]``, which is how LLM2Vec and INSTRUCTOR are called.

    Example:
        >>> carries_instruction(["Name it:", "a cat"]), carries_instruction("a cat"), carries_instruction([5, 6])
        (True, False, False)
    """
    if isinstance(row, Mapping):
        return set(row) == INSTRUCTED_KEYS
    return isinstance(row, list | tuple) and any(isinstance(part, str) for part in row)


def split_instructed(rows: Sequence[Any], prompt: Any = None) -> tuple[list[str], list[str]]:
    """Split texts from their instructions.

    Args:
        rows: ``[instruction, text]`` or ``{"text": str, "instruction": str | None}``.
        prompt: Must be empty: the rows have instructions of their own.

    Returns:
        The texts, and the instruction of each, without blanks around it; an empty one is none.

    Raises:
        ValueError: If a row has no instruction of its own, or there is a prompt too.

    Example:
        >>> split_instructed([["Name it:", "a cat"], {"text": "the sea", "instruction": None}])
        (['a cat', 'the sea'], ['Name it:', ''])
    """
    if prompt is not None and (not isinstance(prompt, str) or prompt.strip()):
        raise ValueError(f"The texts have instructions of their own, and the prompt {prompt!r} was given; keep one.")
    texts, instructions = [], []
    for number, row in enumerate(rows):
        parts = (row["instruction"], row["text"]) if isinstance(row, Mapping) and carries_instruction(row) else row
        pair = list(parts) if isinstance(parts, list | tuple) else []
        if len(pair) != 2 or not isinstance(pair[0], str | None) or not isinstance(pair[1], str):
            raise ValueError(
                f"Row {number} of the batch is {str(row)[:60]!r}; another row has an instruction of its own, or this one "
                'is meant to, so that each must be [instruction, text] or {"text": a string, "instruction": a string or '
                "None}."
            )
        texts.append(own_characters(pair[1]))
        instructions.append(own_characters(pair[0] or "").strip())
    return texts, instructions


def own_characters(text: str) -> str:
    """A text of a subclass as a plain one.

    ``str`` of NumPy's strings drops NULs at their end, and of an enumeration's member it gives the name.

    Args:
        text: The text.

    Example:
        >>> from enum import Enum
        >>> class Ship(str, Enum):
        ...     OAK = "a ship of oak"
        >>> own_characters(Ship.OAK)
        'a ship of oak'
    """
    return str.__str__(text)
