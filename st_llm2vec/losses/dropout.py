"""Dropout on the live layers of a loaded model, for as long as one loss uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.util import batch_to_device
from torch import nn

from st_llm2vec.losses.processes import unwrapped

ATTENTION_RATES = ("attention_dropout", "attn_dropout", "attn_dropout_p", "dropout", "dropout_p")
HIDDEN_RATES = ("dropout", "hidden_dropout")
Rate = tuple[nn.Module, str]
"""Where a rate of dropout is kept: a layer, and its attribute."""
PROBE = "The compass needle points to the north."


class TrainingDropout:
    """Rates of dropout that differ from those a model was loaded with.

    Layers copy their rates from the configuration when they are built, so a change of the configuration does nothing:
    the rates are set on the layers themselves. Inside ``on()`` the asked-for rates hold, and through the backward pass
    that follows, where gradient checkpointing runs the layers again; the next forward pass outside ``on()`` finds the
    model's own rates restored. The configuration is never touched, so nothing of it is saved.

    Args:
        model: The encoder. Several of these may be made for one, each with its own rates.
        attention: Dropout of the attention weights, in [0, 1); ``None`` leaves it.
        hidden: Dropout of the hidden states, in [0, 1); ``None`` leaves it.

    Raises:
        ValueError: If a rate is out of range, or the architecture has no such dropout.
    """

    def __init__(self, model: SentenceTransformer, attention: float | None, hidden: float | None) -> None:
        for name, rate in (("attention_dropout", attention), ("hidden_dropout", hidden)):
            if rate is not None and not 0 <= rate < 1:
                raise ValueError(f"{name} is {rate}; it must be at least 0 and below 1.")
        self.transformer = cast("Transformer", model[0])
        self.attention = attention
        layers = list(self.transformer.model.modules())
        attention_modules = [module for module in layers if _is_attention(module)]
        inner = {part for module in attention_modules for part in module.modules()}
        others = [module for module in layers if module not in inner]
        in_attention = _rates(attention_modules, ATTENTION_RATES)
        self.attention_layers = [layer for layer, _ in in_attention]
        self.attention_layers += [module for module in attention_modules if _rates([module], ATTENTION_RATES)]
        self._own = _own_rates(self.transformer)
        self._rates: dict[Rate, float] = {}
        self._ask(in_attention, attention, "attention")
        self._ask([*_rates(others, HIDDEN_RATES), *_other_dropout_layers(others)], hidden, "hidden")

    def _ask(self, found: list[Rate], rate: float | None, kind: str) -> None:
        if rate and not found:
            raise ValueError(
                f"{type(self.transformer.model).__name__} has no {kind} dropout that could be set to {rate}. Set "
                f"{kind}_dropout=None, and train with another dropout, such as LoRA's."
            )
        if rate is not None:
            self._rates |= dict.fromkeys(found, rate)
            for layer, name in found:
                self._own.rates.setdefault((layer, name), getattr(layer, name))

    @contextmanager
    def on(self) -> Iterator[None]:
        """Hold the asked-for rates."""
        outer, self._own.holder = self._own.holder, self
        self._own.restore()
        for (layer, name), rate in self._rates.items():
            setattr(layer, name, rate)
        try:
            yield
        finally:
            self._own.holder = outer

    def restore(self) -> None:
        """Give the layers the rates that they had."""
        self._own.restore()


class _OwnRates:
    """The rates that a transformer's layers had, kept once, whatever is set and restored on them."""

    def __init__(self) -> None:
        self.rates: dict[Rate, float] = {}
        self.holder: TrainingDropout | None = None

    def restore(self) -> None:
        for (layer, name), rate in self.rates.items():
            setattr(layer, name, rate)

    def restore_unless_held(self, module: nn.Module, inputs: Any) -> None:
        if self.holder is None:
            self.restore()


def _own_rates(transformer: Transformer) -> _OwnRates:
    found: _OwnRates | None = transformer.__dict__.get("_own_dropout_rates")
    if found is None:
        found = transformer.__dict__["_own_dropout_rates"] = _OwnRates()
        transformer.register_forward_pre_hook(found.restore_unless_held)
    return found


def refuse_equal_passes(model: SentenceTransformer, dropout: TrainingDropout) -> None:
    """Raise unless two training passes over the same text differ, and differ by what was asked for.

    Args:
        model: The encoder.
        dropout: The dropout that is on while they run.

    Raises:
        ValueError: If the attention's dropout has no effect, or there is none at all, so that SimCSE would teach
            nothing.
    """
    encoder = unwrapped(model)
    decoder: Any = encoder[0].model
    if dropout.attention and not _passes_differ(encoder, dropout, attention_only=True):
        raise ValueError(
            f"attention_dropout={dropout.attention} has no effect: the {decoder.config._attn_implementation} attention "
            f"of {type(decoder).__name__} drops nothing. Set attention_dropout=None, and train with another dropout, "
            "such as LoRA's."
        )
    if not _passes_differ(encoder, dropout, attention_only=False):
        raise ValueError(
            "Two training passes over a text gave the same vector: dropout is zero everywhere, and SimCSE, which tells "
            "a text's two vectors from those of other texts, would teach nothing. Set attention_dropout (LLM2Vec uses "
            "0.3) or hidden_dropout above 0, or attach an adapter with dropout."
        )


def _passes_differ(encoder: SentenceTransformer, dropout: TrainingDropout, *, attention_only: bool) -> bool:
    features = batch_to_device(encoder.preprocess([PROBE]), encoder.device)
    modes = {module: module.training for module in encoder.modules()}
    encoder.train(not attention_only)
    for layer in dropout.attention_layers:
        layer.training = True  # itself, and not the adapters inside it
    try:
        with torch.random.fork_rng(), torch.no_grad(), dropout.on():
            first, second = (encoder(dict(features))["sentence_embedding"] for _ in range(2))
    finally:
        dropout.restore()
        for module, mode in modes.items():
            module.training = mode
    return not torch.equal(first, second)


def _is_attention(module: nn.Module) -> bool:
    return hasattr(module, "is_causal") or "attention" in type(module).__name__.lower()


def _rates(modules: list[nn.Module], names: tuple[str, ...]) -> list[Rate]:
    """The rates that these modules keep under such names, as a number or in a dropout layer."""
    values = [(module, name, getattr(module, name, None)) for module in modules for name in names]
    numbers: list[Rate] = [(module, name) for module, name, value in values if isinstance(value, int | float)]
    return [*numbers, *((value, "p") for _, _, value in values if isinstance(value, nn.Dropout))]


def _other_dropout_layers(modules: list[nn.Module]) -> list[Rate]:
    """The rates of dropout layers under any other name, but an adapter's."""
    return [
        (child, "p")
        for module in modules
        for name, child in module.named_children()
        if isinstance(child, nn.Dropout) and name not in HIDDEN_RATES and not isinstance(module, nn.ModuleDict)
    ]
