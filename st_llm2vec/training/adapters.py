"""LoRA and QLoRA adapters: attach, merge with proof, and interpolate with the base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn

from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.merge import merge, mix
from st_llm2vec.modules.adapter import has_adapter
from st_llm2vec.proof.texts import FEW_TEXTS


@dataclass
class Adapter:
    """A LoRA adapter's shape.

    The defaults are LLM2Vec's (arXiv 2404.05961, appendix D.1): rank 16, alpha 32, dropout 0.05, on all linear layers of
    attention and feed-forward.

    Args:
        r: Rank.
        alpha: The update is scaled by ``alpha / r``.
        dropout: Dropout before the update, while training.
        targets: Names of the layers that get one, or ``"all-linear"``.
        quantize: ``"nf4"`` keeps the decoder's own weights in 4 bits (QLoRA, arXiv 2305.14314) and needs bitsandbytes:
            ``pip install "st-llm2vec[qlora]"``.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: str | list[str] = field(default_factory=lambda: "all-linear")
    quantize: str | None = None

    def __post_init__(self) -> None:
        if self.r < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"An adapter has a rank of at least 1, a positive alpha and a dropout in [0, 1); these are r={self.r}, "
                f"alpha={self.alpha}, dropout={self.dropout}."
            )
        if self.quantize not in (None, "nf4"):
            raise ValueError(f"quantize is {self.quantize!r}; choose null or nf4.")

    def quantization_config(self) -> Any:
        """The 4-bit configuration for loading the decoder: nf4 with double quantisation; ``None`` without quantize.

        Raises:
            ValueError: If bitsandbytes is not installed.
        """
        if self.quantize is None:
            return None
        from transformers import BitsAndBytesConfig
        from transformers.utils import is_bitsandbytes_available

        if not is_bitsandbytes_available():
            raise ValueError('QLoRA needs bitsandbytes: pip install "st-llm2vec[qlora]".')
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        )


def attach_adapter(encoder: TextEncoder, adapter: Adapter) -> None:
    """Attach a fresh adapter to the encoder's decoder, whose own weights then stay as they are.

    Args:
        encoder: An encoder without an adapter.
        adapter: Its shape.

    Raises:
        ValueError: If the encoder has an adapter already, or no layer has a target's name.
    """
    if has_adapter(encoder.transformer.model):
        raise ValueError("The encoder has an adapter already; merge it first: merge_adapter(encoder).")
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=linear_layers(encoder.transformer.model) if adapter.targets == "all-linear" else adapter.targets,
        bias="none",
    )
    try:
        encoder.add_adapter(config)
    except ValueError as error:
        raise ValueError(f"The adapter does not fit {type(encoder.transformer.model).__name__}: {error}") from error


def linear_layers(model: nn.Module) -> list[str]:
    """The last names of a decoder's linear layers, which PEFT takes as targets."""
    from transformers.pytorch_utils import Conv1D

    found = {name.rsplit(".", 1)[-1] for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, Conv1D))}
    return sorted(found)


def merge_adapter(encoder: TextEncoder, probes: list[str] | None = None, dtype: torch.dtype | None = None) -> float:
    """Add the adapter's update to the decoder's weights, once, and prove that the vectors stay what they were.

    The sum is computed in float32, and the weights stay in float32 where the type that they had would lose more than a
    tenth of the update's norm: bfloat16 loses most of a short training's. The log then says so.

    Args:
        encoder: An encoder with one adapter attached; it is changed in place and has none afterwards.
        probes: Texts whose vectors are compared.
        dtype: The type for the weights, whatever it loses.

    Returns:
        The largest cosine distance between a text's vectors before and after, both in float32.

    Raises:
        ValueError: If there is no adapter or more than one, the decoder is quantised, or the vectors differ by more
            than rounding explains (1e-5).
    """
    names = list(getattr(encoder.transformer.model, "peft_config", {}))
    if len(names) != 1:
        raise ValueError(f"The encoder has {len(names)} adapters; exactly one can be merged.")
    return merge(encoder, dtype=dtype, probes=probes or FEW_TEXTS).distance


def interpolate(encoder: TextEncoder, start: dict[str, Tensor], share: float) -> None:
    """Mix the trained weights with those that training began from (BidirLM, arXiv 2604.02045).

    Every weight becomes ``share * trained + (1 - share) * start``, which gives back some of what a full fine-tuning
    without the original pretraining data forgets.

    Args:
        encoder: The trained encoder, without an adapter; it is changed in place.
        start: The first module's weights before training, from :func:`body_weights`.
        share: Share of the trained weights, in [0, 1].

    Raises:
        ValueError: If the share is out of range or the weights are of another decoder.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The share of the trained weights is {share}; it must be between 0 and 1.")
    trained = dict(encoder.transformer.model.named_parameters())
    if {name: weight.shape for name, weight in trained.items()} != {name: start[name].shape for name in start}:
        raise ValueError("The weights to interpolate with are not those of the same decoder.")
    mix(encoder.transformer.model, start, share)
    encoder.base_fingerprint = None


def body_weights(encoder: TextEncoder) -> dict[str, Tensor]:
    """A copy of the decoder's weights, by name, on the CPU."""
    parameters = encoder.transformer.model.named_parameters()
    return {name: weight.detach().to("cpu", copy=True) for name, weight in parameters}
