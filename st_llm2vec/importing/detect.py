"""Which recipe a published checkpoint was made with, and the import that it needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from st_llm2vec.conversion.convert import convert
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.importing import nv_embed
from st_llm2vec.importing.adapters import CONFIG, PublishedAdapter, fetch_base, load_merged
from st_llm2vec.importing.checkpoint import Checkpoint, fetch
from st_llm2vec.importing.llm2vec import SETTINGS, from_llm2vec
from st_llm2vec.recipe.config import EncoderConfig, get_recipe

NAMED = {
    r"gritlm": "gritlm",
    r"bge[-_]?en[-_]?icl": "bge-en-icl",
    r"echo.*last": "echo-last",
    r"echo": "echo",
    r"e5-mistral": "e5-mistral",
    r"sgpt": "sgpt",
}
"""Names of published checkpoints, where their files do not tell."""


def from_published(
    source: str | Path,
    recipe: str | Path | Mapping[str, Any] | EncoderConfig | None = None,
    *,
    mntp: Any = None,
    base: str | Path | None = None,
    **options: Any,
) -> TextEncoder:
    """Import a published checkpoint of LLM2Vec, NV-Embed, GritLM, E5-Mistral, Echo, bge-en-icl or SGPT.

    Args:
        source: A folder, or a name on the Hugging Face Hub.
        recipe: What it was made with; seen from its files and its name if not given.
        mntp: For LLM2Vec: another folder or name for the MNTP adapter, or ``False`` if there is none.
        base: For adapters: another folder or name for the decoder.
        **options: As for :func:`from_llm2vec`: ``device``, ``dtype``, ``attn_implementation``, ``revision``, ``token``,
            ``local_files_only``, ``allow_pickles``, and any field of :class:`EncoderConfig`.

    Returns:
        The encoder.

    Raises:
        ValueError: If the recipe cannot be seen, or the checkpoint cannot be imported.
    """
    hub: dict[str, Any] = {key: options[key] for key in ("revision", "token", "local_files_only") if key in options}
    checkpoint = fetch(source, hub, bool(options.get("allow_pickles")))
    config = get_recipe(recipe if recipe is not None else detect_recipe(checkpoint))
    if config.name != "llm2vec" and mntp is not None:
        raise ValueError(
            f"mntp is for LLM2Vec checkpoints; {checkpoint.name} is imported as {config.name!r}. Leave it out (--mntp)."
        )
    if config.name == "llm2vec" and (checkpoint.has(CONFIG) or checkpoint.has(SETTINGS)):
        return from_llm2vec(source, mntp, base, **options)
    if config.name == "nv-embed":
        if base is not None:
            raise ValueError(f"{checkpoint.name} is a whole NV-Embed checkpoint; leave base out (--base).")
        return nv_embed.from_nv_embed(source, **options)
    return _with_recipe(checkpoint, config, base, options)


def detect_recipe(checkpoint: Checkpoint) -> str:
    """See from a checkpoint's files, then from its name, which recipe it was made with.

    Args:
        checkpoint: The checkpoint.

    Returns:
        The recipe's name.

    Raises:
        ValueError: If nothing tells, or it is an encoder of this package.
    """
    if checkpoint.has("st_llm2vec.json"):
        raise ValueError(
            f'{checkpoint.name} is an encoder of this package already: st_llm2vec.load("{checkpoint.name}").'
        )
    settings, adapter = checkpoint.read_json("config.json"), checkpoint.read_json(CONFIG)
    mapped = str((adapter.get("auto_mapping") or {}).get("parent_library"))
    named = adapter and "llm2vec" in f"{checkpoint.name} {adapter.get('base_model_name_or_path')}".lower()
    if checkpoint.has(SETTINGS) or mapped.startswith("llm2vec.") or named:
        return "llm2vec"
    if settings.get("model_type") == nv_embed.MODEL_TYPE:
        return "nv-embed"
    if any("gritlm" in str(code).lower() for code in (settings.get("auto_map") or {}).values()):
        return "gritlm"
    listed = checkpoint.read_json("tokenizer.json").get("added_tokens") or []
    added = {str(one.get("content")) for one in listed} | set(checkpoint.read_json("added_tokens.json"))
    if {"<instruct>", "<query>", "<response>"} <= added:
        return "bge-en-icl"
    names = f"{checkpoint.name} {settings.get('_name_or_path')} {adapter.get('base_model_name_or_path')}".lower()
    for pattern, recipe in NAMED.items():
        if re.search(pattern, names):
            return recipe
    pooling, prompts = checkpoint.read_json("1_Pooling/config.json"), bare_prompts(checkpoint)
    if (pooling.get("pooling_mode_lasttoken") or pooling.get("pooling_mode") == "lasttoken") and prompts:
        return "e5-mistral"
    raise ValueError(
        f"Neither the files nor the name of {checkpoint.name} tell which recipe it was made with. Name it (recipe=..., "
        "--recipe); `st-llm2vec recipes` lists them."
    )


def bare_prompts(checkpoint: Checkpoint) -> dict[str, str]:
    """The instructions that a Sentence Transformers repository saves in E5-Mistral's words, without these words."""
    saved = checkpoint.read_json("config_sentence_transformers.json").get("prompts") or {}
    found = {name: re.fullmatch(r"Instruct: (.+)\nQuery: ?", str(text), re.DOTALL) for name, text in saved.items()}
    return {name: match.group(1) for name, match in found.items() if match}


def _with_recipe(
    checkpoint: Checkpoint, config: EncoderConfig, base: str | Path | None, options: dict[str, Any]
) -> TextEncoder:
    """A checkpoint that needs only the right recipe: a whole decoder, or one adapter over its base."""
    loading = ("device", "dtype", "attn_implementation", "revision", "token", "local_files_only", "allow_pickles")
    fields = {name: value for name, value in options.items() if name not in loading}
    hub: dict[str, Any] = {key: options[key] for key in ("token", "local_files_only") if key in options}
    adapter = PublishedAdapter.read(checkpoint) if checkpoint.has(CONFIG) else None
    if adapter is None and base is not None:
        raise ValueError(f"{checkpoint.name} is a whole checkpoint, not an adapter; leave base out (--base).")
    decoder = fetch_base(adapter, base, adapter.base, hub) if adapter else checkpoint
    device = options.get("device")
    model, tokenizer = load_merged(
        decoder, [adapter] if adapter else [], options.get("dtype"), options.get("attn_implementation"), device
    )
    prompts = bare_prompts(checkpoint) if config.name == "e5-mistral" else {}
    if prompts and "prompts" not in fields:
        fields["prompts"] = {**config.prompts, **prompts}
    context = getattr(model.config, "max_position_embeddings", None)
    if context and config.max_length and "max_length" not in fields:
        fields["max_length"] = min(config.max_length, context)
    encoder = convert(model, config, tokenizer=tokenizer, device=device, **fields)
    manifest = encoder.manifest
    assert manifest is not None
    manifest.base = {
        "name": str(adapter.base or decoder.name) if adapter else checkpoint.name,
        "architecture": type(model).__name__,
        "revision": None if adapter else options.get("revision"),
        "source": checkpoint.name,
        **decoder.licence(),
    }
    if adapter is not None:
        manifest.stages = [{"name": config.name, "method": "LoRA adapter", "source": checkpoint.name, "merged": True}]
    return encoder
