"""A warning where a decoder is no encoder yet: bidirectional attention that the model was never trained with."""

from __future__ import annotations

from st_llm2vec.evaluation.sentence_score import sentence_score
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.losses.output_head import embedding_weight

POOR = 40.0
"""A score on the built-in sentences below which vectors are near useless.

SmolLM2 135M as llm2vec scores 27 here and 13 on the STS benchmark's dev set, Gemma 3 270M 54 and 70.
"""
LARGEST = 500_000_000
"""Parameters beside embeddings up to which the sentences are encoded on a CPU; two cores need seconds for 100 million."""


def untrained_warning(encoder: TextEncoder, name: str) -> str:
    """Say so where an encoder that nothing has trained yet makes poor vectors.

    Only bidirectional recipes are looked at: decoders have never seen such attention, and what some of them make of it
    is near useless before training, while others cope. Which, only measuring tells; a few sentences are encoded. Models
    that are too large for that in the time of a conversion get no verdict.

    Args:
        encoder: A decoder just converted.
        name: Its name, for the message.

    Returns:
        A sentence; empty where there is nothing to say.
    """
    manifest = encoder.manifest
    if manifest is None or manifest.stages or manifest.config.attention != "bidirectional":
        return ""
    recipe = manifest.config.name
    others = '"echo", which takes instructions too' if any(encoder.prompts.values()) else '"prompteol-icl"'
    advice = (
        f"Train it (`st-llm2vec train`), or take a recipe that needs no training, such as {others}; "
        f"`st-llm2vec inspect {name}` scores them all."
    )
    if manifest.config.pooling == "latent_attention":
        return f"{name} as {recipe} has a latent attention that is random until it is trained. {advice}"
    if encoder.device.type == "cpu" and _beside_embeddings(encoder) > LARGEST:
        return ""
    score = sentence_score(encoder)
    if score >= POOR:
        return ""
    return (
        f"{name} as {recipe} makes near-useless vectors before it is trained: they score {score:.0f} of 100 on the "
        f"built-in sentences. {advice}"
    )


def _beside_embeddings(encoder: TextEncoder) -> int:
    model = encoder.transformer.model
    return sum(parameter.numel() for parameter in model.parameters()) - embedding_weight(model).numel()
