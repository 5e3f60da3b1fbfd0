"""Adapters, merged into the weights, so that a folder is whole and stock modules can load it."""

from __future__ import annotations

import copy
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from sentence_transformers.base.modules import Transformer
from torch import nn

from st_llm2vec.checkpoints.weights import forget_loaded_names
from st_llm2vec.encoder import TextEncoder
from st_llm2vec.modules import BidirectionalTransformer


def has_adapter(encoder: TextEncoder) -> bool:
    """Whether an adapter is attached to the encoder's model."""
    return bool(getattr(encoder.transformer.model, "peft_config", None))


def without_adapters(encoder: TextEncoder, in_place: bool = False) -> TextEncoder:
    """The encoder with its adapters merged; the same encoder if it has none.

    Args:
        encoder: The encoder.
        in_place: Whether it may be changed. Otherwise it is copied first, which takes its size in memory once more.

    Returns:
        An encoder without adapters.

    Raises:
        ValueError: If an adapter cannot be merged: its base is quantised, it is no adapter of weights, or the sum is
            not finite.
    """
    if not has_adapter(encoder):
        return encoder
    _refuse_unmergeable(encoder.transformer.model)
    if not in_place:
        encoder = copy.deepcopy(encoder)
    model: Any = encoder.transformer.model
    try:
        if isinstance(model, PeftModel):
            model = model.merge_and_unload(safe_merge=True)
        else:
            _merge_layers(model)
    except ValueError as error:
        raise ValueError(f"The adapter cannot be merged: {error}") from error
    if hasattr(model, "peft_config"):
        del model.peft_config
    model._hf_peft_config_loaded = False
    forget_loaded_names(model)
    encoder.transformer.model = model
    _use_stock_transformer(encoder)
    return encoder


def _refuse_unmergeable(model: Any) -> None:
    if getattr(model, "quantization_method", None) or getattr(model, "is_quantized", False):
        raise ValueError(
            "The adapter's base is quantised, and merging into it would round the adapter away. Load the base in "
            "bfloat16, attach the adapter to that, and publish it."
        )
    kinds = {str(getattr(one.peft_type, "value", one.peft_type)) for one in model.peft_config.values()}
    if not any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ValueError(f"An adapter of the kind {', '.join(sorted(kinds))} cannot be merged into the weights.")


def _merge_layers(model: nn.Module) -> None:
    """Merge what Transformers' own ``add_adapter`` attached, layer by layer."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            model.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save[module.active_adapters[0]])


def _use_stock_transformer(encoder: TextEncoder) -> None:
    """Put the stock module back where ours only kept the attention beside an adapter."""
    module = encoder[0]
    if not isinstance(module, BidirectionalTransformer) or encoder.layout == "custom" or module.formatter is not None:
        return
    stock = Transformer.__new__(Transformer)
    stock.__dict__.update(module.__dict__)
    for name in ("attention", "formatter", "_formatter"):
        stock.__dict__.pop(name)
    encoder._modules["0"] = stock
