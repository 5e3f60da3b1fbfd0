"""LoRA adapters: read, and checked against the model they are for."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from st_llm2vec.folder.check_finite import require_finite
from st_llm2vec.importing.checkpoint import Checkpoint, readable

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
            return readable(safe, self.source.name)
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


def attach_published(adapter: PublishedAdapter, base: str, model: PreTrainedModel) -> PeftModel:
    """Attach an adapter to a model.

    Args:
        adapter: The adapter.
        base: The model's name, for messages.
        model: The body of a decoder; it is changed.

    Returns:
        The model with the adapter.

    Raises:
        ValueError: If the adapter is for another model.
    """
    config, weights = copy.deepcopy(adapter.config), adapter.weights()
    config.base_model_name_or_path = None  # PEFT would put the model's own name here, and warn that it is another one.
    try:
        attached = cast("PeftModel", get_peft_model(model, config))
    except ValueError as error:
        raise _other_base(adapter, base, f"{error}") from error
    expected = {name: tuple(one.shape) for name, one in get_peft_model_state_dict(attached).items()}
    _compare(expected, weights, adapter, base)
    require_finite(weights, f"The adapter {adapter.source.name}")
    set_peft_model_state_dict(attached, weights)
    return attached


def _compare(
    expected: dict[str, tuple[int, ...]], weights: dict[str, torch.Tensor], adapter: PublishedAdapter, base: str
) -> None:
    unknown, missing = sorted(set(weights) - set(expected)), sorted(set(expected) - set(weights))
    if unknown:
        raise _other_base(adapter, base, f"{len(unknown)} of its tensors have no place there, e.g. {unknown[0]}")
    if missing:
        raise _other_base(adapter, base, f"it lacks {len(missing)} tensors for it, e.g. {missing[0]}")
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            found = tuple(weights[name].shape)
            raise _other_base(adapter, base, f"{name} has the shape {found}, where {shape} is needed")


def _other_base(adapter: PublishedAdapter, base: str, reason: str) -> ValueError:
    named = f" It says that it is for {adapter.base!r}." if adapter.base else ""
    return ValueError(f"The adapter {adapter.source.name} does not fit {base}: {reason}.{named} Give its own base.")
