"""Adapters, merged into the weights, so that a folder is whole and stock modules can load it.

A merge is computed in float32. What was learned is small beside the weights, and rounding the sum to bfloat16 takes most
of it away: each weight moves by less than half a step of its own precision. So the update that would arrive in the stored
type is measured, and where too little does, the weights stay in float32. So they do where modules after the decoder have
learned in float32, since every reader casts those to the decoder's type.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.folder.weights import forget_loaded_names
from st_llm2vec.modules import BidirectionalTransformer
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.texts import FEW_TEXTS
from st_llm2vec.proof.tolerances import FULL_PRECISION, MERGED_VECTORS

logger = logging.getLogger(__name__)

ENOUGH = 0.9
"""Share of an update's norm that must arrive for a type of half precision to be kept."""


@dataclass(frozen=True)
class Merge:
    """What a merge did.

    Args:
        distance: The largest cosine distance between a text's vectors before and after, both in float32.
        dtype: The type that the weights are in now.
        kept: The share of the update's norm that has arrived in the weights.
        stored: The type that they were in before.
        kept_in_stored: The share that would have arrived in that type.
    """

    distance: float
    dtype: torch.dtype
    kept: float
    stored: torch.dtype
    kept_in_stored: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        found: dict[str, Any] = {"merge_distance": self.distance, "weights": type_name(self.dtype)}
        if self.stored not in FULL_PRECISION:
            found["update_kept"] = {type_name(self.stored): round(self.kept_in_stored, 4)}
        return found


def merge(
    encoder: TextReader, *, dtype: torch.dtype | None = None, share: float = 1.0, probes: Sequence[str] = FEW_TEXTS
) -> Merge:
    """Add the adapters' update to the decoder's weights in float32, prove it, and choose the type that keeps it.

    It takes the decoder's size in float32 in the CPU's memory, and that of its own type once more.

    Args:
        encoder: An encoder with adapters; it is changed in place and has none afterwards.
        dtype: The type for the weights, whatever it loses. By default the type that they are in, where at least 90 % of
            the update's norm arrives in it and modules after the decoder are not in float32, and float32 where not.
        share: How much of the update is added; 1 is all of it.
        probes: Texts whose vectors are compared.

    Returns:
        What was done.

    Raises:
        ValueError: If an adapter cannot be merged: its base is quantised, it is no adapter of weights, the sum is not
            finite, or the vectors are others afterwards. Then the encoder is not to be used.
    """
    attached: Any = encoder.transformer.model
    _refuse_unmergeable(attached)
    model: PreTrainedModel = attached.get_base_model() if hasattr(attached, "get_base_model") else attached
    device, stored = encoder.device, model.dtype
    one_type = {weight.dtype for module in list(encoder)[1:] for weight in module.parameters()} <= {stored}
    start = _weights_before(model)
    _cast(encoder.cpu(), model, torch.float32)  # where there is room, and products are not rounded
    with _any_attention(model):
        before = encoder.encode(list(probes), show_progress_bar=False)
        encoder.transformer.model = _merge_layers(model)
        _use_stock_transformer(encoder)
        distance = largest_cosine_distance(before, encoder.encode(list(probes), show_progress_bar=False))
    if not distance <= MERGED_VECTORS.full:
        raise ValueError(
            f"Merged and unmerged vectors differ by a cosine distance of {distance:.1e} in float32, more than rounding "
            "explains; the merge is not used."
        )
    model.requires_grad_(True)
    encoder.base_fingerprint = None
    if share < 1:
        mix(model, start, share)
    done = _choose_type(model, start, stored, dtype, distance, one_type)
    _cast(encoder, model, done.dtype)
    try:
        encoder.to(device)
    except torch.OutOfMemoryError:
        encoder.cpu()
        logger.warning("The merged weights do not fit on %s and stay on the CPU.", device)
    return done


def merge_published(
    model: PreTrainedModel,
    adapters: Iterable[Callable[[PreTrainedModel], nn.Module]],
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Add adapters to a decoder that is no encoder yet, one after the other, as :func:`merge` does.

    Args:
        model: The decoder's body, in the CPU's memory; it is changed in place.
        adapters: What attaches each of them.
        dtype: As for :func:`merge`.

    Returns:
        The decoder with the adapters in its weights.

    Raises:
        ValueError: If one cannot be merged.
    """
    stored, start = model.dtype, _weights_before(model)
    _cast(model, model, torch.float32)
    for attach in adapters:
        attached: Any = attach(model)
        _refuse_unmergeable(attached)
        model = _merge_layers(attached.get_base_model())
    _cast(model, model, _choose_type(model, start, stored, dtype).dtype)
    return model


def mix(model: nn.Module, start: dict[str, Tensor], share: float) -> None:
    """Mix weights with earlier ones: every one becomes ``share * now + (1 - share) * start``.

    Args:
        model: The model; it is changed in place.
        start: The earlier weights by name.
        share: Share of the weights of now, in [0, 1].
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.lerp_(start[name].to(weight), 1 - share)


def type_name(dtype: torch.dtype) -> str:
    """The type's name without its module: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def _refuse_unmergeable(model: Any) -> None:
    if getattr(model, "quantization_method", None) or getattr(model, "is_quantized", False):
        raise ValueError(
            "The adapter's base is quantised, and merging into it would round the adapter away. Load the base in "
            "bfloat16, attach the adapter to that, and merge or publish it."
        )
    kinds = {str(getattr(one.peft_type, "value", one.peft_type)) for one in model.peft_config.values()}
    if not any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ValueError(f"An adapter of the kind {', '.join(sorted(kinds))} cannot be merged into the weights.")


def _wrapped(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The outermost modules that PEFT has replaced the model's own with, by name."""
    inside: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) and not name.startswith(tuple(inside)):
            inside.append(f"{name}.")
            yield name, module


