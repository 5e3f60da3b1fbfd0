"""Which recipe a checkpoint needs, seen from its files, and the import with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from st_llm2vec import convert, from_published
from st_llm2vec.importing.checkpoint import Checkpoint
from st_llm2vec.importing.detect import bare_prompts, detect_recipe

from ..conftest import INSTRUCTION, TEXTS, cosine_distance
from .conftest import write_adapter


def write(folder: Path, **files: object) -> Checkpoint:
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return Checkpoint(str(folder), folder)


@pytest.mark.parametrize(
    ("name", "files", "recipe"),
    [
        (
            "a",
            {"adapter_config_json": {"auto_mapping": {"parent_library": "llm2vec.models.bidirectional_llama"}}},
            "llm2vec",
        ),
        ("b", {"llm2vec_config_json": {"pooling_mode": "mean"}}, "llm2vec"),
        ("c", {"config_json": {"model_type": "nvembed"}}, "nv-embed"),
        ("d", {"config_json": {"model_type": "mistral", "auto_map": {"AutoModel": "modeling_gritlm7b.X"}}}, "gritlm"),
        (
            "e",
            {"tokenizer_json": {"added_tokens": [{"content": f"<{w}>"} for w in ("instruct", "query", "response")]}},
            "bge-en-icl",
        ),
        ("echo-mistral-7b-instruct-lasttoken", {"config_json": {"model_type": "mistral"}}, "echo-last"),
        ("e5-mistral-7b-instruct", {"config_json": {"model_type": "mistral"}}, "e5-mistral"),
        ("SGPT-125M-weightedmean", {"config_json": {"model_type": "gpt_neo"}}, "sgpt"),
        (
            "f",
            {
                "1_Pooling__config_json": {"pooling_mode_lasttoken": True},
                "config_sentence_transformers_json": {"prompts": {"query": "Instruct: Find it\nQuery: "}},
            },
            "e5-mistral",
        ),
    ],
)
def test_what_tells(tmp_path: Path, name: str, files: dict, recipe: str) -> None:
    source = write(tmp_path / name, **files)
    assert detect_recipe(Checkpoint(name, source.folder)) == recipe


def test_what_does_not_tell(decoder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Neither the files nor the name.*--recipe"):
        from_published(decoder)
    convert(decoder, "echo", max_length=64).save_pretrained(str(tmp_path / "encoder"))
    with pytest.raises(ValueError, match="is an encoder of this package already"):
        from_published(tmp_path / "encoder")
    with pytest.raises(ValueError, match="There is no recipe 'nothing'"):
        from_published(decoder, "nothing")
    with pytest.raises(ValueError, match="There is no folder no such name"):
        from_published("no such name")


@pytest.mark.parametrize("recipe", ["gritlm", "e5-mistral", "echo-last", "bge-en-icl", "sgpt"])
def test_checkpoints_that_need_only_their_recipe(decoder: str, tmp_path: Path, recipe: str) -> None:
    folder = tmp_path / recipe
    AutoModel.from_pretrained(decoder).save_pretrained(folder, max_shard_size="2MB")
    AutoTokenizer.from_pretrained(decoder).save_pretrained(folder)
    imported = from_published(folder, recipe)
    expected = convert(decoder, recipe)
    assert cosine_distance(imported.encode(TEXTS), expected.encode(TEXTS)) < 1e-6
    assert (
        cosine_distance(imported.encode(TEXTS, prompt=INSTRUCTION), expected.encode(TEXTS, prompt=INSTRUCTION)) < 1e-6
    )
    with pytest.raises(ValueError, match="is a whole checkpoint, not an adapter; leave base out"):
        from_published(folder, recipe, base=decoder)
    with pytest.raises(ValueError, match="mntp is for LLM2Vec checkpoints"):
        from_published(folder, recipe, mntp=decoder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks 1 of its 3 shards"):
        from_published(folder, recipe)


def test_an_adapter_of_another_method(decoder: str, tmp_path: Path) -> None:
    adapter = write_adapter(decoder, tmp_path / "echo-adapter", seed=5)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    del settings["auto_mapping"]
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    imported = from_published(adapter, "echo", base=decoder)
    assert cosine_distance(imported.encode(TEXTS), convert(decoder, "echo").encode(TEXTS)) > 1e-4
    assert imported.manifest.stages[0]["merged"]
    with pytest.raises(ValueError, match="is an adapter, not a decoder.*st-llm2vec import"):
        convert(adapter, "echo")


def test_e5_mistrals_prompts_come_along(decoder: str, tmp_path: Path) -> None:
    folder = tmp_path / "e5-mistral"
    AutoModel.from_pretrained(decoder).save_pretrained(folder)
    AutoTokenizer.from_pretrained(decoder).save_pretrained(folder)
    saved = {"web": f"Instruct: {INSTRUCTION}\nQuery: ", "odd": "something else"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": saved}))
    assert bare_prompts(Checkpoint("x", folder)) == {"web": INSTRUCTION}
    imported = from_published(folder)
    expected = convert(decoder, "e5-mistral", prompts={"web": INSTRUCTION})
    assert cosine_distance(imported.encode(TEXTS, prompt_name="web"), expected.encode(TEXTS, prompt_name="web")) < 1e-6


def test_a_bos_that_only_the_settings_ask_for_is_not_lost(decoder: str, tmp_path: Path) -> None:
    folder = tmp_path / "e5-mistral"
    AutoModel.from_pretrained(decoder).save_pretrained(folder)
    AutoTokenizer.from_pretrained(decoder).save_pretrained(folder)
    backend = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**backend, "post_processor": None}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for asks in (False, True):
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "add_bos_token": asks}))
        encoder = from_published(folder)
        expected = convert(decoder, "e5-mistral")
        assert (cosine_distance(encoder.encode(TEXTS), expected.encode(TEXTS)) < 1e-6) == asks


MEASURE = """
import resource, sys
import torch
from st_llm2vec import from_published
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
encoder = from_published(sys.argv[1], sys.argv[2] or None, base=sys.argv[3] or None)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
size = sum(one.numel() * one.element_size() for one in encoder.parameters()) / 1024
print(grown / size)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llm2vec", "nv-embed"])
def test_importing_does_not_need_the_model_twice(
    kind: str, tmp_path: Path, big_checkpoint: Callable[[str], tuple[Path, str]]
) -> None:
    folder, base = big_checkpoint(kind)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), "", base],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1.5


