"""Training on real decoders, stored in bfloat16: what is saved is what was learned, and continued runs are the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert, load
from st_llm2vec.training import Adapter, SimCSE

from ..conftest import TEXTS, cosine_distance

pytestmark = pytest.mark.real

TRAINING = {
    "max_steps": 4,
    "per_device_train_batch_size": 3,
    "save_steps": 2,
    "warmup_steps": 0,
    "use_cpu": True,
    "disable_tqdm": True,
}


@pytest.fixture
def texts_file(tmp_path: Path) -> str:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*TEXTS, *(text[::-1] for text in TEXTS)]) + "\n")
    return str(path)


def test_a_short_run_keeps_what_it_learned_and_continues_to_the_bit(
    real_decoder: str, tmp_path: Path, texts_file: str
) -> None:
    def stage(name: str) -> SimCSE:
        return SimCSE(
            model=real_decoder,
            output=str(tmp_path / name),
            data=texts_file,
            max_length=8,
            adapter=Adapter(r=4),
            training=TRAINING,
        )

    stage("whole").run()
    stage("torn").folder.claim()
    shutil.copytree(tmp_path / "whole/checkpoints/checkpoint-2", tmp_path / "torn/checkpoints/checkpoint-2")
    stage("torn").run()
    whole, continued = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "torn"))
    assert whole == continued
    record = load(tmp_path / "whole").manifest.stages[-1]
    assert record["weights"] == "float32" and record["update_kept"]["bfloat16"] < 0.9
    start = convert(real_decoder, "llm2vec", dtype=torch.float32).encode(TEXTS)
    unmerged = load(tmp_path / "whole/checkpoints/checkpoint-4", dtype=torch.float32).encode(TEXTS)
    plain = SentenceTransformer(str(tmp_path / "whole")).encode(TEXTS)
    assert cosine_distance(plain, unmerged) < 1e-6
    moves = [np.asarray(vectors, dtype=np.float64) - start for vectors in (plain, unmerged)]
    assert cosine_distance(*moves) < 1e-3
