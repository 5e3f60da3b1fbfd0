"""What a model is, what its attention can be, and what every recipe would make of it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from st_llm2vec.checkpoints.decoder import load_transformer
from st_llm2vec.compilation import compile_encoder
from st_llm2vec.convert import _prepare_tokenizer, apply_attention, needs_position_ids, prove_decoder
from st_llm2vec.modules.attention import CausalAttentionError, probe_attention, set_attention
from st_llm2vec.modules.instruction import leading_special_ids
from st_llm2vec.recipes import RECIPES, EncoderConfig

IMPLEMENTATIONS = ("sdpa", "eager")


@dataclass(frozen=True)
class Bidirectional:
    """What a decoder becomes when it is told to attend in both directions, under one attention implementation.

    Args:
        implementation: The attention implementation, e.g. ``"sdpa"``.
        kind: ``"bidirectional"``, ``"hybrid"`` (some layers stay causal), ``"mixed"`` or ``"causal"``.
        description: The probe's result in words.
        repaired: Whether the attention modules themselves had to be changed.
    """

    implementation: str
    kind: str
    description: str
    repaired: bool = False

    @property
    def possible(self) -> bool:
        """Whether a bidirectional recipe can be used."""
        return self.kind in ("bidirectional", "hybrid")


@dataclass(frozen=True)
class TokenizerFacts:
    """What matters of a tokenizer here.

    Args:
        family: How it treats blanks, in words.
        tokens: Size of its vocabulary.
        bos: The tokens it puts before a text, as text; empty if none.
        eos: The end-of-text token, if it has one.
        pad: The padding token, if it has one.
        chat_template: Whether it has a chat template.
    """

    family: str
    tokens: int
    bos: str
    eos: str | None
    pad: str | None
    chat_template: bool


@dataclass(frozen=True)
class Outlook:
    """What one recipe would make of the model.

    Args:
        recipe: The recipe's name.
        layout: ``"text"`` or ``"message"`` (stock modules), ``"custom"`` (this package's own), or ``"impossible"``.
        reason: Why, in a sentence.
    """

    recipe: str
    layout: Literal["text", "message", "custom", "impossible"]
    reason: str

    @property
    def portable(self) -> bool:
        """Whether a plain ``SentenceTransformer`` loads the saved encoder without this package."""
        return self.layout in ("text", "message")


@dataclass(frozen=True)
class Inspection:
    """What a model is and what can be made of it.

    Args:
        name: The model, as it was given.
        model_type: Its family, e.g. ``"llama"``.
        architecture: The class of its body.
        parameters: How many parameters the body has, output head excluded.
        layers: How many layers.
        width: Width of its hidden states, and of most recipes' vectors.
        vocabulary: Rows of its embedding matrix.
        context: Longest input in tokens, if it is limited.
        dtype: Type of its weights.
        attention: Its attention as it is loaded, in words.
        bidirectional: What it becomes when made bidirectional, the default implementation first.
        position_ids: Whether left padding shifts its positions unless they are given.
        tokenizer: Its tokenizer.
        recipes: What each recipe would make of it.
        recommended: The recipe to begin with.
        advice: Why, in a sentence or two.
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
    bidirectional: tuple[Bidirectional, ...]
    position_ids: bool
    tokenizer: TokenizerFacts
    recipes: tuple[Outlook, ...]
    recommended: str
    advice: str

    @property
    def needs_repair(self) -> bool:
        """Whether the attention must be repaired at every load, which stock modules do not do."""
        return self.bidirectional[0].repaired

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        data = dataclasses.asdict(self)
        data["needs_repair"] = self.needs_repair
        data["bidirectional"] = [{**dataclasses.asdict(one), "possible": one.possible} for one in self.bidirectional]
        data["recipes"] = [{**dataclasses.asdict(one), "portable": one.portable} for one in self.recipes]
        return data


def inspect_model(
    name: str | Path, *, revision: str | None = None, token: str | bool | None = None, local_files_only: bool = False
) -> Inspection:
    """Load a decoder once, try its attention and every recipe on it, and recommend one.

    Nothing is written. The model runs a few batches of some tokens; its weights are never changed.

    Args:
        name: A folder or a name on the Hugging Face Hub.
        revision: Branch, tag or commit on the Hub.
        token: Access token for the Hub.
        local_files_only: Whether to stay off the network.

    Returns:
        What was found.

    Raises:
        ValueError: If it is no decoder or cannot be loaded.

    Example:
        >>> from st_llm2vec import decoder_path, inspect_model
        >>> inspect_model(decoder_path()).recommended
        'llm2vec'
    """
    name = str(name)
    hub = {"revision": revision, "token": token, "local_files_only": local_files_only}
    transformer = load_transformer(name, None, None, {key: value for key, value in hub.items() if value})
    model = transformer.model
    as_loaded = probe_attention(model)
    prove_decoder(model, name)
    position_ids = needs_position_ids(model)
    bidirectional = _try_bidirectional(model, name)
    recommended, advice = _recommend(bidirectional)
    return Inspection(
        name=name,
        model_type=model.config.model_type,
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=model.config.get_text_config(decoder=True).num_hidden_layers,
        width=transformer.get_embedding_dimension(),
        vocabulary=model.get_input_embeddings().num_embeddings,
        context=transformer.max_seq_length,
        dtype=str(model.dtype).removeprefix("torch."),
        attention=as_loaded.describe(),
        bidirectional=bidirectional,
        position_ids=position_ids,
        tokenizer=_tokenizer_facts(transformer.tokenizer, name),
        recipes=tuple(
            _outlook(transformer, config, name, bidirectional[0], position_ids) for config in RECIPES.values()
        ),
        recommended=recommended,
        advice=advice,
    )


# Attention --------------------------------------------------------------------------------------------


def _try_bidirectional(model: PreTrainedModel, name: str) -> tuple[Bidirectional, ...]:
    """Make the model bidirectional under each implementation that runs here, and leave it causal as it was."""
    default = model.config._attn_implementation
    others = [one for one in IMPLEMENTATIONS if one != default and _supports(model, one)]
    found = []
    for implementation in (default, *others):
        with _attention_kept(model):
            if implementation != default:
                model.set_attn_implementation(implementation)
            found.append(_bidirectional(model, name))
    return tuple(found)


def _bidirectional(model: PreTrainedModel, name: str) -> Bidirectional:
    try:
        probe, repaired = apply_attention(model, "bidirectional", name)
    except CausalAttentionError:
        probe, repaired = probe_attention(model), False
    return Bidirectional(probe.implementation, probe.kind, probe.describe(), repaired)


def _supports(model: PreTrainedModel, implementation: str) -> bool:
    return model._can_set_attn_implementation() and (implementation == "eager" or bool(model._supports_sdpa))


@contextmanager
def _attention_kept(model: PreTrainedModel) -> Iterator[None]:
    """Put implementation, configuration and the modules' own flags back afterwards."""
    implementation = model.config._attn_implementation
    flags = [
        (module, module.is_causal) for module in model.modules() if isinstance(getattr(module, "is_causal", None), bool)
    ]
    try:
        yield
    finally:
        if model.config._attn_implementation != implementation:
            model.set_attn_implementation(implementation)
        set_attention(model, "causal")
        for module, is_causal in flags:
            module.is_causal = is_causal


# Recipes ----------------------------------------------------------------------------------------------


def _outlook(
    transformer: Transformer, config: EncoderConfig, name: str, bidirectional: Bidirectional, position_ids: bool
) -> Outlook:
    """Compile a recipe as ``convert`` would, on a copy of everything but the weights."""
    if config.attention == "bidirectional" and not bidirectional.possible:
        return Outlook(
            config.name, "impossible", "the recipe is bidirectional and the attention of this model stays causal"
        )
    if position_ids:
        config = config.replace(padding_side="right")
    trial = copy.deepcopy(transformer, {id(transformer.model): transformer.model})
    # Latent attention has hundreds of millions of parameters for a large model; on "meta" it has their shapes alone.
    weightless = torch.device("meta") if config.pooling == "latent_attention" else nullcontext()
    try:
        _prepare_tokenizer(trial, config, name, {})
        with weightless:
            compiled = compile_encoder(trial, config, bidirectional.repaired and config.attention == "bidirectional")
    except ValueError as error:
        return Outlook(config.name, "impossible", str(error))
    return Outlook(config.name, compiled.layout, compiled.reason)


def _recommend(bidirectional: tuple[Bidirectional, ...]) -> tuple[str, str]:
    default = bidirectional[0]
    if default.kind == "bidirectional":
        return "llm2vec", (
            "Its attention can be made bidirectional, which is what training an encoder wants. "
            'Without any training, "prompteol" or "echo" give better vectors.'
        )
    if default.kind == "hybrid":
        return "prompteol", (
            "Its recurrent layers stay causal whatever is set, so a bidirectional encoder would be one in part only; "
            "a causal recipe takes the model as it is, and this one needs no training."
        )
    elsewhere = [one.implementation for one in bidirectional[1:] if one.possible]
    way_out = f' "llm2vec" works with attn_implementation="{elsewhere[0]}".' if elsewhere else ""
    return "echo", (
        "Its attention stays causal; Echo reads the text twice, so that the second reading has seen the whole."
        + way_out
    )


# Tokenizer --------------------------------------------------------------------------------------------


def _tokenizer_facts(tokenizer: PreTrainedTokenizerBase | None, name: str) -> TokenizerFacts:
    if tokenizer is None or not tokenizer.is_fast:
        raise ValueError(f"{name} has no fast tokenizer (tokenizer.json), which exact spans need.")
    return TokenizerFacts(
        family=_family(tokenizer),
        tokens=len(tokenizer),
        bos=tokenizer.decode(leading_special_ids(tokenizer)),
        eos=tokenizer.eos_token,
        pad=tokenizer.pad_token,
        chat_template=bool(tokenizer.chat_template),
    )


def _family(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = tokenizer.backend_tokenizer
    kind = type(backend.model).__name__
    if "ByteLevel" in str(backend.pre_tokenizer):
        return f"byte-level {kind}"
    if "Metaspace" in str(backend.pre_tokenizer) or "▁" in str(backend.normalizer):
        return f"Metaspace {kind} (SentencePiece's blanks)"
    return f"{kind}, neither byte-level nor Metaspace"
