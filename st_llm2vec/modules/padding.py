"""Rows of token ids, padded to a batch at the tokenizer's padding side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase


def pad_rows(rows: list[tuple[list[int], list[int]]], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Pad ``(ids, pooling mask)`` rows at the tokenizer's padding side.

    A row without any token becomes one padding token that is attended to but not pooled, so that the model
    has something to read and the text's vector is zero.
    """
    rows = [row if row[0] else ([tokenizer.pad_token_id], [0]) for row in rows]
    input_ids, attention_mask = pad_ids([ids for ids, _ in rows], tokenizer)
    pooling_mask = torch.zeros_like(attention_mask)
    pooling_mask[attention_mask.bool()] = _flat([mask for _, mask in rows])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "pooling_mask": pooling_mask}


def pad_ids(rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows of token ids at the tokenizer's padding side.

    Args:
        rows: The ids of each text.
        tokenizer: Its padding token and its padding side are used.

    Returns:
        ``input_ids`` and ``attention_mask``, both of shape ``(batch, tokens)``.
    """
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    width = int(lengths.max())
    places = torch.arange(width)
    read = places >= width - lengths if tokenizer.padding_side == "left" else places < lengths
    input_ids = torch.full(read.shape, cast("int", tokenizer.pad_token_id), dtype=torch.long)
    input_ids[read] = _flat(rows)
    return input_ids, read.long()


def _flat(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.from_numpy(np.fromiter(itertools.chain.from_iterable(rows), np.int64))
