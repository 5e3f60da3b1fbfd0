"""Decoders in GGUF files, the format of llama.cpp, read through Transformers into plain weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.quantization_config import GgufConfig

from st_llm2vec.folder.weights import forget_loaded_names
from st_llm2vec.host.quiet_loading import without_collection

SUFFIX = ".gguf"
SOURCE = "st_llm2vec_gguf"
"""Where a model's configuration keeps what its weights were read from."""


def is_gguf(name: str | Path) -> bool:
    """Whether this names a GGUF file rather than a folder or a repository."""
    return Path(name).suffix.lower() == SUFFIX and not Path(name).is_dir()


@without_collection()
def load_gguf(
    path: str | Path, dtype: Any, attn_implementation: str | None, kind: Any = AutoModel
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Read a decoder's body and its tokenizer from a GGUF file.

    Args:
        path: The file.
        dtype: Weights' type; ``None`` for float32, which quantised weights are computed in.
        attn_implementation: Attention implementation, or ``None`` for Transformers' choice.
        kind: The automatic class to load with.

    Returns:
        The body, its weights dequantised; the tokenizer; and Transformers' report of what was loaded.

    Raises:
        ValueError: If the file cannot be read, its architecture is unknown, or the package ``gguf`` is missing.
    """
    path = Path(path)
    facts = _facts(path)
    file = {"pretrained_model_name_or_path": str(path.parent.resolve()), "gguf_file": path.name}
    try:
        config = AutoConfig.from_pretrained(**file)
        tokenizer = AutoTokenizer.from_pretrained(**file)
        loaded = kind.from_pretrained(
            **file,
            config=config,
            dtype=dtype or torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            **({"attn_implementation": attn_implementation} if attn_implementation else {}),
        )
    except (OSError, ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ValueError(f"{path} could not be loaded through Transformers: {error}") from error
    model, report = cast("tuple[Any, Any]", loaded)
    forget_loaded_names(model)
    model.config._name_or_path = str(path)
    setattr(model.config, SOURCE, facts)
    return model, tokenizer, report


def unpack_gguf(path: str | Path, folder: str | Path) -> str:
    """Write a GGUF file's decoder as a plain folder, with its output head and its tokenizer, once.

    Training needs one: its checkpoints hold an adapter, and find their base by its name.

    Args:
        path: The file.
        folder: Where to; what is there already is kept.

    Returns:
        The folder.

    Raises:
        ValueError: As :func:`load_gguf`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        model, tokenizer, report = load_gguf(path, torch.float32, None, AutoModelForCausalLM)
        if report["missing_keys"]:
            raise ValueError(f"{path} lacks the weight {sorted(report['missing_keys'])[0]}, so it is incomplete.")
        staging = folder.with_name(f".{folder.name}")
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        staging.rename(folder)
    return str(folder)


def _facts(path: Path) -> dict[str, str]:
    """What a file says of itself: its name, and the type that most of its weights have, e.g. ``"Q4_K_M"``."""
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(
            f"{path} is a GGUF file, and reading it needs the package gguf: `pip install st-llm2vec[gguf]`. Or give the "
            "folder of the model that it was made from."
        )
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} does not begin as a GGUF file does, so it is none or is damaged. Get it again.")
    from gguf import LlamaFileType
    from transformers.integrations.gguf import read_gguf_metadata

    try:
        metadata, _ = read_gguf_metadata(str(path))
    except Exception as error:  # The reader trusts every length in the file, and a damaged one fails anywhere.
        raise ValueError(f"{path} cannot be read as a GGUF file, so it is damaged: {error}. Get it again.") from error
    try:
        kind = LlamaFileType(metadata["general.file_type"]).name
    except (KeyError, ValueError):
        kind = "unknown"
    return {"file": path.name, "quantization": kind.removeprefix("MOSTLY_").removeprefix("ALL_")}
