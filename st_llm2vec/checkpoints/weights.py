"""Are these the weights, and are they all there?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from st_llm2vec.modules.adapter import adapter_weights

SAMPLE = 256
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


@torch.no_grad()
def fingerprint(model: PreTrainedModel) -> str:
    """A digest of the first elements of every weight but an adapter's: cheap, and other weights have another one.

    It is taken in bfloat16, so that a model cast to half precision keeps it.
    """
    adapters = adapter_weights(model)
    samples = sorted(
        parameter.detach().flatten()[:SAMPLE].bfloat16().float().cpu().numpy().tobytes()
        for name, parameter in model.named_parameters()
        if name not in adapters
    )
    return hashlib.sha256(b"".join(samples)).hexdigest()


def learned_beside_quantized(state: Mapping[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """The weights of an encoder that learn while its decoder is quantised: the adapter's, and the other modules'.

    Args:
        state: The encoder's weights by name.
        model: Its decoder, with the adapter attached.
    """
    adapters = {f"0.model.{name}" for name in adapter_weights(model)}
    return {name: weight for name, weight in state.items() if name in adapters or not name.startswith("0.model.")}


def forget_loaded_names(model: PreTrainedModel) -> None:
    """Make the model save its weights under its own names, not under those of the checkpoint it was loaded from.

    Transformers remembers how it renamed tensors at loading and undoes it at saving. After an adapter was loaded and
    merged, or a part of a checkpoint was taken, that would write names that no reader finds.
    """
    model._weight_conversions = None  # type: ignore[assignment]


def require_all_weights(folder: Path, model: PreTrainedModel, source: str | Path) -> None:
    """Raise if the folder's safetensors lack weights of the model, which would then be random.

    Args:
        folder: The encoder's folder; one that holds only an adapter is left to PEFT.
        model: The model that was loaded from it.
        source: Its name, for the message.

    Raises:
        ValueError: If weights are missing, or a file cannot be read.
    """
    if (folder / "adapter_config.json").is_file():
        return
    files = sorted(file for file in folder.iterdir() if WEIGHTS.fullmatch(file.name))
    stored: set[str] = set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                stored |= set(tensors.keys())
        except SafetensorError as error:
            raise ValueError(f"{file.name} of {source} cannot be read ({error}); save or download it again.") from error
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = sorted(set(model.state_dict()) - stored - tied)
    if files and missing:
        raise ValueError(
            f"{source} lacks {len(missing)} of the model's weights (the first is {missing[0]}); they would be random. "
            "Save or download it again."
        )
