"""An adapter's weights: all of them, and in float32 whatever the type of the weights that they sit on."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

ADAPTER_PREFIX = "base_model.model."
DOWNLOAD_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")


def has_adapter(model: nn.Module) -> bool:
    """Whether PEFT, or Transformers by its means, has attached an adapter to the model."""
    return bool(getattr(model, "peft_config", None))


def adapter_weights(model: Any) -> set[str]:
    """Name the model's weights that PEFT keeps for its adapters, whatever their kind; all others are the base's."""
    if not has_adapter(model):
        return set()
    from peft import get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer

    kept = {
        weight.data_ptr()
        for name in model.peft_config
        for weight in get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).values()
    }
    names = {name for name, weight in model.state_dict().items() if weight.data_ptr() in kept}
    for place, module in model.named_modules():  # and what a layer has beside its base without keeping it: a rank, say
        if isinstance(module, BaseTunerLayer):
            own = (
                name for name, _ in cast("nn.Module", module).named_parameters() if not name.startswith("base_layer.")
            )
            names |= {f"{place}.{name}" for name in own}
    return names


def refuse_unloadable(model: Any) -> None:
    """Raise if a folder with the model's adapters could be written and never be read.

    Raises:
        ValueError: If Transformers, which attaches adapters at load, does not take their kind.
    """
    if not has_adapter(model):
        return
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    for config in model.peft_config.values():
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
        if config.is_prompt_learning or getattr(tuner, "uses_shared_state", False):
            raise ValueError(
                f"An adapter of the kind {config.peft_type.value} could be saved and not be loaded again: Transformers, "
                "which attaches adapters at load, does not take it. Attach one of another kind, such as LoRA; one of "
                "weights can be merged before it is saved: st_llm2vec.training.merge_adapter(encoder)."
            )


def keep_full_precision(model: Any) -> None:
    """Put the adapters' weights into float32: half precision rounds most of an optimizer's steps away.

    PEFT's own ``get_peft_model`` does so, and Transformers' ``add_adapter`` and ``from_pretrained`` do not. Whole copies
    of the base's modules (``modules_to_save``, LN tuning) stay in its type, since they compute with its states.
    """
    from peft import PeftType
    from peft.functional import cast_adapter_dtype

    for name, config in (getattr(model, "peft_config", None) or {}).items():
        if config.peft_type != PeftType.LN_TUNING:
            cast_adapter_dtype(model, name)


def restore_adapter(model: Any, source: str, **options: Any) -> None:
    """Load an adapter's weights as PEFT does, all of them, in float32.

    Transformers, which has attached the adapter to the model, rounds them to the base's type and leaves out DoRA's
    magnitudes.

    Args:
        model: The model with the adapter attached.
        source: The adapter's folder or repository.
        **options: ``revision``, ``token``, ``cache_dir`` and ``local_files_only``, those that are set.

    Raises:
        ValueError: If weights are missing, or have no place in the model.
    """
    from peft import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    keep_full_precision(model)
    stored = load_peft_weights(source, device="cpu", **options)
    stored = {name.removeprefix(ADAPTER_PREFIX): weight for name, weight in stored.items()}
    missing = sorted(set(get_peft_model_state_dict(model, save_embedding_layers=False)) - set(stored))
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} of the adapter's weights (the first is {missing[0]}); they would be random. "
            "Save or download it again."
        )
    report: Any = set_peft_model_state_dict(model, stored)
    unknown = sorted(report.unexpected_keys)
    if unknown:
        raise ValueError(
            f"{source} holds {len(unknown)} weights of an adapter that have no place in its base (the first is "
            f"{unknown[0]}); the adapter is for another model. Give its own base."
        )
