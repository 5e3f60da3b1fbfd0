"""An exported file holds the encoder: read back by Transformers, and by llama.cpp where it is at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModel
from typer.testing import CliRunner

from st_llm2vec import TextEncoder, convert, export_gguf
from st_llm2vec.cli import app
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.serving.exportable import CannotExport
from st_llm2vec.serving.gguf_tokenizer import GgufTokenizer, read_tokenizer
from st_llm2vec.serving.llama_cpp import find_llama_cpp, verify_gguf
from st_llm2vec.serving.modelfile import write_modelfile
from tests.stand_ins import stand_in, stand_in_tokenizer

TEXTS = ["Once upon a time there was a little girl.", "a", "12 drummers, 3.5 kg", "'s apostrophe"]
PROMPTS = {"query": "Find the passage that answers:"}


def metadata(path: Path) -> dict[str, object]:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def test_transformers_reads_the_same_vectors_from_the_file(decoder: str, tmp_path: Path) -> None:
    """Transformers' own reader of GGUF knows nothing of this package, and takes weights and tokenizer from the file."""
    encoder = convert(decoder, "mean")
    read = convert(export_gguf(encoder, tmp_path / "mine.gguf"), "mean")
    assert largest_cosine_distance(read.encode(TEXTS), encoder.encode(TEXTS)) < 1e-6


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_the_weights_are_read_back(tiny: Callable[..., str], tmp_path: Path, family: str) -> None:
    # Transformers takes 128 for the width of Qwen3's heads, whatever the file says.
    folder = tiny(family, "byte-level+bos", **({"head_dim": 128} if family == "qwen3" else {}))
    encoder = convert(folder, "last-token")
    assert_same_states(encoder, export_gguf(encoder, tmp_path / "mine.gguf"))


def assert_same_states(encoder: TextEncoder, file: Path) -> None:
    ids = encoder.tokenizer(TEXTS[0], return_tensors="pt")
    read = AutoModel.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        states = [one(**ids).last_hidden_state[0].numpy() for one in (encoder.transformer.model, read)]
    assert largest_cosine_distance(*states) < 1e-6


def without_merges(tokenizer: Any, rows: int) -> GgufTokenizer:
    """A tokenizer that nobody reads: the stand-in's own merges otherwise than SentencePiece."""
    return GgufTokenizer(
        "llama", "default", [f"{n}" for n in range(rows)], [1] * rows, [], [0.0] * rows, {}, False, False
    )


def test_the_weights_of_gemma_3_are_read_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"num_hidden_layers": 6, "layer_types": [*["sliding_attention"] * 5, "full_attention"], "head_dim": 256}
    encoder = convert(stand_in("gemma", tmp_path / "decoder", torch.float32, **layers), "last-token")
    monkeypatch.setattr("st_llm2vec.serving.gguf_export.read_tokenizer", without_merges)
    assert_same_states(encoder, export_gguf(encoder, tmp_path / "mine.gguf"))


@pytest.mark.parametrize(("recipe", "pooling", "causal"), [("mean", 1, False), ("last-token", 3, True)])
def test_the_metadata_say_what_a_server_must_know(
    decoder: str, tmp_path: Path, recipe: str, pooling: int, causal: bool
) -> None:
    encoder = convert(decoder, recipe, prompts=PROMPTS, max_length=100)
    said = metadata(export_gguf(encoder, tmp_path / "mine.gguf", "q8_0"))
    assert said["llama.attention.causal"] is causal
    assert said["llama.pooling_type"] == pooling
    assert said["llama.context_length"] == 100
    assert said["tokenizer.ggml.pre"] == "smollm"
    assert said["tokenizer.ggml.add_bos_token"] is True
    assert said["tokenizer.ggml.add_eos_token"] is False
    assert json.loads(str(said["st_llm2vec.prompts"])) == {"query": "Find the passage that answers: "}
    assert said["st_llm2vec.recipe"] == recipe


