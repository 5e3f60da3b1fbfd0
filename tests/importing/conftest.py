"""Published checkpoints in small: the same files under the same names, with random adapters and weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, MistralConfig, MistralModel

from st_llm2vec.importing.nv_embed import NAMES
from st_llm2vec.modules import LatentAttentionPooling
from tests.tiny_tokenizers import tiny_tokenizer

BASE = "example/base-decoder"
TARGETS = ["q_proj", "v_proj", "down_proj"]


def write_adapter(decoder: str, folder: Path, seed: int, base: str | None = BASE, rank: int = 4) -> Path:
    """A LoRA adapter over a decoder's body, as LLM2Vec publishes them."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=8, target_modules=TARGETS, init_lora_weights=False)
    get_peft_model(AutoModel.from_pretrained(decoder), config).save_pretrained(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings |= {
        "base_model_name_or_path": base,
        "auto_mapping": {"parent_library": "llm2vec.models", "base_model_class": "X"},
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "README.md").unlink(missing_ok=True)
    return folder


@pytest.fixture
def stack(decoder: str, tmp_path: Path) -> Path:
    """``tiny-mntp`` (adapter, configuration, tokenizer) and ``tiny-mntp-supervised`` (adapter and settings)."""
    mntp = write_adapter(decoder, tmp_path / "tiny-mntp", seed=1)
    AutoTokenizer.from_pretrained(decoder).save_pretrained(mntp)
    config = json.loads((Path(decoder) / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_llama_encoder.LlamaEncoderModel"}
    (mntp / "config.json").write_text(json.dumps(config))
    (mntp / "modeling_llama_encoder.py").write_text("raise SystemExit('this was run')")
    second = write_adapter(decoder, tmp_path / "tiny-mntp-supervised", seed=2)
    settings = {"pooling_mode": "mean", "max_length": 256, "doc_max_length": 200, "skip_instruction": True}
    (second / "llm2vec_config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.fixture
def nv_embed(tmp_path: Path) -> Callable[..., Path]:
    """Write an NV-Embed repository in so many shards."""

    def write(shards: int = 3) -> Path:
        folder = tmp_path / "nv-embed"
        folder.mkdir()
        torch.manual_seed(0)
        text = {
            "vocab_size": 512,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 128,
            "sliding_window": 8,
            "rope_theta": 5000.0,
        }
        rope = {"rope_type": "default", "rope_theta": 5000.0}
        decoder = MistralModel(
            MistralConfig(**{k: v for k, v in text.items() if k != "rope_theta"}, rope_parameters=rope)
        )
        latent = LatentAttentionPooling(32, num_latents=8, num_heads=2, head_dimension=16)
        theirs = {ours: name for name, ours in NAMES.items()}
        weights = {f"embedding_model.{name}": tensor for name, tensor in decoder.state_dict().items()}
        for name, tensor in latent.state_dict().items():
            stem, _, leaf = name.rpartition(".")
            renamed = theirs[name] if name in theirs else f"{theirs[stem]}.{leaf}"
            weights[f"latent_attention_model.{renamed}"] = tensor
        names = sorted(weights)
        files = [f"model-{number + 1:05d}-of-{shards:05d}.safetensors" for number in range(shards)]
        for number, file in enumerate(files):
            part = {name: weights[name].contiguous() for name in names[number::shards]}
            save_file(part, folder / file, metadata={"format": "pt"})
        weight_map = {name: files[position % shards] for position, name in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        settings = {
            "model_type": "nvembed",
            "architectures": ["NVEmbedModel"],
            "auto_map": {"AutoModel": "modeling_nvembed.NVEmbedModel"},
            "text_config": {**text, "model_type": "bidir_mistral"},
            "latent_attention_config": {"num_latents_value": 8, "num_cross_heads": 2, "cross_dim_head": 16},
            "is_mask_instruction": True,
            "add_eos": True,
        }
        (folder / "config.json").write_text(json.dumps(settings))
        (folder / "modeling_nvembed.py").write_text("raise SystemExit('this was run')")
        (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
        tokenizer = tiny_tokenizer("byte-level+bos")
        tokenizer.model_max_length = 128
        tokenizer.save_pretrained(folder)
        return folder

    return write
