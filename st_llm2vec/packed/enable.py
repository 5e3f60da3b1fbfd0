"""Turn padding-free passes on, where a proof shows that they give what padded ones give."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from st_llm2vec.modules.attention import tokens_differ
from st_llm2vec.packed.attention import PACKED
from st_llm2vec.packed.packing import PackedFeatures, Packing
from st_llm2vec.packed.segments import current_segments
from st_llm2vec.proof.tolerances import FULL_PRECISION, ROW_STATES

logger = logging.getLogger(__name__)

LEAST_SAVING = 0.25
PROBE_LENGTHS = (7, 5, 5, 3)
PROBE_PREFIX = 2
MOST_ROUNDING = 0.2
ATTENTION_LAYERS = {"full_attention", "sliding_attention", "attention"}


class PaddingFree:
    """The hooks that turn a padded batch into a packed sequence before the model, and its states back after it.

    Args:
        model: The model that reads the packed sequence.

    Attributes:
        shares_prefix: Whether tokens at the start of all the texts of a batch pass it once.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        parameters = inspect.signature(model.forward).parameters
        self.takes_cache = "use_cache" in parameters
        self.position_offset = _position_offset(model)
        self.proven_causal = getattr(model.config, "is_causal", None)
        self.shares_prefix = False

    @torch.compiler.disable  # where the texts stand differs in every batch: nothing of it is worth a graph
    def pack(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The hook before the module's forward pass."""
        features = args[0] if args else None
        if not isinstance(features, MutableMapping) or not self._can_pack(module, features, kwargs):
            return None
        packing = Packing.of(features["attention_mask"], self._prefix(module, features))
        extra: dict[str, Any] = {"position_ids": packing.positions.unsqueeze(0) + self.position_offset}
        if self.takes_cache:
            extra["use_cache"] = False
        packed = PackedFeatures(features, packing, **extra)
        packed.outer_segments = current_segments.set(packing.segments)
        return (packed, *args[1:]), kwargs

    @torch.compiler.disable
    def unpack(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The hook after it, called if it raised too."""
        packed = args[0] if args else None
        if not isinstance(packed, PackedFeatures):
            return None
        current_segments.reset(packed.outer_segments)
        return packed.unpacked(output) if isinstance(output, Mapping) else None

    def _can_pack(self, module: Any, features: Mapping[str, Any], kwargs: dict[str, Any]) -> bool:
        config = module.model.config
        ids, mask = features.get("input_ids"), features.get("attention_mask")
        return (
            config._attn_implementation == PACKED
            and getattr(config, "is_causal", None) == self.proven_causal
            and not kwargs
            and isinstance(ids, Tensor)
            and isinstance(mask, Tensor)
            and ids.ndim == 2
            and ids.shape == mask.shape
            and "cu_seq_lens_q" not in features
            and "inputs_embeds" not in features
            and _is_plain(mask, features.get("position_ids"))
        )

    def _prefix(self, module: Any, features: Mapping[str, Any]) -> int:
        """The length of the prefix that the texts share, where it is worth to pass it once."""
        if not self.shares_prefix or torch.is_grad_enabled():
            return 0
        ids, mask = features["input_ids"], features["attention_mask"]
        prefix = shared_prefix(ids, mask)
        window = getattr(module.model.config.get_text_config(), "sliding_window", None)
        if (window and ids.shape[1] > window) or prefix * (len(ids) - 1) < LEAST_SAVING * mask.sum():
            return 0
        return prefix


class _Enabled(NamedTuple):
    """What a padding-free ``Transformer`` keeps, and never saves."""

    hooks: PaddingFree
    attention_before: str
    handles: tuple[RemovableHandle, RemovableHandle]


def shared_prefix(ids: Tensor, attention_mask: Tensor) -> int:
    """How many tokens at the start of all the texts are the same; each text keeps one token of its own at least.

    Args:
        ids: Token ids, of shape ``(batch, tokens)``.
        attention_mask: Of the same shape, padded on either side.

    Returns:
        The number of tokens; 0 for a single text.
    """
    shortest = int(attention_mask.sum(dim=1).min())
    if len(ids) < 2 or shortest < 2:
        return 0
    starts = attention_mask.argmax(dim=1, keepdim=True)
    heads = ids.gather(1, starts + torch.arange(shortest - 1, device=ids.device))
    return int((heads == heads[:1]).all(dim=0).long().cumprod(dim=0).sum())


def enable_padding_free(transformer: Transformer) -> str | None:
    """Let batches pass a ``Transformer`` without padding, if they then give what padded ones give.

    It stays padded, as it was, where its model has no exchangeable attention, or a probe's states differ.

    Args:
        transformer: The first module of an encoder.

    Returns:
        Why it stays padded; ``None`` if it does not.
    """
    model = transformer.model
    if padding_free(transformer) is not None:
        return None
    before = getattr(model.config, "_attn_implementation", None)
    if before not in ("sdpa", "eager") or not _can_exchange_attention(model):
        return f"the {before} attention of {type(model).__name__} cannot be exchanged"
    if before == "eager" and _was_asked_for_eager(model):
        return "eager attention was asked for, which alone shows its weights"
    others = _other_layers(model)
    if others:
        return f"{type(model).__name__} has layers that carry states from text to text: {', '.join(sorted(others))}"
    hooks = PaddingFree(model)
    training = transformer.training
    transformer.eval()
    try:
        probes = [_probe_batch(model, prefix) for prefix in (0, PROBE_PREFIX)]
        wanted = [_states(transformer, probe) for probe in probes]
        model.set_attn_implementation(PACKED)
        handles = (
            transformer.register_forward_pre_hook(hooks.pack, with_kwargs=True),
            transformer.register_forward_hook(hooks.unpack, with_kwargs=True, always_call=True),
        )
        reason = _refusal(transformer, probes[0], wanted[0])
        if reason is None:
            hooks.shares_prefix = True
            hooks.shares_prefix = _refusal(transformer, probes[1], wanted[1]) is None
    finally:
        transformer.train(training)
    if reason is None:
        transformer.__dict__["_padding_free"] = _Enabled(hooks, before, handles)
        return None
    for handle in handles:
        handle.remove()
    model.set_attn_implementation(before)
    return reason


def disable_padding_free(transformer: Transformer) -> None:
    """Let batches pass padded again, through the attention implementation that was there before."""
    enabled: _Enabled | None = transformer.__dict__.pop("_padding_free", None)
    if enabled is not None:
        for handle in enabled.handles:
            handle.remove()
        transformer.model.set_attn_implementation(enabled.attention_before)


def padding_free(transformer: Transformer) -> PaddingFree | None:
    """What lets batches pass it without padding; ``None`` where they pass padded."""
    enabled: _Enabled | None = transformer.__dict__.get("_padding_free")
    return None if enabled is None else enabled.hooks


def _can_exchange_attention(model: Any) -> bool:
    return isinstance(model, PreTrainedModel) and bool(model._can_set_attn_implementation())


def _was_asked_for_eager(model: Any) -> bool:
    """Whether eager attention was chosen; models with capped scores, or without SDPA, have no other."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    return bool(model._supports_sdpa) and not capped


def _other_layers(model: PreTrainedModel) -> set[str]:
    """The kinds of layers that are no attention over a text's tokens: recurrent, convolutional, in chunks."""
    config = model.config.get_text_config()
    return (
        set(getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()) - ATTENTION_LAYERS
    )


def _position_offset(model: PreTrainedModel) -> int:
    """Where positions begin: RoBERTa and its kin count from one past the padding token's id."""
    for module in model.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(getattr(module, "position_embeddings", None), nn.Embedding):
            return padding + 1
    return 0


def _is_plain(mask: Tensor, positions: Tensor | None) -> bool:
    """Whether each text is one stretch of the batch, and its positions, where they are given, count from zero."""
    inside = mask.bool()
    if not inside.any() or ((inside[:, 1:] & ~inside[:, :-1]).sum(dim=1) + inside[:, 0] > 1).any():
        return False
    return positions is None or bool((positions == inside.long().cumsum(dim=1) - 1)[inside].all())


def _probe_batch(model: PreTrainedModel, prefix: int) -> dict[str, Tensor]:
    """A right-padded batch of texts of several lengths, the first ``prefix`` tokens the same in all of them."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor(PROBE_LENGTHS)
    shape = (len(lengths), int(lengths.max()))
    ids = torch.randint(min(10, vocabulary // 2), vocabulary, shape, generator=generator)
    ids[:, :prefix] = ids[0, :prefix]
    mask = (torch.arange(shape[1]) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def _states(transformer: Transformer, batch: dict[str, Tensor]) -> Tensor:
    """The states of the batch's tokens, of shape ``(tokens, hidden)``."""
    device = next(transformer.model.parameters()).device
    features: dict[str, Any] = {name: value.to(device) for name, value in batch.items()}
    features["modality"] = next(iter(transformer.modality_config))
    states: Tensor = transformer(features)["token_embeddings"]
    return states[features["attention_mask"].bool()].float()


def _states_of_nudged(transformer: Transformer, batch: dict[str, Tensor]) -> Tensor:
    """The states where every embedding was moved by a unit in its last place: how far rounding alone moves a deep model."""

    def nudge(module: nn.Module, args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        signs = torch.randint(0, 2, embedded.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return embedded + embedded * signs.to(embedded) * torch.finfo(embedded.dtype).eps

    handle = transformer.model.get_input_embeddings().register_forward_hook(nudge)
    try:
        return _states(transformer, batch)
    finally:
        handle.remove()


def _relative(states: Tensor, wanted: Tensor) -> float:
    return float((states - wanted).norm() / wanted.norm().clamp(min=1e-12))


def _leaks(transformer: Transformer, batch: dict[str, Tensor], states: Tensor) -> bool:
    """Whether the states of the texts in the middle change with the texts at the sequence's ends, longest and shortest."""
    changed = batch["input_ids"].clone()
    changed[[0, -1], PROBE_PREFIX:] = changed[[0, -1], PROBE_PREFIX:].flip(0)
    middle = slice(PROBE_LENGTHS[0], -PROBE_LENGTHS[-1])
    others = _states(transformer, {**batch, "input_ids": changed})
    return any(tokens_differ(*pair) for pair in zip(states[middle], others[middle], strict=True))


def _refusal(transformer: Transformer, batch: dict[str, Tensor], wanted: Tensor) -> str | None:
    """Why the batch's states are not those wanted; ``None`` if they are."""
    try:
        states = _states(transformer, batch)
    except Exception as error:  # whatever a model's code raises over a packed sequence, it then reads padded batches
        return f"{type(transformer.model).__name__} cannot read a packed sequence: {error}"
    if _leaks(transformer, batch, states):
        return f"the texts of a packed sequence see each other in {type(transformer.model).__name__}"
    difference, dtype = _relative(states, wanted), transformer.model.dtype
    tolerance = ROW_STATES.of(dtype)
    if difference > tolerance and dtype not in FULL_PRECISION:
        rounding = _relative(_states_of_nudged(transformer, batch), states)
        tolerance = max(tolerance, min(2 * rounding, MOST_ROUNDING))
    if not difference <= tolerance:
        return f"the states of {type(transformer.model).__name__} in a packed sequence differ by {difference:.1%}"
    return None
