"""Which way inputs go in ``encode``: by their tokens, or the host's; and what the host gives, without its padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import Tensor

from st_llm2vec.encoding.batches import by_instruction, encode_in_token_batches, is_instructed, text_of


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
