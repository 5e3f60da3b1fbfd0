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
from transformers.tokenization_utils_base import LARGE_INTEGER

from st_llm2vec.checkpoints.decoder import load_transformer
from st_llm2vec.checkpoints.manifest import Manifest
from st_llm2vec.compilation import compile_encoder
from st_llm2vec.compilation.proof import tokenizer_of
from st_llm2vec.conversion import (
    apply_attention,
    left_padding_changes,
    needs_position_ids,
    prepare_tokenizer,
    probe_implementations,
    prove_decoder,
)
from st_llm2vec.encoder import TextEncoder
from st_llm2vec.modules.attention import AttentionProbe, CausalAttentionError, probe_attention, set_attention
from st_llm2vec.modules.instruction import leading_special_ids
from st_llm2vec.recipes import RECIPES, EncoderConfig


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
        reason: Why.
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
    bidirectional: tuple[AttentionProbe, ...]
    refusal: str
    needs_repair: bool
    left_padding_changes: bool
    position_ids: bool
    tokenizer: TokenizerFacts
    recipes: tuple[Outlook, ...]
    recommended: str
    advice: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        data = dataclasses.asdict(self)
        data["bidirectional"] = [{**probe.to_dict(), "description": probe.describe()} for probe in self.bidirectional]
        data["recipes"] = [{**dataclasses.asdict(one), "portable": one.portable} for one in self.recipes]
        return data


def inspect_model(
    name: str | Path, *, revision: str | None = None, token: str | bool | None = None, local_files_only: bool = False
) -> Inspection:
    """Load a decoder once, try its attention and every recipe on it, and recommend one.

    Nothing is written; the model runs a few batches of some tokens.

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
    embeddings: Any = model.get_input_embeddings()
    as_loaded = probe_attention(model)
    prove_decoder(model, name)
    left_changes = left_padding_changes(model)
    context = transformer.max_seq_length
    bidirectional, refusal, needs_repair = _try_bidirectional(model, name)
    recommended, advice = _recommend(bidirectional, refusal)
    return Inspection(
        name=name,
        model_type=model.config.model_type,
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=model.config.get_text_config(decoder=True).num_hidden_layers,
        width=transformer.get_embedding_dimension(),
        vocabulary=int(embeddings.weight.shape[0]),
        context=context if context is not None and context < LARGE_INTEGER else None,
        dtype=str(model.dtype).removeprefix("torch."),
        attention=as_loaded.describe(),
        bidirectional=bidirectional,
        refusal=refusal,
        needs_repair=needs_repair,
        left_padding_changes=left_changes,
        position_ids=left_changes and needs_position_ids(model),
        tokenizer=_tokenizer_facts(tokenizer_of(transformer, name)),
        recipes=tuple(
            _outlook(transformer, one, name, refusal, needs_repair, left_changes) for one in RECIPES.values()
        ),
        recommended=recommended,
        advice=advice,
    )


def _try_bidirectional(model: PreTrainedModel, name: str) -> tuple[tuple[AttentionProbe, ...], str, bool]:
    """Make the model bidirectional as ``convert`` would, look, and leave it causal as it was.

    Returns:
        The probes, why it cannot be bidirectional (nothing if it can), and whether it needs a repair.
    """
    refusal, repaired = "", False
    with _attention_kept(model):
        try:
            _, repaired = apply_attention(model, "bidirectional", name)
        except CausalAttentionError as error:
            refusal = str(error)
        try:
            return tuple(probe_implementations(model)), refusal, repaired
        except (AttributeError, RuntimeError, TypeError):
            return (), refusal, repaired


@contextmanager
def _attention_kept(model: PreTrainedModel) -> Iterator[None]:
    """Put the modules' own flags back afterwards, and the setting to causal."""
    flags = [(one, one.is_causal) for one in model.modules() if isinstance(getattr(one, "is_causal", None), bool)]
    try:
        yield
    finally:
        set_attention(model, "causal")
        for module, is_causal in flags:
            module.is_causal = is_causal


def _outlook(
    transformer: Transformer, config: EncoderConfig, name: str, refusal: str, needs_repair: bool, left_changes: bool
) -> Outlook:
    """Compile a recipe as ``convert`` would, on a transformer that shares weights and tokenizer."""
    bidirectional = config.attention == "bidirectional"
    if bidirectional and refusal:
        return Outlook(config.name, "impossible", "the recipe is bidirectional, and this model cannot be")
    if left_changes:
        config = config.replace(padding_side="right")
    model, trial = transformer.model, copy.copy(transformer)
    trial.input_formatter = copy.copy(transformer.input_formatter)
    # Latent attention has hundreds of millions of parameters for a large model; on "meta" it has their shapes alone.
    weightless = torch.device("meta") if config.pooling == "latent_attention" else nullcontext()
    try:
        with _tokenizer_kept(transformer.tokenizer):
            prepare_tokenizer(trial, config, name, {})
            with weightless:
                compiled = compile_encoder(trial, config, needs_repair and bidirectional, reload=lambda one: one)
            if compiled.layout != "custom":
                manifest = Manifest(config, {}, compiled.layout)
                device = str(model.device)
                trial_encoder = TextEncoder(
                    modules=compiled.modules, device=device, manifest=manifest, base_is_stored=False
                )
                trial_encoder.check_room()
    except ValueError as error:
        return Outlook(config.name, "impossible", str(error))
    return Outlook(config.name, compiled.layout, compiled.reason)


@contextmanager
def _tokenizer_kept(tokenizer: Any) -> Iterator[None]:
    """Undo what preparing and compiling change in a tokenizer; a copy of a large one would take seconds."""
    names = ("pad_token", "padding_side", "truncation_side", "model_max_length", "chat_template")
    kept, normalizer = {name: getattr(tokenizer, name) for name in names}, tokenizer.backend_tokenizer.normalizer
    try:
        yield
    finally:
        tokenizer.backend_tokenizer.normalizer = normalizer
        for name, value in kept.items():
            setattr(tokenizer, name, value)


def _recommend(bidirectional: tuple[AttentionProbe, ...], refusal: str) -> tuple[str, str]:
    if refusal:
        why = "It cannot be made bidirectional; Echo reads the text twice, so that the second time it has seen it all."
        elsewhere = [probe.implementation for probe in bidirectional if probe.sees_future]
        return "echo", why + (
            f' With attn_implementation="{elsewhere[0]}" it can be bidirectional.' if elsewhere else ""
        )
    if bidirectional[0].kind == "hybrid":
        return "prompteol", (
            "Its recurrent or convolutional layers stay causal whatever is set, so a bidirectional recipe would be so in "
            "part only; a causal recipe takes the model as it is, and this one needs no training."
        )
    return "llm2vec", (
        "Its attention can be made bidirectional, which an encoder that will be trained wants. "
        'Without any training take "prompteol" or "echo", which are made for that.'
    )


def _tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> TokenizerFacts:
    return TokenizerFacts(
        family=_family(tokenizer),
        tokens=len(tokenizer),
        bos="".join(tokenizer.convert_ids_to_tokens(leading_special_ids(tokenizer))),
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
