"""What a model is, what its attention can be, and what every recipe would make of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.util import get_device_name
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import LARGE_INTEGER

from st_llm2vec.conversion.convert import apply_attention, probe_implementations, prove_decoder
from st_llm2vec.conversion.decoder import load_transformer
from st_llm2vec.encoding.dtype import native_dtype
from st_llm2vec.evaluation.layers import attention_kept
from st_llm2vec.folder.gguf_file import SOURCE as GGUF_SOURCE
from st_llm2vec.folder.merge import type_name
from st_llm2vec.inspection.advice import recommend, recommend_stages, recommend_untrained
from st_llm2vec.inspection.readiness import Readiness, measure_readiness
from st_llm2vec.inspection.recipes import Outlook, outlooks
from st_llm2vec.inspection.tokenizer import TokenizerFacts, tokenizer_facts
from st_llm2vec.modules.attention import AttentionProbe, CausalAttentionError, probe_attention
from st_llm2vec.proof.left_padding import left_padding_changes, needs_position_ids
from st_llm2vec.proof.same_tokens import tokenizer_of
from st_llm2vec.recipe.config import RECIPES

MEASURED_ON_A_CPU = 1_000_000_000
"""Parameters beside embeddings up to which recipes are scored on a CPU unless it is asked for."""
SECONDS = 60.0
"""How long recipes are scored unless it is asked for."""


@dataclass(frozen=True)
class Inspection:
    """What a model is and what can be made of it.

    Args:
        name: The model as it was given.
        model_type: Its family, e.g. ``"llama"``.
        architecture: The class of its body.
        parameters: How many parameters the body has, output head excluded.
        layers: How many layers.
        width: Width of its hidden states, and of most recipes' vectors.
        vocabulary: Rows of its embedding matrix.
        context: Longest input in tokens, if it is limited.
        dtype: Type of its weights.
        attention: Its attention as loaded, in words.
        bidirectional: What it becomes when made bidirectional (and repaired, where that is needed), under each
            attention implementation that can be tried here; the default one comes first.
        refusal: Why no bidirectional recipe can be used; empty if they can.
        needs_repair: Whether the attention must be repaired at every load, which stock modules do not do.
        left_padding_changes: Whether vectors would be others under left padding; they are padded on the right then.
        position_ids: Whether that is a matter of positions, which can be given (absolute positions, as in GPT-2).
        tokenizer: Its tokenizer.
        recipes: What each recipe would make of it.
        recommended: The recipe to begin training with.
        advice: Why, in a sentence or two.
        readiness: What bidirectional attention does to it before any training; ``None`` where that was not measured, or
            the recipe to begin with is causal.
        stages: The stages of training, in their order.
        stages_advice: Why, in a sentence or two.
        untrained: The recipe to take without any training.
        untrained_advice: Why, in a sentence or two.
        source: What the weights were read from: ``{"file": ..., "quantization": ...}`` for a GGUF file, else empty.
    """

    name: str
    model_type: str
    architecture: str
    parameters: int
    layers: int
    width: int
    vocabulary: int
    context: int | None
    dtype: str
    attention: str
    bidirectional: tuple[AttentionProbe, ...]
    refusal: str
    needs_repair: bool
    left_padding_changes: bool
    position_ids: bool
    tokenizer: TokenizerFacts
    recipes: tuple[Outlook, ...]
    recommended: str
    advice: str
    readiness: Readiness | None
    stages: tuple[str, ...]
    stages_advice: str
    untrained: str
    untrained_advice: str
    source: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        data = dataclasses.asdict(self)
        data["bidirectional"] = [{**probe.to_dict(), "description": probe.describe()} for probe in self.bidirectional]
        data["readiness"] = self.readiness.to_dict() if self.readiness is not None else None
        data["stages"] = list(self.stages)
        data["recipes"] = [{**dataclasses.asdict(one), "portable": one.portable} for one in self.recipes]
        return data


def inspect_model(
    name: str | Path,
    *,
    measure: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Inspection:
    """Load a decoder once, try its attention and every recipe on it, and recommend some.

    Nothing is written. The model runs a few batches of some tokens and, where it is measured, the built-in sentences and triples.

    Args:
        name: A folder, a GGUF file, or a name on the Hugging Face Hub.
        measure: Whether to read built-in sentences under both kinds of attention and to score every recipe on them. By
            default recipes are scored for about a minute, and nothing is measured where there is no GPU and the model has
            more than a billion parameters beside its embeddings.
        revision: Branch, tag or commit on the Hub.
        token: Access token for the Hub.
        local_files_only: Whether to stay off the network.
        progress: Is told what is being done.

    Returns:
        What was found.

    Raises:
        ValueError: If it is no decoder or cannot be loaded.

    Example:
        >>> from st_llm2vec import decoder_path, inspect_model
        >>> inspect_model(decoder_path(), measure=False).recommended
        'llm2vec'
    """
    name = str(name)
    hub = {"revision": revision, "token": token, "local_files_only": local_files_only}
    progress(f"Loading {name} …")
    transformer = load_transformer(name, None, None, hub)
    model = transformer.model
    embeddings: Any = model.get_input_embeddings()
    dtype, parameters = model.dtype, sum(parameter.numel() for parameter in model.parameters())
    progress("Trying its attention, as it is and freed …")
    as_loaded = probe_attention(model)
    prove_decoder(model, name)
    left_changes = left_padding_changes(model)
    context = transformer.max_seq_length
    bidirectional, refusal, needs_repair = _try_bidirectional(model, name)
    recommended, advice = recommend(bidirectional, refusal)
    if measure is None:
        small = parameters - embeddings.weight.numel() <= MEASURED_ON_A_CPU
        seconds = SECONDS if small or torch.cuda.is_available() else 0.0
    else:
        seconds = math.inf if measure else 0.0
    if seconds:
        device = get_device_name()
        transformer.to(device=device, dtype=native_dtype(device))
    readiness = None
    if seconds and RECIPES[recommended].attention == "bidirectional":
        progress("Reading the built-in sentences and triples under both kinds of attention …")
        readiness = measure_readiness(transformer)
    stages, stages_advice = recommend_stages(recommended, readiness)
    progress(f"Trying {len(RECIPES)} recipes …")
    recipes = outlooks(transformer, name, refusal=refusal, needs_repair=needs_repair, seconds=seconds)
    untrained, untrained_advice = recommend_untrained(recipes, recommended)
    return Inspection(
        name=name,
        model_type=model.config.model_type,
        architecture=type(model).__name__,
        parameters=parameters,
        layers=model.config.get_text_config(decoder=True).num_hidden_layers,
        width=transformer.get_embedding_dimension(),
        vocabulary=int(embeddings.weight.shape[0]),
        context=context if context is not None and context < LARGE_INTEGER else None,
        dtype=type_name(dtype),
        attention=as_loaded.describe(),
        bidirectional=bidirectional,
        refusal=refusal,
        needs_repair=needs_repair,
        left_padding_changes=left_changes,
        position_ids=left_changes and needs_position_ids(model),
        tokenizer=tokenizer_facts(tokenizer_of(transformer, name)),
        recipes=recipes,
        recommended=recommended,
        advice=advice,
        readiness=readiness,
        stages=stages,
        stages_advice=stages_advice,
        untrained=untrained,
        untrained_advice=untrained_advice,
        source=getattr(model.config, GGUF_SOURCE, {}),
    )


def _try_bidirectional(model: PreTrainedModel, name: str) -> tuple[tuple[AttentionProbe, ...], str, bool]:
    """Make the model bidirectional as ``convert`` would, look, and leave it causal as it was.

    Returns:
        The probes, why it cannot be bidirectional (nothing if it can), and whether it needs a repair.
    """
    refusal, repaired = "", False
    with attention_kept(model):
        try:
            _, repaired = apply_attention(model, "bidirectional", name)
        except CausalAttentionError as error:
            refusal = str(error)
        try:
            return tuple(probe_implementations(model)), refusal, repaired
        except (AttributeError, RuntimeError, TypeError):
            return (), refusal, repaired
