"""What each server makes of an encoder is said, and never that it is right where it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from st_llm2vec import RECIPES, convert, load
from st_llm2vec.cli import app
from st_llm2vec.serving.verdicts import SERVERS, Verdict, verdicts
from tests.stand_ins import stand_in

LATENTS = {"latent_attention": {"num_latents": 2, "num_heads": 1}}
SERVABLE = ("mean", "last-token")


def by_server(encoder: object, folder: str = "FOLDER") -> dict[str, Verdict]:
    return {one.server: one for one in verdicts(encoder, folder)}


@pytest.mark.parametrize("recipe", RECIPES)
def test_only_what_pools_prompt_and_text_is_exact(decoder: str, recipe: str) -> None:
    encoder = convert(decoder, recipe, **(LATENTS if recipe == "nv-embed" else {}))
    found = by_server(encoder)
    assert set(found) == {"vLLM", "Text Embeddings Inference", "SGLang", "llama.cpp", "Ollama"}
    if recipe in SERVABLE:
        assert found["vLLM"].outcome == "exact"
        assert found["llama.cpp"].outcome == "needs this command"
    else:
        assert {one.outcome for one in found.values()} == {"wrong"}
    for one in found.values():
        assert one.source
        assert one.outcome == "exact" or one.reason
        assert not one.reason or (one.reason.endswith(".") and one.server in one.reason and "{" not in one.reason)
        assert bool(one.command) == (
            one.outcome in ("exact", "documents only", "needs this command")
            or (one.server == "Ollama" and one.outcome == "unknown")
        )


def test_the_whole_command_is_told(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "mean", max_length=100)
    folder = str(tmp_path / "mine")
    found = by_server(encoder, folder)
    assert found["vLLM"].command == f"vllm serve {folder} --runner pooling --dtype float32 --max-model-len 100"
    assert "llama-server -m mine.gguf --embeddings -ctk f32 -ctv f32 -fa off -c 100" in found["llama.cpp"].command


def test_a_prompt_that_is_not_pooled_leaves_documents(tmp_path: Path) -> None:
    """Where the tokenizer adds no BOS, nothing but the prompt is left out."""
    decoder = stand_in("smollm2", tmp_path / "decoder", torch.float32)
    assert by_server(convert(decoder, "llm2vec"))["vLLM"].outcome == "documents only"
    prompted = convert(decoder, "llm2vec", prompts={"document": "Represent the passage:"})
    assert by_server(prompted)["vLLM"].outcome == "wrong"


def test_gemma_3_without_its_own_key_is_told_the_flag(tmp_path: Path) -> None:
    """Folders of earlier versions lack it."""
    decoder = stand_in("gemma", tmp_path / "decoder", torch.float32, sliding_window=512)
    convert(decoder, "mean").save_pretrained(str(tmp_path / "saved"))
    assert by_server(load(tmp_path / "saved"))["vLLM"].outcome == "exact"
    path = tmp_path / "saved" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "use_bidirectional_attention": False, "sliding_window": 512}))
    (tmp_path / "saved" / "st_llm2vec.json").unlink()
    found = by_server(load(tmp_path / "saved"))
    assert found["vLLM"].outcome == "needs this command"
    assert "--hf-overrides '{\"use_bidirectional_attention\": true}'" in found["vLLM"].command
    assert found["SGLang"].outcome == "wrong"


def test_a_family_that_a_server_runs_causally_is_wrong_there(tmp_path: Path) -> None:
    encoder = convert(stand_in("cohere", tmp_path / "decoder", torch.float32), "mean")
    assert "causally" in by_server(encoder)["vLLM"].reason


def test_servers_are_those_whose_sources_are_named() -> None:
    assert all(server.source and server.command.count("{folder}") == 1 for server in SERVERS)
    assert all(set(server.overrides) <= set(server.bidirectional.values()) for server in SERVERS)


def test_inspect_tells(decoder: str, tmp_path: Path) -> None:
    convert(decoder, "mean").save_pretrained(str(tmp_path / "saved"))
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "saved"), "--json"])
    assert {one["server"]: one["outcome"] for one in json.loads(done.stdout)["servers"]}["vLLM"] == "exact"
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "saved")]).output
    assert "in vLLM" in shown
    assert "vllm serve" in " ".join(shown.split())
