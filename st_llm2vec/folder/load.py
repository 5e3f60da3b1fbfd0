"""Load an encoder without running any code from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from sentence_transformers.base.modules import Transformer
from sentence_transformers.base.modules.module import Module
from sentence_transformers.util import import_from_string
from sentence_transformers.util.environment import check_version_requirements
from transformers import AutoConfig, AutoTokenizer

from st_llm2vec.encoding.dtype import resolve_dtype
from st_llm2vec.folder.check_loaded import require_sound
from st_llm2vec.folder.check_stored import require_weights
from st_llm2vec.folder.checksums import verify_checksums
from st_llm2vec.folder.download import download, hub_errors
from st_llm2vec.folder.encoder import TextEncoder, refuse_backend
from st_llm2vec.folder.files import read_json, read_modules, require_readable
from st_llm2vec.folder.gguf_file import is_gguf
from st_llm2vec.folder.manifest_file import read_manifest
from st_llm2vec.folder.save import CUSTOM_MODULES
from st_llm2vec.folder.staging import settle
from st_llm2vec.folder.weights import restore_latents
from st_llm2vec.host.quiet_loading import without_collection
from st_llm2vec.losses.output_head import HEAD_FILE
from st_llm2vec.modules.attention import CausalAttentionError

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
    verify: bool | None = False,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    similarity_fn_name: str | None = None,
    truncate_dim: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    processor_kwargs: Mapping[str, Any] | None = None,
    tokenizer_kwargs: Mapping[str, Any] | None = None,
    config_kwargs: Mapping[str, Any] | None = None,
    model_card_data: Any = None,
    backend: str = "torch",
    trust_remote_code: bool = False,
) -> TextEncoder:
    """Load an encoder that ``convert`` made, from a folder or the Hugging Face Hub, and prove its attention.

    Stock modules and this package's own are loaded, no others; code in the repository is never run and no
    trust flag is needed. The folder is held against itself: every weight is used, none is missing or infinite, and the
    modules are those that ``st_llm2vec.json`` tells of.

    Args:
        path_or_id: A folder or a repository's name.
        device: Where to put it; chosen by Sentence Transformers if not given.
        dtype: Weights' type, e.g. ``torch.bfloat16``; the stored one if not given. ``"auto"`` is bfloat16 where the
            device computes it natively and float32 elsewhere (:mod:`st_llm2vec.encoding.dtype`), not the stored type that
            it is in Transformers. Quantised weights stay as they are.
        attn_implementation: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``; Transformers' choice if not given.
        quantization_config: How to quantise the weights, e.g. a ``BitsAndBytesConfig``.
        revision: Branch, tag or commit on the Hub.
        token: Access token for the Hub.
        cache_folder: Where downloads are kept.
        local_files_only: Whether to stay off the network.
        verify: Whether to compare the sha256 of weights, tokenizer and settings with those that were kept when the folder was
            saved, in a second or two for a gigabyte; ``None`` does so where they were kept.
        prompts: Prompts by name, beside the saved ones or in their place.
        default_prompt_name: The prompt of a plain ``encode``; the saved one if not given.
        similarity_fn_name: As for ``SentenceTransformer``; the saved one if not given.
        truncate_dim: How many of the vectors' dimensions to keep; the saved number if not given.
        model_kwargs: Further arguments of the model's ``from_pretrained``.
        processor_kwargs: Further arguments of the tokenizer's ``from_pretrained``.
        tokenizer_kwargs: Another name for ``processor_kwargs``.
        config_kwargs: Further arguments of the configuration's ``from_pretrained``. They cannot make it another encoder.
        model_card_data: As for ``SentenceTransformer``.
        backend: Must be ``"torch"``; others do not keep an encoder's attention and vectors.
        trust_remote_code: Must be false; it is here for those who pass it as they do to ``SentenceTransformer``.

    Returns:
        The encoder.

    Raises:
        ValueError: If the folder is no encoder, is damaged or not what it says, or names a module that is neither stock
            nor ours; or an argument asks for what is not done here.
        CausalAttentionError: If the encoder is meant to be bidirectional and is not here.
    """
    hub = {"token": token, "cache_folder": cache_folder, "local_files_only": local_files_only}
    _refuse_foreign(backend, trust_remote_code, model_kwargs, processor_kwargs, tokenizer_kwargs, config_kwargs)
    folder = _resolve(path_or_id, revision, hub)
    require_readable(folder, path_or_id)
    entries = read_modules(folder, path_or_id)
    settings = read_json(folder / "config_sentence_transformers.json", path_or_id)
    classes = [_module_class(entry["type"], path_or_id) for entry in entries]
    if not issubclass(classes[0], Transformer):
        raise ValueError(
            f"modules.json of {path_or_id} begins with {entries[0]['type']!r}, and not with a Transformer."
        )
    _check_settings(settings, path_or_id)
    manifest = read_manifest(folder)
    kept = manifest.checksums if manifest is not None else {}
    if verify or (verify is None and kept):
        verify_checksums(folder, kept, path_or_id)
    require_weights(folder / entries[0]["path"], path_or_id)
    further = dict(model_kwargs or {})
    dtype = dtype or further.get("dtype", further.get("torch_dtype"))
    quantization_config = quantization_config or further.get("quantization_config")
    stored = folder / entries[0]["path"] / "config.json"
    quantized = quantization_config is not None or (
        stored.is_file() and "quantization_config" in read_json(stored, folder)
    )
    dtype = resolve_dtype(dtype, device, quantized)
    own = {"dtype": dtype, "attn_implementation": attn_implementation, "quantization_config": quantization_config}
    further.pop("torch_dtype", None)
    arguments = {
        "model_kwargs": {
            "use_safetensors": True,
            **further,
            **{key: value for key, value in own.items() if value is not None},
        },
        "processor_kwargs": {**(processor_kwargs or {}), **(tokenizer_kwargs or {})},
        "config_kwargs": dict(config_kwargs or {}),
    }
    modules = _load_modules(path_or_id, folder, entries, classes, arguments, hub)
    encoder = TextEncoder(
        modules=modules,
        device=device,
        prompts={**(settings.get("prompts") or {}), **(prompts or {})},
        default_prompt_name=default_prompt_name or settings.get("default_prompt_name"),
        similarity_fn_name=similarity_fn_name or settings.get("similarity_fn_name"),
        model_card_data=model_card_data,
        manifest=manifest,
    )
    if dtype is None:
        restore_latents(encoder, folder)
    encoder.trained_head = folder if (folder / HEAD_FILE).is_file() else None
    require_sound(encoder, folder, path_or_id, cache_folder)
    _truncate(encoder, settings.get("truncate_dim") if truncate_dim is None else truncate_dim)
    return encoder


def _refuse_foreign(backend: str, trust_remote_code: bool, *arguments: Mapping[str, Any] | None) -> None:
    """Refuse what this package does not do: other backends, and code from a repository."""
    refuse_backend(backend)
    if trust_remote_code or any((given or {}).get("trust_remote_code") for given in arguments):
        raise ValueError(
            "Code from a repository is never run here, and an encoder of this package needs none; leave trust_remote_code "
            "out. For another kind of encoder, SentenceTransformer(..., trust_remote_code=True) runs it."
        )
    if any("device_map" in (given or {}) for given in arguments):
        raise ValueError("An encoder is put on one device: leave device_map out and give device instead.")


def _check_settings(settings: dict[str, Any], source: str | Path) -> None:
    """Refuse what is no prompt, and libraries that are older than the encoder needs."""
    wrong = [name for name, text in (settings.get("prompts") or {}).items() if not isinstance(text, str | None)]
    if wrong:
        raise ValueError(f"config_sentence_transformers.json of {source} has a prompt {wrong[0]!r} that is no text.")
    requirements = settings.get("requirements") or {}
    if not all(isinstance(one, dict) for one in requirements.values()):
        raise ValueError(f"config_sentence_transformers.json of {source} has requirements without a specifier.")
    check_version_requirements(requirements, source=str(source))


def _truncate(encoder: TextEncoder, dimensions: int | None) -> None:
    """Keep the first dimensions only, as many as there are at most."""
    whole = encoder.get_embedding_dimension()
    if dimensions is not None and not (isinstance(dimensions, int) and 0 < dimensions <= (whole or dimensions)):
        raise ValueError(
            f"truncate_dim={dimensions!r} must be a number of dimensions from 1 to {whole}, those of the vectors."
        )
    encoder.truncate_dim = dimensions


def _resolve(path_or_id: str | Path, revision: str | None, hub: dict[str, Any]) -> Path:
    """The encoder's folder, downloaded first if it is on the Hub; a decoder is refused before its weights come."""
    settle(Path(path_or_id))
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
        with hub_errors(path_or_id):
            hf_hub_download(str(path_or_id), "modules.json", **options)
            return download(str(path_or_id), ignore_patterns=IGNORED_ON_THE_HUB, **options)
    except EntryNotFoundError as error:
        raise _no_encoder(path_or_id) from error


