"""What cannot be an ONNX graph is refused before anything is written; graphs themselves are tested in tests/served."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from st_llm2vec import convert, export_onnx
from st_llm2vec.serving.onnx_export import onnx_refusal


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [("mean", None), ("llm2vec", None), ("sgpt", None), ("prompteol", "template"), ("echo", "template")],
)
def test_what_reads_through_a_template_is_refused(decoder: str, recipe: str, reason: str | None) -> None:
    found = onnx_refusal(convert(decoder, recipe))
    assert found is None if reason is None else reason in str(found)


def test_half_precision_is_refused(decoder: str) -> None:
    assert "dtype=torch.float32" in str(onnx_refusal(convert(decoder, "mean", dtype=torch.bfloat16)))


def test_an_encoders_own_folder_is_refused(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "mean")
    encoder.save_pretrained(str(tmp_path / "mine"))
    with pytest.raises(ValueError, match="is an encoder's folder"):
        export_onnx(encoder, tmp_path / "mine")


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is not None, reason="onnxruntime is installed")
def test_missing_packages_are_named(decoder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"onnxruntime: `pip install st-llm2vec\[onnx\]`"):
        export_onnx(convert(decoder, "mean"), tmp_path / "onnx")
    assert not list(tmp_path.iterdir())
