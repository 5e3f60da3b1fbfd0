"""Load an encoder without running any code from its folder."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from sentence_transformers.base.modules.module import Module
from sentence_transformers.util.environment import check_version_requirements

from st_llm2vec.checkpoints.manifest import Manifest
from st_llm2vec.checkpoints.save import CUSTOM_MODULES
from st_llm2vec.encoder import TextEncoder
from st_llm2vec.modules.attention import prove_attention

logger = logging.getLogger(__name__)

STOCK_NAMESPACE = "sentence_transformers."
IGNORED_ON_THE_HUB = ["*.bin", "*.pt", "*.onnx", "onnx/*", "openvino/*", "*.py", "*.gguf"]


def load(
    path_or_id: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_folder: str | None = None,
    local_files_only: bool = False,
) -> TextEncoder:
    """Load an encoder that ``convert`` made, from a folder or the Hugging Face Hub, and prove its attention.

    Stock modules and this package's own are loaded, no others; code in the repository is never run and no
    trust flag is needed.

    Args:
        path_or_id: A folder or a repository's name.
        device: Where to put it; chosen by Sentence Transformers if not given.
        dtype: Weights' type, e.g. ``torch.bfloat16``; the stored one if not given.
        attn_implementation: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``; Transformers' choice if not given.
        revision: Branch, tag or commit on the Hub.
        token: Access token for the Hub.
        cache_folder: Where downloads are kept.
        local_files_only: Whether to stay off the network.

    Returns:
        The encoder.

    Raises:
        ValueError: If the folder is no encoder, or names a module that is neither stock nor ours.
        CausalAttentionError: If the encoder is meant to be bidirectional and is not here.
    """
    folder = _resolve(path_or_id, revision, token, cache_folder, local_files_only)
    modules_path = folder / "modules.json"
    if not modules_path.is_file():
        raise ValueError(
            f"{path_or_id} has no modules.json, so it is not an encoder yet. To make one from a decoder: "
            f'st_llm2vec.convert("{path_or_id}", "llm2vec").'
        )
    entries = json.loads(modules_path.read_text(encoding="utf-8"))
    classes = [_module_class(entry["type"], path_or_id) for entry in entries]
    settings = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    check_version_requirements(settings.get("requirements"), source=str(path_or_id))
    model_kwargs = {"dtype": dtype, "attn_implementation": attn_implementation}
    model_kwargs = {key: value for key, value in model_kwargs.items() if value is not None}
    modules = [
        cls.load(
            str(folder), subfolder=entry["path"], local_files_only=local_files_only, model_kwargs=dict(model_kwargs)
        )
        for cls, entry in zip(classes, entries, strict=True)
    ]
    encoder = TextEncoder(
        modules=modules,
        device=device,
        prompts=settings.get("prompts"),
        default_prompt_name=settings.get("default_prompt_name"),
        similarity_fn_name=settings.get("similarity_fn_name"),
        truncate_dim=settings.get("truncate_dim"),
        manifest=Manifest.read(folder),
    )
    if not getattr(encoder.transformer.model.config, "is_causal", True) or _meant_bidirectional(encoder):
        prove_attention(encoder.transformer.model, "bidirectional", str(path_or_id))
    return encoder


def _meant_bidirectional(encoder: TextEncoder) -> bool:
    return encoder.manifest is not None and encoder.manifest.config.attention == "bidirectional"


def _resolve(
    path_or_id: str | Path, revision: str | None, token: str | bool | None, cache_folder: str | None, offline: bool
) -> Path:
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    if Path(path_or_id).is_absolute() or str(path_or_id).startswith((".", "~")) or str(path_or_id).count("/") > 1:
        raise ValueError(f"There is no folder {path_or_id}.")
    return Path(
        snapshot_download(
            str(path_or_id),
            revision=revision,
            token=token,
            cache_dir=cache_folder,
            local_files_only=offline,
            ignore_patterns=IGNORED_ON_THE_HUB,
        )
    )


def _module_class(type_name: str, source: str | Path) -> type[Module]:
    if type_name in CUSTOM_MODULES:
        return CUSTOM_MODULES[type_name]
    if type_name.startswith(STOCK_NAMESPACE):
        module, name = type_name.rsplit(".", 1)
        return getattr(importlib.import_module(module), name)
    raise ValueError(
        f"{source} names the module {type_name!r}, which is neither a Sentence Transformers module nor one of this "
        "package's own, and code from a repository is never run here. If you trust it, load it with "
        "SentenceTransformer(..., trust_remote_code=True)."
    )
