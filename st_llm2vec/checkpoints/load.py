"""Load an encoder without running any code from its folder."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from sentence_transformers.base.modules.module import Module
from sentence_transformers.util.environment import check_version_requirements

from st_llm2vec.checkpoints.download import connection_errors, download
from st_llm2vec.checkpoints.gguf_file import is_gguf
from st_llm2vec.checkpoints.manifest import Manifest
from st_llm2vec.checkpoints.output_head import HEAD_FILE
from st_llm2vec.checkpoints.save import CUSTOM_MODULES
from st_llm2vec.checkpoints.weights import require_all_weights
from st_llm2vec.encoder import TextEncoder
from st_llm2vec.modules.attention import CausalAttentionError
from st_llm2vec.precision import resolve_dtype

logger = logging.getLogger(__name__)

STOCK_NAMESPACE = "sentence_transformers."
IGNORED_ON_THE_HUB = ["*.bin", "*.pt", "*.onnx", "onnx/*", "openvino/*", "*.py", "*.gguf"]


def load(
    path_or_id: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
    quantization_config: Any = None,
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
        dtype: Weights' type, e.g. ``torch.bfloat16``; the stored one if not given. ``"auto"`` is bfloat16 where the
            device computes it natively and float32 elsewhere (:mod:`st_llm2vec.precision`), not the stored type that
            it is in Transformers. Quantised weights stay as they are.
        attn_implementation: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``; Transformers' choice if not given.
        quantization_config: How to quantise the weights, e.g. a ``BitsAndBytesConfig``.
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
    hub: dict[str, Any] = {"token": token, "cache_folder": cache_folder, "local_files_only": local_files_only}
    folder = _resolve(path_or_id, revision, hub)
    entries = _read_json(folder / "modules.json", path_or_id)
    settings = _read_json(folder / "config_sentence_transformers.json", path_or_id)
    if not isinstance(entries, list) or not all(isinstance(e, dict) and {"type", "path"} <= set(e) for e in entries):
        raise ValueError(f"modules.json of {path_or_id} does not list modules with a type and a path.")
    classes = [_module_class(entry["type"], path_or_id) for entry in entries]
    check_version_requirements(settings.get("requirements"), source=str(path_or_id))
    model_kwargs = {
        "dtype": resolve_dtype(dtype, device, quantization_config is not None or _stored_quantized(folder, entries)),
        "attn_implementation": attn_implementation,
        "quantization_config": quantization_config,
    }
    model_kwargs = {key: value for key, value in model_kwargs.items() if value is not None}
    modules = _load_modules(path_or_id, folder, entries, classes, model_kwargs, hub)
    encoder = TextEncoder(
        modules=modules,
        device=device,
        prompts=settings.get("prompts"),
        default_prompt_name=settings.get("default_prompt_name"),
        similarity_fn_name=settings.get("similarity_fn_name"),
        truncate_dim=settings.get("truncate_dim"),
        manifest=Manifest.read(folder),
    )
    encoder.trained_head = folder if (folder / HEAD_FILE).is_file() else None
    require_all_weights(folder, encoder.transformer.model, path_or_id)
    encoder.prove_attention(str(path_or_id))
    return encoder


def _resolve(path_or_id: str | Path, revision: str | None, hub: dict[str, Any]) -> Path:
    """The encoder's folder, downloaded first if it is on the Hub; a decoder is refused before its weights come."""
    if Path(path_or_id).is_dir():
        if not (Path(path_or_id) / "modules.json").is_file():
            raise _no_encoder(path_or_id)
        return Path(path_or_id)
    if is_gguf(path_or_id):
        raise ValueError(
            f"{path_or_id} is a GGUF file, so it is no encoder of this package. To make one of the decoder in it: "
            f'st_llm2vec.convert("{path_or_id}", ...).'
        )
    options = {
        "revision": revision,
        "token": hub["token"],
        "cache_dir": hub["cache_folder"],
        "local_files_only": hub["local_files_only"],
    }
    try:
        with connection_errors():
            hf_hub_download(str(path_or_id), "modules.json", **options)
        return download(str(path_or_id), ignore_patterns=IGNORED_ON_THE_HUB, **options)
    except HFValidationError as error:
        raise ValueError(f"There is no folder {path_or_id}, and it is no repository's name either.") from error
    except LocalEntryNotFoundError as error:
        raise ValueError(f"{path_or_id} is not in the cache and could not be downloaded: {error}") from error
    except EntryNotFoundError as error:
        raise _no_encoder(path_or_id) from error
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(f"{path_or_id} could not be downloaded from the Hub: {error}") from error


def _stored_quantized(folder: Path, entries: list[dict[str, str]]) -> bool:
    file = folder / entries[0]["path"] / "config.json" if entries else folder / "config.json"
    return file.is_file() and "quantization_config" in _read_json(file, folder)


def _load_modules(
    source: str | Path,
    folder: Path,
    entries: list[dict[str, str]],
    classes: list[type[Module]],
    model_kwargs: dict[str, Any],
    hub: dict[str, Any],
) -> list[Module]:
    try:
        return [
            cls.load(str(folder), subfolder=entry["path"], model_kwargs=dict(model_kwargs), **hub)
            for cls, entry in zip(classes, entries, strict=True)
        ]
    except CausalAttentionError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{source} could not be loaded: {error}") from error


def _no_encoder(path_or_id: str | Path) -> ValueError:
    return ValueError(
        f"{path_or_id} has no modules.json, so it is not an encoder yet. To make one from a decoder: "
        f'st_llm2vec.convert("{path_or_id}", "llm2vec").'
    )


def _read_json(path: Path, source: str | Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"{source} has no {path.name}, so the encoder is incomplete; save or download it again."
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} of {source} is not valid JSON ({error}); save or download it again.") from error


def _module_class(type_name: str, source: str | Path) -> type[Module]:
    if type_name in CUSTOM_MODULES:
        return CUSTOM_MODULES[type_name]
    if type_name.startswith(STOCK_NAMESPACE):
        module, name = type_name.rsplit(".", 1)
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{source} names the module {type_name!r}, which the installed Sentence Transformers does not have; "
                "upgrade it, or save the encoder with this version."
            ) from error
        if isinstance(found, type) and issubclass(found, Module):
            return found
    raise ValueError(
        f"{source} names the module {type_name!r}, which is neither a Sentence Transformers module nor one of this "
        "package's own, and code from a repository is never run here. If you trust it, load it with "
        "SentenceTransformer(..., trust_remote_code=True)."
    )
