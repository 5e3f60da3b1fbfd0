"""The instruction that an encoder will tell queries by itself, before it is loaded or made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from st_llm2vec.encoding.text_reader import PROMPT_NAMES
from st_llm2vec.folder.download import hub_errors
from st_llm2vec.folder.files import read_json
from st_llm2vec.inspection import is_encoder
from st_llm2vec.recipe.config import EncoderConfig

SETTINGS = "config_sentence_transformers.json"


def kept_instruction(model: str, config: EncoderConfig) -> str | None:
    """The instruction of a call of ``encode_query`` without any.

    Args:
        model: An encoder, or a decoder that will be converted.
        config: The recipe, for a decoder.

    Returns:
        What the encoder's folder keeps, or the recipe; ``None`` if that is nothing.

    Raises:
        ValueError: If the encoder's settings cannot be read or downloaded.
    """
    if not is_encoder(model):
        return _for_queries(config.prompts, config.default_prompt_name)
    with hub_errors(model):
        file = Path(model) / SETTINGS if Path(model).exists() else Path(hf_hub_download(model, SETTINGS))
    saved: dict[str, Any] = read_json(file, model) if file.is_file() else {}
    return _for_queries(saved.get("prompts") or {}, saved.get("default_prompt_name"))


def _for_queries(prompts: Mapping[str, str | None], default: str | None) -> str | None:
    name = next((name for name in PROMPT_NAMES["query"] if name in prompts), default)
    return prompts.get(name) or None if name is not None else None
