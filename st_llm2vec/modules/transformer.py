"""A Transformer whose attention is set, proven and saved."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any, cast

import torch
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .adapter import DOWNLOAD_OPTIONS, has_adapter, restore_adapter
from .attention import Attention, probe_attention, prove_attention, repair_attention, set_attention
from .instruction import UNLIMITED, InstructionFormatter

logger = logging.getLogger(__name__)


def add_position_ids(features: dict[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """Give a left-padded batch explicit positions, which models with absolute positions (GPT-2) need.

    Args:
        features: ``input_ids`` and ``attention_mask`` of shape ``(batch, tokens)``.
        model: The model that will read them.

    Returns:
        The same features, with ``position_ids`` of shape ``(batch, tokens)`` where the batch is left-padded
        and the model takes them.
    """
    if "position_ids" in features:
        return features
    mask = features.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.ndim == 2 and mask.numel() and bool((mask[:, 0] == 0).any()):
        if "position_ids" in inspect.signature(model.forward).parameters:
            features["position_ids"] = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    return features


class BidirectionalTransformer(Transformer):
    """A stock ``Transformer`` that sets its attention, repairs it where it must, and proves it at load.

    An encoder that stock modules can express uses a stock ``Transformer`` with ``"is_causal": false`` in its
    ``config.json``. This class is for the rest: an :class:`InstructionFormatter` before the model, families
    that ignore the configuration (StableLM, Nemotron), a folder that holds only an adapter, and composing by hand.

    Args:
        model_name_or_path: As for ``Transformer``.
        attention: ``"bidirectional"`` or ``"causal"``; proven by behaviour when the module is made.
        formatter: The templates of an :class:`InstructionFormatter` (``template`` and
            ``instruction_template``); ``None`` leaves the texts to the stock preprocessing.
        **kwargs: As for ``Transformer``.

    Raises:
        CausalAttentionError: If the model is meant to be bidirectional and is not.
        ValueError: If the folder holds an adapter that lacks weights.
    """

    config_keys = [*Transformer.config_keys, "attention", "formatter"]

    def __init__(
        self,
        model_name_or_path: str,
        *,
        attention: Attention = "bidirectional",
        formatter: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name_or_path, **kwargs)
        if has_adapter(self.model):
            options = kwargs.get("model_kwargs") or {}
            restore_adapter(
                self.model, model_name_or_path, **{name: options[name] for name in DOWNLOAD_OPTIONS if name in options}
            )
        self.attention = attention
        self.formatter = formatter
        self._formatter = InstructionFormatter(**formatter) if formatter is not None else None
        set_attention(self.model, attention)
        if probe_attention(self.model).kind == "mixed" and repair_attention(self.model, attention):
            logger.info("%s: attention repaired on the modules themselves", model_name_or_path)
        prove_attention(self.model, attention, model_name_or_path)

    @classmethod
    def from_transformer(
        cls, transformer: Transformer, attention: Attention, formatter: dict[str, Any] | None
    ) -> BidirectionalTransformer:
        """Take over a loaded stock ``Transformer``, whose attention is already set and proven, weights and all."""
        module = cls.__new__(cls)
        module.__dict__.update(transformer.__dict__)
        module.attention = attention
        module.formatter = formatter
        module._formatter = InstructionFormatter(**formatter) if formatter is not None else None
        return module

    def preprocess(  # type: ignore[override]
        self, inputs: Sequence[Any], prompt: str | Sequence[str | None] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Format and tokenise texts.

        Args:
            inputs: The texts.
            prompt: The bare instruction, or one for each text.
            **kwargs: As for ``Transformer.preprocess``; ``max_length`` overrides the encoder's own.

        Returns:
            ``input_ids``, ``attention_mask`` and ``pooling_mask``, each of shape ``(batch, tokens)``.

        Raises:
            ValueError: If an input is not a text, or the formatter refuses it.
        """
        if self._formatter is None:
            features = super().preprocess(inputs, prompt=cast("str | None", prompt), **kwargs)
            return add_position_ids(features, self.model)
        if not inputs:
            return {}
        wrong = next((one for one in inputs if not isinstance(one, str)), None)
        if wrong is not None:
            raise ValueError(f"This encoder reads texts; got {type(wrong).__name__}: {wrong!r}.")
        max_length = kwargs.get("max_length") or self.max_seq_length or UNLIMITED
        tokenizer = cast("PreTrainedTokenizerBase", self.tokenizer)
        features = self._formatter(inputs, prompt, tokenizer, max_length)
        return add_position_ids({**features, "modality": "text"}, self.model)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the model; ``token_embeddings`` of shape ``(batch, tokens, hidden)`` is added to the features."""
        pooling_mask = features.pop("pooling_mask", None)
        features = super().forward(features, **kwargs)
        if pooling_mask is not None:
            features["pooling_mask"] = pooling_mask
        return features

    def __repr__(self) -> str:
        return super().__repr__().replace("Transformer(", f"{type(self).__name__}(", 1)
