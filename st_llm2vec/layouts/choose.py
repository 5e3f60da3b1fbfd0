"""Compile an encoder's config to Sentence Transformers modules: stock ones where they provably say the same.

``InstructionFormatter`` is the specification: which tokens a text becomes and which of them are pooled. Three
arrangements of stock modules are tried against it on a battery of instructions and texts, ``prefix`` (prompt and text
pooled as one string), ``text`` (with prompts) and ``message`` (with a chat template), and the first that gives the very
same tokens once it is saved and loaded is taken. Where none does, the encoder is made of this package's own modules
(``custom``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from sentence_transformers.base.modules import Normalize, Transformer
from torch import nn

from st_llm2vec.layouts.message import mend_messages, with_chat_template
from st_llm2vec.layouts.prefix import told_by_prefixes, with_prefix
from st_llm2vec.layouts.reload import reload_reader
from st_llm2vec.layouts.special_tokens import read_as_text, set_split
from st_llm2vec.layouts.text import mend_prompts, saved_prompts, teach_prompts, with_prompts
from st_llm2vec.modules.formatter import InstructionFormatter
from st_llm2vec.modules.latent_attention import LatentAttentionPooling
from st_llm2vec.modules.readings import MeanOfReadings
from st_llm2vec.modules.span_pooling import SpanPooling
from st_llm2vec.modules.transformer import BidirectionalTransformer
from st_llm2vec.proof.same_tokens import (
    CannotSay,
    Specification,
    prove_same_reading,
    prove_same_tokens,
    tokenizer_of,
)
from st_llm2vec.proof.texts import FEW_TEXTS
from st_llm2vec.recipe.config import EncoderConfig

Layout = Literal["prefix", "text", "message", "custom"]


@dataclass(frozen=True)
class Compilation:
    """What a config was compiled to.

    Args:
        modules: The modules, in order.
        layout: Which arrangement was taken.
        prompts: The prompts as the modules expect them.
        reason: Why it was taken, in a sentence.
        config: The encoder, as far as it could be had.
    """

    modules: list[nn.Module]
    layout: Layout
    prompts: dict[str, str]
    reason: str
    config: EncoderConfig


def compile_encoder(transformer: Transformer, config: EncoderConfig, repaired: bool = False) -> Compilation:
    """Choose and build the modules of an encoder, as its saved folder would be loaded: the proof is about that.

    Args:
        transformer: A stock ``Transformer`` over the decoder, its attention already set and proven.
        config: The encoder.
        repaired: Whether the attention needed a repair that a stock reload would not repeat.

    Returns:
        The modules and how they were chosen.

    Raises:
        ValueError: If no arrangement reads the decoder's own tokens once it is saved and loaded.
    """
    set_output_layer(transformer, config.layer)
    config = read_as_text(transformer, config)
    formatter = InstructionFormatter(**config.formatter_config())
    specification = Specification(config, formatter, tokenizer_of(transformer))
    if repaired:
        return _custom(transformer, specification, "the attention of this architecture needs a repair at every load")
    if config.pooling == "latent_attention":
        return _custom(transformer, specification, "latent attention is not a stock module")
    if config.readings != ("forward",):
        return _custom(transformer, specification, "stock modules read a text once, as it is")
    try:
        modules, prompts = with_prefix(transformer, specification)
        return Compilation(
            _normalized(modules, config), "prefix", prompts, "prompt and text are one string, all pooled", config
        )
    except CannotSay:
        pass  # few recipes are like that; why the others cannot be is told below
    try:
        modules, prompts = with_prompts(transformer, specification)
        return Compilation(_normalized(modules, config), "text", prompts, "prompts give the same tokens", config)
    except CannotSay as error:
        no_prompt = error
    try:
        modules, prompts = with_chat_template(transformer, specification)
        reason = "a chat template gives the same tokens"
        return Compilation(_normalized(modules, config), "message", prompts, reason, config)
    except CannotSay as error:
        reason = f"a prompt cannot say it: {no_prompt}; a chat template cannot say it: {error}"
        return _custom(transformer, specification, reason)


def prove_reading(modules: Sequence[nn.Module], config: EncoderConfig, layout: str | None, name: str) -> None:
    """Prove that the modules of a folder read and pool what their recipe says, and mend what can be mended.

    Folders of stock modules that were saved with tokenizers of Transformers' own classes, before what they read was proven
    after a reload, lose what marks the border between instruction and text; it is put back. And those that were saved before
    special tokens in a text were text, learn it.

    Args:
        modules: The modules, as they were loaded; the first one's tokenizer may be mended.
        config: The encoder.
        layout: How it was compiled.
        name: Its name, for the message.

    Raises:
        ValueError: If the modules read or pool other tokens.
    """
    transformer = cast("Transformer", modules[0])
    formatter = InstructionFormatter(**config.formatter_config())
    tokenizer = tokenizer_of(transformer, name)
    if layout != "message":
        set_split(tokenizer, config.split_special_tokens)
    specification = Specification(config, formatter, tokenizer)
    try:
        if layout == "text":
            mend_prompts(modules, specification)
        elif layout == "prefix":
            prove_same_tokens(transformer, specification, told_by_prefixes(specification, FEW_TEXTS))
        elif layout == "message":
            mend_messages(transformer, specification)
    except CannotSay as error:
        raise ValueError(
            f"{name} pools other tokens than its recipe says ({error}): its tokenizer is not the one that it was made "
            "with, or the installed Transformers loads it otherwise. Convert its decoder again, with this version."
        ) from error


def compile_prompts(
    modules: Sequence[nn.Module],
    config: EncoderConfig,
    layout: str | None,
    prompts: Mapping[str, str | None],
    default: str | None,
) -> tuple[EncoderConfig, dict[str, str | None]]:
    """Say prompts that an encoder was given after conversion, as those of conversion are said.

    Args:
        modules: The encoder's modules; the first one's tokenizer is taught the prompts if need be.
        config: The encoder, with the prompts of conversion.
        layout: How it was compiled.
        prompts: The prompts that it has now, by name.
        default: The name of the one that a plain ``encode`` has now.

    Returns:
        The encoder with these prompts, and the prompts as the modules expect them.

    Raises:
        ValueError: If the modules cannot say them.
    """
    formatter = InstructionFormatter(**config.formatter_config())
    bare: dict[str, str | None] = {name: formatter.bare_instruction(text) for name, text in prompts.items()}
    if formatter.instruction_template is None:
        return config, dict(prompts)
    known = {name: formatter.bare_instruction(text) for name, text in config.prompts.items()}
    kept = {name: text for name, text in bare.items() if text or name in known}
    told = config.replace(prompts=kept, default_prompt_name=default if default in kept else None)
    if layout != "text":
        return told, bare
    specification = Specification(told, formatter, tokenizer_of(cast("Transformer", modules[0])))
    try:
        if not set(specification.own_instructions) <= set(known.values()):
            teach_prompts(modules, specification)
        return told, {**bare, **saved_prompts(specification)}
    except CannotSay as error:
        raise ValueError(
            f"The prompts that this encoder was given cannot be saved with its stock modules ({error}), and plain Sentence "
            "Transformers would pool other tokens. Convert the decoder again with them: convert(decoder, ..., prompts={...})."
        ) from error


def set_output_layer(transformer: Transformer, layer: int) -> None:
    """Make the module return the hidden states of ``layer`` (``-1``: the model's output)."""
    layers = getattr(transformer.model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    if layers is not None and -layer > layers + 1:
        raise ValueError(f"layer={layer} is deeper than the model, which has {layers} layers and its embeddings.")
    output: Any = "last_hidden_state" if layer == -1 else ["hidden_states", layer]
    transformer.modality_config = {"text": {"method": "forward", "method_output_name": output}}
    transformer.module_output_name = "token_embeddings"


def _custom(transformer: Transformer, specification: Specification, reason: str) -> Compilation:
    config = specification.config
    transformer = reload_reader(transformer)
    prove_same_reading(transformer, specification)
    return Compilation(own_modules(transformer, config), "custom", dict(config.prompts), reason, config)


def own_modules(transformer: Transformer, config: EncoderConfig) -> list[nn.Module]:
    """This package's own modules, which are the specification: they read, pool and average as the config says.

    Args:
        transformer: A stock ``Transformer`` over the decoder, its attention already set and proven.
        config: The encoder.

    Returns:
        The modules, in order.
    """
    module = BidirectionalTransformer.from_transformer(transformer, config.attention, config.formatter_config())
    width = transformer.get_embedding_dimension()
    pooling: nn.Module
    if config.pooling == "latent_attention":
        pooling = LatentAttentionPooling(width, **config.latent_attention)
    else:
        pooling = SpanPooling(width, config.pooling)
    several = [MeanOfReadings(len(config.readings))] if len(config.readings) > 1 else []
    return _normalized([module, pooling, *several], config)


def _normalized(modules: list[nn.Module], config: EncoderConfig) -> list[nn.Module]:
    return [*modules, Normalize()] if config.normalize else modules
