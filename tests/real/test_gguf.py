from __future__ import annotations

from pathlib import Path

import pytest
import torch

from st_llm2vec import load
from st_llm2vec.conversion.convert import convert
from tests.conftest import TEXTS, cosine_distance
from tests.real.models import MODELS, real_model

pytestmark = pytest.mark.real
QUANTIZATION = {"smollm2": "Q4_1", "gemma3": "Q4_K_M"}


@pytest.mark.parametrize("name", ["smollm2", pytest.param("gemma3", marks=pytest.mark.slow)])
def test_a_gguf_file_is_its_dequantised_folder(name: str, tmp_path: Path) -> None:
    file = MODELS / f"{name}.gguf"
    if not file.is_file():
        pytest.skip(f"{file} is not here; `make test-real` brings it")
    folder = real_model(name)
    # The folder holds the dequantised weights rounded to bfloat16, so the file's are rounded alike, then computed alike:
    # by a load in float32, as `to(torch.float32)` would keep Gemma's embedding scale, no weight, as bfloat16 rounded it.
    encoder = convert(file, "prompteol-icl", dtype=torch.bfloat16, measure=False)
    encoder.save(tmp_path / "encoder")
    expected = convert(folder, "prompteol-icl", dtype=torch.float32, measure=False).encode(TEXTS)
    actual = load(tmp_path / "encoder", dtype=torch.float32).encode(TEXTS)
    assert cosine_distance(actual, expected) < 1e-6
    assert encoder.manifest is not None
    assert encoder.manifest.base["gguf"] == {"file": file.name, "quantization": QUANTIZATION[name]}
