"""Write small encoders of every layout as this version saves them, with their vectors: ``... .write_saved FOLDER``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from st_llm2vec import convert, load
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.module_file import MODULE_NAME
from tests.conftest import INSTRUCTION, TEXTS
from tests.stand_ins import stand_in

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
PROMPTS = {"query": "Find the passage that answers the question:", "document": ""}
ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "text": ("smollm2", "llm2vec", {"prompts": PROMPTS}),
    "text-weighted": ("smollm2", "sgpt", {"prompts": PROMPTS}),
    "message": ("gemma", "e5-mistral", {"prompts": PROMPTS}),
    "message-prompteol": ("llama", "prompteol-icl", {}),
    "custom-span": ("gemma", "echo", {"prompts": PROMPTS}),
    "custom-latent": (
        "generic",
        "nv-embed",
        {"prompts": PROMPTS, "latent_attention": {"num_latents": 4, "num_heads": 2}},
    ),
    "adapter": ("smollm2", "llm2vec", {"prompts": PROMPTS}),
}


def vectors(encoder: TextEncoder) -> dict[str, Any]:
    """Its vectors, by the way of calling."""
    ways: dict[str, Any] = {"plain": encoder.encode(TEXTS), "query": encoder.encode_query(TEXTS)}
    assert encoder.manifest is not None
    if encoder.manifest.config.instruction_template is not None:
        ways["instructed"] = encoder.encode(TEXTS, prompt=INSTRUCTION)
    return {name: found.astype("float64").round(8).tolist() for name, found in ways.items()}


def main(target: Path) -> None:
    """Write them all."""
    for name, (kind, recipe, settings) in ENCODERS.items():
        folder = target / name
        shutil.rmtree(folder, ignore_errors=True)
        decoder = stand_in(kind, folder / "base" if name == "adapter" else target / "decoder", **SMALL)
        encoder = convert(decoder, recipe, measure=False, **settings)
        assert encoder.manifest is not None
        if name == "adapter":
            torch.manual_seed(0)
            encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        encoder.save(str(folder / "encoder"), create_model_card=False)
        modules = folder / "encoder" / f"{MODULE_NAME}.py"
        if modules.is_file():  # kept once for all of them
            shutil.move(modules, target / modules.name)
        found = vectors(load(folder / "encoder", dtype=torch.float32))
        (folder / "vectors.json").write_text(json.dumps({"layout": encoder.manifest.layout, "vectors": found}) + "\n")
        shutil.rmtree(target / "decoder", ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
