from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec.conversion.convert import convert
from st_llm2vec.folder.gguf_file import unpack_gguf
from st_llm2vec.folder.load import load
from st_llm2vec.importing.checkpoint import fetch
from st_llm2vec.inspection import inspect_model
from tests.conftest import TEXTS, cosine_distance
from tests.stand_ins import stand_in
from tests.tiny_gguf import write_gguf


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A decoder's folder, and the same one in a GGUF file."""
    pytest.importorskip("gguf")
    folder = tmp_path_factory.mktemp("gguf")
    decoder = stand_in("smollm2", folder / "decoder", torch.float32)
    return decoder, write_gguf(decoder, folder / "model.gguf")


def test_a_file_gives_the_vectors_of_its_folder(pair: tuple[str, str], tmp_path: Path) -> None:
    decoder, file = pair
    expected = convert(decoder, "prompteol", measure=False).encode(TEXTS)
    encoder = convert(file, "prompteol", measure=False)
    assert cosine_distance(encoder.encode(TEXTS), expected) < 1e-6
    assert encoder.manifest is not None
    assert encoder.manifest.base["gguf"] == {"file": "model.gguf", "quantization": "F32"}
    encoder.save(str(tmp_path / "encoder"))
    assert cosine_distance(SentenceTransformer(str(tmp_path / "encoder")).encode(TEXTS), expected) < 1e-6
    assert load(tmp_path / "encoder").manifest.base == encoder.manifest.base


def test_a_type_can_be_chosen(pair: tuple[str, str]) -> None:
    assert convert(pair[1], "sgpt", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_training_gets_a_plain_folder_with_the_output_head(pair: tuple[str, str], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = unpack_gguf(pair[1], tmp_path / "decoder")
    ids = torch.arange(20)[None]
    logits = [AutoModelForCausalLM.from_pretrained(one)(ids).logits for one in (folder, pair[0])]
    assert torch.allclose(*logits, atol=1e-5)
    assert unpack_gguf("nowhere.gguf", folder) == folder


def test_inspect_says_what_the_weights_were(pair: tuple[str, str]) -> None:
    found = inspect_model(pair[1], measure=False)
    assert found.source == {"file": "model.gguf", "quantization": "F32"}
    assert found.model_type == "llama"


def test_no_file_and_no_gguf_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no file nowhere.gguf"):
        convert("nowhere.gguf")
    (tmp_path / "text.gguf").write_text("a text")
    with pytest.raises(ValueError, match="does not begin as a GGUF file does"):
        convert(tmp_path / "text.gguf")


def test_a_damaged_file(pair: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    shutil.copy(pair[1], file)
    with file.open("r+b") as opened:
        opened.truncate(500)
    with pytest.raises(ValueError, match="is damaged"):
        convert(file)


def test_without_the_package_there_is_a_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else find(name, *rest))
    with pytest.raises(ValueError, match=r"`pip install st-llm2vec\[gguf\]`"):
        convert(tmp_path / "model.gguf")


@pytest.mark.parametrize("door", [load, lambda name: fetch(name, {})])
def test_where_no_decoder_is_expected_a_file_is_called_a_file(door: Any) -> None:
    with pytest.raises(ValueError, match="model.gguf is a GGUF file"):
        door("model.gguf")
