"""What cannot be an ONNX graph is refused before anything is written; graphs themselves are tested in tests/served."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from st_llm2vec import TextEncoder, convert, export_onnx
from st_llm2vec.serving.onnx_export import onnx_refusal


@pytest.fixture(scope="module")
def encoder(decoder: str) -> TextEncoder:
    return convert(decoder, "mean", measure=False)


def test_templates_and_half_precision_are_refused(decoder: str, encoder: TextEncoder) -> None:
    assert onnx_refusal(encoder) is None
    assert "template" in str(onnx_refusal(convert(decoder, "prompteol", measure=False)))
    assert "dtype=torch.float32" in str(onnx_refusal(convert(decoder, "mean", dtype=torch.bfloat16, measure=False)))


def test_an_encoders_own_folder_is_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(ValueError, match="is an encoder's folder"):
        export_onnx(encoder, tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is not None, reason="onnxruntime is installed")
def test_missing_packages_are_named(encoder: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"onnxruntime: `pip install st-llm2vec\[onnx\]`"):
        export_onnx(encoder, tmp_path / "onnx")
    assert not list(tmp_path.iterdir())
