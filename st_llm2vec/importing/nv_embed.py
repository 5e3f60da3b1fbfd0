"""NV-Embed v1 and v2: a bidirectional Mistral and its latent attention, out of one set of shards.

The published code is neither run nor copied; what is read here are the settings in ``config.json`` and the tensors,
``embedding_model.*`` and ``latent_attention_model.*`` (arXiv 2405.17428).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers import MistralConfig, MistralModel, PreTrainedModel

from st_llm2vec.conversion.convert import convert
from st_llm2vec.encoding.dtype import resolve_dtype
from st_llm2vec.folder.check_finite import require_finite
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.weights import forget_loaded_names
from st_llm2vec.host.quiet_loading import without_reports
from st_llm2vec.importing.checkpoint import Checkpoint, fetch, load_tokenizer
from st_llm2vec.recipe.config import RECIPES

DECODER, LATENT = "embedding_model.", "latent_attention_model."
MODEL_TYPE = "nvembed"
FIELDS = (
    "vocab_size",
    "max_position_embeddings",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
)
NAMES = {
    "latents": "latents",
    "cross_attend_blocks.0.norm": "query_norm",
    "cross_attend_blocks.0.norm_context": "latent_norm",
    "cross_attend_blocks.0.fn.to_q": "to_query",
    "cross_attend_blocks.0.fn.to_kv": "to_key_value",
    "cross_attend_blocks.0.fn.to_out": "to_output",
    "cross_attend_blocks.1.norm": "feed_forward_norm",
    "cross_attend_blocks.1.fn.net.0": "feed_forward.project_in",
    "cross_attend_blocks.1.fn.net.2": "feed_forward.project_out",
}
"""NV-Embed's names of its latent attention's parts, and those of ``LatentAttentionPooling``."""


def from_nv_embed(
    source: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    allow_pickles: bool = False,
    **overrides: Any,
) -> TextEncoder:
    """Import a published NV-Embed checkpoint, shard by shard.

    Args:
        source: Its folder or its name on the Hub.
        device: Where to put the encoder; chosen by Sentence Transformers if not given.
        dtype: Weights' type, e.g. ``torch.bfloat16``, or ``"auto"`` as in ``convert``; the stored one if not given.
        attn_implementation: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``; Transformers' choice if not given.
        revision: Branch, tag or commit of ``source``.
        token: Access token for the Hub.
        local_files_only: Whether to stay off the network.
        allow_pickles: Not for NV-Embed, whose tensors need other names: its weights must be safetensors.
        **overrides: Any field of :class:`EncoderConfig`, e.g. ``prompts={"query": "..."}`` or ``max_length=32768``.

    Returns:
        The encoder. Instructions are passed bare, without ``Instruct:`` and ``Query:``.

    Raises:
        ValueError: If it is no NV-Embed checkpoint, or a file is missing or damaged.
    """
    if allow_pickles:
        raise ValueError("NV-Embed checkpoints are read from safetensors only; leave allow_pickles out.")
    checkpoint = fetch(source, {"revision": revision, "token": token, "local_files_only": local_files_only})
    settings = checkpoint.read_json("config.json")
    if settings.get("model_type") != MODEL_TYPE:
        raise ValueError(
            f"{checkpoint.name} is no NV-Embed checkpoint: its config.json has model_type="
            f"{settings.get('model_type')!r}, not {MODEL_TYPE!r}."
        )
    files = _tensor_files(checkpoint)
    model = _decoder(checkpoint, settings, resolve_dtype(dtype, device), attn_implementation)
    tokenizer = load_tokenizer(checkpoint)
    if settings.get("add_pad_token", True):
        tokenizer.pad_token = tokenizer.eos_token
    fields = encoder_fields(settings, model)
    encoder = convert(model, "nv-embed", tokenizer=tokenizer, device=device, **{**fields, **overrides})
    _load_latents(encoder, files, checkpoint.name)
    manifest = encoder.manifest
    assert manifest is not None
    manifest.base = {
        "name": checkpoint.name,
        "architecture": "NVEmbedModel",
        "revision": revision,
        "source": checkpoint.name,
        **checkpoint.licence(),
    }
    return encoder


def encoder_fields(settings: dict[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """NV-Embed's settings as fields of an ``EncoderConfig``."""
    latent = settings.get("latent_attention_config") or {}
    recipe = RECIPES["nv-embed"]
    template, instructed = recipe.template, str(recipe.instruction_template)
    if not settings.get("is_mask_instruction", True):
        instructed = instructed.replace("{pool}", "").replace("{/pool}", "")
    if not settings.get("add_eos", True):
        template, instructed = template.replace("{eos}", ""), instructed.replace("{eos}", "")
    return {
        "template": template,
        "instruction_template": instructed,
        "max_length": min(recipe.max_length or 4096, model.config.max_position_embeddings),
        "latent_attention": {
            "num_latents": latent["num_latents_value"],
            "num_heads": latent["num_cross_heads"],
            "head_dimension": latent["cross_dim_head"],
        },
    }


