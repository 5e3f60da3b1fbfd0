"""An exported graph in ONNX Runtime has the encoder's vectors, with the tokenizer beside it and nothing of this package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from st_llm2vec import convert, export_onnx
from st_llm2vec.cli import app
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.texts import TEXTS
from st_llm2vec.proof.tolerances import SERVED_VECTORS
from st_llm2vec.serving.exportable import CannotExport
from st_llm2vec.serving.onnx_encoder import OnnxEncoder

pytestmark = pytest.mark.served
for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed; `make test-serving` brings it")
PROMPTS = {"query": "Find the passage that answers:"}


@pytest.mark.parametrize("recipe", ["llm2vec"])
def test_the_graph_has_the_vectors(decoder: str, tmp_path: Path, recipe: str) -> None:
    encoder = convert(decoder, recipe, prompts=PROMPTS)
    before = encoder.encode_query(TEXTS)
    exported = OnnxEncoder(export_onnx(encoder, tmp_path / "onnx"))
    assert largest_cosine_distance(exported.encode(TEXTS), encoder.encode_document(TEXTS)) < SERVED_VECTORS.full
    assert largest_cosine_distance(exported.encode(TEXTS, "query"), before) < SERVED_VECTORS.full
    assert np.array_equal(encoder.encode_query(TEXTS), before), "the encoder is as it was"
    with pytest.raises(ValueError, match="no prompt 'other'"):
        exported.encode(TEXTS, "other")


def test_a_graph_that_differs_is_not_written(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = convert(decoder, "mean")
    monkeypatch.setattr("st_llm2vec.serving.onnx_export.compare", lambda *_: {"documents": 1e-3})
    with pytest.raises(CannotExport, match="1.0e-03 away"):
        export_onnx(encoder, tmp_path / "onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_folder(decoder: str, tmp_path: Path) -> None:
    import onnxruntime
    from transformers import AutoTokenizer

    encoder = convert(decoder, "mean", prompts=PROMPTS)
    encoder.save_pretrained(str(tmp_path / "mine"))
    folder = tmp_path / "onnx"
    command = ["export", str(tmp_path / "mine"), "--format", "onnx", "--output", str(folder), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["distances"]["queries"] < SERVED_VECTORS.full
    settings = json.loads((folder / "onnx_encoder.json").read_text())
    assert settings["prompts"] == {"query": "Find the passage that answers: "}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    long = "word " * 2000
    inputs = tokenizer(
        [settings["prompts"]["query"] + TEXTS[0], long], padding=True, truncation=True, return_tensors="np"
    )
    assert inputs["input_ids"].shape[1] == settings["max_length"] == encoder.max_seq_length
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    [vectors] = session.run(None, {one.name: inputs[one.name] for one in session.get_inputs()})
    expected = np.stack([encoder.encode_query(TEXTS[0]), encoder.encode_document(long)])
    assert largest_cosine_distance(vectors, expected) < SERVED_VECTORS.full
