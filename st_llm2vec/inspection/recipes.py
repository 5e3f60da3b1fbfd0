"""What each recipe would make of a decoder, compiled as ``convert`` would and, where wanted, scored."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from sentence_transformers.base.modules import Transformer

from st_llm2vec.conversion.convert import apply_attention, prepare_tokenizer
from st_llm2vec.evaluation.layers import attention_kept
from st_llm2vec.evaluation.sentence_score import sentence_score
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.layouts.choose import compile_encoder
from st_llm2vec.recipe.config import RECIPES, EncoderConfig
from st_llm2vec.recipe.manifest import Manifest

MOST_TELLING = ("prompteol-icl", "echo", "prompteol", "llm2vec", "prompteol-cot", "sgpt", "prompteol-knowledge")
"""The recipes that are scored first, should the time not be enough for all."""


@dataclass(frozen=True)
class Outlook:
    """What one recipe would make of the model.

    Args:
        recipe: The recipe's name.
        layout: ``"prefix"``, ``"text"`` or ``"message"`` (stock modules), ``"custom"`` (this package's own), or ``"impossible"``.
        reason: Why.
        score: How well it does without any training, on the built-in sentences
            (:func:`st_llm2vec.evaluation.sentence_score`); ``None`` where that was not measured.
    """

    recipe: str
    layout: Literal["prefix", "text", "message", "custom", "impossible"]
    reason: str
    score: float | None = None

    @property
    def portable(self) -> bool:
        """Whether a plain ``SentenceTransformer`` loads the saved encoder without this package."""
        return self.layout in ("prefix", "text", "message")


def outlooks(
    transformer: Transformer, name: str, *, refusal: str, needs_repair: bool, seconds: float
) -> tuple[Outlook, ...]:
    """Look at every recipe.

    Args:
        transformer: The decoder; its attention and its tokenizer are left as they were.
        name: Its name, for messages.
        refusal: Why no bidirectional recipe can be used; empty if they can.
        needs_repair: Whether the attention must be repaired at every load.
        seconds: How long to score recipes; the last one begun is finished. With 0 none is scored.

    Returns:
        An outlook for each recipe, in the order of ``RECIPES``.
    """
    order = [*MOST_TELLING, *(name for name in RECIPES if name not in MOST_TELLING)]
    scores: dict[tuple[Any, ...], float] = {}
    end = time.monotonic() + seconds
    found = {}
    for recipe in order:
        config = RECIPES[recipe]
        bidirectional = config.attention == "bidirectional"
        if bidirectional and refusal:
            why = "the recipe is bidirectional, and this model cannot be"
            found[recipe] = Outlook(recipe, "impossible", why)
        else:
            repaired = needs_repair and bidirectional
            found[recipe] = _outlook(transformer, name, config, repaired, scores, time.monotonic() < end)
    return tuple(found[recipe] for recipe in RECIPES)


def _outlook(
    transformer: Transformer,
    name: str,
    config: EncoderConfig,
    repaired: bool,
    scores: dict[tuple[Any, ...], float],
    measure: bool,
) -> Outlook:
    """Compile a recipe as ``convert`` would, on a transformer that shares weights and tokenizer."""
    trial = copy.copy(transformer)
    trial.input_formatter = copy.copy(transformer.input_formatter)
    random = config.pooling == "latent_attention"
    measure = measure and not random
    # Latent attention has hundreds of millions of parameters for a large model; on "meta" it has their shapes alone.
    weightless = torch.device("meta") if random else nullcontext()
    try:
        with _tokenizer_kept(transformer.tokenizer):
            prepare_tokenizer(trial, config, name, {})
            with weightless:
                compiled = compile_encoder(trial, config, repaired)
            score = None
            if compiled.layout != "custom" or measure:
                encoder = TextEncoder(
                    modules=compiled.modules,
                    device=str(transformer.model.device),
                    manifest=Manifest(config, {}, compiled.layout),
                    base_is_stored=False,
                )
                encoder.check_room()
                score = _score(encoder, config, name, scores) if measure else None
    except ValueError as error:
        return Outlook(config.name, "impossible", str(error))
    return Outlook(config.name, compiled.layout, compiled.reason, score)


def _score(encoder: TextEncoder, config: EncoderConfig, name: str, scores: dict[tuple[Any, ...], float]) -> float:
    """Score an encoder, unless a recipe that reads texts without an instruction in the same way has been scored."""
    key = (config.attention, config.formatter_config()["template"], config.pooling, config.layer, config.readings)
    if key not in scores:
        model = encoder.transformer.model
        with attention_kept(model):
            apply_attention(model, config.attention, name)
            scores[key] = sentence_score(encoder)
    return scores[key]


@contextmanager
def _tokenizer_kept(tokenizer: Any) -> Iterator[None]:
    """Undo what preparing and compiling change in a tokenizer; a copy of a large one would take seconds."""
    names = (
        "pad_token",
        "padding_side",
        "truncation_side",
        "model_max_length",
        "chat_template",
        "split_special_tokens",
    )
    kept, normalizer = {name: getattr(tokenizer, name) for name in names}, tokenizer.backend_tokenizer.normalizer
    try:
        yield
    finally:
        tokenizer.backend_tokenizer.normalizer = normalizer
        for name, value in kept.items():
            setattr(tokenizer, name, value)