def _tensor_files(checkpoint: Checkpoint) -> dict[str, Path]:
    """Every tensor's file; a name that belongs to neither part is refused, and so is a checkpoint without one part."""
    files = checkpoint.tensor_files()
    unknown = sorted(name for name in files if not name.startswith((DECODER, LATENT)))
    if unknown:
        raise ValueError(
            f"{checkpoint.name} has {len(unknown)} tensors that are neither {DECODER}* nor {LATENT}*, e.g. {unknown[0]}; "
            "it is not the layout of a published NV-Embed checkpoint."
        )
    for prefix in (DECODER, LATENT):
        if not any(name.startswith(prefix) for name in files):
            raise ValueError(f"{checkpoint.name} has no tensors named {prefix}*; download it again.")
    return files


def _decoder(
    checkpoint: Checkpoint, settings: dict[str, Any], dtype: Any, attn_implementation: str | None
) -> PreTrainedModel:
    """The Mistral inside; NV-Embed's own code has no sliding window, whatever the settings say."""
    text = settings.get("text_config") or {}
    config = MistralConfig(
        **{name: text[name] for name in FIELDS if text.get(name) is not None},
        rope_parameters={"rope_type": "default", "rope_theta": text.get("rope_theta") or 10000.0},
        sliding_window=None,
    )
    options = {"dtype": dtype, "attn_implementation": attn_implementation}
    options = {key: value for key, value in options.items() if value is not None}
    with without_reports():
        loaded = MistralModel.from_pretrained(
            checkpoint.folder,
            config=config,
            key_mapping={rf"^{DECODER[:-1]}\.": ""},
            output_loading_info=True,
            **options,
        )
    model, report = cast("tuple[Any, Any]", loaded)
    forget_loaded_names(model)
    missing = sorted(report["missing_keys"])
    unknown = sorted(name for name in report["unexpected_keys"] if not name.startswith(LATENT))
    if missing or unknown:
        kind, names = ("lacks", missing) if missing else ("has unknown", unknown)
        raise ValueError(f"{checkpoint.name} {kind} {len(names)} of its decoder's tensors, e.g. {names[0]}.")
    return model


def _load_latents(encoder: TextEncoder, files: dict[str, Path], name: str) -> None:
    """Fill the latent attention tensor by tensor; a few hundred million parameters are never there twice."""
    pooling = encoder[1]
    model = encoder.transformer.model
    renamed = {_renamed(one, name): one for one in files if one.startswith(LATENT)}
    missing = sorted(set(pooling.state_dict()) - set(renamed))
    if missing:
        raise ValueError(f"{name} lacks {len(missing)} tensors of its latent attention, e.g. {missing[0]}.")
    targets = dict(pooling.named_parameters())
    pooling.to(model.dtype)
    for ours, theirs in renamed.items():
        with safe_open(files[theirs], framework="pt") as tensors:
            tensor = tensors.get_tensor(theirs)
        require_finite({theirs: tensor}, name)
        if tensor.shape != targets[ours].shape:
            raise ValueError(
                f"{theirs} of {name} has the shape {tuple(tensor.shape)}, not {tuple(targets[ours].shape)}."
            )
        with torch.no_grad():
            targets[ours].copy_(tensor)


def _renamed(theirs: str, name: str) -> str:
    inner = theirs.removeprefix(LATENT)
    stem, _, leaf = inner.rpartition(".")
    if inner in NAMES:
        return NAMES[inner]
    if stem not in NAMES:
        raise ValueError(f"{name} has the unknown tensor {theirs}; it is not a published NV-Embed checkpoint.")
    return f"{NAMES[stem]}.{leaf}"
