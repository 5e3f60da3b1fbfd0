"""The forward path, in reading order: instruction, transformer, pooling."""

from __future__ import annotations

from st_llm2vec.modules.attention import AttentionProbe, CausalAttentionError, probe_attention, set_attention
from st_llm2vec.modules.formatter import InstructionFormatter
from st_llm2vec.modules.latent_attention import LatentAttentionPooling
from st_llm2vec.modules.readings import MeanOfReadings
from st_llm2vec.modules.span_pooling import SpanPooling
from st_llm2vec.modules.transformer import BidirectionalTransformer

__all__ = [
    "AttentionProbe",
    "BidirectionalTransformer",
    "CausalAttentionError",
    "InstructionFormatter",
    "LatentAttentionPooling",
    "MeanOfReadings",
    "SpanPooling",
    "probe_attention",
    "set_attention",
]
