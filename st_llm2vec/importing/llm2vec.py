"""Published LLM2Vec repositories: a decoder, its MNTP adapter, and the adapter of the second stage.

What is read, wrapped and pooled follows LLM2Vec's own code (llm2vec 0.2.3, arXiv 2404.05961, MIT), in which chat
templates are chosen by the base model's published name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from st_llm2vec.conversion.convert import convert
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.importing.adapters import CONFIG, PublishedAdapter, fetch_base, load_merged
from st_llm2vec.importing.checkpoint import Checkpoint, fetch

SETTINGS = "llm2vec_config.json"
DEFAULTS = {"pooling_mode": "mean", "max_length": 512, "doc_max_length": 400, "skip_instruction": True}
POOLING = {"mean": "mean", "weighted_mean": "weighted_mean", "eos_token": "last_token", "last_token": "last_token"}
_HEADER = ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>")
_INST = ("[INST] ", " [/INST]")
_IM = ("<|im_start|>user\n", "<|im_end|>")
CHAT = {
    "meta-llama/Meta-Llama-3-8B-Instruct": _HEADER,
    "mistralai/Mistral-7B-Instruct-v0.2": _INST,
    "meta-llama/Llama-2-7b-chat-hf": _INST,
    # The tokenizer puts its own <bos> before this one, there as here.
    "google/gemma-2-9b-it": ("<bos><start_of_turn>user\n", "<end_of_turn>"),
    "Qwen/Qwen2-1.5B-Instruct": _IM,
    "Qwen/Qwen2-7B-Instruct": _IM,
}
"""What LLM2Vec writes before and after a text, by the name of the base; the closing words are pooled too."""
END_OF_TEXT = {"llama": " </s>", "mistral": " </s>", "gemma": "<eos>", "gemma2": "<eos>", "qwen2": "<|endoftext|>"}


def from_llm2vec(
    source: str | Path,
    mntp: str | Path | Literal[False] | None = None,
    base: str | Path | None = None,
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
    """Import a published LLM2Vec checkpoint: base, MNTP adapter, then the unsupervised or supervised adapter.

    Each adapter is merged once, in that order, in float32 and in the CPU's memory. The MNTP adapter of
    ``org/name-mntp-supervised`` is looked for in ``org/name-mntp``, where LLM2Vec publishes it, and the base where that
    adapter says. Instructions are passed bare; the space between instruction and text is added here.

    Args:
        source: The repository of the last stage, or of the MNTP stage alone; a folder or a name on the Hub. A
            checkpoint that is merged already is taken as it is.
        mntp: Another folder or name for the MNTP adapter; ``False`` if the adapter was trained without one.
        base: Another folder or name for the decoder.
        device: Where to put the encoder; chosen by Sentence Transformers if not given.
        dtype: Weights' type, e.g. ``torch.bfloat16``, or ``"auto"`` as in ``convert``. If not given the base's stored one, and
            float32 where that would lose more than a tenth of the adapters' update.
        attn_implementation: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``; Transformers' choice if not given.
        revision: Branch, tag or commit of ``source``.
        token: Access token for the Hub.
        local_files_only: Whether to stay off the network.
        allow_pickles: Whether weights may be read from pickles where there are no safetensors.
        **overrides: Any field of :class:`EncoderConfig`, e.g. ``prompts={"query": "..."}``.

    Returns:
        The encoder. Its ``manifest`` names the base and the stages.

    Raises:
        ValueError: If a file is missing or damaged, or an adapter is for another base.
        TypeError: If ``mntp`` is ``True``.
        CausalAttentionError: If the base cannot attend in both directions.
    """
    if mntp is True:
        raise TypeError(
            "mntp=True names no adapter. Give the folder or the name of the MNTP adapter; leave mntp out, and it is looked for; or "
            "say mntp=False, if the adapter was trained without one."
        )
    hub = {"token": token, "local_files_only": local_files_only}
    last = fetch(source, {**hub, "revision": revision}, allow_pickles)
    adapters = _adapters(last, mntp, hub)
    if adapters:
        first = adapters[0]
        named = first.base or first.source.read_json("config.json").get("_name_or_path")
        decoder = fetch_base(first, base, named, hub)
        _refuse_merged(decoder, adapters)
    else:
        named, decoder = last.read_json("config.json").get("_name_or_path"), last
    model, tokenizer = load_merged(decoder, adapters, dtype, attn_implementation, device)
    tokenizer.pad_token = tokenizer.eos_token
    fields = encoder_fields({**DEFAULTS, **last.read_json(SETTINGS)}, named, model)
    encoder = convert(model, "llm2vec", tokenizer=tokenizer, device=device, **{**fields, **overrides})
    manifest = encoder.manifest
    assert manifest is not None
    manifest.base = {
        "name": named or decoder.name,
        "architecture": type(model).__name__,
        "revision": None,
        "source": last.name,
        "source_revision": revision,
        **decoder.licence(),
    }
    manifest.stages = [
        {
            "name": "mntp" if _is_mntp(one.source) else one.source.name.rstrip("/").rpartition("mntp-")[2],
            "method": "LLM2Vec adapter",
            "source": one.source.name,
            "settings": {"r": one.config.r, "lora_alpha": one.config.lora_alpha},
            "merged": True,
        }
        for one in adapters
    ]
    return encoder


def encoder_fields(settings: Mapping[str, Any], base: str | None, model: PreTrainedModel) -> dict[str, Any]:
    """LLM2Vec's settings as fields of an ``EncoderConfig``.

    Args:
        settings: What ``llm2vec_config.json`` says, completed by LLM2Vec's defaults.
        base: The base model's published name, which decides the chat template.
        model: The decoder, whose family and context decide the end-of-text string and the longest input.

    Returns:
        Templates, pooling and longest input.

    Raises:
        ValueError: If a setting is unknown.
    """
    unknown = sorted(set(settings) - set(DEFAULTS))
    mode = settings["pooling_mode"]
    if unknown:
        raise ValueError(f"{SETTINGS} has the unknown key {unknown[0]!r}; known are {', '.join(DEFAULTS)}.")
    if mode not in POOLING and mode != "bos_token":
        raise ValueError(f"{SETTINGS} has pooling_mode={mode!r}; known are {', '.join([*POOLING, 'bos_token'])}.")
    before, after = CHAT.get(base or "", ("", ""))
    family = model.config.model_type
    if mode == "eos_token" and family not in END_OF_TEXT:
        raise ValueError(f"pooling_mode='eos_token' is not defined for {family} models; LLM2Vec has no end for them.")
    if mode == "eos_token":
        after += "<|end_of_text|>" if base == "meta-llama/Meta-Llama-3-8B" else END_OF_TEXT[family]
    space = " " if before.endswith(" ") else ""
    opened, closed = ("{pool}", "{/pool}") if settings["skip_instruction"] else ("", "")
    plain = f"{{bos}}{before.rstrip(' ')}{opened}{space}{{text}}{after}{closed}"
    instructed = f"{{bos}}{before}{{instruction}}{opened} {{text}}{after}{closed}"
    if mode == "bos_token":
        plain, instructed = (
            "{pool}{bos}{/pool}" + one.replace("{pool}", "").replace("{/pool}", "").removeprefix("{bos}")
            for one in (plain, instructed)
        )
    context = getattr(model.config, "max_position_embeddings", None) or settings["max_length"]
    return {
        "template": plain,
        "instruction_template": instructed,
        "pooling": POOLING.get(mode, "last_token"),
        "max_length": min(int(settings["max_length"]), context),
    }


def _adapters(
    last: Checkpoint, mntp: str | Path | Literal[False] | None, hub: dict[str, Any]
) -> list[PublishedAdapter]:
    """The adapters in the order in which they are merged; none for a checkpoint that is merged already."""
    if not last.has(CONFIG) and not last.has(SETTINGS):
        raise ValueError(
            f"{last.name} is no LLM2Vec checkpoint: it has neither {CONFIG} nor {SETTINGS}. An adapter is named "
            f'first, and the decoder below it as its base: from_llm2vec(adapter, base="{last.name}"). A plain decoder becomes an '
            f'encoder with st_llm2vec.convert("{last.name}", "llm2vec").'
        )
    if not last.has(CONFIG):
        if mntp:
            raise ValueError(f"{last.name} is no adapter, so it is merged already; leave mntp out (--mntp).")
        return []
    final = PublishedAdapter.read(last)
    if mntp is False or (mntp is None and _is_mntp(last)):
        return [final]
    name = str(mntp) if mntp else _mntp_name(last, final)
    try:
        first = PublishedAdapter.read(fetch(name, hub, last.allow_pickles))
    except ValueError as error:
        raise ValueError(
            f"The MNTP adapter that {last.name} stands on is not at hand: {error} Name it (mntp=..., --mntp), or say that "
            "there is none (mntp=False, --no-mntp)."
        ) from error
    if first.digest() == final.digest():
        raise ValueError(f"{name} and {last.name} are the same adapter, and it would be applied twice. Give it once.")
    if first.base and final.base and final.base not in (first.base, name):
        raise ValueError(
            f"{last.name} is for {final.base!r}, but the MNTP adapter {name} is for {first.base!r}: they do not belong "
            "together."
        )
    return [first, final]


def _is_mntp(source: Checkpoint) -> bool:
    """LLM2Vec's MNTP repositories hold a model's ``config.json``, and no settings of an encoder."""
    return not source.has(SETTINGS) and (source.has("config.json") or source.name.rstrip("/").endswith("mntp"))


def _mntp_name(last: Checkpoint, final: PublishedAdapter) -> str:
    """``org/name-mntp`` for ``org/name-mntp-supervised``, or what the adapter itself names as its base."""
    path = last.name.rstrip("/")
    found = re.match(r"^(.*mntp)-[^/]+$", path)
    if found:
        return found.group(1)
    if final.base and final.base.rstrip("/").endswith("mntp"):
        return final.base
    raise ValueError(
        f"The checkpoint {path!r} does not say which MNTP adapter it stands on. Name that one's folder (mntp=..., on the command "
        "line --mntp), or say that there is none (mntp=False, --no-mntp); base is the decoder below all adapters."
    )


def _refuse_merged(decoder: Checkpoint, adapters: list[PublishedAdapter]) -> None:
    """Raise where the base has an adapter in it, or beside it, already: it would be applied twice."""
    if decoder.has(CONFIG):
        raise ValueError(
            f"The base {decoder.name} is itself an adapter. Give it as mntp (--mntp), and the decoder as base (--base)."
        )
    if decoder.has(SETTINGS) or decoder.has("st_llm2vec.json"):
        raise ValueError(
            f"The base {decoder.name} is an encoder already, with its adapters merged; applying {adapters[-1].source.name} "
            "would apply one twice. Give the decoder itself."
        )
