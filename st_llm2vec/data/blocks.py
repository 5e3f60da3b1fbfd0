"""Pack texts into blocks of token ids, without padding, for masked next token prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from st_llm2vec.data.rows import as_text, require_columns

BLOCK_COLUMN = "block"


def pack_blocks(
    texts: Dataset | Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    block_size: int = 512,
    column: str = "text",
    batch_size: int = 1000,
) -> Dataset:
    """Cut the concatenation of all texts into blocks, as LLM2Vec trains on them (``run_mntp.py``: 512 tokens).

    Each text is tokenised with its special tokens; what is left at the very end, less than a block, is dropped. The
    blocks do not depend on ``batch_size``: what a batch of texts leaves over begins the next one's first block. Texts
    that are read from disk are packed to disk, a batch at a time, and a second packing of the same is read from the
    cache of ``datasets``.

    Args:
        texts: A dataset, or the texts themselves.
        tokenizer: The encoder's tokenizer.
        block_size: Tokens in a block, special tokens included; at most the encoder's ``max_seq_length``.
        column: The column with the texts.
        batch_size: Texts tokenised at a time.

    Returns:
        A dataset with the column ``block``: ``block_size`` token ids in each row, for :class:`MNTPLoss`.

    Raises:
        ValueError: If there is no such column, a row is not a text, or there is not one whole block.

    Example:
        >>> from transformers import AutoTokenizer; from st_llm2vec import decoder_path
        >>> tokenizer = AutoTokenizer.from_pretrained(decoder_path())
        >>> blocks = pack_blocks(["A violin is carved from spruce.", "Rain fell all night."], tokenizer, block_size=4)
        >>> blocks.column_names, len(blocks[0]["block"])
        (['block'], 4)
    """
    if block_size < 2:
        raise ValueError(f"block_size is {block_size}; a block needs a token to predict and one before it.")
    if not isinstance(texts, Dataset):
        texts = Dataset.from_dict({column: list(texts)})
    require_columns(texts, [column])
    packer = _Packer(tokenizer, block_size, column)
    blocks = texts.select_columns([column]).map(
        packer,
        batched=True,
        batch_size=batch_size,
        with_indices=True,
        remove_columns=[column],
        features=Features({BLOCK_COLUMN: List(Value("int32"))}),
        desc=f"Packing blocks of {block_size} tokens",
    )
    if not len(blocks):
        raise ValueError(
            f"The {len(texts)} texts have fewer than block_size={block_size} tokens together, so there is not one block. "
            "Give more text, or a smaller block_size; a stage reads each text by itself with block_size: null (--set "
            "stages.0.block_size=null)."
        )
    return blocks


class _Packer:
    """Turns batches of texts, in order, into blocks, and keeps what is left over for the next batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, block_size: int, column: str) -> None:
        self.tokenizer = tokenizer
        self.block_size = block_size
        self.column = column
        self.rest: list[int] = []

    def __call__(self, batch: dict[str, list[Any]], rows: list[int]) -> dict[str, list[list[int]]]:
        texts = batch[self.column]
        for row, text in zip(rows, texts, strict=True):
            as_text(text, self.column, "the dataset", row, blank=True)
        options = {"return_attention_mask": False, "verbose": False, "split_special_tokens": True}
        encoded = self.tokenizer(texts, **options)["input_ids"]
        ids = [*self.rest, *(token for row in encoded for token in row)]
        whole = len(ids) - len(ids) % self.block_size
        self.rest = ids[whole:]
        return {BLOCK_COLUMN: [ids[start : start + self.block_size] for start in range(0, whole, self.block_size)]}
