"""Are these the weights?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from st_llm2vec.folder.files import read_modules
from st_llm2vec.modules import LatentAttentionPooling
from st_llm2vec.modules.adapter import adapter_weights

SAMPLE = 256


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


def keeps_fingerprint(model: PreTrainedModel) -> bool:
    """Whether a model as it was loaded has the fingerprint of what is stored: float16 and quantising change it."""
    return not getattr(model, "is_quantized", False) and model.dtype != torch.float16


def learned_beside_quantized(state: Mapping[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """The weights of an encoder that learn while its decoder is quantised: the adapter's, and the other modules'.

    Args:
        state: The encoder's weights by name.
        model: Its decoder, with the adapter attached.
    """
    adapters = {f"0.model.{name}" for name in adapter_weights(model)}
    return {name: weight for name, weight in state.items() if name in adapters or not name.startswith("0.model.")}


def restore_latents(encoder: SentenceTransformer, folder: Path) -> None:
    """Read latent attention's weights in the type that they are stored in; the host has rounded them to the decoder's.

    Args:
        encoder: An encoder that was loaded from the folder.
        folder: Its folder.
    """
    for module, entry in zip(encoder, read_modules(folder, folder), strict=True):
        if isinstance(module, LatentAttentionPooling):
            stored = load_file(folder / entry["path"] / "model.safetensors", device=str(encoder.device))
            module.load_state_dict(stored, assign=True)


def forget_loaded_names(model: PreTrainedModel) -> None:
    """Make the model save its weights under its own names, not under those of the checkpoint it was loaded from.

    Transformers remembers how it renamed tensors at loading and undoes it at saving. After an adapter was loaded and
    merged, or a part of a checkpoint was taken, that would write names that no reader finds.
    """
    model._weight_conversions = None  # type: ignore[assignment]
