"""Which layer a recipe should pool, by pairs of sentences with scores: every layer is scored in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import nan
from typing import Any

import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device, pairwise_cos_sim
from torch import Tensor

from st_llm2vec.evaluation.words import readers


def layer_scores(
    encoder: SentenceTransformer,
    first: Sequence[str],
    second: Sequence[str],
    scores: Sequence[float],
    batch_size: int = 32,
    advance: Callable[[int], object] = lambda texts: None,
) -> list[float]:
    """Score what an encoder would be if it pooled another layer, with the same template, attention and pooling.

    The last layer is seldom the best one for prompts: PromptEOL on LLaMA-2-7B is at its best on layer 27 of 32.

    Args:
        encoder: An encoder that begins with a ``Transformer`` and reads each text once.
        first: The first sentence of each pair.
        second: The second ones.
        scores: How alike each two are.
        batch_size: Texts in a pass.
        advance: Called with the numbers of texts as they are read.

    Returns:
        Spearman correlations of cosines with the scores, times 100: of layer ``-1``, which is the model's output, of ``-2``, the
        states before the last layer, and so on to the embeddings. One is ``nan`` where a layer gives all texts the same vector.

    Raises:
        ValueError: If the encoder is no such one, or there are fewer than two different scores.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> encoder = convert(decoder_path(), "prompteol", measure=False)
        >>> found = layer_scores(encoder, ["a cat", "the sea"], ["a kitten", "a stone"], [5.0, 0.0])
        >>> len(found) == encoder[0].model.config.num_hidden_layers + 1
        True
    """
    if len(set(scores)) < 2:
        raise ValueError("Layers are ranked by pairs with at least two different scores; these have fewer.")
    transformer, _ = readers(encoder)
    readings = getattr(getattr(getattr(encoder, "manifest", None), "config", None), "readings", ("forward",))
    if len(readings) > 1:
        raise ValueError(
            f"The encoder reads each text {len(readings)} times ({', '.join(readings)}); choose the layer with one reading, such "
            "as the recipe prompteol, and set it in both: layer=-3."
        )
    texts = [*first, *second]
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    vectors: list[Tensor] = [torch.empty(0)] * len(texts)
    encoder.eval()
    with torch.inference_mode(), _all_layers_given(transformer.model.config):
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            found = _pooled(encoder, [texts[place] for place in places])
            for place, vector in zip(places, found, strict=True):
                vectors[place] = vector
            advance(len(places))
    left, right = (torch.stack(side, dim=1) for side in (vectors[: len(first)], vectors[len(first) :]))
    return [100 * _spearman(pairwise_cos_sim(*layer), scores) for layer in zip(left, right, strict=True)]


@contextmanager
def _all_layers_given(config: Any) -> Iterator[None]:
    """Have a Transformer add the states of all layers to its features."""
    before = config.output_hidden_states
    config.output_hidden_states = True
    try:
        yield
    finally:
        config.output_hidden_states = before


def _pooled(encoder: SentenceTransformer, texts: list[str]) -> Tensor:
    """The vectors of each layer, the last one first, of shape ``(texts, layers + 1, dimension)``."""
    read, *rest = encoder
    prompt = encoder._resolve_prompt(None, None)  # the default one, which `encode` takes too
    given = read(batch_to_device(encoder.preprocess(texts, prompt=prompt), encoder.device))
    vectors = []
    for states in reversed(given["all_layer_embeddings"]):
        output = {**given, "token_embeddings": states}
        for module in rest:
            output = module(output)
        vectors.append(output["sentence_embedding"].float().cpu())
    return torch.stack(vectors, dim=1)


def _spearman(cosines: Tensor, scores: Sequence[float]) -> float:
    return float(spearmanr(cosines, scores).statistic) if len(cosines.unique()) > 1 else nan
