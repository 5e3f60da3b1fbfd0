"""Batches of tokens: how many a machine takes at a time, which texts share one, and their features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import psutil
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from st_llm2vec.encoding.cpu_streams import CORES
from st_llm2vec.modules.formatter import UNLIMITED
from st_llm2vec.packed.enable import padding_free, shared_prefix

CPU_TOKENS = 512
PREFIXES_IN_BATCH = 4
GPU_TOKENS = 65536
MOST_STREAMS = 4
SHARE_OF_MEMORY = 0.25

TokenRow = dict[str, Tensor]


def split_rows(features: Mapping[str, Any]) -> tuple[list[TokenRow], dict[str, Any]]:
    """Take a padded batch apart.

    Args:
        features: What ``preprocess`` gave, padded on either side.

    Returns:
        For each text its part of every feature of shape ``(batch, tokens)``, without padding; and the other features.
    """
    mask = features["attention_mask"].bool()
    lengths = mask.sum(dim=1).tolist()
    columns, shared = {}, {}
    for name, value in features.items():
        if isinstance(value, Tensor) and value.shape == mask.shape:
            columns[name] = value[mask].split(lengths)
        else:
            shared[name] = value
    columns.pop("position_ids", None)  # collate pads on the right, where models count by themselves
    return [dict(zip(columns, parts, strict=True)) for parts in zip(*columns.values(), strict=True)], shared


def batches_of(
    texts: list[list[TokenRow]], model: SentenceTransformer, budget: int, streams: int
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Put texts into batches.

    Args:
        texts: Each text's features, without padding; several rows where it is read several times.
        model: The encoder.
        budget: About how many tokens a batch holds.
        streams: How many batches are in work at a time.

    Yields:
        The texts of a batch, by number, and its features, of shape ``(batch, tokens)``.
    """
    rows = [row for text in texts for row in text]
    lengths = [sum(len(row["input_ids"]) for row in text) for text in texts]
    packed = padding_free(cast("Transformer", model[0]))
    if packed is None:
        groups = token_batches(lengths, budget)
    else:
        prefix = _shared_by_all(rows) if packed.shares_prefix else 0
        shares = [length - prefix * len(text) for length, text in zip(lengths, texts, strict=True)]
        groups = even_batches(shares, budget + PREFIXES_IN_BATCH * prefix, streams)
    for members in groups:
        yield members, collate([row for one in members for row in texts[one]], model)


def _shared_by_all(rows: list[TokenRow]) -> int:
    """The length of the prefix that all the texts share."""
    shortest = min(len(row["input_ids"]) for row in rows)
    heads = torch.stack([row["input_ids"][:shortest] for row in rows])
    return shared_prefix(heads, torch.ones_like(heads))


def token_batches(lengths: list[int], budget: int) -> Iterator[list[int]]:
    """Group texts for padded batches, the longest first.

    Args:
        lengths: Each text's number of tokens.
        budget: The greatest number of tokens in a group, padding included, but for a single text.

    Yields:
        The texts of each group, by number.

    Example:
        >>> list(token_batches([3, 9, 4, 2], budget=8))
        [[1], [2, 0], [3]]
    """
    batch: list[int] = []
    for one in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def even_batches(lengths: list[int], budget: int, streams: int = 1) -> Iterator[list[int]]:
    """Group texts for batches without padding, the longest first, as many groups for each stream as for the others.

    Args:
        lengths: Each text's number of tokens.
        budget: About the greatest number of tokens in a group.
        streams: How many batches are in work at a time.

    Yields:
        The texts of each group, by number.

    Example:
        >>> list(even_batches([3, 9, 4, 2], budget=10))
        [[1], [2, 0, 3]]
    """
    order = np.argsort([-length for length in lengths], kind="stable")
    ordered = np.maximum(np.asarray(lengths)[order], 1)
    total = int(ordered.sum())
    groups = streams * -(-total // (streams * budget))
    group = ((ordered.cumsum() - ordered / 2) * groups // total).astype(int)
    for members in np.split(order, np.flatnonzero(np.diff(group)) + 1):
        yield members.tolist()


def collate(rows: list[TokenRow], model: SentenceTransformer) -> dict[str, Tensor]:
    """Put texts together again, padded on the right."""
    padding = {"input_ids": model.tokenizer.pad_token_id or 0}
    batch = {
        name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=padding.get(name, 0))
        for name in rows[0]
    }
    if batch["input_ids"].shape[1] == 0:
        return {name: value.new_full((len(rows), 1), padding.get(name, 0)) for name, value in batch.items()}
    return batch


def streams_on(device: torch.device) -> int:
    """How many batches are in work at a time: on a CPU several, as two threads of one core each do more than one of two."""
    return max(1, min(MOST_STREAMS, CORES.number())) if device.type == "cpu" else 1


def token_budget(model: SentenceTransformer, batch_size: int, device: torch.device, streams: int = 1) -> int:
    """How many tokens a batch may hold.

    What one forward pass needs for a token, an estimate from the width of the model's layers, is to fit a quarter of
    the memory at hand. Beyond some size larger batches are no faster: on a CPU the states leave its caches.

    Args:
        model: The encoder.
        batch_size: So many texts of the greatest length bound the tokens too.
        device: Where the model is.
        streams: How many batches are in work at a time.

    Returns:
        The number of tokens, at least one.
    """
    decoder = cast("Transformer", model[0]).model
    config = decoder.config.get_text_config()
    width = 8 * config.hidden_size + 3 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    fitting = int(SHARE_OF_MEMORY * free_memory(device) / (streams * width * decoder.dtype.itemsize))
    fastest = CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
    return max(1, min(fitting, fastest, batch_size * min(model.max_seq_length or UNLIMITED, UNLIMITED)))


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; on one that does not say, those of the main memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
