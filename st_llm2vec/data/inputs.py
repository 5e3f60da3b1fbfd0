"""What ``TextEncoder.preprocess`` reads beside plain texts: blocks of token ids, and texts with their instructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from st_llm2vec.modules.instruction import pad_rows

INSTRUCTED_KEYS = {"instruction", "text"}


def is_block(one: Any) -> bool:
    """Whether an input is a block: a list of token ids, an empty one included."""
    return isinstance(one, list) and all(type(token) is int for token in one)


def is_instructed(one: Any) -> bool:
    """Whether an input is ``{"text": str, "instruction": str | None}``.

    The order matters to the trainer's model card alone, whose example takes the first value for the text.
    """
    return isinstance(one, dict) and set(one) == INSTRUCTED_KEYS


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
        >>> from st_llm2vec.tiny_tokenizers import tiny_tokenizer
        >>> block_features([[5, 6, 7], [8]], None, tiny_tokenizer("byte-level+bos"), 512)["attention_mask"].tolist()
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


def split_instructed(inputs: Sequence[Any], prompt: Any, one_only: bool) -> tuple[list[str], str | list[str] | None]:
    """Split texts from their instructions.

    Args:
        inputs: Rows ``{"text": str, "instruction": str | None}``.
        prompt: Must be empty: the rows have instructions of their own.
        one_only: Whether the encoder's modules know one instruction for a whole batch only.

    Returns:
        The texts; and ``None`` if there are no instructions, one if all are equal, else a list of one for each text.

    Raises:
        ValueError: If a row is not instructed, there is a prompt too, or there are several instructions where only one
            can be.

    Example:
        >>> rows = [{"text": "a cat", "instruction": "Name it:"}, {"text": "the sea", "instruction": "Name it:"}]
        >>> split_instructed(rows, None, one_only=True)
        (['a cat', 'the sea'], 'Name it:')
    """
    if prompt:
        raise ValueError(f"The texts have instructions of their own, and the prompt {prompt!r} was given; keep one.")
    for row, one in enumerate(inputs):
        if not is_instructed(one) or not isinstance(one["text"], str) or not isinstance(one["instruction"], str | None):
            raise ValueError(
                f"Row {row} of the batch is {str(one)[:60]!r}; the first row has an instruction of its own, so that all "
                'must be {"text": a string, "instruction": a string or None}.'
            )
    instructions = [(one["instruction"] or "").strip() for one in inputs]
    texts = [one["text"] for one in inputs]
    found = list(dict.fromkeys(instructions))
    if len(found) == 1:
        return texts, found[0] or None
    if one_only:
        raise ValueError(
            f"One batch has the instructions {found[0]!r} and {found[1]!r}. This encoder is made of stock modules, whose "
            "pooling knows one instruction for a whole batch: use one dataset for each instruction, and "
            "build_training_data(..., blended=False), which never mixes them in a batch."
        )
    return texts, instructions