def _weights_before(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the weights that the model had before PEFT came, by the names that they had."""
    wrapped = dict(_wrapped(model))
    inside = tuple(f"{name}." for name in wrapped)
    weights = {name: weight for name, weight in model.named_parameters() if not name.startswith(inside)}
    for name, module in wrapped.items():
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module.original_module
        weights |= {f"{name}.{own}": weight for own, weight in base.named_parameters()}
    return {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}


def _merge_layers(model: PreTrainedModel) -> PreTrainedModel:
    """Merge layer by layer, as PEFT does, whether it or Transformers' own ``add_adapter`` attached the adapters."""
    try:
        for name, module in list(_wrapped(model)):
            if hasattr(module, "unload_and_optionally_merge_module"):
                merged = module.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
            else:
                module.merge(safe_merge=True)
                merged = module.get_base_layer()
            model.set_submodule(name, merged)
    except ValueError as error:
        raise ValueError(f"The adapter cannot be merged: {error}") from error
    if hasattr(model, "peft_config"):
        del model.peft_config
    model._hf_peft_config_loaded = False
    forget_loaded_names(model)
    return model


def _share_kept(model: nn.Module, start: dict[str, Tensor], dtype: torch.dtype) -> float:
    """How much of the update arrives when weights are rounded: one minus the norm of what is lost, over the update's."""
    lost = moved = 0.0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            update = weight - start[name].float()
            if update.any():
                moved += float(update.square().sum(dtype=torch.float64))
                lost += float((weight - weight.to(dtype).float()).square().sum(dtype=torch.float64))
    return max(0.0, 1 - (lost / moved) ** 0.5) if moved else 1.0


def _choose_type(
    model: nn.Module,
    start: dict[str, Tensor],
    stored: torch.dtype,
    dtype: torch.dtype | None,
    distance: float = 0.0,
    one_type: bool = True,
) -> Merge:
    """Choose the type that keeps what was learned, unless one is asked for, and say so where it is another one."""
    in_stored = _share_kept(model, start, stored)
    chosen = dtype or (stored if in_stored >= ENOUGH and one_type else torch.float32)
    kept = in_stored if chosen == stored else _share_kept(model, start, chosen)
    if kept < ENOUGH:
        logger.warning(
            "The weights are kept in %s as you asked, and %.0f %% of what the adapter learned arrives in them; in float32 "
            "all of it does.",
            type_name(chosen),
            100 * kept,
        )
    elif chosen != stored:
        logger.warning(
            "The merged weights are in %s: in %s, the type that they had, %.0f %% of what the adapter learned would arrive%s.",
            type_name(chosen),
            type_name(stored),
            100 * in_stored,
            "" if one_type else ", and what the pooling learned would be rounded",
        )
    return Merge(distance, chosen, kept, stored, in_stored)


def _cast(owner: nn.Module, model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast the weights, and give the decoder what loading in this type computes: Gemma's scale is rounded to it."""
    for weight in owner.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)
    with init_empty_weights():
        loaded = AutoModel.from_config(copy.deepcopy(model.config), dtype=dtype)
    buffers = dict(model.named_buffers())
    for name, computed in loaded.named_buffers():
        if name in buffers and buffers[name].dtype != computed.dtype:
            buffers[name].data = computed.to(buffers[name].device)


@contextmanager
def _any_attention(model: PreTrainedModel) -> Iterator[None]:
    """Replace an attention that computes in half precision alone."""
    kept = model.config._attn_implementation
    if not kept.startswith("flash"):
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(kept)


def _use_stock_transformer(encoder: TextReader) -> None:
    """Put the stock module back where ours only kept the attention beside an adapter."""
    module = encoder[0]
    if not isinstance(module, BidirectionalTransformer) or encoder.layout == "custom" or module.formatter is not None:
        return
    stock = Transformer.__new__(Transformer)
    stock.__dict__.update(module.__dict__)
    for name in ("attention", "formatter", "_formatter"):
        stock.__dict__.pop(name)
    encoder._modules["0"] = stock
