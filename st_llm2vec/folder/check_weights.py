"""Are all weights of a model in its files, and are all weights of its files in the model?"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedModel

from st_llm2vec.folder.files import read_json, tensor_names
from st_llm2vec.host.quiet_loading import without_reports

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
STORED_BUFFERS = r"(rotary_emb\.\w+|position_ids|\.(masked_bias|causal_mask)|\.(self_)?(attn|attention)\.bias)$"


def require_all_weights(
    folder: Path, model: PreTrainedModel, source: str | Path, cache_folder: str | None = None
) -> None:
    """Raise if the folder's safetensors lack weights of the model, or hold more of them than the model uses.

    Args:
        folder: The model's folder. One that holds only an adapter is left to PEFT, and its base is held in its place.
        model: The model that was loaded from it.
        source: Its name, for the message.
        cache_folder: Where an adapter's base is kept if it was downloaded.

    Raises:
        ValueError: If weights are missing or unused, or a file cannot be read.
    """
    files = _weight_files(folder)
    if (folder / "adapter_config.json").is_file():
        _require_whole_base(model, source, cache_folder)
        return
    if not files:
        return
    stored = {name for file in files for name in tensor_names(file, source)}
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    if getattr(model, "is_quantized", False):  # A quantised weight has statistics of its own beside it.
        parameters = {name for name, _ in model.named_parameters()}
        judge_report(model, {"missing_keys": parameters - stored - tied, "unexpected_keys": ()}, source)
        return
    if stored != set(model.state_dict()) - tied:
        _judge_loading(folder, model, source)


def _require_whole_base(model: PreTrainedModel, source: str | Path, cache_folder: str | None) -> None:
    """Hold an adapter's base, which is not in the adapter's folder, against the model that was made of it."""
    adapters: Any = getattr(model, "peft_config", None) or {}
    for name in {str(adapter.base_model_name_or_path) for adapter in adapters.values()}:
        config = Path(name, "config.json")
        if not config.is_file():
            cached = try_to_load_from_cache(name, "config.json", cache_dir=cache_folder)
            if not isinstance(cached, str):
                continue
            config = Path(cached)
        # Weights that are stored quantised have names that only their quantiser knows.
        if _weight_files(config.parent) and "quantization_config" not in read_json(config, name):
            _judge_loading(config.parent, model, f"{name}, the base of the adapter in {source},")


def _judge_loading(folder: Path, model: PreTrainedModel, source: str | Path) -> None:
    """Load without data and judge: some families store weights under other names than their modules have."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with without_reports():
        loaded: Any = type(model).from_pretrained(folder, config=config, device_map="meta", output_loading_info=True)
    judge_report(loaded[0], loaded[1], source)


def _weight_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if WEIGHTS.fullmatch(file.name))


def judge_report(model: PreTrainedModel, report: Mapping[str, Any], source: str | Path) -> None:
    """Raise if Transformers' report of a loading names weights that are missing, or unused ones of the model's own parts.

    What is stored beside the model's own parts (an output head, a vision tower) may be there, and so may buffers that
    older versions stored.

    Args:
        model: The model's body.
        report: ``missing_keys`` and ``unexpected_keys``.
        source: The model's name, for the message.

    Raises:
        ValueError: If weights are missing or unused.
    """
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} of the model's weights (the first is {missing[0]}); they would be random. "
            "The checkpoint is incomplete, or of another architecture than its config.json says; save or download it again."
        )
    if getattr(model, "is_quantized", False):
        return  # A quantised weight brings statistics of its own.
    prefix = f"{model.base_model_prefix}."
    parts = {name for name, _ in model.named_children()} | {name for name, _ in model.named_parameters(recurse=False)}
    ignored = re.compile("|".join([STORED_BUFFERS, *(model._keys_to_ignore_on_load_unexpected or ())]))
    unused = sorted(
        name
        for name in report["unexpected_keys"]
        if name.removeprefix(prefix).partition(".")[0] in parts
        and not ignored.search(name)
        and not ignored.search(prefix + name)
    )
    if unused:
        raise ValueError(
            f"{source} holds {len(unused)} weights that its model does not use (the first is {unused[0]}): its config.json "
            "describes another model than its weights, with fewer layers or parts. Restore the config.json that belongs to "
            "them; save or download it again."
        )
