"""The states of a decoder's layers: causal beside bidirectional, how alike they all are, and which tell meanings best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from st_llm2vec.encoding.batches import collate
from st_llm2vec.evaluation.sentence_score import GRADES, score_of, sentence_groups
from st_llm2vec.evaluation.words import readers
from st_llm2vec.modules.attention import (
    Attention,
    probe_attention,
    repair_attention,
    require_attention,
    set_attention,
    without_cache,
)
from st_llm2vec.modules.formatter import UNLIMITED

TEXTS_AT_ONCE = 8
SETTINGS = ("is_causal", "use_bidirectional_attention")


@dataclass(frozen=True)
class TextStates:
    """What each layer makes of a text.

    Args:
        tokens: The text's tokens, with the special ones that the tokenizer puts around it.
        offsets: Where each token stands in the text, of shape ``(tokens, 2)``; special tokens stand at ``(0, 0)``.
        layers: The embeddings and the states after each layer, of shape ``(layers + 1, tokens, hidden)``. The last ones have
            passed the model's last norm.
    """

    tokens: list[str]
    offsets: NDArray[np.int64]
    layers: NDArray[np.float32]

    @property
    def own(self) -> NDArray[np.bool_]:
        """Which tokens are the text's own."""
        return self.offsets[:, 1] > self.offsets[:, 0]


@contextmanager
def attention_kept(model: PreTrainedModel) -> Iterator[None]:
    """Put all that :func:`set_attention` and a repair change back as it was, in the configuration and in the modules.

    Args:
        model: A decoder without its output head.
    """
    configs = [model.config, model.config.get_text_config(decoder=True)]
    settings = [{name: one.__dict__[name] for name in SETTINGS if name in one.__dict__} for one in configs]
    modules = [(one, one.is_causal) for one in model.modules() if isinstance(getattr(one, "is_causal", None), bool)]
    try:
        yield
    finally:
        for config, setting in zip(configs, settings, strict=True):
            for name in SETTINGS:
                config.__dict__.pop(name, None)
            for name, value in setting.items():
                setattr(config, name, value)
        for module, flag in modules:
            module.is_causal = flag


@contextmanager
def attending(model: PreTrainedModel, attention: Attention) -> Iterator[None]:
    """Set a model's attention for a while, prove it, and put back what was there.

    Args:
        model: A decoder without its output head.
        attention: ``"causal"`` or ``"bidirectional"``.

    Raises:
        CausalAttentionError: If it is to be bidirectional and stays causal.
        ValueError: If it is to be causal and is not.
    """
    with attention_kept(model):
        set_attention(model, attention)
        probe = probe_attention(model)
        if probe.kind == "mixed" and repair_attention(model, attention):
            probe = probe_attention(model)
        require_attention(probe, model, attention, type(model).__name__)
        yield


def layer_states(encoder: SentenceTransformer, texts: Sequence[str]) -> Iterator[TextStates]:
    """The states of every layer for texts as they are, without template and prompts, under the attention that is set.

    Args:
        encoder: Any encoder that begins with a ``Transformer`` and has a fast tokenizer.
        texts: The texts; one longer than the encoder's context is cut.

    Yields:
        The states of each text, in order.

    Raises:
        ValueError: If the encoder is no such one, or a text is empty.
    """
    transformer, tokenizer = readers(encoder)
    model: Any = transformer.model
    empty = [number for number, text in enumerate(texts) if not text.strip()]
    if empty:
        raise ValueError(f"Text {empty[0]} (the first is 0) is empty; it has no states to look at.")
    context = min(encoder.max_seq_length or UNLIMITED, UNLIMITED)
    training = transformer.training
    transformer.eval()
    try:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = list(texts[start : start + TEXTS_AT_ONCE])
            encoded = tokenizer(
                some, split_special_tokens=True, return_offsets_mapping=True, truncation=True, max_length=context
            )
            rows = [
                {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.long)}
                for ids in encoded["input_ids"]
            ]
            features = {name: value.to(encoder.device) for name, value in collate(rows, encoder).items()}
            with torch.inference_mode():
                found = model(**features, **without_cache(model), output_hidden_states=True).hidden_states
                layers = torch.stack([one.float().cpu() for one in found], dim=1).numpy()
            for row, ids in enumerate(encoded["input_ids"]):
                offsets = np.reshape(encoded["offset_mapping"][row], (-1, 2))
                yield TextStates(list(tokenizer.convert_ids_to_tokens(ids)), offsets, layers[row, :, : len(ids)])
    finally:
        transformer.train(training)