@pytest.fixture
def big_checkpoint(decoder: str, tmp_path: Path) -> Callable[[str], tuple[Path, str]]:
    """A checkpoint of about 800 MB in shards, so that what is measured is its weights."""
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel

    shape = {
        "vocab_size": 4096,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "max_position_embeddings": 128,
    }

    def write_checkpoint(kind: str) -> tuple[Path, str]:
        folder = tmp_path / kind
        torch.manual_seed(0)
        if kind == "llm2vec":
            LlamaModel(LlamaConfig(**shape)).save_pretrained(folder / "base", max_shard_size="100MB")
            AutoTokenizer.from_pretrained(decoder).save_pretrained(folder / "base")
            adapter = write_adapter(str(folder / "base"), folder / "big-mntp", seed=1)
            return adapter, str(folder / "base")
        from st_llm2vec.importing.nv_embed import NAMES
        from st_llm2vec.modules import LatentAttentionPooling

        MistralModel(MistralConfig(**shape)).save_pretrained(folder, max_shard_size="100MB")
        AutoTokenizer.from_pretrained(decoder).save_pretrained(folder)
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        for file in set(index["weight_map"].values()):
            save_file(
                {f"embedding_model.{k}": v for k, v in load_file(folder / file).items()},
                folder / file,
                metadata={"format": "pt"},
            )
        weight_map = {f"embedding_model.{k}": v for k, v in index["weight_map"].items()}
        theirs = {ours: name for name, ours in NAMES.items()}
        latent = {}
        for name, tensor in LatentAttentionPooling(1024, num_latents=64, num_heads=2).state_dict().items():
            stem, _, leaf = name.rpartition(".")
            latent["latent_attention_model." + (theirs.get(name) or f"{theirs[stem]}.{leaf}")] = tensor
        save_file(latent, folder / "model-latent.safetensors", metadata={"format": "pt"})
        weight_map |= dict.fromkeys(latent, "model-latent.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        latent_config = {"num_latents_value": 64, "num_cross_heads": 2, "cross_dim_head": 1024}
        settings = {"model_type": "nvembed", "text_config": shape, "latent_attention_config": latent_config}
        (folder / "config.json").write_text(json.dumps(settings))
        return folder, ""

    return write_checkpoint
