"""Folders of real decoders: what was saved is verified in both types, and what lies is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from st_llm2vec import convert, load

pytestmark = pytest.mark.real


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file that may be a hard link."""
    data = json.loads(path.read_text())
    changed = change(data) or data
    path.unlink()
    path.write_text(json.dumps(changed))


def fewer_layers(folder: Path) -> None:
    def change(config: dict) -> None:
        config["num_hidden_layers"] -= 1
        if config.get("layer_types"):
            config["layer_types"].pop()

    edit(folder / "config.json", change)


def other_pooling(folder: Path) -> None:
    pooling = next(folder.glob("*_*Pooling"))
    edit(pooling / "config.json", lambda config: config.update(pooling_mode="mean"))


def other_attention(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(is_causal=False))


def test_real_folders_are_held_against_themselves(real_decoder: str, tmp_path: Path) -> None:
    encoder, folder = convert(real_decoder, "prompteol", measure=False), tmp_path / "encoder"
    for dtype in (torch.float32, torch.bfloat16):
        encoder.to(dtype).save_pretrained(str(folder))
        assert load(folder, verify=True).dtype == dtype
    for lie, message in (
        (fewer_layers, "does not use.*fewer layers"),
        (other_pooling, "pooling should be 'last"),
        (other_attention, "attention should be 'causal'"),
    ):
        copy = Path(shutil.copytree(folder, tmp_path / lie.__name__, copy_function=os.link))
        lie(copy)
        with pytest.raises(ValueError, match=message):
            load(copy)
        shutil.rmtree(copy)
    weights = folder / "model.safetensors"
    for byte in (1000, weights.stat().st_size // 2):
        with weights.open("r+b") as file:
            file.seek(byte)
            old = file.read(1)[0]
            file.seek(byte)
            file.write(bytes([old ^ 1]))
        with pytest.raises(ValueError, match="model.safetensors of .* is not the file that was saved"):
            load(folder, verify=True)
        with weights.open("r+b") as file:
            file.seek(byte)
            file.write(bytes([old]))
    with torch.no_grad():
        encoder[0].model.layers[3].mlp.up_proj.weight[1, 1] = float("nan")
    with pytest.raises(ValueError, match="layers.3.mlp.up_proj.weight"):
        encoder.save_pretrained(str(tmp_path / "not-a-number"))
