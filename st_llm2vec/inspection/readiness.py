"""What bidirectional attention does to a decoder that nothing has trained for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from st_llm2vec.evaluation.analyses import attention_similarity, own_texts
from st_llm2vec.evaluation.future_tokens import future_tokens
from st_llm2vec.evaluation.layers import attending, layer_quality
from st_llm2vec.evaluation.untrained import POOR

Verdict = Literal["copes", "breaks", "poor"]

KNOWN = {"Gemma 3 270M, which copes": (0.98, 0.80, 0.85), "SmolLM2 135M, which does not": (0.75, 0.33, 0.73)}
"""What two decoders were found to have (docs/words.md): ``same_state``, the mean of ``above_chance``, ``ranked_right``."""


@dataclass(frozen=True)
class Readiness:
    """What was measured of a decoder, as it is, under causal and under bidirectional attention.

    Args:
        causal: The score on the built-in sentences of the mean of the last layer's states, under causal attention.
        bidirectional: The same under bidirectional attention.
        best_layer: The layer that scores best under bidirectional attention; 0 are the embeddings.
        best: Its score.
        similarity: For each layer, from the embeddings on, the mean cosine of a token's causal and bidirectional states,
            on short sentences (LLM2Vec, section 4.2).
        above_chance: The same on a scale where 0 is what tokens of different texts have.
        ranked_right: The share of triples ranked by their shared beginnings (LLM2Vec, section 4.1).
        interval: Wilson's interval of 95 % for that share.
    """

    causal: float
    bidirectional: float
    best_layer: int
    best: float
    similarity: list[float]
    above_chance: list[float]
    ranked_right: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> Verdict:
        """``"copes"``, ``"breaks"``, or ``"poor"``, where causal attention is no better.

        The score decides, as it does for the warning of ``convert``: of what is measured here it is the only figure that is
        known to foretell how an untrained encoder does, and of two real decoders only.
        """
        if self.bidirectional >= POOR:
            return "copes"
        return "breaks" if self.causal >= POOR else "poor"

    @property
    def same_state(self) -> float:
        """The mean of :attr:`similarity` over the layers, without the embeddings, which are the same."""
        return fmean(self.similarity[1:])

    @property
    def uses_future(self) -> bool:
        """Whether more triples are ranked right than chance would."""
        return self.interval[0] > 0.5

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        derived = {"verdict": self.verdict, "same_state": self.same_state, "uses_future": self.uses_future}
        return {**derived, **dataclasses.asdict(self), "interval": list(self.interval)}


def measure_readiness(transformer: Transformer) -> Readiness:
    """Read some two hundred short sentences, under both kinds of attention.

    Args:
        transformer: A decoder that can be bidirectional; its attention is put back.

    Returns:
        What was found.

    Raises:
        ValueError: If the decoder's tokenizer does not tell where its tokens stand in a text.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> measure_readiness(convert(decoder_path(), "llm2vec", measure=False).transformer).verdict
        'copes'
    """
    encoder = SentenceTransformer(modules=[transformer], device=str(transformer.model.device))
    with attending(transformer.model, "causal"):
        causal = layer_quality(encoder)
    with attending(transformer.model, "bidirectional"):
        bidirectional, ranked = layer_quality(encoder), future_tokens(encoder)
    alike, above = attention_similarity(encoder, own_texts())
    return Readiness(
        causal=causal.scores[-1],
        bidirectional=bidirectional.scores[-1],
        best_layer=bidirectional.best,
        best=bidirectional.scores[bidirectional.best],
        similarity=alike,
        above_chance=above,
        ranked_right=ranked.share,
        interval=ranked.interval,
    )
