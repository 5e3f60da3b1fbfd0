"""LoRA adapters: read, checked against the model they are for, and merged into it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from st_llm2vec.conversion.decoder import load_model
from st_llm2vec.folder.check_finite import require_finite
from st_llm2vec.folder.files import tensor_names
from st_llm2vec.folder.merge import merge_published
from st_llm2vec.importing.checkpoint import Checkpoint, fetch, load_tokenizer

CONFIG = "adapter_config.json"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class PublishedAdapter:
    """A published LoRA adapter.

    Args:
        source: Its folder.
        config: What its ``adapter_config.json`` says.
    """

    source: Checkpoint
    config: LoraConfig

    @classmethod
    def read(cls, source: Checkpoint) -> PublishedAdapter:
        """Read an adapter's settings.

        Raises:
            ValueError: If it is not a LoRA adapter of weights alone.
        """
        data = source.read_json(CONFIG)
        if not data:
            raise ValueError(f"{source.name} has no {CONFIG}, so it is not an adapter.")
        if data.get("peft_type") != "LORA" or data.get("megatron_config"):
            raise ValueError(f"{source.name} is a {data.get('peft_type')} adapter; only plain LoRA can be imported.")
        try:
            return cls(source, PeftConfig.from_pretrained(str(source.folder)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{CONFIG} of {source.name} cannot be read: {error}.") from error

    @property
    def base(self) -> str | None:
        """The model that the adapter says it is for."""
        return self.config.base_model_name_or_path

    @property
    def file(self) -> Path:
        """The file with its weights."""
        safe = self.source.folder / "adapter_model.safetensors"
        if safe.is_file():
            tensor_names(safe, self.source.name)
            return safe
        self.source.refuse_pickles("adapter_model.bin")
        if not self.source.has("adapter_model.bin"):
            raise ValueError(f"{self.source.name} has no adapter_model.safetensors; download it again.")
        return self.source.folder / "adapter_model.bin"

    def digest(self) -> str:
        """What tells one adapter's weights from another's."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def weights(self) -> dict[str, torch.Tensor]:
        """Its tensors, named as for the body of a model; adapters of a model with its head have one ``model.`` more."""
        file = self.file
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
        headed = all(name.startswith(f"{PREFIX}model.") for name in tensors)
        return {name.replace(f"{PREFIX}model.", PREFIX, 1) if headed else name: one for name, one in tensors.items()}


def fetch_base(
    adapter: PublishedAdapter, base: str | Path | None, named: str | None, hub: Mapping[str, Any]
) -> Checkpoint:
    """Find the decoder that an adapter is for.

    Args:
        adapter: The adapter.
        base: Another folder or name for the decoder than the one that the adapter names.
        named: The one that it names.
        hub: ``token`` and ``local_files_only``.

    Returns:
        The decoder, at the revision that the adapter names where it is the decoder that it names.

    Raises:
        ValueError: If no base is known, or it cannot be found.
    """
    if base is not None:
        return fetch(base, hub, adapter.source.allow_pickles)
    if not named:
        raise ValueError(f"{adapter.source.name} does not say which base it is for; name it (base=..., --base).")
    try:
        return fetch(named, {**hub, "revision": adapter.config.revision or None}, adapter.source.allow_pickles)
    except ValueError as error:
        raise ValueError(
            f"The base {named!r} that {adapter.source.name} names is not at hand: {error} A copy of it can be named (base=..., "
            "--base)."
        ) from error


def load_merged(
    decoder: Checkpoint,
    adapters: Sequence[PublishedAdapter],
    dtype: torch.dtype | str | None,
    attn_implementation: str | None,
    device: str | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a decoder, merge adapters into it, and load the tokenizer of the first of them that brings one.

    Args:
        decoder: The decoder.
        adapters: The adapters, in the order in which they are merged.
        dtype: Weights' type; if not given the stored one, or float32 where that loses too much of the adapters' update.
        attn_implementation: Attention implementation, or ``None`` for Transformers' choice.
        device: Where the model will run, for ``"auto"``.

    Returns:
        The decoder's body, and the tokenizer.

    Raises:
        ValueError: If a file is missing or damaged, or an adapter is for another model.
    """
    decoder.tensor_files()  # which raises where one is missing or damaged
    model = load_model(str(decoder.folder), dtype, attn_implementation, {}, device=device)
    if adapters:
        attachments = [partial(_attach, adapter, decoder.name) for adapter in adapters]
        model = merge_published(model, attachments, None if dtype is None else model.dtype)
    sources = [*(adapter.source for adapter in adapters), decoder]
    return model, load_tokenizer(next((source for source in sources if source.has_tokenizer), decoder))


def _attach(adapter: PublishedAdapter, base: str, model: PreTrainedModel) -> PeftModel:
    """Attach an adapter to the body of a decoder; the base is the decoder's name, for messages."""
    config, weights = copy.deepcopy(adapter.config), adapter.weights()
    config.base_model_name_or_path = None  # PEFT would put the model's own name here, and warn that it is another one.
    try:
        attached = cast("PeftModel", get_peft_model(model, config))
    except ValueError as error:
        raise _other_base(adapter, base, f"{error}") from error
    expected = {name: tuple(one.shape) for name, one in get_peft_model_state_dict(attached).items()}
    unknown, missing = sorted(set(weights) - set(expected)), sorted(set(expected) - set(weights))
    if unknown:
        raise _other_base(adapter, base, f"{len(unknown)} of its tensors have no place there, e.g. {unknown[0]}")
    if missing:
        raise _other_base(adapter, base, f"it lacks {len(missing)} tensors for it, e.g. {missing[0]}")
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            found = tuple(weights[name].shape)
            raise _other_base(adapter, base, f"{name} has the shape {found}, where {shape} is needed")
    require_finite(weights, f"The adapter {adapter.source.name}")
    set_peft_model_state_dict(attached, weights)
    return attached


def _other_base(adapter: PublishedAdapter, base: str, reason: str) -> ValueError:
    named = f" It says that it is for {adapter.base!r}." if adapter.base else ""
    return ValueError(f"The adapter {adapter.source.name} does not fit {base}: {reason}.{named} Give its own base.")
