"""What an encoder is: one's own, seen from its manifest and its modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from st_llm2vec.folder.download import hub_errors
from st_llm2vec.folder.load import load
from st_llm2vec.folder.merge import type_name
from st_llm2vec.modules.attention import probe_attention
from st_llm2vec.serving.verdicts import Verdict, verdicts


@dataclass(frozen=True)
class EncoderInspection:
    """What an encoder is.

    Args:
        name: The encoder as it was given.
        recipe: Its recipe, as the manifest names it; empty where there is no manifest.
        paper: Where the recipe comes from.
        base: The decoder that it was made from, as the manifest has it.
        layout: ``"prefix"``, ``"text"``, ``"message"`` or ``"custom"``; empty where there is no manifest.
        reason: Why it was compiled like that.
        stages: What it was trained on, stage by stage.
        modules: Its modules' classes, in order.
        attention: Its attention as found here, in words.
        dimension: Width of its vectors.
        longest: Longest input in tokens.
        parameters: How many parameters its modules have.
        dtype: Type of its weights.
        prompts: Its saved prompts by name.
        default_prompt: The prompt of a plain ``encode``, if it has one.
        servers: What each server makes of its folder.
    """

    name: str
    recipe: str
    paper: str
    base: dict[str, Any]
    layout: str
    reason: str
    stages: list[dict[str, Any]]
    modules: tuple[str, ...]
    attention: str
    dimension: int
    longest: int | None
    parameters: int
    dtype: str
    prompts: dict[str, str]
    default_prompt: str | None
    servers: tuple[Verdict, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        servers = [one.to_dict() for one in self.servers]
        return {**dataclasses.asdict(self), "modules": list(self.modules), "servers": servers}


def is_encoder(name: str | Path, **hub: Any) -> bool:
    """Whether a folder, or a repository on the Hub, holds Sentence Transformers modules.

    Args:
        name: The folder or the repository's name.
        **hub: ``revision``, ``token`` and ``local_files_only``.
    """
    if Path(name).exists():
        return (Path(name) / "modules.json").is_file()
    try:
        with hub_errors(name):
            hf_hub_download(str(name), "modules.json", **hub)
        return True
    except (EntryNotFoundError, ValueError):
        return False


def inspect_encoder(
    name: str | Path, *, progress: Callable[[str], None] = lambda step: None, **hub: Any
) -> EncoderInspection:
    """Load an encoder and tell what it is.

    Args:
        name: A folder or a name on the Hugging Face Hub.
        progress: Is told what is being done.
        **hub: ``revision``, ``token`` and ``local_files_only``.

    Returns:
        What was found.

    Raises:
        ValueError: If it cannot be loaded.

    Example:
        >>> import tempfile
        >>> from st_llm2vec import convert, decoder_path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     convert(decoder_path(), "sgpt").save(folder)
        ...     inspect_encoder(folder).recipe
        'sgpt'
    """
    progress(f"Loading {name} …")
    encoder = load(name, **hub)
    progress("Looking at its attention, and at what servers make of it …")
    model, manifest = encoder.transformer.model, encoder.manifest
    config = manifest.config if manifest is not None else None
    return EncoderInspection(
        name=str(name),
        recipe=config.name if config is not None else "",
        paper=config.paper if config is not None else "",
        base=manifest.base if manifest is not None else {},
        layout=manifest.layout if manifest is not None else "",
        reason=manifest.reason if manifest is not None else "",
        stages=manifest.stages if manifest is not None else [],
        modules=tuple(type(module).__name__ for module in encoder),
        attention=probe_attention(model).describe(),
        dimension=encoder.get_embedding_dimension() or 0,
        longest=encoder.max_seq_length,
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        dtype=type_name(model.dtype),
        prompts={key: text for key, text in encoder.prompts.items() if text},
        default_prompt=encoder.default_prompt_name,
        servers=tuple(verdicts(encoder, name)),
    )
