"""How ``encode`` goes through its texts: tokenised ahead, sorted by tokens, in batches of as many tokens as memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import psutil
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.util import batch_to_device, truncate_embeddings
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from st_llm2vec.encoding.cpu_streams import in_streams, streams_on
from st_llm2vec.modules.formatter import UNLIMITED
from st_llm2vec.modules.instructed import carries_instruction
from st_llm2vec.packed.enable import is_padding_free, shared_prefix, shares_prefix

TOKENIZED_AT_ONCE = 256
WINDOW = 8 * TOKENIZED_AT_ONCE
CPU_TOKENS = 512
PREFIXES_IN_BATCH = 4
GPU_TOKENS = 65536
SHARE_OF_MEMORY = 0.25

TokenRow = dict[str, Tensor]
Input = str | dict[str, str]


def encode_in_token_batches(
    model: SentenceTransformer,
    inputs: Sequence[Input],
    *,
    prompt: str | None,
    batch_size: int,
    show_progress_bar: bool,
    save_to_cpu: bool,
    normalize_embeddings: bool,
    truncate_dim: int | None,
    device: str | torch.device | None = None,
    output_value: str = "sentence_embedding",
    **kwargs: Any,
) -> Tensor:
    """Encode texts, as ``SentenceTransformer.encode`` does with its arguments resolved.

    Texts are sorted by their number of characters, tokenised in a thread of its own while the texts before them are
    encoded, and sorted by their number of tokens. A batch holds as many texts as fit :func:`token_budget`. Texts with
    other instructions are tokenised apart, and share a batch where the features beside the tokens are the same.

    Args:
        model: The encoder.
        inputs: The texts, or rows ``{"text": str, "instruction": str}``.
        prompt: The instruction of the texts that have none of their own.
        batch_size: Bounds a batch's tokens to those of so many texts of the greatest length.
        show_progress_bar: Whether to show how many texts are done.
        save_to_cpu: Whether to move each batch's vectors to the CPU.
        normalize_embeddings: Whether to scale the vectors to length 1.
        truncate_dim: How many dimensions to keep.
        device: Where to encode; where the model is if not given.
        output_value: The feature that is the vector.
        **kwargs: For the model's ``preprocess`` and ``forward``.

    Returns:
        The vectors, of shape ``(texts, dimension)``, in the texts' order.
    """
    on_device = model._resolve_inference_device(device)
    model.eval()
    streams = streams_on(on_device)
    budget = token_budget(model, batch_size, on_device, streams)

    @torch.inference_mode()
    def embed(batch: tuple[Any, dict[str, Any]]) -> tuple[Any, Tensor]:
        places, features = batch
        embeddings: Tensor = model(batch_to_device(features, on_device), **kwargs)[output_value]
        if truncate_dim is not None:
            embeddings = truncate_embeddings(embeddings, truncate_dim)
        if normalize_embeddings:
            embeddings = torch.nn.functional.normalize(embeddings, p=2, dim=1)
        return places, embeddings.cpu() if save_to_cpu else embeddings

    batches = _batches(model, inputs, budget, streams, prompt, kwargs)
    vectors: Tensor | None = None
    with tqdm(total=len(inputs), desc="Texts", unit=" texts", disable=not show_progress_bar) as progress:
        for places, embeddings in in_streams(embed, batches, streams):
            if vectors is None:
                vectors = embeddings.new_empty(len(inputs), embeddings.shape[1])
            vectors[torch.from_numpy(places).to(vectors.device)] = embeddings
            progress.update(len(embeddings))
    return cast("Tensor", vectors)


def _batches(
    model: SentenceTransformer,
    inputs: Sequence[Input],
    budget: int,
    streams: int,
    prompt: str | None,
    kwargs: dict[str, Any],
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Where the texts of each batch stand, and its features."""
    for places, rows, shared in _tokenized(model, inputs, prompt, kwargs):
        for batch in _grouped(rows, model, budget, streams):
            yield places[batch], {**collate([rows[one] for one in batch], model), **shared}


def _grouped(rows: list[TokenRow], model: SentenceTransformer, budget: int, streams: int) -> Iterator[list[int]]:
    lengths = [len(row["input_ids"]) for row in rows]
    if not is_padding_free(cast("Transformer", model[0])):
        return token_batches(lengths, budget)
    prefix = prefix_of(rows, model)
    return even_batches([length - prefix for length in lengths], budget + PREFIXES_IN_BATCH * prefix, streams)


def _tokenized(
    model: SentenceTransformer, inputs: Sequence[Input], prompt: str | None, kwargs: dict[str, Any]
) -> Iterator[tuple[Any, list[TokenRow], dict[str, Any]]]:
    """Groups of texts: where they stand, their tokens, and the features that are the same for all of them."""
    order = np.argsort([-len(text_of(one)) for one in inputs], kind="stable")
    windows = [order[start : start + WINDOW] for start in range(0, len(order), WINDOW)]

    def read(window: Any) -> list[tuple[Any, list[TokenRow], dict[str, Any]]]:
        groups: dict[Any, tuple[list[int], list[TokenRow], dict[str, Any]]] = {}
        for instruction, members in by_instruction(inputs, window.tolist(), prompt):
            for start in range(0, len(members), TOKENIZED_AT_ONCE):
                part = members[start : start + TOKENIZED_AT_ONCE]
                texts = [text_of(inputs[one]) for one in part]
                part_rows, shared = split_rows(model.preprocess(texts, prompt=instruction, **kwargs))
                places, rows, _ = groups.setdefault(_key(shared), ([], [], shared))
                places += part
                rows += part_rows
        return [(np.asarray(places), rows, shared) for places, rows, shared in groups.values()]

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer") as ahead:
        pending = ahead.submit(read, windows[0])
        for number in range(len(windows)):
            groups = pending.result()
            if number + 1 < len(windows):
                pending = ahead.submit(read, windows[number + 1])
            yield from groups


def by_instruction(
    inputs: Sequence[Input], places: Sequence[int], prompt: str | None
) -> Iterator[tuple[str | None, list[int]]]:
    """Group texts by their instruction.

    Args:
        inputs: The texts, or rows ``{"text": str, "instruction": str}``.
        places: Which of them to group.
        prompt: The instruction of the texts that have none of their own.

    Yields:
        An instruction, and the places of its texts, in their order.

    Example:
        >>> rows = [{"text": "a", "instruction": "x"}, {"text": "b", "instruction": ""}, {"text": "c", "instruction": "x"}]
        >>> list(by_instruction(rows, range(3), None))
        [('x', [0, 2]), ('', [1])]
    """
    groups: dict[str | None, list[int]] = {}
    for one in places:
        row: Any = inputs[one]
        groups.setdefault(row["instruction"] if is_instructed(row) else prompt, []).append(one)
    yield from groups.items()


def is_instructed(one: Any) -> bool:
    """Whether an input is a row ``{"text": str, "instruction": str}``."""
    return isinstance(one, dict) and carries_instruction(one)


def text_of(one: Any) -> Any:
    """The text of such a row; any other input is its own."""
    return one["text"] if is_instructed(one) else one


def _key(shared: Mapping[str, Any]) -> Any:
    """Equal for features that texts of one batch can share; what is no plain value is shared by its texts alone."""
    return tuple((name, value if isinstance(value, str | int | None) else id(value)) for name, value in shared.items())


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


def prefix_of(rows: list[TokenRow], model: SentenceTransformer) -> int:
    """The length of the prefix that all the texts share, where the model passes it once for a batch; else 0."""
    if not shares_prefix(cast("Transformer", model[0])) or len(rows) < 2:
        return 0
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