def test_types_change_the_size_and_norms_stay_in_float32(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "mean")
    files = {kind: export_gguf(encoder, tmp_path / f"{kind}.gguf", kind) for kind in ("f32", "f16", "bf16", "q8_0")}
    sizes = {kind: file.stat().st_size for kind, file in files.items()}
    assert sizes["f32"] > sizes["f16"] == sizes["bf16"] > sizes["q8_0"]
    tensors = {one.name: one for one in GGUFReader(files["q8_0"]).tensors}
    assert tensors["blk.0.attn_norm.weight"].data.dtype == np.float32
    assert tensors["blk.0.ffn_up.weight"].tensor_type.name == "Q8_0"


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [("llm2vec", "pools every token"), ("prompteol", "template"), ("sgpt", "no pooling weightedmean")],
)
def test_what_llama_cpp_cannot_give_is_refused(decoder: str, tmp_path: Path, recipe: str, reason: str) -> None:
    with pytest.raises(CannotExport, match=reason):
        export_gguf(convert(decoder, recipe), tmp_path / "mine.gguf")
    assert not list(tmp_path.iterdir()), "nothing is half-written"


def test_families_windows_and_tokenizers_that_are_not_known_are_refused(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(CannotExport, match="of the type gpt_neox"):
        export_gguf(convert(tiny("gpt_neox"), "mean"), tmp_path / "mine.gguf")
    with pytest.raises(CannotExport, match="its window of 16 tokens"):
        export_gguf(convert(tiny("mistral", sliding_window=16), "mean", max_length=64), tmp_path / "mine.gguf")
    scaled = tiny("gemma3_text", query_pre_attn_scalar=40, head_dim=16)
    with pytest.raises(CannotExport, match="query_pre_attn_scalar=40, and llama.cpp's by its heads' width of 16"):
        export_gguf(convert(scaled, "mean"), tmp_path / "mine.gguf")
    tokenizer = stand_in_tokenizer("llama")
    with pytest.raises(CannotExport, match="as SentencePiece would"):
        read_tokenizer(tokenizer, len(tokenizer))


@pytest.mark.parametrize(
    ("name", "kind", "said"), [("mine.bin", "f32", "end in .gguf"), ("mine.gguf", "q4", "not one of")]
)
def test_names_and_types_that_cannot_be_are_refused(
    decoder: str, tmp_path: Path, name: str, kind: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        export_gguf(convert(decoder, "mean"), tmp_path / name, kind)


def test_the_command_writes_the_file_and_a_modelfile(
    decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ST_LLM2VEC_LLAMA_CPP", raising=False)
    convert(decoder, "mean", prompts=PROMPTS).save_pretrained(str(tmp_path / "mine"))
    file = tmp_path / "mine.gguf"
    done = CliRunner().invoke(app, ["export", str(tmp_path / "mine"), "--output", str(file), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["distances"] is None
    assert f"llama-server -m {file} --embeddings" in told["serve"]
    written = (tmp_path / "Modelfile").read_text()
    assert "FROM ./mine.gguf" in written
    assert "'Find the passage that answers: '" in written
    shown = CliRunner().invoke(app, ["export", str(tmp_path / "mine"), "--output", str(file)]).output
    assert "not compared" in shown
    refused = CliRunner().invoke(app, ["export", str(tmp_path / "mine"), "--format", "tflite", "--output", str(file)])
    assert refused.exit_code == 1
    assert "is not known" in refused.output


def test_a_modelfile_is_replaced_whole(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "mean")
    for _ in range(2):
        path = write_modelfile(encoder, tmp_path / "Mine.gguf")
    assert [one.name for one in tmp_path.iterdir()] == ["Modelfile"]
    assert "ollama create mine -f Modelfile" in path.read_text()


@pytest.mark.skipif(find_llama_cpp() is None, reason="llama.cpp is not at hand; ST_LLM2VEC_LLAMA_CPP names its folder")
@pytest.mark.parametrize("recipe", ["mean", "last-token"])
def test_llama_cpp_gives_the_vectors(decoder: str, tmp_path: Path, recipe: str) -> None:
    encoder = convert(decoder, recipe, prompts=PROMPTS)
    place = find_llama_cpp()
    assert place is not None
    distances = verify_gguf(encoder, export_gguf(encoder, tmp_path / "mine.gguf"), place)
    assert max(distances.values()) < 1e-5
