"""Compile an encoder's config to Sentence Transformers modules: stock ones where they provably say the same.

``InstructionFormatter`` is the specification: which tokens a text becomes and which of them are pooled. Two
arrangements of stock modules are tried against it on a battery of instructions and texts, ``text`` (with prompts)
and ``message`` (with a chat template), and the first that gives the very same tokens is taken. Where neither does,
the encoder is made of this package's own modules (``custom``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sentence_transformers.base.modules import Normalize, Transformer
from torch import nn

from st_llm2vec.compilation.chat_layout import with_chat_template
from st_llm2vec.compilation.prompt_layout import with_prompts
from st_llm2vec.compilation.proof import CannotSay
from st_llm2vec.modules.instruction import InstructionFormatter
from st_llm2vec.modules.latent_attention import LatentAttentionPooling
from st_llm2vec.modules.pooling import SpanPooling
from st_llm2vec.modules.transformer import BidirectionalTransformer
from st_llm2vec.recipes import EncoderConfig

Layout = Literal["text", "message", "custom"]


@dataclass(frozen=True)
class Compilation:
    """What a config was compiled to.

    Args:
        modules: The modules, in order.
        layout: Which arrangement was taken.
        prompts: The prompts as the modules expect them.
        reason: Why it was taken, in a sentence.
    """

    modules: list[nn.Module]
    layout: Layout
    prompts: dict[str, str]
    reason: str


def compile_encoder(transformer: Transformer, config: EncoderConfig, repaired: bool = False) -> Compilation:
    """Choose and build the modules of an encoder.

    Args:
        transformer: A stock ``Transformer`` over the decoder, its attention already set and proven.
        config: The encoder.
        repaired: Whether the attention needed a repair that a stock reload would not repeat.

    Returns:
        The modules and how they were chosen.
    """
    set_output_layer(transformer, config.layer)
    if repaired:
        return _custom(transformer, config, "the attention of this architecture needs a repair at every load")
    if config.pooling == "latent_attention":
        return _custom(transformer, config, "latent attention is not a stock module")
    formatter = InstructionFormatter(**config.formatter_config())
    try:
        modules, prompts = with_prompts(transformer, config, formatter)
        return Compilation(_normalized(modules, config), "text", prompts, "prompts give the same tokens")
    except CannotSay as error:
        no_prompt = error
    try:
        modules, prompts = with_chat_template(transformer, config, formatter)
        return Compilation(_normalized(modules, config), "message", prompts, "a chat template gives the same tokens")
    except CannotSay as error:
        reason = f"a prompt cannot say it: {no_prompt}; a chat template cannot say it: {error}"
        return _custom(transformer, config, reason)


def set_output_layer(transformer: Transformer, layer: int) -> None:
    """Make the module return the hidden states of ``layer`` (``-1``: the model's output)."""
    layers = getattr(transformer.model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    if layers is not None and -layer > layers + 1:
        raise ValueError(f"layer={layer} is deeper than the model, which has {layers} layers and its embeddings.")
    output: Any = "last_hidden_state" if layer == -1 else ["hidden_states", layer]
    transformer.modality_config = {"text": {"method": "forward", "method_output_name": output}}
    transformer.module_output_name = "token_embeddings"


def _custom(transformer: Transformer, config: EncoderConfig, reason: str) -> Compilation:
    module = BidirectionalTransformer.from_transformer(transformer, config.attention, config.formatter_config())
    width = transformer.get_embedding_dimension()
    pooling: nn.Module
    if config.pooling == "latent_attention":
        pooling = LatentAttentionPooling(width, **config.latent_attention)
    else:
        pooling = SpanPooling(width, config.pooling)
    return Compilation(_normalized([module, pooling], config), "custom", dict(config.prompts), reason)


def _normalized(modules: list[nn.Module], config: EncoderConfig) -> list[nn.Module]:
    return [*modules, Normalize()] if config.normalize else modules
