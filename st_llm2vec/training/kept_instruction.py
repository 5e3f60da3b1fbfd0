"""The instruction that an encoder will tell queries or documents by itself, before it is loaded or made."""

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


def kept_instruction(model: str, config: EncoderConfig, role: str = "query") -> str | None:
    """The instruction of a call of ``encode_query``, or of ``encode_document``, without any.

    Args:
        model: An encoder, or a decoder that will be converted.
        config: The recipe, for a decoder.
        role: ``"query"`` or ``"document"``.

    Returns:
        What the encoder's folder keeps, or the recipe; ``None`` if that is nothing.

    Raises:
        ValueError: If the encoder's settings cannot be read or downloaded.
    """
    if not is_encoder(model):
        return _of_role(role, config.prompts, config.default_prompt_name)
    with hub_errors(model):
        file = Path(model) / SETTINGS if Path(model).exists() else Path(hf_hub_download(model, SETTINGS))
    saved: dict[str, Any] = read_json(file, model) if file.is_file() else {}
    return _of_role(role, saved.get("prompts") or {}, saved.get("default_prompt_name"))


def _of_role(role: str, prompts: Mapping[str, str | None], default: str | None) -> str | None:
    name = next((name for name in PROMPT_NAMES[role] if name in prompts), default)
    return prompts.get(name) or None if name is not None else None
