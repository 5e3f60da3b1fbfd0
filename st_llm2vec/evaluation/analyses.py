"""What a decoder makes of causal and of bidirectional attention, before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from sentence_transformers import SentenceTransformer

from st_llm2vec.evaluation.future_tokens import FutureTokens, Triple, future_tokens
from st_llm2vec.evaluation.layers import (
    LayerQuality,
    LayerSimilarity,
    anisotropy,
    attending,
    layer_quality,
    layer_states,
    similarity,
    states_under,
)
from st_llm2vec.evaluation.sentence_score import sentence_groups
from st_llm2vec.evaluation.words import readers
from st_llm2vec.modules.attention import Attention

ATTENTIONS: tuple[Attention, ...] = ("causal", "bidirectional")


@dataclass(frozen=True)
class Analysis:
    """What was found of a model, by kind of attention where it can have it.

    Args:
        future: How triples were ranked by their shared beginnings.
        quality: Anisotropy and score of each layer.
        similarity: For each layer, from the embeddings on, the mean cosine of a token's causal and bidirectional states;
            empty where the model has one kind of attention only.
        above_chance: The same on a scale where 0 is the mean cosine of causal states of tokens of different texts, and 1 is
            equality: states that all point one way are alike whatever the attention.
        refusals: Why the model cannot have a kind of attention.
    """

    future: dict[str, FutureTokens]
    quality: dict[str, LayerQuality]
    similarity: list[float]
    above_chance: list[float]
    refusals: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        best = {attention: {"best": one.best} for attention, one in self.quality.items()}
        data = asdict(self)
        return {**data, "quality": {attention: {**data["quality"][attention], **best[attention]} for attention in best}}


def analyse(
    encoder: SentenceTransformer, triples: Sequence[Triple] | None = None, texts: Sequence[str] | None = None
) -> Analysis:
    """Look at a model under both kinds of attention, as it is: nothing is trained.

    Args:
        encoder: Any encoder that begins with a ``Transformer``; its attention is switched and put back.
        triples: For the test of future tokens; the built-in ones if not given.
        texts: Two texts or more to compare causal and bidirectional states on; built-in sentences if not given.

    Returns:
        What was found. A kind of attention that the model cannot have is left out, with the reason.

    Raises:
        ValueError: If the encoder has no fast tokenizer, or there are no triples.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> from st_llm2vec.evaluation.future_tokens import built_in_triples
        >>> found = analyse(convert(decoder_path(), "llm2vec"), built_in_triples()[:4])
        >>> found.future["causal"].tied, found.future["bidirectional"].tied
        (4, 0)
    """
    model = readers(encoder)[0].model
    future: dict[str, FutureTokens] = {}
    quality: dict[str, LayerQuality] = {}
    refusals: dict[str, str] = {}
    for attention in ATTENTIONS:
        try:
            with attending(model, attention):
                pass
        except ValueError as error:
            refusals[attention] = str(error)
            continue
        with attending(model, attention):
            future[attention] = future_tokens(encoder, triples)
            quality[attention] = layer_quality(encoder)
    if refusals:
        return Analysis(future, quality, [], [], refusals)
    alike, above = attention_similarity(encoder, own_texts() if texts is None else texts)
    return Analysis(future, quality, alike, above, refusals)


def attention_similarity(encoder: SentenceTransformer, texts: Sequence[str]) -> tuple[list[float], list[float]]:
    """``similarity`` and ``above_chance`` of an :class:`Analysis`, for two texts or more; errors as for :func:`analyse`."""
    causal, bidirectional = (states_under(encoder, texts, one) for one in ATTENTIONS)
    alike = mean_by_layer([similarity(*pair) for pair in zip(causal, bidirectional, strict=True)])
    chance = anisotropy(causal)
    return alike, [(one - by_chance) / (1 - by_chance) for one, by_chance in zip(alike, chance, strict=True)]


def similarity_to_causal(encoder: SentenceTransformer, decoder: SentenceTransformer) -> list[float]:
    """How near an encoder's states still are to those of the causal decoder that it was made from.

    Args:
        encoder: The encoder, after some stage of training, under its own attention.
        decoder: An encoder made from the decoder as it was; its attention is switched to causal and put back.

    Returns:
        For each layer, from the embeddings on, the mean cosine of a token's two states.

    Raises:
        ValueError: If the two do not read texts by the same tokens and layers.
    """
    texts = own_texts()
    before = states_under(decoder, texts, "causal")
    return mean_by_layer([similarity(*pair) for pair in zip(before, layer_states(encoder, texts), strict=True)])


def mean_by_layer(similarities: Sequence[LayerSimilarity]) -> list[float]:
    """The mean cosine over all tokens, for each layer."""
    return cast("list[float]", np.concatenate([one.cosines for one in similarities], axis=1).mean(axis=1).tolist())


def own_texts() -> list[str]:
    """The built-in sentences that states are compared on, one of each group."""
    return [group["text"] for group in sentence_groups()]
