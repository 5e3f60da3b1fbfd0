"""Are a model's weights stored so that reading them runs no code, and as many as its configuration wants to build?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from st_llm2vec.folder.files import tensor_names

PICKLES = ("pytorch_model*.bin", "adapter_model.bin", "model*.pt", "model*.pth", "model*.ckpt")
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def require_weights(folder: Path, source: str | Path) -> None:
    """Raise if a folder's only weights are pickles, or its configuration declares more layers than there are tensors.

    Args:
        folder: A model's folder, whose files are readable.
        source: Its name, for the message.

    Raises:
        ValueError: If it does.
    """
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"{source} holds its weights only as a pickle ({pickles[0]}), which could run code when it is read. Use a revision "
            "with safetensors; or, if you trust it, write them: "
            f'AutoModelForCausalLM.from_pretrained("{source}", use_safetensors=False).save_pretrained(FOLDER).'
        )
    files = [file for pattern in WEIGHTS for file in sorted(folder.glob(pattern))]
    if files:
        require_layers(folder, sum(len(tensor_names(file, source)) for file in files), source)


def require_layers(folder: Path, stored: int, source: str | Path) -> None:
    """Raise if a folder's configuration declares more layers than there are tensors.

    Args:
        folder: A model's folder.
        stored: How many tensors its files hold.
        source: Its name, for the message.

    Raises:
        ValueError: If it does.
    """
    declared = max(_layers(folder / "config.json"), default=0)
    if declared > stored:
        raise ValueError(
            f"config.json of {source} declares {declared:,} layers, and its files hold {stored:,} tensors: it describes "
            "another model. Restore the config.json that belongs to the weights; save or download it again."
        )


def _layers(config: Path) -> Iterator[int]:
    """The numbers of layers that a configuration and its parts declare."""
    read: Any = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    for part in (read, *read.values()):
        if isinstance(part, dict):
            yield from (part[name] for name in LAYERS if type(part.get(name)) is int)
