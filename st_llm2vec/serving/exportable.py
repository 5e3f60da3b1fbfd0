"""What no export can say, whatever its format."""

from __future__ import annotations

from typing import Any

from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.modules.adapter import has_adapter
from st_llm2vec.modules.formatter import UNLIMITED


class CannotExport(ValueError):
    """Another engine cannot give the encoder's vectors; the message says why."""


def require_plain(encoder: TextEncoder) -> None:
    """Raise if the weights are not a decoder's own, whole, or the states that are pooled are not its last ones.

    Args:
        encoder: The encoder.

    Raises:
        CannotExport: If so; the message is a part of a sentence.
    """
    model: Any = encoder.transformer.model
    if has_adapter(model):
        raise CannotExport(
            "it holds an adapter; merge it first: st_llm2vec.publish does, and so does the end of a training run"
        )
    if getattr(model, "is_quantized", False):
        raise CannotExport("its weights are quantised; load it without quantization_config")
    if encoder.transformer.modality_config["text"]["method_output_name"] != "last_hidden_state":
        raise CannotExport("it pools the states of an inner layer")


def longest_input(encoder: TextEncoder) -> int:
    """The longest input, in tokens: the encoder's, or the decoder's context where it has no limit of its own."""
    limit = encoder.max_seq_length or UNLIMITED
    return limit if limit < UNLIMITED else int(encoder.transformer.model.config.max_position_embeddings)
