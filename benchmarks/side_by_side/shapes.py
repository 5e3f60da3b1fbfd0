"""Models with random weights from a fixed seed, written once: a decoder, its encoders, and a copy that llm2vec reads."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.side_by_side.texts import DEMONSTRATIONS
from st_llm2vec import Demonstration, convert, decoder_path
from tests.real.models import MODELS, NAMES

CONTEXT = 1024
DESCRIPTION = "shape.json"
LLM2VEC = "llm2vec"
RECIPES = ("llm2vec", "prompteol")


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int = 32_000
    dtype: str = "float32"
    device: str = "cpu"


SHAPES = {
    "base": Shape(512, 1536, 12, 8, 8),
    "deep": Shape(384, 1024, 24, 6, 6),
    "grouped": Shape(768, 2048, 8, 12, 4),
    "tiny": Shape(32, 64, 2, 4, 2, vocab_size=4096),
    # Sheared-LLaMA-1.3B and Llama-2-7B
    "1.3b": Shape(2048, 5504, 24, 16, 16, dtype="bfloat16", device="cuda"),
    "7b": Shape(4096, 11008, 32, 32, 32, dtype="bfloat16", device="cuda"),
}


def tokenizer() -> Any:
    """The tokenizer of all of them: that of the decoder in the box, whose 4,096 tokens every vocabulary here holds."""
    made = AutoTokenizer.from_pretrained(decoder_path())
    made.model_max_length = CONTEXT
    return made


def build(name: str, recipe: str, work: Path) -> Path:
    """The encoder of a shape and a recipe, made if it is not there.

    Args:
        name: Of ``SHAPES``.
        recipe: Of ``RECIPES``; ``"prompteol"`` comes with demonstrations.
        work: Where models are kept.

    Returns:
        Its folder, which plain ``SentenceTransformer`` loads.
    """
    shape = SHAPES[name]
    decoder = _made(work / name / "decoder", shape, lambda folder: _write_decoder(shape, folder))
    overrides: dict[str, Any] = {}
    if recipe == "prompteol":
        overrides["demonstrations"] = tuple(Demonstration(*one) for one in DEMONSTRATIONS)

    def write(folder: Path) -> None:
        dtype = getattr(torch, shape.dtype)
        convert(str(decoder), recipe, dtype=dtype, device=shape.device, measure=False, **overrides).save(str(folder))

    return _made(work / name / recipe, {**asdict(shape), **overrides}, write)


def build_real(name: str, recipe: str, work: Path) -> Path:
    """The encoder of a real decoder, in float32, made if it is not there.

    Args:
        name: Of ``tests.real.models.NAMES``; ``scripts/real_decoders.py`` brings it.
        recipe: A recipe.
        work: Where models are kept.

    Returns:
        Its folder, which plain ``SentenceTransformer`` loads.
    """

    def write(folder: Path) -> None:
        convert(str(MODELS / NAMES[name]), recipe, dtype=torch.float32, device="cpu", measure=False).save(str(folder))

    return _made(work / name / recipe, {"decoder": name}, write)


def build_for_llm2vec(name: str, work: Path) -> Path:
    """The decoder of a shape, its weights linked, as Transformers 4.44 reads it."""
    build(name, RECIPES[0], work)

    def write(folder: Path) -> None:
        downgrade(work / name / "decoder", folder)

    return _made(work / name / "for-llm2vec", SHAPES[name], write)


def downgrade(decoder: Path, folder: Path) -> None:
    """Copy a decoder's folder into what Transformers 4.44 and tokenizers 0.19 read.

    They want merges as joined strings, a tokenizer class that they know, the rotation's base and the weights' type by
    their old names; and Llamas there take no token types.
    """
    folder.mkdir(parents=True, exist_ok=True)
    read = {path.name: json.loads(path.read_text()) for path in decoder.glob("*.json")}
    merges = read["tokenizer.json"]["model"]["merges"]
    read["tokenizer.json"]["model"]["merges"] = [one if isinstance(one, str) else " ".join(one) for one in merges]
    read["tokenizer_config.json"] |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    config = read["config.json"]
    config |= {"rope_theta": config["rope_parameters"]["rope_theta"], "torch_dtype": config["dtype"]}
    for file, content in read.items():
        (folder / file).write_text(json.dumps(content))
    for weights in decoder.glob("*.safetensors"):
        os.link(weights, folder / weights.name)


def _write_decoder(shape: Shape, folder: Path) -> None:
    sizes = {key: value for key, value in asdict(shape).items() if key not in ("dtype", "device")}
    config = LlamaConfig(
        **sizes,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype=shape.dtype,
    )
    torch.manual_seed(0)
    with torch.device(shape.device):
        model = LlamaForCausalLM._from_config(config, dtype=getattr(torch, shape.dtype))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def _made(folder: Path, description: Any, write: Any) -> Path:
    """A folder that is there as a whole and as described, written anew otherwise."""
    described = json.dumps(description, default=asdict)
    if (folder / DESCRIPTION).is_file() and (folder / DESCRIPTION).read_text() == described:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        write(new)
        (new / DESCRIPTION).write_text(described)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # for the contenders
    return folder
