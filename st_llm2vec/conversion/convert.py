"""From a decoder and a recipe to a text encoder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from st_llm2vec.conversion.decoder import load_transformer, wrap_model
from st_llm2vec.encoding.text_reader import PROMPT_NAMES
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.gguf_file import SOURCE as GGUF_SOURCE
from st_llm2vec.layouts.choose import compile_encoder
from st_llm2vec.modules.attention import (
    Attention,
    AttentionProbe,
    CausalAttentionError,
    probe_attention,
    prove_attention,
    repair_attention,
    set_attention,
)
from st_llm2vec.proof.left_padding import left_padding_changes, needs_position_ids
from st_llm2vec.proof.same_tokens import tokenizer_of
from st_llm2vec.recipe.config import FIELDS_ELSEWHERE, EncoderConfig, get_recipe
from st_llm2vec.recipe.manifest import Manifest

logger = logging.getLogger(__name__)

NAMES_ELSEWHERE = FIELDS_ELSEWHERE | {
    "torch_dtype": "here it is dtype",
    "device_map": "the encoder is put on one device, device=",
    "instruction": 'prompts={"query": ...} keeps it for queries, and encode takes it as prompt=',
    "doc_max_length": "documents are cut at max_length too",
    "peft_model_name_or_path": "from_llm2vec(adapter) reads LLM2Vec's adapters, and load(folder) a folder of adapters",
    "merge_peft": "from_llm2vec(adapter) merges the adapters that it reads",
    "trust_remote_code": "code of a repository is never run here",
}
"""What arguments of ``llm2vec`` and Transformers are here."""


def convert(
    decoder: str | Path | PreTrainedModel,
    recipe: str | Path | Mapping[str, Any] | EncoderConfig = "llm2vec",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
    quantization_config: Any = None,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    measure: bool = True,
    **overrides: Any,
) -> TextEncoder:
    """Turn a decoder into a text encoder, and prove that it attends as its recipe says.

    Args:
        decoder: A folder, a GGUF file, a name on the Hugging Face Hub, or a loaded model. A loaded model is taken over, not
            copied: its attention changes with the encoder's. Convert a deep copy to keep it as it is.
        recipe: A recipe's name, a YAML file, a mapping of fields, or an ``EncoderConfig``.
        tokenizer: The tokenizer of a loaded model; by default the one it was loaded from.
        device: Where to put the encoder; chosen by Sentence Transformers if not given.
        dtype: Weights' type, e.g. ``torch.bfloat16``; the stored one if not given. ``"auto"`` is bfloat16 where the
            device computes it natively and float32 elsewhere (:mod:`st_llm2vec.encoding.dtype`), not the stored type that
            it is in Transformers. Not for a loaded model.
        attn_implementation: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``; Transformers' choice if not given.
        quantization_config: How to quantise the weights, e.g. a ``BitsAndBytesConfig``. Not for a loaded model.
        revision: Branch, tag or commit on the Hub.
        token: Access token for the Hub.
        local_files_only: Whether to stay off the network.
        measure: Whether to warn where a bidirectional recipe makes near-useless vectors of this decoder without
            training. A few sentences are encoded for that; loaded models, whose past is unknown, and large ones on a
            CPU are left out.
        **overrides: Any field of :class:`EncoderConfig`, e.g. ``prompts={"query": "..."}`` or ``max_length=512``.

    Returns:
        The encoder, a ``SentenceTransformer``. Its ``manifest`` tells how it was compiled.

    Raises:
        ValueError: If the recipe does not exist or does not fit, or the model is no decoder or cannot be loaded.
        CausalAttentionError: If the recipe is bidirectional and the architecture stays causal.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> encoder = convert(decoder_path(), "llm2vec", prompts={"query": "Find the passage that answers:"})
        >>> encoder.encode_query(["who rang the bell?"]).shape
        (1, 192)
    """
    _refuse_names_of_elsewhere(overrides)
    config = get_recipe(recipe).replace(**overrides)
    in_memory = isinstance(decoder, torch.nn.Module)
    if isinstance(decoder, torch.nn.Module):
        transformer = wrap_model(decoder, tokenizer)
        name = decoder.config._name_or_path or type(decoder).__name__
    else:
        name = str(decoder)
        hub = {"revision": revision, "token": token, "local_files_only": local_files_only}
        transformer = load_transformer(name, dtype, attn_implementation, hub, quantization_config, device)
    settings = transformer.model.config
    untrained = not (in_memory or hasattr(settings, "st_llm2vec_layout"))
    gguf = getattr(settings, GGUF_SOURCE, None)
    probe, repaired = prove_decoder(transformer.model, name), False
    if config.attention == "bidirectional":
        probe, repaired = apply_attention(transformer.model, config.attention, name)
    if probe.kind == "hybrid":
        logger.warning("%s is a %s.", name, probe.describe())
    prepare_tokenizer(transformer, config, name, overrides)
    compilation = compile_encoder(transformer, config, repaired)
    settings.st_llm2vec_layout = compilation.layout
    logger.info("%s as %s: %s (%s)", name, config.name, compilation.layout, compilation.reason)
    encoder = TextEncoder(
        modules=compilation.modules,
        device=device,
        prompts=compilation.prompts,
        default_prompt_name=config.default_prompt_name,
        similarity_fn_name="cosine",
        base_is_stored=not in_memory,
        manifest=Manifest(
            config=compilation.config,
            base={
                "name": name,
                "architecture": type(transformer.model).__name__,
                "revision": revision,
                **({"gguf": gguf} if gguf else {}),
            },
            layout=compilation.layout,
            reason=compilation.reason,
            attention=probe.to_dict(),
        ),
    )
    for prompt in (None, *filter(None, compilation.prompts.values())):
        encoder.check_room(prompt)
    used = {one for names in PROMPT_NAMES.values() for one in names} | {config.default_prompt_name}
    if any(config.prompts.values()) and used.isdisjoint(config.prompts):
        logger.warning(
            "encode_query looks for a prompt named 'query', and encode_document for 'document', which %s are not: they "
            "are used where a call names them, encode(texts, prompt_name=%r). Rename them, if they are for queries.",
            sorted(config.prompts),
            min(config.prompts),
        )
    if measure and untrained:
        from st_llm2vec.evaluation.untrained import untrained_warning

        warning = untrained_warning(encoder, name)
        if warning:
            logger.warning("%s", warning)
    return encoder


def _refuse_names_of_elsewhere(overrides: Mapping[str, Any]) -> None:
    for name in overrides:
        if name in NAMES_ELSEWHERE:
            raise ValueError(f"There is no argument {name!r}: {NAMES_ELSEWHERE[name]}.")


def prove_decoder(model: PreTrainedModel, name: str) -> AttentionProbe:
    """Set the model to be causal, and raise unless it is: only a decoder can be converted.

    Returns:
        What was seen.

    Raises:
        ValueError: If it sees the future whatever it is told.
    """
    set_attention(model, "causal")
    probe = probe_attention(model)
    if probe.kind != "causal":
        raise ValueError(
            f"{name} is a {model.config.model_type} model that attends in both directions by itself: it is an encoder "
            f'already, with nothing to convert. Use it as it is: SentenceTransformer("{name}").'
        )
    return probe


def apply_attention(model: PreTrainedModel, attention: Attention, name: str) -> tuple[AttentionProbe, bool]:
    """Set the attention, repair it where the architecture ignores the setting and a repair exists, and prove it.

    A plain reload may choose another attention implementation than the one in use, so the setting counts as
    enough only if it is enough under all of them.

    Returns:
        The probe for the implementation in use, and whether a repair was needed under any.

    Raises:
        CausalAttentionError: If the model is meant to be bidirectional and stays causal, or cannot run like that.
    """
    set_attention(model, attention)
    if attention == "causal":
        return prove_attention(model, attention, name), False
    try:
        probes = probe_implementations(model)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise CausalAttentionError(
            f"{name} ({model.config.model_type}) cannot run with attention in both directions under "
            f'{model.config._attn_implementation}: {error}. Use a causal recipe such as "echo" or "prompteol".'
        ) from error
    if all(probe.sees_future for probe in probes):
        return probes[0], False
    repair_attention(model, attention)
    return prove_attention(model, attention, name), True


def probe_implementations(model: PreTrainedModel) -> list[AttentionProbe]:
    """Probe the implementation in use, then eager attention or SDPA, whichever is not in use but can run."""
    in_use = model.config._attn_implementation
    probes = [probe_attention(model)]
    try:
        for implementation in ("eager", "sdpa"):
            if implementation == in_use or (implementation == "sdpa" and not model._supports_sdpa):
                continue
            try:
                model.set_attn_implementation(implementation)
                probes.append(probe_attention(model))
            except (AttributeError, RuntimeError, TypeError) as error:
                logger.info("cannot run under %s, so it cannot be silently causal there: %s", implementation, error)
    finally:
        model.set_attn_implementation(in_use)
    return probes


def prepare_tokenizer(transformer: Transformer, config: EncoderConfig, name: str, overrides: Mapping[str, Any]) -> None:
    """Give the tokenizer a padding token, the padding side and the longest input that the encoder is to have.

    Args:
        transformer: The decoder, its attention already set.
        config: The encoder.
        name: The decoder's name, for messages.
        overrides: The fields that the caller asked for, whose impossible values are refused, not mended.

    Raises:
        ValueError: If the tokenizer is not a fast one, has no token to pad with, or the context is too short.
    """
    tokenizer = tokenizer_of(transformer, name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise ValueError(f"{name}'s tokenizer has neither a padding nor an end-of-text token; set pad_token first.")
    _choose_padding_side(transformer, config, name, "padding_side" in overrides)
    # It is saved only if it is among these; else a load takes the class's own side.
    tokenizer.init_kwargs["padding_side"] = tokenizer.padding_side
    tokenizer.truncation_side = "right"
    context = transformer.max_seq_length
    if config.max_length is not None:
        if context is not None and config.max_length > context and "max_length" in overrides:
            raise ValueError(f"max_length={config.max_length} is longer than the context of {name}, {context} tokens.")
        transformer.max_seq_length = min(config.max_length, context or config.max_length)


def _choose_padding_side(transformer: Transformer, config: EncoderConfig, name: str, asked_for: bool) -> None:
    """Pad at the right where left padding would change the vectors; refuse the left if it was asked for."""
    tokenizer, model = tokenizer_of(transformer), transformer.model
    tokenizer.padding_side = config.padding_side
    if config.padding_side == "right" or not left_padding_changes(model):
        return
    if asked_for and not needs_position_ids(model):
        raise ValueError(
            f"{name} ({model.config.model_type}) gives other vectors under left padding, and no positions can mend "
            'it: its layers read the padding. Leave padding_side out, or set it to "right".'
        )
    if not asked_for:
        logger.info("%s: padding on the right, since left padding would change its vectors", name)
        tokenizer.padding_side = "right"
