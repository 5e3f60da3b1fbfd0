"""``st-llm2vec verify FOLDER``: a folder is held against itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from peft import LoraConfig
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert

from .test_import import run


@pytest.fixture(scope="module")
def saved(decoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "encoder"
    convert(decoder, "prompteol").save_pretrained(str(folder))
    return folder


def test_a_folder_is_verified_without_published_values(saved: Path) -> None:
    done = run("verify", saved)
    assert done.exit_code == 0 and "is what it says" in done.stdout, done.output
    assert "model.safetensors, modules.json, sentence_bert_config.json, tokenizer.json, " in done.stderr
    assert "tokenizer_config.json are what was saved, to the bit" in done.stderr
    assert "they are what st_llm2vec.json says of the recipe prompteol" in done.stderr
    done = run("verify", saved, "--json")
    found = json.loads(done.stdout)
    assert found["passed"] and {"config.json", "model.safetensors"} < set(found["checksums"]) and found["manifest"]


def test_a_flipped_bit_fails(saved: Path) -> None:
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        done = run("verify", saved)
        assert done.exit_code == 1 and "model.safetensors" in done.stderr and "not the file" in done.stderr
    finally:
        weights.write_bytes(whole)


def test_a_folder_without_checksums_says_so(saved: Path, tmp_path: Path) -> None:
    SentenceTransformer(str(saved)).save_pretrained(str(tmp_path / "plain"))
    done = run("verify", tmp_path / "plain")
    assert done.exit_code == 0 and "there is no checksum" in done.stderr, done.output
    assert "there is no st_llm2vec.json" in done.stderr
    found = json.loads(run("verify", tmp_path / "plain", "--json").stdout)
    assert found["checksums"] == [] and not found["manifest"]


def test_an_adapters_base_is_told_of(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "prompteol")
    encoder.add_adapter(LoraConfig(r=4, target_modules=["q_proj"]))
    encoder.save_pretrained(str(tmp_path / "adapter"))
    assert (
        f"base: {decoder} holds the weights that the adapter was saved on" in run("verify", tmp_path / "adapter").stderr
    )
    assert json.loads(run("verify", tmp_path / "adapter", "--json").stdout)["base_compared"]
    done = run("verify", tmp_path / "adapter", "--dtype", "float16")
    assert f"base, {decoder}, is not part of the folder and was not" in done.stderr
