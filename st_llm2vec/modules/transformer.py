"""A Transformer whose attention is set, proven and saved."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any, cast

import torch
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from st_llm2vec.modules.adapter import DOWNLOAD_OPTIONS, has_adapter, restore_adapter
from st_llm2vec.modules.attention import Attention, probe_attention, repair_attention, require_attention, set_attention
from st_llm2vec.modules.formatter import UNLIMITED, InstructionFormatter
from st_llm2vec.modules.instructed import carries_instruction, split_instructed

logger = logging.getLogger(__name__)

UNCUT = (False, "do_not_truncate")
HONOURED: dict[str, dict[str, tuple[Any, ...]]] = {
    "text": {"truncation": (True, "longest_first", "only_first", *UNCUT), "padding": (True, "longest")},
    "common": {"return_tensors": ("pt",)},
    "chat_template": {},
}


def longest_input(
    transformer: Transformer, max_length: int | None = None, processing_kwargs: dict[str, Any] | None = None
) -> int:
    """The longest input of a call, in tokens, template included.

    Args:
        transformer: The module that reads it.
        max_length: What the call asks for.
        processing_kwargs: The call's settings of the processor, which come first.

    Returns:
        The number of tokens.
    """
    settings = _settings(transformer, processing_kwargs, "text")
    if settings.get("truncation", True) in UNCUT:
        return UNLIMITED
    return settings.get("max_length") or max_length or transformer.max_seq_length or UNLIMITED


def _settings(transformer: Transformer, processing_kwargs: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """The module's own settings of a kind, completed by the call's."""
    own: dict[str, Any] = dict(transformer.processing_kwargs)
    return {**(own.get(kind) or {}), **((processing_kwargs or {}).get(kind) or {})}


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
        self.read_through(formatter)
        set_attention(self.model, attention)
        probe = probe_attention(self.model)
        if probe.kind == "mixed" and repair_attention(self.model, attention):
            logger.info("%s: attention repaired on the modules themselves", model_name_or_path)
            probe = probe_attention(self.model)
        require_attention(probe, self.model, attention, model_name_or_path)

    @classmethod
    def from_transformer(
        cls, transformer: Transformer, attention: Attention, formatter: dict[str, Any] | None
    ) -> BidirectionalTransformer:
        """Take over a loaded stock ``Transformer``, whose attention is already set and proven, weights and all."""
        module = cls.__new__(cls)
        module.__dict__.update(transformer.__dict__)
        module.attention = attention
        module.read_through(formatter)
        return module

    def read_through(self, formatter: dict[str, Any] | None) -> None:
        """Read texts through other templates from now on.

        Args:
            formatter: As for the class.
        """
        self.formatter = formatter
        self._formatter = InstructionFormatter(**formatter) if formatter is not None else None

    def preprocess(  # type: ignore[override]
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Format and tokenise texts.

        Args:
            inputs: The texts; or texts with an instruction each, ``[instruction, text]`` or
                ``{"text": str, "instruction": str | None}``.
            prompt: The bare instruction of all texts.
            **kwargs: As for ``Transformer.preprocess``; ``max_length`` overrides the encoder's own, and of
                ``processing_kwargs`` the length and the truncation of texts are known.

        Returns:
            ``input_ids``, ``attention_mask`` and ``pooling_mask``, each of shape ``(batch, tokens)``.

        Raises:
            ValueError: If an input is not a text, there is a list of instructions, a setting is not known, or the
                formatter refuses an input.
        """
        if self._formatter is None:
            features = super().preprocess(inputs, prompt=prompt, **kwargs)
            return add_position_ids(features, self.model)
        if not inputs:
            return {}
        if not isinstance(prompt, str | None):
            raise ValueError(
                f"prompt={prompt!r} is no single instruction. Sentence Transformers sorts the texts of a call by their "
                "length, and would deal the instructions of a list out to others: give [[instruction, text], ...] as "
                "inputs, or load the encoder with st_llm2vec.load, which takes a list."
            )
        instructions: str | list[str] | None = prompt
        if any(map(carries_instruction, inputs)):
            inputs, instructions = split_instructed(inputs, prompt)
        for row, one in enumerate(inputs):
            if not isinstance(one, str):
                raise ValueError(
                    f"Row {row} of the batch is {type(one).__name__} {str(one)[:40]!r}; this encoder reads texts only."
                )
        settings = kwargs.get("processing_kwargs")
        self._require_known(settings)
        tokenizer = cast("PreTrainedTokenizerBase", self.tokenizer)
        max_length = longest_input(self, kwargs.get("max_length"), settings)
        features = self._formatter(inputs, instructions, tokenizer, max_length)
        return add_position_ids({**features, "modality": "text"}, self.model)

    def _require_known(self, processing_kwargs: dict[str, Any] | None) -> None:
        """Refuse settings of the processor that the formatter, which tokenises in its place, would ignore."""
        for kind, honoured in HONOURED.items():
            for name, value in _settings(self, processing_kwargs, kind).items():
                if name == "max_length" and kind == "text":
                    known = value is None or (type(value) is int and value > 0)
                else:
                    known = any(
                        value is one or (isinstance(one, str) and value == one) for one in honoured.get(name, ())
                    )
                if not known:
                    raise ValueError(
                        f"processing_kwargs has {kind}: {name}={value!r}, which this encoder cannot honour: its own "
                        'formatter tokenises the texts. Of "text" it takes max_length (a number of tokens), truncation '
                        "(True or False) and padding (True)."
                    )

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the model; ``token_embeddings`` of shape ``(batch, tokens, hidden)`` is added to the features."""
        pooling_mask = features.pop("pooling_mask", None)
        features = super().forward(features, **kwargs)
        if pooling_mask is not None:
            features["pooling_mask"] = pooling_mask
        return features

    def __repr__(self) -> str:
        return super().__repr__().replace("Transformer(", f"{type(self).__name__}(", 1)