@without_collection()
def _load_modules(
    source: str | Path,
    folder: Path,
    entries: list[dict[str, str]],
    classes: list[type[Module]],
    arguments: dict[str, dict[str, Any]],
    hub: dict[str, Any],
) -> list[Module]:
    modules = []
    for cls, entry in zip(classes, entries, strict=True):
        given: dict[str, Any] = {name: dict(values) for name, values in arguments.items()}
        try:
            modules.append(cls.load(str(folder), subfolder=entry["path"], **given, **hub))
        except CausalAttentionError:
            raise
        except Exception as error:  # Each library raises its own for a file that it cannot read.
            file = f" ({entry['path']}/config.json)" if modules else _unreadable(folder / entry["path"])
            raise ValueError(f"{source} could not be loaded{file}: {error or type(error).__name__}") from error
    return modules


def _unreadable(folder: Path) -> str:
    """Which of a transformer's files cannot be read, in brackets; empty if it is none of those with settings."""
    readers: dict[str, Any] = {"config.json": AutoConfig, "tokenizer.json, tokenizer_config.json": AutoTokenizer}
    for files, reader in readers.items():
        try:
            reader.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception:
            return f" ({files})"
    return ""


def _no_encoder(path_or_id: str | Path) -> ValueError:
    if (Path(path_or_id) / "adapter_config.json").is_file():
        return ValueError(
            f"{path_or_id} has no modules.json and holds an adapter alone, which would run on its base causally and without its "
            f"template. Make an encoder of it first: `st-llm2vec import {path_or_id}` for published checkpoints; or attach it to "
            "the encoder that it was trained on, and save that."
        )
    return ValueError(
        f"{path_or_id} has no modules.json, so it is not an encoder yet. To make one from a decoder: "
        f'st_llm2vec.convert("{path_or_id}", "prompteol-icl"), or another recipe where it will be trained.'
    )


def _module_class(type_name: str, source: str | Path) -> type[Module]:
    if type_name in CUSTOM_MODULES:
        return CUSTOM_MODULES[type_name]
    if type_name.startswith(STOCK_NAMESPACE):
        try:
            found = import_from_string(type_name)
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
        "TextEncoder(..., trust_remote_code=True), or with SentenceTransformer."
    )
