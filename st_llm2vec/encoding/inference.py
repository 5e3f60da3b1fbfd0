"""What ``encode`` does once its inputs are read: texts in batches of tokens, anything else in the host's way.

Texts are tokenised in a thread of its own while those before them are encoded, and sorted by their number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.util import batch_to_device, truncate_embeddings
from torch import Tensor
from tqdm.auto import tqdm

from st_llm2vec.encoding.batches import TokenRow, batches_of, split_rows, streams_on, token_budget
from st_llm2vec.encoding.cpu_streams import in_streams
from st_llm2vec.encoding.inputs import TOKENIZING
from st_llm2vec.modules.instructed import carries_instruction

TOKENIZED_AT_ONCE = 256
WINDOW = 8 * TOKENIZED_AT_ONCE

Input = str | dict[str, str]


def infer(model: SentenceTransformer, inputs: list[Any], host: Callable[..., Any], **options: Any) -> Any:
    """Encode texts in batches of tokens, and anything else as the host does; what ``_inference`` is for encoders here.

    Args:
        model: The encoder.
        inputs: Texts, rows ``{"text": str, "instruction": str}``, or whatever the host encodes.
        host: The host's own ``_inference``.
        **options: Its options.

    Returns:
        What the host would return, without padding.

    Raises:
        ValueError: If the prompt is no single instruction.
    """
    prompt = options["prompt"]
    if not isinstance(prompt, str | None):
        raise ValueError(
            f"prompt={prompt!r} is no single instruction, and texts are sorted before they are encoded. Encode the texts "
            "of each instruction by themselves."
        )
    if options["output_value"] != "sentence_embedding":
        return token_outputs(inputs, host, **options)
    if reads_token_batches(model, inputs):
        return encode_in_token_batches(model, inputs, **options)
    return host(inputs, **options)


def reads_token_batches(model: SentenceTransformer, inputs: list[Any]) -> bool:
    """Whether these inputs can be encoded by their tokens: texts, by a model with a tokenizer."""
    return (
        bool(inputs)
        and all(isinstance(one, str) or is_instructed(one) for one in inputs)
        and isinstance(model[0], Transformer)
        and model.tokenizer is not None
    )


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

    Raises:
        ValueError: If a vector is not finite.
    """
    on_device = model._resolve_inference_device(device)
    model.eval()  # parts that came later, such as an adapter, may be in training while the model itself is not
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

    batches = (
        (places[members], {**features, **shared})
        for places, rows, shared in _tokenized(model, inputs, prompt, kwargs)
        for members, features in batches_of(rows, model, budget, streams)
    )
    vectors: Tensor | None = None
    with tqdm(total=len(inputs), desc="Texts", unit=" texts", disable=not show_progress_bar) as progress:
        for places, embeddings in in_streams(embed, batches, streams):
            if vectors is None:
                vectors = embeddings.new_empty(len(inputs), embeddings.shape[1])
            vectors[torch.from_numpy(places).to(vectors.device)] = embeddings
            progress.update(len(embeddings))
    _require_finite(cast("Tensor", vectors), inputs, model.dtype)
    return cast("Tensor", vectors)


def _require_finite(vectors: Tensor, inputs: Sequence[Input], dtype: torch.dtype | None) -> None:
    """Gemma 3 in float16, for one, leaves the range of its type and gives vectors of NaN."""
    finite = vectors.isfinite().all(dim=1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise ValueError(
            f"The vectors of {int((~finite).sum())} of {len(inputs)} texts are not finite; the first is that of row {first}, "
            f"{text_of(inputs[first])[:40]!r}. The model left the range of its type, {dtype}, or its weights are damaged. Load "
            "it in another type, e.g. load(folder, dtype=torch.bfloat16)."
        )


def _tokenized(
    model: SentenceTransformer, inputs: Sequence[Input], prompt: str | None, kwargs: dict[str, Any]
) -> Iterator[tuple[Any, list[list[TokenRow]], dict[str, Any]]]:
    """Groups of texts: where they stand, the tokens of each one's readings, and the features that are the same for all of them."""
    order = np.argsort([-len(text_of(one)) for one in inputs], kind="stable")
    windows = [order[start : start + WINDOW] for start in range(0, len(order), WINDOW)]

    def read(window: Any) -> list[tuple[Any, list[list[TokenRow]], dict[str, Any]]]:
        groups: dict[Any, tuple[list[int], list[list[TokenRow]], dict[str, Any]]] = {}
        for instruction, members in by_instruction(inputs, window.tolist(), prompt):
            for start in range(0, len(members), TOKENIZED_AT_ONCE):
                part = members[start : start + TOKENIZED_AT_ONCE]
                texts = [text_of(inputs[one]) for one in part]
                with TOKENIZING:
                    features = model.preprocess(texts, prompt=instruction, **kwargs)
                part_rows, shared = split_rows(features)
                each = len(part_rows) // len(texts)
                places, rows, _ = groups.setdefault(_key(shared), ([], [], shared))
                places += part
                rows += [part_rows[row : row + each] for row in range(0, len(part_rows), each)]
        return [(np.asarray(places), rows, shared) for places, rows, shared in groups.values()]

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer") as ahead:
        pending = ahead.submit(read, windows[0])
        for number in range(len(windows)):
            groups = pending.result()
            if number + 1 < len(windows):
                pending = ahead.submit(read, windows[number + 1])
            yield from groups


def _key(shared: Mapping[str, Any]) -> Any:
    """Equal for features that texts of one batch can share; what is no plain value is shared by its texts alone."""
    return tuple((name, value if isinstance(value, str | int | None) else id(value)) for name, value in shared.items())


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


def token_outputs(
    inputs: list[Any], host: Callable[..., Any], *, prompt: str | None, output_value: str | None, **options: Any
) -> list[Any]:
    """What the host gives for the tokens of each text, without the padding of its batch.

    Args:
        inputs: Texts, rows ``{"text": str, "instruction": str}``, or whatever the host encodes.
        host: The host's own ``_inference``.
        prompt: The instruction of the texts that have none of their own.
        output_value: The feature that is asked for, such as ``"token_embeddings"``; ``None`` for all of them.
        **options: Its other options.

    Returns:
        For each text the feature, or a dictionary of all features; those of its tokens of shape ``(tokens, ...)``.
    """
    outputs: list[Any] = [None] * len(inputs)
    for instruction, places in by_instruction(inputs, range(len(inputs)), prompt):
        texts = [text_of(inputs[one]) for one in places]
        found = host(texts, prompt=instruction, output_value=None, **options)
        for place, features in zip(places, found, strict=True):
            own = _without_padding(features)
            outputs[place] = own if output_value is None else own[output_value]
    return outputs


def _without_padding(features: dict[str, Any]) -> dict[str, Any]:
    """The features of one text; what has a place for each token of the batch loses those of the padding."""
    mask = features["attention_mask"].bool()
    return {
        name: value[mask] if isinstance(value, Tensor) and _is_by_token(value, mask) else value
        for name, value in features.items()
    }


def _is_by_token(value: Tensor, mask: Tensor) -> bool:
    """Whether a feature has a place for each token; a vector, which may happen to be as long, has none."""
    return value.shape[:1] == mask.shape and (value.ndim > 1 or not value.is_floating_point())
