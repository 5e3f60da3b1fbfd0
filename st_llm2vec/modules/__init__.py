"""The forward path, in reading order: instruction, transformer, pooling."""

from __future__ import annotations

from .attention import AttentionProbe, CausalAttentionError, probe_attention, set_attention
from .instruction import InstructionFormatter
from .latent_attention import LatentAttentionPooling
from .pooling import SpanPooling
from .transformer import BidirectionalTransformer

__all__ = [
    "AttentionProbe",
    "BidirectionalTransformer",
    "CausalAttentionError",
    "InstructionFormatter",
    "LatentAttentionPooling",
    "SpanPooling",
    "probe_attention",
    "set_attention",
]
