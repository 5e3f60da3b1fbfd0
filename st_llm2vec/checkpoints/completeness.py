"""Are all weights of a model in its files, and are all weights of its files in the model?"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
STORED_BUFFERS = r"(rotary_emb\.\w+|position_ids|\.(masked_bias|causal_mask)|\.(self_)?(attn|attention)\.bias)$"


def require_all_weights(folder: Path, model: PreTrainedModel, source: str | Path) -> None:
    """Raise if the folder's safetensors lack weights of the model, or hold more of them than the model uses.

    Args:
        folder: The model's folder; one that holds only an adapter is left to PEFT.
        model: The model that was loaded from it.
        source: Its name, for the message.

    Raises:
        ValueError: If weights are missing or unused, or a file cannot be read.
    """
    files = sorted(file for file in folder.iterdir() if WEIGHTS.fullmatch(file.name))
    if (folder / "adapter_config.json").is_file() or not files:
        return
    stored: set[str] = set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                stored |= set(tensors.keys())
        except SafetensorError as error:
            raise ValueError(f"{file.name} of {source} cannot be read ({error}); save or download it again.") from error
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    if getattr(model, "is_quantized", False):  # A quantised weight has statistics of its own beside it.
        parameters = {name for name, _ in model.named_parameters()}
        judge_report(model, {"missing_keys": parameters - stored - tied, "unexpected_keys": ()}, source)
        return
    own = set(model.state_dict()) - tied
    if stored != own:
        # Some families store their weights under other names than their modules have: Transformers knows them.
        with without_reports():
            loaded: Any = type(model).from_pretrained(
                folder, config=copy.deepcopy(model.config), device_map="meta", output_loading_info=True
            )
        judge_report(loaded[0], loaded[1], source)


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


@contextmanager
def without_reports() -> Iterator[None]:
    """Silence Transformers' own report of missing and unused weights: it is read and judged here."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