@dataclass(frozen=True)
class LayerSimilarity:
    """How alike the states of one text are in two models, or under two kinds of attention.

    Args:
        tokens: The text's own tokens.
        cosines: Of shape ``(layers + 1, tokens)``, from the embeddings to the last layer.
    """

    tokens: list[str]
    cosines: NDArray[np.float32]


def states_under(encoder: SentenceTransformer, texts: Sequence[str], attention: Attention) -> list[TextStates]:
    """The states of every layer under a kind of attention, which is put back; errors as for :func:`attending`."""
    with attending(readers(encoder)[0].model, attention):
        return list(layer_states(encoder, texts))


def causal_similarity(encoder: SentenceTransformer, texts: Sequence[str]) -> list[LayerSimilarity]:
    """Compare the states of a decoder under causal and under bidirectional attention, layer by layer.

    LLM2Vec (section 4.2) compares them on a paragraph, where an untrained Mistral's hardly differ. How much they do depends
    on the text's length, and in some decoders short texts differ most: compare texts such as will be encoded.

    Args:
        encoder: The encoder; its attention is switched and put back.
        texts: The texts.

    Returns:
        The cosines of each text's tokens.

    Raises:
        CausalAttentionError: If the decoder cannot attend in both directions.
        ValueError: As for :func:`layer_states`.
    """
    causal, bidirectional = (states_under(encoder, texts, one) for one in ("causal", "bidirectional"))
    return [similarity(*pair) for pair in zip(causal, bidirectional, strict=True)]


def similarity(first: TextStates, second: TextStates) -> LayerSimilarity:
    """Compare the states of one text by two models of one shape: a decoder and what a stage of training made of it.

    Raises:
        ValueError: If the tokens or the layers are not the same.
    """
    if first.tokens != second.tokens or first.layers.shape != second.layers.shape:
        raise ValueError(
            "The two models do not read the text by the same tokens and layers, so their states have no pairs."
        )
    own = [token for token, is_own in zip(first.tokens, first.own, strict=True) if is_own]
    return LayerSimilarity(own, (_units(first.layers) * _units(second.layers)).sum(axis=-1)[:, first.own])


def anisotropy(texts: Sequence[TextStates]) -> list[float]:
    """For each layer the mean cosine over all pairs of tokens of different texts (Ethayarajh 2019, arXiv 1909.00512).

    Args:
        texts: The states of two texts or more.

    Returns:
        From the embeddings to the last layer: near 1 where all states point one way.
    """
    sums = np.stack([_units(one.layers[:, one.own]).astype(np.float64).sum(axis=1) for one in texts])
    counts = np.array([one.own.sum() for one in texts])
    within = (sums**2).sum(axis=(0, 2))
    pairs = counts.sum() ** 2 - (counts**2).sum()
    found: list[float] = (((sums.sum(axis=0) ** 2).sum(axis=-1) - within) / pairs).tolist()
    return found


@dataclass(frozen=True)
class LayerQuality:
    """How alike all states of a layer are, and how well it tells meanings; both from the embeddings to the last layer.

    Args:
        anisotropy: As :func:`anisotropy` has it.
        scores: The score on the built-in sentences of the mean of their tokens' states, at most 100.
    """

    anisotropy: list[float]
    scores: list[float]

    @property
    def best(self) -> int:
        """The layer with the highest score; 0 are the embeddings."""
        return int(np.argmax(self.scores))


def layer_quality(encoder: SentenceTransformer) -> LayerQuality:
    """Measure each layer on the built-in sentences, under the attention that is set.

    Args:
        encoder: The encoder.

    Returns:
        The mean cosine over all pairs of tokens from different sentences, and each layer's score.

    Raises:
        ValueError: As for :func:`layer_states`.
    """
    groups = sentence_groups()
    texts = list(layer_states(encoder, [group[part] for group in groups for part in ("text", *GRADES)]))
    vectors = _units(np.stack([one.layers[:, one.own].mean(axis=1) for one in texts], axis=1))
    grouped = vectors.reshape(len(vectors), len(groups), 1 + len(GRADES), -1).astype(np.float64)
    return LayerQuality(anisotropy(texts), [score_of(layer) for layer in grouped])


def _units(states: NDArray[Any]) -> NDArray[Any]:
    """States scaled to length one; one that is zero stays so."""
    lengths = np.linalg.norm(states, axis=-1, keepdims=True)
    units: NDArray[Any] = states / np.where(lengths > 0, lengths, 1)
    return units
